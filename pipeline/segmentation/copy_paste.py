"""Copy and paste: a real patient's tumour in another real patient's scan.

The cheapest rival of a generator: new pairs of anatomy and tumour, every voxel of them real. The tumour of a slice (2D)
or all of it (3D) is cut out, mirrored by half of the chances, and laid somewhere in the other patient's brain where all
of it lies within and off that patient's own tumour; where no such place is found in a few tries, as for large tumours,
the scan stays as it is. Its edge is blended over some voxels with what surrounded it. Its labels move along. Nothing
mimics how a tumour displaces its surroundings: that is what makes it cheap.

References
----------
Ghiasi et al. 2021, "Simple copy-paste is a strong data augmentation method for instance segmentation",
doi:10.1109/CVPR46437.2021.00294. Yang et al. 2021, "TumorCP", doi:10.1007/978-3-030-87193-2_55.
"""

import numpy as np
from scipy import ndimage

from pipeline.cohort import Int16Array
from pipeline.labels import UInt8Array
from pipeline.segmentation.scans import is_brain

# Beyond the tumour, over which it fades; the margin of a piece holds it.
BLEND_VOXELS = 2
MARGIN_VOXELS = BLEND_VOXELS
N_TRIES = 16


def paste_tumor(
    image: Int16Array,
    tumor_map: UInt8Array,
    piece: Int16Array,
    piece_map: UInt8Array,
    stream: np.random.Generator,
) -> tuple[Int16Array, UInt8Array]:
    """Paste a piece with tumour into an image, where tissue admits it.

    Parameters
    ----------
    image : ndarray, (modalities, *spatial), int16 in [0, 1000]
    tumor_map : ndarray, (*spatial), uint8
    piece : ndarray, (modalities, *sides), int16 in [0, 1000]
        Of another patient: the box of a tumour, with :data:`MARGIN_VOXELS` around where its image has them.
    piece_map : ndarray, (*sides), uint8
    stream : numpy.random.Generator

    Returns
    -------
    tuple of ndarray
        New image and tumour map; those given, unchanged, if no place was found.
    """
    if stream.random() < 0.5:
        piece, piece_map = piece[:, ::-1], piece_map[::-1]
    room = np.subtract(tumor_map.shape, piece_map.shape)
    if (room < 0).any():
        return image, tumor_map
    tumor, brain = piece_map > 0, is_brain(image)
    free = brain & (tumor_map == 0)
    for _ in range(N_TRIES):
        start = stream.integers(room + 1)
        where = tuple(slice(int(a), int(a) + n) for a, n in zip(start, tumor.shape, strict=True))
        if free[where][tumor].all():
            break
    else:
        return image, tumor_map
    # 1 in the tumour, then falling by even steps; nothing of the piece's own background, nothing out of the brain.
    weight = np.clip(1.0 - ndimage.distance_transform_edt(~tumor) / (BLEND_VOXELS + 1), 0.0, 1.0)
    weight *= is_brain(piece) & free[where] | tumor
    image, tumor_map = image.copy(), tumor_map.copy()
    blended = weight * piece + (1.0 - weight) * image[:, *where]
    image[:, *where] = np.rint(blended).astype(np.int16)
    tumor_map[where] = np.where(tumor, piece_map, tumor_map[where])
    return image, tumor_map
