"""Volumes: a world point keeps its value, whatever is done to the grid."""

import itertools

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given, settings
from scipy.spatial.transform import Rotation

from pipeline import resampling
from pipeline.errors import CaseError
from pipeline.resampling import find_on_grid, find_shift, place_on_grid, resample, resample_labels, resample_mask
from pipeline.volumes import Grid, Volume, bounding_box, load_volume, map_volume, save_volume, to_ras

ORIENTATIONS = [
    (permutation, flips)
    for permutation in itertools.permutations(range(3))
    for flips in itertools.product([1, -1], repeat=3)
]


def world_points(volume):
    """Return the world point of each voxel: (n voxels, 3), in the array's order."""
    indices = np.argwhere(np.ones(volume.array.shape, bool))
    return indices @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def oriented_volume(permutation, flips, shape=(3, 4, 5), spacing=(1.0, 2.0, 3.5)):
    """Return a volume of distinct values whose array axes run along permuted, flipped world axes."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3)[:, list(permutation)] * np.array(flips)) @ np.diag(spacing)
    affine[:3, 3] = [10.0, -20.0, 5.5]
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), affine)


@pytest.mark.parametrize(("permutation", "flips"), ORIENTATIONS)
def test_a_world_point_keeps_its_value_through_any_reorientation(permutation, flips):
    volume = oriented_volume(permutation, flips)
    ras = to_ras(volume)
    assert nib.aff2axcodes(ras.affine) == ("R", "A", "S")
    before = {tuple(point): value for point, value in zip(world_points(volume), volume.array.ravel(), strict=True)}
    after = {tuple(point): value for point, value in zip(world_points(ras), ras.array.ravel(), strict=True)}
    assert before == after
    assert ras.array.dtype == volume.array.dtype


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.bool_, np.float64])
def test_reorientation_takes_any_numeric_type(dtype):
    volume = Volume((np.arange(24).reshape(2, 3, 4) % 2).astype(dtype), np.diag([-1.0, 1.0, 1.0, 1.0]))
    ras = to_ras(volume)
    assert ras.array.dtype == dtype
    np.testing.assert_array_equal(ras.array, volume.array[::-1])


# A direction cosine so small that ITK's inversion fails on it.
@example(turn=(0.0, 0.0, 1.6e-293), spacing=(3.0625, 1.0, 1.0), origin=(0.0, 0.0, 0.0), mirrored=False, target_mm=1.0)
@settings(deadline=None, max_examples=40)
@given(
    turn=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.7, 4.0)] * 3),
    origin=st.tuples(*[st.floats(-20, 20)] * 3),
    mirrored=st.booleans(),
    target_mm=st.floats(1.0, 6.0),
)
def test_a_world_point_keeps_its_value_through_resampling(turn, spacing, origin, mirrored, target_mm):
    shape = np.array([28, 26, 24])
    turned = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ np.diag(spacing)
    turned[:, 0] *= -1 if mirrored else 1
    affine = np.eye(4)
    affine[:3, :3] = turned
    affine[:3, 3] = np.array(origin) - turned @ ((shape - 1) / 2)
    slopes, offset = np.array([1.5, -2.0, 0.75]), 300.0
    source = Volume(np.zeros(shape, np.float32), affine)
    source = Volume((world_points(source) @ slopes + offset).reshape(shape).astype(np.float32), affine)

    grid = Grid((6, 6, 6), target_mm, origin)
    result = resample(source, grid)
    np.testing.assert_allclose(result.affine, grid.affine, atol=1e-9)
    points = world_points(result)
    # Smoothing near the border mirrors what it does not know: look at points well inside.
    indices = np.linalg.solve(affine, np.c_[points, np.ones(len(points))].T)[:3].T
    margin = 3 * target_mm / min(spacing) / 2 + 1
    inside = ((indices > margin) & (indices < shape - 1 - margin)).all(axis=1)
    expected = points @ slopes + offset
    assert np.abs(result.array.ravel()[inside] - expected[inside]).max(initial=0) < 0.05


def test_the_resampling_property_looks_at_points():
    # The centre of the grid is the centre of the source, so that the property above is not empty.
    volume = Volume(np.full((28, 26, 24), 7.0, np.float32), Grid((28, 26, 24), 1.0).affine)
    np.testing.assert_allclose(resample(volume, Grid((6, 6, 6), 2.0)).array, 7.0, rtol=1e-6)


def test_resampling_to_the_same_grid_changes_nothing():
    grid = Grid((5, 6, 7), 2.0, (3.0, -4.0, 5.0))
    array = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    np.testing.assert_array_equal(resample(Volume(array, grid.affine), grid).array, array)


def test_outside_the_field_of_view_is_background():
    small = Volume(np.full((4, 4, 4), 9.0, np.float32), Grid((4, 4, 4), 1.0).affine)
    result = resample(small, Grid((10, 10, 10), 1.0), background=-1.0).array
    assert result[0, 0, 0] == -1.0
    assert (result == 9.0).sum() == 64


def test_a_grid_is_centred_where_it_says():
    affine = Grid((4, 5, 6), 2.0, (1.0, 2.0, 3.0)).affine
    np.testing.assert_allclose(affine @ [1.5, 2.0, 2.5, 1.0], [1.0, 2.0, 3.0, 1.0])
    np.testing.assert_allclose(np.diag(affine), [2.0, 2.0, 2.0, 1.0])


@settings(deadline=None, max_examples=15)
@given(
    target_mm=st.floats(1.0, 2.25),
    centre=st.tuples(*[st.floats(-3, 3)] * 3),
    turn=st.tuples(*[st.floats(-40, 40)] * 3),
)
def test_resampled_labels_keep_volume_and_invent_no_class(target_mm, centre, turn):
    shape = (48, 48, 32)
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ np.diag([1.0, 1.0, 1.5])
    affine = np.eye(4)
    affine[:3, :3] = rotation
    affine[:3, 3] = -rotation @ ((np.array(shape) - 1) / 2)
    source = Volume(np.zeros(shape, np.uint8), affine)
    radius = np.linalg.norm(world_points(source) - centre, axis=1).reshape(shape)
    # Classes 1 and 3; class 2 exists in the scheme but not here.
    labels = np.select([radius < 9, radius < 15], [1, 3], 0).astype(np.uint8)
    source = Volume(labels, affine)
    result = resample_labels(source, Grid((40, 40, 40), target_mm), 4)
    assert result.array.dtype == np.uint8
    assert set(np.unique(result.array)) <= {0, 1, 3}
    for mask_before, mask_after in ((labels > 0, result.array > 0), (labels == 1, result.array == 1)):
        before, after = mask_before.sum() * source.voxel_ml, mask_after.sum() * result.voxel_ml
        assert after == pytest.approx(before, rel=0.1)


def test_labels_on_the_same_grid_stay_as_they_are():
    grid = Grid((6, 6, 6), 2.0)
    labels = np.random.default_rng(0).integers(0, 4, grid.shape).astype(np.uint8)
    np.testing.assert_array_equal(resample_labels(Volume(labels, grid.affine), grid, 4).array, labels)


def test_a_part_is_put_exactly_where_it_belongs_on_the_whole():
    reference = Volume(np.zeros((6, 7, 8), np.int16), Grid((6, 7, 8), 2.0, (1.0, 1.0, 1.0)).affine)
    part_affine = reference.affine.copy()
    part_affine[:3, 3] = (reference.affine @ [1, 2, 3, 1])[:3]
    part = Volume(np.arange(1, 25, dtype=np.uint8).reshape(2, 3, 4), part_affine)
    placed = place_on_grid(part, reference)
    expected = np.zeros((6, 7, 8), np.uint8)
    expected[1:3, 2:5, 3:7] = part.array
    np.testing.assert_array_equal(placed.array, expected)
    np.testing.assert_array_equal(placed.affine, reference.affine)


@pytest.mark.parametrize(
    ("spacing_mm", "first_mm", "message"),
    [
        (2.0, (1.0, 0.0, 0.0), "another grid"),
        (2.5, (0.0, 0.0, 0.0), "another grid"),
        (2.0, (-2.0, 0.0, 0.0), "another grid"),
        (2.0, (6.0, 0.0, 0.0), "beyond"),
    ],
    ids=["half a voxel off", "other spacing", "before the first voxel", "behind the last voxel"],
)
def test_a_part_that_is_not_on_the_lattice_of_the_whole_is_refused(spacing_mm, first_mm, message):
    reference = Volume(np.zeros((6, 6, 6), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = first_mm
    with pytest.raises(CaseError, match=message):
        place_on_grid(Volume(np.ones((4, 4, 4), np.uint8), affine), reference)


def test_grids_are_the_same_up_to_a_tolerance_at_the_corners():
    volume = Volume(np.zeros((100, 100, 100)), np.eye(4))
    shifted, stretched = np.eye(4), np.eye(4)
    shifted[0, 3], stretched[0, 0] = 0.009, 1.001
    assert volume.same_grid(Volume(volume.array, shifted))
    # A thousandth of a voxel adds up to .099 mm at the far corner.
    assert not volume.same_grid(Volume(volume.array, stretched))
    assert not volume.same_grid(Volume(np.zeros((100, 100, 99)), np.eye(4)))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_a_saved_volume_is_read_back_whole_and_gives_the_same_bytes_each_time(tmp_path, suffix, dtype):
    volume = oriented_volume((2, 0, 1), (1, -1, 1))
    volume = Volume(volume.array.astype(dtype), volume.affine)
    first, second = tmp_path / "a" / f"first{suffix}", tmp_path / f"other_name{suffix}"
    save_volume(volume, first, "what it is")
    save_volume(volume, second, "what it is")
    assert first.read_bytes() == second.read_bytes()
    loaded = load_volume(first)
    assert loaded.array.dtype == dtype
    np.testing.assert_array_equal(loaded.array, volume.array)
    np.testing.assert_allclose(loaded.affine, volume.affine)
    np.testing.assert_array_equal(map_volume(first), volume.array)


def test_the_header_carries_geometry_and_description_and_nothing_else(tmp_path):
    path = tmp_path / "volume.nii"
    save_volume(oriented_volume((0, 1, 2), (1, 1, 1)), path, "synthetic")
    image = nib.Nifti1Image.from_filename(path)
    header = image.header
    assert bytes(header["descrip"]).rstrip(b"\0") == b"synthetic"
    for name in ("db_name", "aux_file", "intent_name", "data_type"):
        assert bytes(header[name]).strip(b"\0") == b"", name
    for name in ("toffset", "slice_duration", "cal_max", "cal_min", "glmax", "glmin", "extents", "session_error"):
        assert header[name] == 0, name
    assert list(header.extensions) == []
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_slope_inter() in [(None, None), (1.0, 0.0)]


def test_a_truncated_file_is_a_case_error(tmp_path):
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"Secret_Name{suffix}"
        noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
        save_volume(Volume(noise, np.eye(4)), path)
        path.write_bytes(path.read_bytes()[:4000])
        with pytest.raises(CaseError, match="unreadable NIfTI") as caught:
            load_volume(path)
        assert "Secret" not in str(caught.value)


def test_a_file_that_is_no_nifti_or_is_missing_is_a_case_error(tmp_path):
    path = tmp_path / "text.nii.gz"
    path.write_text("not an image")
    for bad in (path, tmp_path / "absent.nii.gz"):
        with pytest.raises(CaseError, match="unreadable NIfTI"):
            load_volume(bad)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8, 2)])
def test_an_image_without_three_axes_is_a_case_error(tmp_path, shape):
    path = tmp_path / "volume.nii"
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), path)
    with pytest.raises(CaseError, match=f"{len(shape)} axes; expected 3"):
        load_volume(path)


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path):
    path = tmp_path / "volume.nii"
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5, 1), np.int16), np.eye(4)), path)
    assert load_volume(path).array.shape == (3, 4, 5)


@pytest.mark.parametrize("damage", [0.0, np.nan])
def test_an_affine_without_volume_is_a_case_error(tmp_path, damage):
    path = tmp_path / "volume.nii"
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    image.header["srow_x"] = [damage, damage, damage, 0]
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    path.write_bytes(image.header.binaryblock + b"\0" * 4 + bytes(128))
    assert int(nib.Nifti1Header.from_fileobj(path.open("rb"))["sform_code"]) == 1
    with pytest.raises(CaseError, match="affine"):
        load_volume(path)


@pytest.mark.parametrize(
    ("claimed", "is_read"), [(32, True), (2**31 - 16, False), (48, False), (0, False), (-9, False)]
)
def test_an_extension_may_claim_no_more_than_there_is_before_the_voxels(tmp_path, claimed, is_read):
    path = tmp_path / "volume.nii"
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 20))
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    assert content[352:356] == (32).to_bytes(4, "little")
    content[352:356] = claimed.to_bytes(4, "little", signed=True)
    path.write_bytes(content)
    if is_read:
        assert load_volume(path).array.sum() == 64
    else:
        with pytest.raises(CaseError, match="extension that claims"):
            load_volume(path)


@pytest.mark.parametrize("kind", ["colours", "complex"])
def test_voxels_that_are_no_plain_numbers_are_a_case_error(tmp_path, kind):
    dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]) if kind == "colours" else np.dtype(np.complex64)
    path = tmp_path / "volume.nii"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), dtype), np.eye(4)), path)
    with pytest.raises(CaseError, match="expected plain numbers"):
        load_volume(path)


def test_one_volume_of_a_four_dimensional_file_is_read_by_its_index(tmp_path):
    path = tmp_path / "four.nii.gz"
    array = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    np.testing.assert_array_equal(load_volume(path, 3).array, array[..., 3])
    with pytest.raises(CaseError):
        load_volume(path, 5)


def test_header_scaling_is_applied(tmp_path):
    path = tmp_path / "scaled.nii"
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 1.0)
    nib.save(image, path)
    loaded = load_volume(path)
    assert loaded.array.dtype.kind == "f"
    np.testing.assert_array_equal(loaded.array.ravel(), [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5])


@pytest.fixture
def no_interpolation(monkeypatch):
    """Make interpolation fail: SimpleITK's gives the same values on a lattice, only later."""
    monkeypatch.delattr(resampling, "_resample_sitk")


@pytest.mark.usefixtures("no_interpolation")
@pytest.mark.parametrize("way", [None, [[1, 0, 0, 7.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]])
def test_voxels_that_lie_on_the_grid_go_through_unchanged(way):
    stream = np.random.default_rng(1)
    array, classes = stream.normal(size=(7, 8, 9)).astype(np.float32), stream.integers(0, 4, (7, 8, 9))
    affine = np.diag([2.5, 2.5, 2.5, 1.0])
    # On the grid this volume begins two voxels after the first along x, and one before it along z.
    affine[:3, 3] = Grid((12, 8, 6), 2.5).affine[:3, 3] + [5.0, 0.0, -2.5]
    to_volume = None if way is None else np.array(way, float)
    if to_volume is not None:
        affine = to_volume @ affine
    grid = Grid((12, 8, 6), 2.5)
    expected = np.full(grid.shape, -3.0)
    expected[2:9] = array[:, :, 1:7]
    found = resample(Volume(array, affine), grid, background=-3.0, to_volume=to_volume)
    np.testing.assert_array_equal(found.array, expected.astype(np.float32))
    labels = resample_labels(Volume(classes, affine), grid, 4, to_volume)
    np.testing.assert_array_equal(labels.array[2:9], classes[:, :, 1:7])
    assert not labels.array[:2].any()
    assert not labels.array[9:].any()
    mask = resample_mask(Volume((classes > 1).astype(np.uint8) * 255, affine), grid, to_volume)
    np.testing.assert_array_equal(mask, labels.array > 1)
    assert mask.dtype == bool
    few = resample_labels(Volume(np.where(classes == 3, 257, classes), affine), grid, 3, to_volume)
    np.testing.assert_array_equal(few.array, np.where(labels.array == 3, 0, labels.array))


@pytest.mark.usefixtures("no_interpolation")
def test_a_volume_beside_the_grid_leaves_it_background():
    affine = np.eye(4)
    affine[:3, 3] = 500.0
    found = resample(Volume(np.ones((4, 4, 4), np.float32), affine), Grid((5, 5, 5), 1.0), background=2.0)
    assert (found.array == 2.0).all()


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        (np.diag([2.0, 2.0, 2.0, 1.0]), [0, 0, 0]),
        (np.array([[2, 0, 0, -6], [0, 2, 0, 4], [0, 0, 2, 0.005], [0, 0, 0, 1.0]]), [-3, 2, 0]),
        (np.array([[2, 0, 0, 1], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]]), None),
        (np.diag([2.0, 2.0, 2.01, 1.0]), None),
        (np.diag([-2.0, 2.0, 2.0, 1.0]), None),
    ],
)
def test_where_a_volume_lies_on_a_lattice(affine, expected):
    found = find_shift(Volume(np.zeros((5, 5, 5)), affine), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert (None if found is None else found.tolist()) == expected


def test_a_single_slice_of_another_thickness_does_not_lie_on_the_grid():
    slab = Volume(np.ones((4, 4, 1), np.float32), np.diag([1.0, 1.0, 5.0, 1.0]))
    grid = Grid((4, 4, 7), 1.0, (1.5, 1.5, 0.0))
    assert find_on_grid(slab, grid) is None
    assert resample(slab, grid).array.sum() > 16 * 4
    assert resample_labels(slab, grid, 2).array.sum() == 16 * 5


def test_the_box_around_a_mask():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = mask[3, 2, 6] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 3), slice(3, 7))
