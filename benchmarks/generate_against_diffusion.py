"""Seconds to generate a volume against denoising by a diffusion model with as many parameters.

    python benchmarks/generate_against_diffusion.py

Ours: :func:`render_volume`, slice by slice, one pass. Theirs: MONAI's ``DiffusionModelUNet``, conditioned by
concatenated label channels, whose width is chosen so that it has as many parameters as our generator; 250 steps of
``DDPMScheduler``, and 30 of ``DDIMScheduler`` reported beside, over the same slices in the same batches. A whole
denoising takes too long, so some steps of some batches are timed and multiplied. Both in turn, several times; ratios
are of the medians. The last line is JSON.
"""

import json
import time
from statistics import median

import numpy as np
import torch
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from pipeline.generate.sampling import SLICES_AT_ONCE, render_volume
from pipeline.train.generator import Generator, GeneratorConfig

SHAPE = (96, 112, 96)
N_RUNS, N_STEPS_TIMED = 3, 4
LONG, SHORT = 250, 30
CONFIG = GeneratorConfig(
    dimensions=2, n_classes=7, n_modalities=4, channels=24, levels=3, style_size=16, context_slices=1
)


def count_parameters(network: torch.nn.Module) -> int:
    """Return the number of trainable numbers in a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def make_denoiser(n_parameters: int) -> DiffusionModelUNet:
    """Return the diffusion network whose number of parameters is nearest."""

    def make(width: int) -> DiffusionModelUNet:
        # Attention at the coarsest level only, as in MONAI's own examples.
        return DiffusionModelUNet(
            spatial_dims=2,
            in_channels=CONFIG.n_modalities + CONFIG.condition_channels,
            out_channels=CONFIG.n_modalities,
            channels=(width, 2 * width, 4 * width),
            attention_levels=(False, False, True),
            num_res_blocks=1,
            num_head_channels=4 * width,
            norm_num_groups=4,
        )

    return min((make(width) for width in range(8, 129, 4)), key=lambda net: abs(count_parameters(net) - n_parameters))


def ours(generator: Generator, condition: np.ndarray) -> float:
    """Return the seconds of one volume."""
    started = time.perf_counter()
    render_volume(generator, condition, torch.Generator().manual_seed(0))
    return time.perf_counter() - started


@torch.no_grad()
def theirs(denoiser: DiffusionModelUNet, scheduler: DDPMScheduler | DDIMScheduler, n_steps: int) -> float:
    """Return the seconds of one volume: timed on some steps of one batch, times batches and steps."""
    scheduler.set_timesteps(n_steps)
    noisy = torch.randn(SLICES_AT_ONCE, CONFIG.n_modalities, *SHAPE[:2])
    condition = torch.zeros(SLICES_AT_ONCE, CONFIG.condition_channels, *SHAPE[:2])
    steps = [int(step) for step in scheduler.timesteps[: N_STEPS_TIMED + 1]]
    for number, step in enumerate(steps):
        if number == 1:
            started = time.perf_counter()
        predicted = denoiser(torch.cat([noisy, condition], dim=1), torch.full((SLICES_AT_ONCE,), step))
        noisy = scheduler.step(predicted, step, noisy)[0]
    a_step = (time.perf_counter() - started) / N_STEPS_TIMED
    return a_step * n_steps * SHAPE[2] / SLICES_AT_ONCE


def main() -> None:
    """Measure and print."""
    torch.manual_seed(0)
    generator = Generator(CONFIG).eval()
    denoiser = make_denoiser(count_parameters(generator)).eval()
    condition = np.random.default_rng(0).integers(0, CONFIG.n_classes, SHAPE).astype(np.uint8)
    times: dict[str, list[float]] = {"ours": [], "long": [], "short": []}
    ours(generator, condition)
    for _ in range(N_RUNS):
        times["ours"].append(ours(generator, condition))
        times["long"].append(theirs(denoiser, DDPMScheduler(num_train_timesteps=LONG), LONG))
        times["short"].append(theirs(denoiser, DDIMScheduler(num_train_timesteps=1000), SHORT))
    seconds = {name: median(values) for name, values in times.items()}
    print(
        json.dumps(
            {
                "name": "generate_against_diffusion",
                "ratio": round(seconds["long"] / seconds["ours"], 1),
                "baseline": f"{LONG} steps of DDPM, multiplied from {N_STEPS_TIMED}",
                "runs": N_RUNS,
                "ratio_30_steps_ddim": round(seconds["short"] / seconds["ours"], 1),
                "parameters": [count_parameters(generator), count_parameters(denoiser)],
            }
        )
    )


if __name__ == "__main__":
    main()
