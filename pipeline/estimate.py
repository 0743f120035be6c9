"""What a run would do, with sizes and estimated times; nothing is written.

A training step is timed here and now, at the config's size, and multiplied; the rest is scaled from it or from figures
measured once on two cores, so times are rough.
"""

from pathlib import Path

import numpy as np
import torch

from pipeline.audit.attacks.registry import ATTACKS
from pipeline.config import RunConfig
from pipeline.config_evaluate import SegmenterSection
from pipeline.ingest.dicom import discover_dicom
from pipeline.ingest.discover import discover_nifti
from pipeline.ingest.manifest import Manifest, load_manifest
from pipeline.labels import LabelScheme
from pipeline.layout import FOLDERS, STAGES, read_done
from pipeline.runner import plan_stages, select_stages
from pipeline.train.data import Batch
from pipeline.train.loop import time_steps
from pipeline.train.plan import TrainingPlan

SECONDS_PER_VOXEL_INGEST = 1.5e-5
SECONDS_PER_VOXEL_DRAWN = 1e-6
SEGMENTER_STEP_SHARE = 0.6
# A turn of the discriminator under differential privacy, in ordinary steps of a batch of that size.
PRIVATE_TURN = 0.6
BYTES_PER_VOXEL = 2


def describe_plan(config: RunConfig, run_dir: Path, first: str, last: str) -> str:
    """Return what ``run`` would do, stage by stage.

    Parameters
    ----------
    config : RunConfig
    run_dir : Path
    first, last : str
        Stage names.
    """
    plans = plan_stages(config, run_dir)
    selected = select_stages(first, last)
    manifest = load_manifest(config.ingest.manifest)
    done = read_done(run_dir / FOLDERS["ingest"]) if plans["ingest"].holds else None
    n_cases = done["summary"]["cases"] if done else _count_cases(config, manifest)
    seconds = _estimate_seconds(config, n_cases, manifest.scheme, manifest.modalities)
    sizes = _estimate_megabytes(config, n_cases, len(manifest.modalities))
    lines, total = [], 0.0
    for stage in STAGES:
        if stage not in selected:
            lines.append(f"{stage:<10}not asked for")
        elif plans[stage].holds:
            done = read_done(run_dir / FOLDERS[stage]) or {}
            lines.append(f"{stage:<10}holds, would be skipped (took {done.get('seconds', 0):.0f} s)")
        else:
            total += seconds[stage]
            lines.append(
                f"{stage:<10}would run: {_what(stage, config, n_cases)}; {_duration(seconds[stage])}{sizes[stage]}"
            )
    lines.append(f"in all about {_duration(total)} on this machine; run folder {run_dir}")
    return "\n".join(lines)


def _what(stage: str, config: RunConfig, n_cases: int) -> str:
    segmenter = config.evaluate
    n_candidates = config.generate.n_cases * config.generate.curation.candidates
    return {
        "ingest": f"{n_cases} cases to {'x'.join(map(str, config.ingest.size_voxels))} voxels",
        "train": f"{config.train.steps} steps",
        "generate": f"{config.generate.n_cases} cases of {n_candidates} candidates",
        "audit": f"{_audit_trainings(config)} more trainings of {config.train.steps} steps, {len(ATTACKS)} attacks",
        "evaluate": f"{len(segmenter.arms)} arms x {segmenter.n_seeds} seeds of {segmenter.steps} steps",
        "export": f"{config.generate.n_cases} cases, if the audit passes or is overridden",
    }[stage]


def _estimate_seconds(
    config: RunConfig, n_cases: int, scheme: LabelScheme, modalities: tuple[str, ...]
) -> dict[str, float]:
    step_s = _time_training_step(config, scheme, modalities)
    train_s = step_s * config.train.steps * _turns(config)
    voxels = float(np.prod(config.ingest.size_voxels))
    workers = config.compute.workers or torch.get_num_threads()

    def segmenter_s(section: SegmenterSection) -> float:
        in_plane = section.batch_size / config.train.batch_size * section.filters / config.train.channels
        return section.steps * step_s * SEGMENTER_STEP_SHARE * in_plane

    curation = config.generate.curation
    candidates_s = config.generate.n_cases * curation.candidates * voxels * SECONDS_PER_VOXEL_DRAWN + 5.0
    redrawn_s = n_cases * config.ingest.split.test * voxels * SECONDS_PER_VOXEL_DRAWN
    chooses_s = segmenter_s(config.generate.judge) if curation.candidates > 1 else 0.0
    trainings = len(config.evaluate.arms) * config.evaluate.n_seeds
    return {
        "ingest": 10.0 + n_cases * voxels * SECONDS_PER_VOXEL_INGEST / workers,
        "train": train_s,
        "generate": candidates_s + chooses_s + segmenter_s(config.generate.judge) + redrawn_s,
        "audit": _audit_trainings(config) * (train_s + candidates_s + chooses_s) + n_cases * voxels * 2e-6,
        "evaluate": trainings * segmenter_s(config.evaluate),
        "export": config.generate.n_cases * voxels * 2e-7 + 2.0,
    }


def _audit_trainings(config: RunConfig) -> int:
    """Return how many generators the audit trains."""
    return config.audit.n_references + (config.audit.overtrained_members > 0) + (config.audit.canaries > 0)


def _turns(config: RunConfig) -> float:
    """Return how many ordinary steps a step costs: under differential privacy the discriminator has many turns."""
    privacy = config.train.privacy
    if privacy is None:
        return 1.0
    return 0.5 + PRIVATE_TURN * privacy.discriminator_steps * privacy.patients_per_step / config.train.batch_size


def _time_training_step(config: RunConfig, scheme: LabelScheme, modalities: tuple[str, ...]) -> float:
    plan = TrainingPlan((), scheme, modalities, config.train, config.compute, 0)
    spatial: tuple[int, ...] = config.ingest.size_voxels[:2]
    if config.train.dimensions == 3:
        spatial = config.train.patch_voxels or config.ingest.size_voxels
    n = config.train.batch_size
    condition = torch.zeros(n, plan.generator_config.condition_channels, *spatial)
    batch = Batch(
        condition,
        torch.zeros(n, len(modalities), *spatial),
        torch.zeros(n, 0),
        torch.ones(n, len(modalities), dtype=torch.bool),
    )
    return time_steps(plan, batch, 2)


def _estimate_megabytes(config: RunConfig, n_cases: int, n_modalities: int) -> dict[str, str]:
    case_mb = float(np.prod(config.ingest.size_voxels)) * (n_modalities * BYTES_PER_VOXEL + 2) / 1e6
    sizes = dict.fromkeys(STAGES, "")
    sizes["ingest"] = f", {n_cases * case_mb:.0f} MB"
    sizes["generate"] = f", {config.generate.n_cases * case_mb:.0f} MB"
    return sizes


def _count_cases(config: RunConfig, manifest: Manifest) -> int:
    """Return how many cases the manifest finds in the source, whether or not they can be used."""
    if config.ingest.source == "phantom":
        return config.ingest.phantom_cases
    discover = discover_dicom if manifest.format == "dicom" else discover_nifti
    return len(discover(Path(config.ingest.source), manifest))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
