"""Gallery: real scans' portraits that others are held against, and the likeness of a portrait to each of them.

What all brains have in common would make all alike: it is projected out (the mean portrait of each modality over all
real scans, members or not, and a constant). What is left is an individual's. As every weighted sum of mean portraits
goes, gain, offset, negative contrast and one modality in the guise of another change nothing; so the likeness is the
largest absolute correlation over modalities of the one with modalities of the other, over the poses tried. Label maps
are correlated as a whole.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.portraits import SYMMETRIES, TUMOR_REACHES, Cubes, Portrait, turn_cube

COPY_LEVELS = ("scan", "tumor", "labels")
# Of the poses of a brain those that look most like a brain are tried: mirror images, and what noise may confuse.
N_POSES = 16

Vectors = NDArray[np.float32]
Basis = NDArray[np.float32]


class Gallery:
    """Portraits of real scans.

    Parameters
    ----------
    portraits : sequence of Portrait
        Of real scans, all treated alike.
    """

    def __init__(self, portraits: Sequence[Portrait]) -> None:
        self._bases = {part: _common(_mean([p[part][0] for p in portraits])) for part in ("scan", "labels")}
        # A tumour may lie any way round: what all have in common must look the same from every side.
        means = {
            (part, frame): _mean([p[part][frame] for p in portraits]) for part in TUMOR_REACHES for frame in (0, 1)
        }
        self._tumor_bases = {key: _common(_mean([turn_cube(m, s) for s in SYMMETRIES])) for key, m in means.items()}
        # Scans and tumours channel by channel, label maps as a whole.
        self._scans = _unit(np.concatenate([_rest(p["scan"][0], self._bases["scan"]) for p in portraits]))
        self._labels = _unit(np.stack([_rest(p["labels"][0], self._bases["labels"]).ravel() for p in portraits]))
        self._tumors = {
            (part, frame): _unit(np.concatenate([_rest(p[part][frame], basis) for p in portraits]))
            for (part, frame), basis in self._tumor_bases.items()
        }
        self._n = len(portraits)

    def __len__(self) -> int:
        """Return the number of scans."""
        return self._n

    def likeness(self, portrait: Portrait) -> dict[str, NDArray[np.float32]]:
        """Return the likeness of a portrait to each scan of the gallery: by level (scans,), float32 in [0, 1].

        Parameters
        ----------
        portrait : Portrait
            Of a released case, a constructed copy or another person; its poses are searched.
        """
        poses = self._likely_poses(portrait["scan"])
        scans = np.concatenate(
            [_rest(turn_cube(portrait["scan"][size], symmetry), self._bases["scan"]) for size, symmetry in poses]
        )
        labels = np.stack(
            [
                _rest(turn_cube(portrait["labels"][size], symmetry), self._bases["labels"]).ravel()
                for size, symmetry in poses
            ]
        )
        by_brain = tuple(dict.fromkeys(symmetry for _, symmetry in poses))
        tumor = np.zeros(self._n, np.float32)
        for part in TUMOR_REACHES:
            tumor = np.maximum(tumor, self._tumor_likeness(portrait[part][:1], part, 0, by_brain))
            tumor = np.maximum(tumor, self._tumor_likeness(portrait[part][1:], part, 1, SYMMETRIES))
        return {
            "scan": self._nearest(self._scans, _unit(scans)),
            "tumor": tumor,
            "labels": np.maximum((self._labels @ _unit(labels).T).max(axis=1), 0),
        }

    def _likely_poses(self, scans: Cubes) -> list[tuple[int, tuple[tuple[int, ...], tuple[int, ...]]]]:
        """Return the sizes and symmetries in which most of a scan is what all brains have in common."""
        tried = [(size, symmetry) for size in range(len(scans)) for symmetry in SYMMETRIES]
        shares = []
        for size, symmetry in tried:
            rows = turn_cube(scans[size], symmetry).reshape(scans.shape[1], -1)
            shares.append(float(((rows @ self._bases["scan"]) ** 2).sum() / max(float((rows**2).sum()), 1e-6)))
        return [tried[int(i)] for i in np.argsort(-np.array(shares), kind="stable")[:N_POSES]]

    def _tumor_likeness(
        self, cubes: Cubes, part: str, frame: int, symmetries: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> NDArray[np.float32]:
        rests = np.stack([_rest(cube, self._tumor_bases[part, frame]) for cube in cubes]).reshape(cubes.shape)
        turned = np.concatenate([turn_cube(rests, symmetry).reshape(-1, cubes[0, 0].size) for symmetry in symmetries])
        return self._nearest(self._tumors[part, frame], _unit(turned))

    def _nearest(self, rows: Vectors, asked: Vectors) -> NDArray[np.float32]:
        """Return the largest absolute correlation of any channel of each scan with any row asked about: (scans,)."""
        found: NDArray[np.float32] = np.abs(rows @ asked.T).max(axis=1).reshape(self._n, -1).max(axis=1)
        return found


def _mean(cubes: Sequence[Cubes]) -> Cubes:
    found: Cubes = np.mean(cubes, axis=0)
    return found


def _common(mean: Cubes) -> Basis:
    """Return an orthonormal basis (dimensions, rank) of a mean's channels (channels, side, side, side), and of 1."""
    channels = _unit(mean.reshape(len(mean), -1))
    rows = np.concatenate([channels, np.ones((1, channels.shape[1]), np.float32)])
    left, singular, _ = np.linalg.svd(rows.T.astype(np.float64), full_matrices=False)
    basis: Basis = left[:, singular > 1e-4 * singular[0]].astype(np.float32)
    return basis


def _rest(cube: Cubes, basis: Basis) -> Vectors:
    """Return what is left of each channel (channels, side, side, side): (channels, dimensions)."""
    rows = cube.reshape(len(cube), -1)
    return (rows - (rows @ basis) @ basis.T).astype(np.float32)


def _unit(rows: Vectors) -> Vectors:
    """Bring rows (..., dimensions) to length 1; those of nothing stay 0."""
    lengths = np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-4)
    unit: Vectors = np.where(lengths > 1e-4, rows / lengths, 0).astype(np.float32)
    return unit
