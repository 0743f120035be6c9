"""The generator: one definition for 2D and 3D, modulation blind to a lesion's size, patches like wholes."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.train.generator import Generator, GeneratorConfig, SpadeBlock

N_CLASSES = 7
LESION = 5


def make_generator(dimensions: int = 2, levels: int = 2, context: int = 1, seed: int = 0) -> Generator:
    config = GeneratorConfig(
        dimensions=dimensions,
        n_classes=N_CLASSES,
        n_modalities=4,
        channels=4,
        levels=levels,
        style_size=3,
        context_slices=context,
    )
    torch.manual_seed(seed)
    return Generator(config)


def one_hot_map(labels: Tensor, config: GeneratorConfig) -> Tensor:
    """Return the condition of a label map (*spatial): in 2D every neighbouring slice is the slice itself."""
    code = torch.movedim(F.one_hot(labels.long(), N_CLASSES), -1, 0).float()[None]
    repeats = config.condition_channels // N_CLASSES
    return torch.cat([code] * repeats, dim=1)


def box(shape: tuple[int, ...], size: int, label: int, outside: int) -> Tensor:
    """Return a label map with a box of one label in the middle."""
    labels = torch.full(shape, outside)
    labels[tuple(slice((n - size) // 2, (n + size) // 2) for n in shape)] = label
    return labels


def inputs(generator: Generator, spatial: tuple[int, ...], seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    stream = torch.Generator().manual_seed(seed)
    style = torch.randn(1, generator.config.style_size, generator=stream)
    return style, [torch.randn(1, 1, *shape, generator=stream) for shape in generator.noise_shapes(spatial)]


@pytest.mark.parametrize(("dimensions", "spatial"), [(2, (16, 24)), (3, (8, 16, 12))])
def test_scan_has_the_map_s_shape_and_range_and_is_empty_outside_the_brain(
    dimensions: int, spatial: tuple[int, ...]
) -> None:
    generator = make_generator(dimensions)
    labels = box(spatial, 6, 3, 0)
    with torch.no_grad():
        scan = generator(one_hot_map(labels, generator.config), *inputs(generator, spatial))[0]
    assert scan.shape == (4, *spatial)
    assert (scan[:, labels == 0] == -1).all()
    brain = scan[:, labels > 0]
    assert -1 < brain.min() < brain.max() < 1


def test_2d_and_3d_have_the_same_layers() -> None:
    def layers(dimensions: int) -> list[tuple[str, int]]:
        return [(name, p.shape[0]) for name, p in make_generator(dimensions, context=0).named_parameters()]

    assert layers(2) == layers(3)


def test_the_slice_itself_decides_where_there_is_brain_not_its_neighbours() -> None:
    generator = make_generator()
    inner, outer = box((16, 16), 4, 3, 0), box((16, 16), 12, 3, 0)
    codes = [F.one_hot(labels.long(), N_CLASSES).permute(2, 0, 1).float() for labels in (outer, inner, outer)]
    with torch.no_grad():
        scan = generator(torch.cat(codes)[None], *inputs(generator, (16, 16)))[0]
    assert torch.equal(scan[0] > -1, inner > 0)


def modulations(generator: Generator, size: int, change: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Return scale and shift, after a change, of each modulation in the middle of a lesion of a size."""
    side = 64
    code = one_hot_map(box((side,) * generator.config.dimensions, size, LESION, 3), generator.config)
    style, _ = inputs(generator, (side,) * generator.config.dimensions)
    found = []
    for index, block in enumerate(generator.blocks):
        assert isinstance(block, SpadeBlock)
        factor = 2 ** (generator.config.levels - index)
        pool = F.avg_pool2d if generator.config.dimensions == 2 else F.avg_pool3d
        embedded = block.embed(pool(code, factor), style)
        middle = (slice(None), slice(None), *[side // factor // 2] * generator.config.dimensions)
        for modulation in (block.first, block.second):
            for part in modulation.modulation(embedded):
                found.append(change(part)[middle])
    return found


@pytest.mark.parametrize("dimensions", [2, 3])
def test_modulation_of_a_label_does_not_depend_on_the_lesion_s_size(dimensions: int) -> None:
    generator = make_generator(dimensions)
    with torch.no_grad():
        # The coarsest voxel is 4 wide and sees one neighbour on each side: 12 across, so that 16 is deep enough.
        small = modulations(generator, 16, nn.Identity())
        large = modulations(generator, 48, nn.Identity())
        assert len(small) == 3 * 2 * 2
        for a, b in zip(small, large, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
        # The same comparison sees what MONAI's SPADE block does: an instance norm behind the convolution.
        small = modulations(generator, 16, F.instance_norm)
        large = modulations(generator, 48, F.instance_norm)
        assert all((a - b).abs().max() > 0.1 for a, b in zip(small, large, strict=True))


def receptive_radius(levels: int) -> int:
    """Return how far, in voxels of the image, a voxel of the condition reaches.

    At full resolution: the head reads 1 voxel away and each block's two convolutions 1 each. At each coarser level a
    reach of r voxels becomes ceil(r / 2), and the block adds 2. At the coarsest the stem, like each block's embedding,
    adds 1; one voxel there is 2^levels wide.
    """
    reach = 1 + 2
    for _ in range(levels):
        reach = (reach + 1) // 2 + 2
    return (reach + 2) * 2**levels - 1


@pytest.mark.parametrize(("dimensions", "side", "levels"), [(2, 96, 2), (3, 40, 1)])
def test_rendering_a_patch_equals_the_crop_of_the_whole_away_from_the_border(
    dimensions: int, side: int, levels: int
) -> None:
    # By the rule above: 3, then 2 + 2 = 4, so (4 + 2) * 2 - 1 = 11; and 4 again, so (4 + 2) * 4 - 1 = 23.
    margin = receptive_radius(levels)
    assert margin == {1: 11, 2: 23}[levels]
    generator = make_generator(dimensions, levels)
    shape = (side,) * dimensions
    stream = torch.Generator().manual_seed(5)
    coarse = torch.randint(1, N_CLASSES, [side // 4] * dimensions, generator=stream).float()[None, None]
    labels = F.interpolate(coarse, scale_factor=4.0)[0, 0].long()
    condition = one_hot_map(labels, generator.config)
    style, noise = inputs(generator, shape)
    start, size = 8, side - 16

    def crop(batch: Tensor, factor: int) -> Tensor:
        part = slice(start // factor, (start + size) // factor)
        return batch[(slice(None), slice(None), *[part] * dimensions)]

    factors = [2**level for level in range(levels, -1, -1)]
    with torch.no_grad():
        whole = crop(generator(condition, style, noise), 1)
        patch = generator(crop(condition, 1), style, [crop(n, f) for n, f in zip(noise, factors, strict=True)])
    # Within the patch the outermost voxels see its padding in place of the neighbourhood.
    inside = (slice(None), slice(None), *[slice(margin, size - margin)] * dimensions)
    assert whole[inside].numel() == {2: 4 * (80 - 2 * 23) ** 2, 3: 4 * (24 - 2 * 11) ** 3}[dimensions]
    torch.testing.assert_close(patch[inside], whole[inside], atol=1e-5, rtol=0)
    assert (patch - whole).abs().max() > 1e-3


def test_nothing_beyond_the_receptive_field_matters() -> None:
    generator = make_generator(levels=1)
    shape = (64, 64)
    condition = one_hot_map(torch.full(shape, 3), generator.config)
    changed = condition.clone()
    changed[:, :, 0, 0] = 0
    changed[:, LESION, 0, 0] = 1
    style, noise = inputs(generator, shape)
    with torch.no_grad():
        difference = (generator(changed, style, noise) - generator(condition, style, noise)).abs().amax(dim=(0, 1))
    touched = (difference > 0).nonzero()
    assert 0 < touched.max() <= receptive_radius(1)


@pytest.mark.parametrize(("dimensions", "spatial"), [(2, (16, 16)), (3, (8, 8, 8))])
def test_style_and_noise_change_the_scan(dimensions: int, spatial: tuple[int, ...]) -> None:
    generator = make_generator(dimensions)
    condition = one_hot_map(torch.full(spatial, 3), generator.config)
    style, noise = inputs(generator, spatial)
    other_style, other_noise = inputs(generator, spatial, seed=1)
    with torch.no_grad():
        scan = generator(condition, style, noise)
        assert torch.equal(generator(condition, style, noise), scan)
        assert (generator(condition, other_style, noise) - scan).abs().mean() > 1e-3
        for index in range(len(noise)):
            mixed = [*noise[:index], other_noise[index], *noise[index + 1 :]]
            assert (generator(condition, style, mixed) - scan).abs().mean() > 1e-5


@pytest.mark.parametrize(("dimensions", "spatial"), [(2, (16, 16)), (3, (8, 8, 8))])
def test_gradient_reaches_every_parameter(dimensions: int, spatial: tuple[int, ...]) -> None:
    generator = make_generator(dimensions)
    condition = one_hot_map(box(spatial, 4, LESION, 3), generator.config)
    scan = generator(condition, *inputs(generator, spatial))
    scan.square().sum().backward()
    untouched = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []


@pytest.mark.parametrize(("dimensions", "spatial"), [(2, (16, 24)), (3, (8, 8, 16))])
def test_computing_blocks_again_gives_the_same_gradients(dimensions: int, spatial: tuple[int, ...]) -> None:
    gradients = []
    for recomputes in (False, True):
        generator = make_generator(dimensions)
        generator.recomputes = recomputes
        calls = []
        generator.blocks[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        condition = one_hot_map(box(spatial, 4, LESION, 3), generator.config)
        generator(condition, *inputs(generator, spatial)).square().sum().backward()
        assert len(calls) == 1 + recomputes
        gradients.append([parameter.grad for parameter in generator.parameters()])
    for kept, again in zip(*gradients, strict=True):
        assert torch.equal(kept, again)


def test_half_precision_does_not_round_the_scan() -> None:
    config = GeneratorConfig(
        dimensions=2, n_classes=7, n_modalities=4, channels=8, levels=2, style_size=4, context_slices=1
    )
    torch.manual_seed(0)
    generator = Generator(config)
    condition = torch.zeros(1, config.condition_channels, 32, 32)
    condition[:, 8] = 1.0
    noise = [torch.randn(1, 1, *shape) for shape in generator.noise_shapes((32, 32))]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scan = generator(condition, torch.randn(1, 4), noise)
    assert scan.dtype == torch.float32
    # In bfloat16 there would be no more than a few hundred values.
    assert len(scan.unique()) > 2000
