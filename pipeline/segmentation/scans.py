"""Scans of training cases, opened once: where they have brain and tumour, and slices or patches read from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort import Case, Int16Array
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.open_files import enough_files
from pipeline.volumes import bounding_box

# Along x and y, and z in 3D.
Window = tuple[slice, ...]
# Where a slice or a patch lies in its case: along x, y and z, a number for the slice.
Place = tuple[slice | int, ...]


@dataclass(frozen=True)
class FieldOfView:
    """What a network sees in training.

    Parameters
    ----------
    window : tuple of slice
        Along x and y for slices, x, y and z for volumes.
    patch_voxels : tuple of int or None
        Size of the patches drawn from it; None: all of it.
    """

    window: Window
    patch_voxels: tuple[int, ...] | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """Size of what is drawn; a patch is cut where the window is smaller."""
        sides = tuple(side.stop - side.start for side in self.window)
        return sides if self.patch_voxels is None else tuple(map(min, sides, self.patch_voxels))

    @property
    def is_whole(self) -> bool:
        """Whether the whole window is drawn."""
        return self.size == tuple(side.stop - side.start for side in self.window)


class OpenScan:
    """A case whose files stay memory-mapped: opening them costs more than reading a slice.

    Parameters
    ----------
    case : Case
    modalities : sequence of str
    """

    def __init__(self, case: Case, modalities: Sequence[str]) -> None:
        self.case = case
        self._images = [np.asarray(case.image(name)) for name in modalities]
        self._tumor_map = np.asarray(case.tumor_map())
        # One modality is enough to find the brain, and a quarter of the reading.
        brain = np.asarray(self._images[0] > 0, np.bool_)
        tumor = np.asarray(self._tumor_map > 0, np.bool_)
        inside = brain | tumor
        self.box: Window = bounding_box(inside) if inside.any() else tuple(slice(0, n) for n in inside.shape)
        self._tumor_box: Window | None = bounding_box(tumor) if tumor.any() else None
        self._brain_slices = np.flatnonzero(np.any(brain, axis=(0, 1)))
        self._tumor_slices = np.flatnonzero(tumor.any(axis=(0, 1)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the volume."""
        return self._tumor_map.shape

    @property
    def has_tumor(self) -> bool:
        """Whether there is tumour anywhere."""
        return self._tumor_box is not None

    @cached_property
    def _tissue_map(self) -> UInt8Array:
        """Of the label map that an arm renders; the others never open it."""
        return np.asarray(self.case.tissue_map())

    def choose_slice(self, wants_tumor: bool, stream: np.random.Generator) -> int:
        """Draw an axial slice with tumour, or any with brain; one of the other kind where there is none."""
        pools = (self._tumor_slices, self._brain_slices)
        first, second = pools if wants_tumor else pools[::-1]
        pool = first if len(first) else second
        return int(stream.choice(pool)) if len(pool) else self.shape[2] // 2

    def choose_place(self, wants_tumor: bool, view: FieldOfView, stream: np.random.Generator) -> Place:
        """Draw a slice, or a patch somewhere around a voxel of tumour or of brain."""
        if view.is_whole and len(view.window) == 3:
            return view.window
        index = self.choose_slice(wants_tumor, stream)
        if view.is_whole:
            return (*view.window, index)
        voxel = (*self._choose_voxel(index, wants_tumor, view, stream), index)
        sides = []
        for centre, length, side in zip(voxel, view.size, view.window, strict=False):
            start = int(np.clip(centre - stream.integers(length), side.start, side.stop - length))
            sides.append(slice(start, start + length))
        return tuple(sides) if len(sides) == 3 else (*sides, index)

    def _choose_voxel(
        self, index: int, wants_tumor: bool, view: FieldOfView, stream: np.random.Generator
    ) -> tuple[int, int]:
        """Draw a voxel of tumour or of brain in a slice, within the window; its middle where there is none."""
        shown = self._tumor_map if wants_tumor and index in self._tumor_slices else self._images[0]
        x, y = view.window[:2]
        voxels = np.argwhere(shown[x, y, index])
        if not len(voxels):
            return (x.start + x.stop) // 2, (y.start + y.stop) // 2
        column, row = voxels[stream.integers(len(voxels))]
        return x.start + int(column), y.start + int(row)

    def read(self, place: Place) -> tuple[Int16Array, UInt8Array]:
        """Read a slice or patch: (modalities, *spatial), int16, and its tumour map (*spatial), uint8."""
        return np.stack([image[place] for image in self._images]), self._tumor_map[place]

    def read_condition(self, place: Place, scheme: LabelScheme) -> UInt8Array:
        """Read tissue and tumour joined, in a slice or patch: (*spatial), uint8."""
        return scheme.combine(self._tissue_map[place], self._tumor_map[place])

    def choose_tumor(self, dimensions: int, margin_voxels: int, stream: np.random.Generator) -> Place:
        """Return the box of the tumour, with a margin: of all of it in 3D, of it in a slice, drawn, in 2D."""
        if self._tumor_box is None:
            raise ValueError("no tumour in this scan; expected one; ask has_tumor first")
        box: Window = self._tumor_box
        index = 0
        if dimensions == 2:
            index = self.choose_slice(True, stream)
            box = bounding_box(np.asarray(self._tumor_map[:, :, index]) > 0)
        wide = [
            slice(max(side.start - margin_voxels, 0), min(side.stop + margin_voxels, n))
            for side, n in zip(box, self.shape, strict=False)
        ]
        return tuple(wide) if dimensions == 3 else (*wide, index)


class ScanPool:
    """Open scans, each opened once however many arms use it.

    Parameters
    ----------
    modalities : sequence of str
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        self._modalities = tuple(modalities)
        self._open: dict[Path, OpenScan] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave open scans behind when a worker gets the pool: it opens what it needs."""
        return {"_modalities": self._modalities, "_open": {}}

    def __getitem__(self, case: Case) -> OpenScan:
        """Return a case's scan, opened now if it was not.

        Raises
        ------
        DataError
            If no more files may be open; a scan takes one for each modality and one for the tumour map.
        """
        if case.folder not in self._open:
            with enough_files("training scans"):
                self._open[case.folder] = OpenScan(case, self._modalities)
        return self._open[case.folder]

    def fit_window(self, cases: Sequence[Case], dimensions: int, multiple: int) -> Window:
        """Return the smallest field of view that holds brain and tumour of all cases; see :func:`fit_window`."""
        box = join_boxes([self[case].box for case in cases])[:dimensions]
        return fit_window(box, self[cases[0]].shape, multiple)


def join_boxes(boxes: Sequence[Window]) -> Window:
    """Return the smallest box that holds all of these."""
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )


def fit_window(box: Window, shape: Sequence[int], multiple: int) -> Window:
    """Return the smallest field of view that holds a box and suits the network.

    Parameters
    ----------
    box : tuple of slice
        Along x and y, or x, y and z.
    shape : sequence of int
        Of the image; axes beyond those of the box do not count.
    multiple : int
        Each side is a multiple of it, or the whole side where the image is too small for that.

    Returns
    -------
    tuple of slice
        Centred on the box as far as the image allows.
    """
    sides = []
    for side, size in zip(box, shape, strict=False):
        length = min(-(-(side.stop - side.start) // multiple) * multiple, size)
        start = min(max((side.start + side.stop - length) // 2, 0), size - length)
        sides.append(slice(start, start + length))
    return tuple(sides)


def is_brain(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where any modality of an image, (modalities, *spatial), is not background: (*spatial), bool."""
    brain: NDArray[np.bool_] = np.any(image > 0, axis=0)
    return brain
