"""Label maps from DICOM: segmentation objects (SEG) by highdicom, contours (RTSTRUCT) by pydicom and scikit-image.

References
----------
DICOM PS3.3, A.51 (Segmentation), A.19 (RT Structure Set), C.8.8.6 (ROI Contour).
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipeline.errors import CaseError
from pipeline.ingest.dicom_read import open_dicom, read_dataset, read_header
from pipeline.ingest.manifest import Manifest
from pipeline.resampling import RAS_TO_LPS
from pipeline.volumes import MAX_VOXELS, Volume, check_affine, to_ras

# A contour lies in a slice if no point is farther from it than this share of the distance between slices.
IN_SLICE_TOLERANCE = 0.3
# Run lengths pack 128 bytes into two.
MAX_PACKING = 64


def referenced_series(path: Path) -> str:
    """Return the UID of the series that a SEG or an RTSTRUCT was drawn on; empty if it does not say."""
    try:
        header = read_header(path, REFERENCE_TAGS)
        return next(_series_uids(header), "")
    except Exception:  # pydicom raises many types on files that break the standard; reading the labels will tell
        return ""


REFERENCE_TAGS = ("ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence")


def _series_uids(header: Dataset) -> Iterator[str]:
    for series in header.get("ReferencedSeriesSequence", []):
        yield str(series.get("SeriesInstanceUID", ""))
    for frame in header.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            for series in study.get("RTReferencedSeriesSequence", []):
                yield str(series.get("SeriesInstanceUID", ""))


def read_segmentation(path: Path, manifest: Manifest) -> Volume:
    """Read a DICOM SEG.

    Parameters
    ----------
    path : Path
    manifest : Manifest
        ``segments`` tells which segment label means which tumour class.

    Returns
    -------
    Volume
        uint8 tumour map in RAS, over the slices that hold segments only.

    Raises
    ------
    CaseError
        If it is unreadable, claims more voxels than a scan has, has no segment that the manifest names, or segments
        overlap.
    """
    import highdicom

    _check_claims(path)
    try:
        with open_dicom(path) as file:
            segmentation = highdicom.seg.segread(file)
        geometry = segmentation.get_volume_geometry()
        n_voxels = 0 if geometry is None else math.prod(geometry.spatial_shape)
        if n_voxels > MAX_VOXELS:
            raise CaseError(
                f"DICOM SEG that claims {n_voxels} voxels; expected at most {MAX_VOXELS}; export the segments anew"
            )
        descriptions = [segmentation.get_segment_description(n) for n in segmentation.segment_numbers]
        volume = segmentation.get_volume(combine_segments=True, dtype=np.uint8)
        image = volume.to_nibabel()
    except CaseError:
        raise
    except Exception as error:  # highdicom and pydicom raise many types on files that break the standard
        raise CaseError(
            f"unreadable DICOM SEG ({type(error).__name__}); expected segments that do not overlap; export it anew"
        ) from error
    affine = np.asarray(image.affine, np.float64)
    check_affine(affine)
    values = np.asarray(image.dataobj)
    names = {int(d.segment_number): str(d.segment_label) for d in descriptions}
    classes = name_classes(names, set(np.unique(values).tolist()), manifest, "segment")
    tumor = manifest.scheme.from_source(values, classes)
    return to_ras(Volume(tumor, affine))


def _check_claims(path: Path) -> None:
    """Refuse a SEG that claims more voxels than its file can hold, before memory is asked for them."""
    try:
        header = read_header(path, ["Rows", "Columns", "NumberOfFrames", "BitsAllocated"])
        n_voxels = math.prod(int(header.get(name) or 1) for name in ("Rows", "Columns", "NumberOfFrames"))
        n_bits = n_voxels * int(header.get("BitsAllocated") or 1)
        is_packed = header.file_meta.TransferSyntaxUID.is_compressed
    except Exception as error:  # pydicom raises many types on files that break the standard
        raise CaseError(
            f"unreadable DICOM SEG ({type(error).__name__}); expected segments that do not overlap; export it anew"
        ) from error
    if n_bits > path.stat().st_size * 8 * (MAX_PACKING if is_packed else 1):
        raise CaseError(f"DICOM SEG that claims {n_voxels} voxels, more than its file can hold; export it anew")


def read_contours(path: Path, manifest: Manifest, scan: Volume) -> Volume:
    """Read a DICOM RTSTRUCT: contours filled on the slices of the scan that they were drawn on.

    A contour within another one of the same structure is a hole, as the standard has it.

    Parameters
    ----------
    path : Path
    manifest : Manifest
        ``segments`` tells which structure's name means which tumour class; where classes overlap, the smaller one
        wins: structures are often drawn as outlines, one within the other.
    scan : Volume
        The scan, in RAS.

    Returns
    -------
    Volume
        uint8 tumour map on the scan's grid.

    Raises
    ------
    CaseError
        If it is unreadable, has no structure that the manifest names, or contours do not lie in the scan's slices.
    """
    try:
        header = read_dataset(path)
        names = {int(roi.ROINumber): str(roi.get("ROIName", "")) for roi in header.StructureSetROISequence}
        contours = _contours_of(header)
    except Exception as error:  # pydicom raises many types on files that break the standard
        raise CaseError(
            f"unreadable DICOM RTSTRUCT ({type(error).__name__}); expected closed contours; export it anew"
        ) from error
    classes = name_classes(names, {number for number, drawn in contours.items() if drawn}, manifest, "structure")
    values = manifest.scheme.tumor_values
    tumor_map = np.zeros(scan.array.shape, np.uint8)
    filled = {name: np.zeros(scan.array.shape, bool) for name in manifest.scheme.tumor}
    for name, numbers in classes.items():
        for number in numbers:
            filled[name] |= fill_contours(contours.get(number, []), scan)
    for name, mask in sorted(filled.items(), key=lambda item: -int(item[1].sum())):
        tumor_map[mask] = values[name]
    return Volume(tumor_map, scan.affine)


def name_classes(
    names: Mapping[int, str], drawn: Collection[int], manifest: Manifest, called: str
) -> dict[str, list[int]]:
    """Return the numbers of the segments or structures of each class, by the manifest's rules.

    Parameters
    ----------
    names : mapping of int to str
        Of each segment or structure.
    drawn : collection of int
        Those that hold something.
    manifest : Manifest
    called : str
        What they are, for the error.

    Raises
    ------
    CaseError
        Unless each that holds something means just one class, or is to be ignored: one that nobody names would become
        healthy brain. Names are not quoted: they may hold a person's.
    """

    def fitting(rule: str) -> list[int]:
        return [number for number, text in names.items() if re.search(rule, text, re.IGNORECASE)]

    classes = {name: fitting(rule) for name, rule in manifest.segments.items()}
    claimed = Counter(number for numbers in classes.values() for number in numbers if number in drawn)
    if not claimed:
        raise CaseError(f"no {called} that the manifest names; expected names as in `segments:`; correct the manifest")
    ignored = fitting(manifest.ignore_segments) if manifest.ignore_segments else []
    unnamed = [number for number in drawn if number and number not in claimed and number not in ignored]
    if unnamed:
        raise CaseError(
            f"{called} number {', '.join(map(str, sorted(unnamed)))} fits no rule; expected a class for each; name it "
            "under `segments:` or `ignore_segments:` in the data manifest"
        )
    double = sorted(number for number, n in claimed.items() if n > 1)
    if double:
        raise CaseError(
            f"{called} number {', '.join(map(str, double))} fits several rules; expected one class; narrow the rules "
            "under `segments:` in the data manifest"
        )
    return classes


def _contours_of(header: Dataset) -> dict[int, list[NDArray[np.float64]]]:
    """Return the closed contours of each structure, by its number: (n, 3), world millimetres, RAS+."""
    found: dict[int, list[NDArray[np.float64]]] = {}
    for item in header.ROIContourSequence:
        contours = found.setdefault(int(item.ReferencedROINumber), [])
        for contour in item.get("ContourSequence", []):
            if str(contour.ContourGeometricType).upper() == "CLOSED_PLANAR":
                points = np.array(contour.ContourData, np.float64).reshape(-1, 3)
                if not len(points) or not np.isfinite(points).all():
                    raise ValueError("contour without points, or with points that are no numbers")
                contours.append(points @ RAS_TO_LPS[:3, :3])
    return found


def fill_contours(contours: list[NDArray[np.float64]], scan: Volume) -> NDArray[np.bool_]:
    """Fill contours on a scan's slices: (x, y, z), bool; a voxel is inside if its centre is.

    Raises
    ------
    CaseError
        If a contour does not lie in a slice, whichever axis the slices are counted along.
    """
    from skimage.draw import polygon2mask

    mask = np.zeros(scan.array.shape, bool)
    to_index = np.linalg.inv(scan.affine)
    indices = [points @ to_index[:3, :3].T + to_index[:3, 3] for points in contours]
    if not indices:
        return mask
    spreads = np.array([np.ptp(points, axis=0) for points in indices]).max(axis=0)
    axis = int(np.argmin(spreads))
    for points in indices:
        place = float(points[:, axis].mean())
        number = round(place)
        if np.abs(points[:, axis] - number).max() > IN_SLICE_TOLERANCE or not 0 <= number < mask.shape[axis]:
            raise CaseError("contours in no slice of the scan; expected the scan they were drawn on; see `tumor_on:`")
        plane = [n for n in range(3) if n != axis]
        shape = (mask.shape[plane[0]], mask.shape[plane[1]])
        where = tuple(number if n == axis else slice(None) for n in range(3))
        mask[where] ^= polygon2mask(shape, points[:, plane])
    return mask


def read_dicom_labels(path: Path, manifest: Manifest, images: Mapping[str, Volume], drawn_on: str) -> Volume:
    """Read a label map from a SEG or an RTSTRUCT, whichever the file is; see the two functions above."""
    try:
        kind = str(read_header(path, ["Modality"]).get("Modality", ""))
    except Exception as error:  # pydicom raises many types on files that break the standard
        raise CaseError(f"unreadable DICOM labels ({type(error).__name__}); expected SEG or RTSTRUCT") from error
    if kind == "RTSTRUCT":
        return read_contours(path, manifest, images[drawn_on or next(iter(images))])
    return read_segmentation(path, manifest)
