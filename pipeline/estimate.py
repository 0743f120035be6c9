"""What a run would do, with sizes and estimated times; nothing is written.

A training step is timed here and now, at the config's size, and multiplied; the rest is scaled from it or from figures
measured once on two cores, so times are rough.
"""

from pathlib import Path

import numpy as np
import torch

from pipeline.audit.attacks.registry import ATTACKS
from pipeline.config import RunConfig
from pipeline.config_evaluate import EvaluateSection, SegmenterSection
from pipeline.evaluate.cohorts import list_origins
from pipeline.evaluate.findings import list_planned
from pipeline.evaluate.mixing import count_trials, list_searches, search_section
from pipeline.evaluate.power import ASSUMED_SPREAD, Study, describe_power
from pipeline.evaluate.steps_check import doubled_section
from pipeline.ingest.dicom import discover_dicom
from pipeline.ingest.discover import discover_nifti
from pipeline.ingest.manifest import Manifest, load_manifest
from pipeline.labels import LabelScheme
from pipeline.layout import FOLDERS, STAGES, read_done
from pipeline.parallel import one_thread, training_device
from pipeline.runner import plan_stages, select_stages
from pipeline.segmentation.arms import list_arms
from pipeline.segmentation.segmenter import time_step
from pipeline.train.data import Batch
from pipeline.train.loop import time_steps
from pipeline.train.plan import TrainingPlan

SECONDS_PER_VOXEL_INGEST = 1.5e-5
SECONDS_PER_VOXEL_DRAWN = 1e-6
# Longest side of what is timed of a segmenter; larger ones are scaled up.
TIMED_SIDE = 96
# Of the time that a training step takes of the same voxels.
PREDICTION_SHARE = 0.35
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
            what = _what(stage, config, n_cases, manifest.scheme)
            lines.append(f"{stage:<10}would run: {what}; {_duration(seconds[stage])}{sizes[stage]}")
    lines.append(f"in all about {_duration(total)} on this machine; run folder {run_dir}")
    return "\n".join(lines)


def _what(stage: str, config: RunConfig, n_cases: int, scheme: LabelScheme) -> str:
    n_candidates = config.generate.n_cases * config.generate.curation.candidates
    return {
        "ingest": f"{n_cases} cases to {'x'.join(map(str, config.ingest.size_voxels))} voxels",
        "train": f"{config.train.steps} steps",
        "generate": f"{config.generate.n_cases} cases of {n_candidates} candidates",
        "audit": f"{_audit_trainings(config)} more trainings of {config.train.steps} steps, {len(ATTACKS)} attacks",
        "evaluate": "; ".join(
            filter(
                None,
                (
                    describe_generators(config),
                    describe_trainings(config.evaluate),
                    describe_detectable(config, n_cases, scheme),
                ),
            )
        ),
        "export": f"{config.generate.n_cases} cases, if the audit passes or is overridden",
    }[stage]


def describe_generators(config: RunConfig) -> str:
    """Say how many generators the evaluation trains beside the run's own, each with its cohort."""
    further = list_origins(config.evaluate)[1:]
    if not further:
        return ""
    shares = " and ".join(f"{share:.0%}" for share in dict.fromkeys(origin.share for origin in further))
    return f"{len(further)} more generators of {config.train.steps} steps, of {shares} of the real patients"


def describe_trainings(config: EvaluateSection) -> str:
    """Say how many segmenters the evaluation trains, arm by arm and share by share, and how many its search."""
    shares: dict[str, list[str]] = {}
    for name, share in list_arms(config):
        shares.setdefault(name, []).extend([f"{share:.0%}"] if share else [])
    arms = ", ".join(f"{name} at {' and '.join(taken)}" if taken else f"{name} once" for name, taken in shares.items())
    n_trainings = len(list_arms(config)) * config.n_seeds
    said = f"{n_trainings} trainings of {config.steps} steps ({config.n_seeds} each of {arms} of the real patients)"
    parts = [said]
    if n_trials := count_trials(config):
        arms = " and ".join(arm for arm, candidates in list_searches(config).items() if len(candidates) > 1)
        parts.append(f"a search of {n_trials} trainings of {search_section(config).steps} steps for {arms}")
    if config.steps_check:
        parts.append(f"{config.baseline} once with {2 * config.steps} steps")
    return ", ".join(parts)


def describe_detectable(config: RunConfig, n_cases: int, scheme: LabelScheme) -> str:
    """Say which gain in Dice the evaluation could find, were each case a patient."""
    evaluate = config.evaluate
    planned = list_planned(evaluate, tuple(scheme.regions))
    if not planned:
        return "nothing to compare"
    n_secondary = sum(plan.role == "secondary" for plan in planned)
    study = Study(round(n_cases * config.ingest.split.test), evaluate.n_seeds, n_secondary, evaluate.alpha)
    return f"in Dice, {describe_power(study, ASSUMED_SPREAD).rstrip('.')}"


def _estimate_seconds(
    config: RunConfig, n_cases: int, scheme: LabelScheme, modalities: tuple[str, ...]
) -> dict[str, float]:
    step_s = _time_training_step(config, scheme, modalities)
    train_s = step_s * config.train.steps * _turns(config)
    voxels = float(np.prod(config.ingest.size_voxels))
    workers = config.compute.workers or torch.get_num_threads()

    def segmenter_s(section: SegmenterSection, n_test: float = 0.0) -> float:
        step_voxels, step_s = _time_segmenter_step(config, section, len(modalities), 1 + len(scheme.tumor))
        n_val = n_cases * config.ingest.split.val * section.steps / section.validate_every
        return section.steps * step_s + (n_val + n_test) * voxels / step_voxels * step_s * PREDICTION_SHARE

    curation, evaluate = config.generate.curation, config.evaluate
    candidates_s = config.generate.n_cases * curation.candidates * voxels * SECONDS_PER_VOXEL_DRAWN + 5.0
    redrawn_s = n_cases * config.ingest.split.test * voxels * SECONDS_PER_VOXEL_DRAWN
    judge_s = segmenter_s(config.generate.judge)
    chooses_s = judge_s if curation.candidates > 1 else 0.0
    n_trainings = len(list_arms(evaluate)) * evaluate.n_seeds
    arms_s = n_trainings * segmenter_s(evaluate, n_cases * config.ingest.split.test)
    n_trials = count_trials(evaluate)
    search_s = n_trials * segmenter_s(search_section(evaluate)) if n_trials else 0.0
    check_s = segmenter_s(doubled_section(evaluate)) if evaluate.steps_check else 0.0
    n_generators = len(list_origins(evaluate)) - 1
    side_by_side = min(workers, n_trainings) if training_device(config.compute) == "cpu" else 1
    return {
        "ingest": 10.0 + n_cases * voxels * SECONDS_PER_VOXEL_INGEST / workers,
        "train": train_s,
        "generate": candidates_s + chooses_s + judge_s + redrawn_s,
        "audit": _audit_trainings(config) * (train_s + candidates_s + chooses_s) + n_cases * voxels * 2e-6,
        "evaluate": n_generators * (train_s + candidates_s + chooses_s) + (arms_s + search_s) / side_by_side + check_s,
        "export": config.generate.n_cases * voxels * 2e-7 + 2.0,
    }


def _time_segmenter_step(
    config: RunConfig, section: SegmenterSection, n_modalities: int, n_classes: int
) -> tuple[float, float]:
    """Return the voxels of a segmenter's step and its seconds, on one thread, as trainings side by side have."""
    size = section.patch_voxels or config.ingest.size_voxels[: section.dimensions]
    timed = tuple(min(side, TIMED_SIDE) for side in size)
    with one_thread():
        seconds = time_step(section, n_modalities, n_classes, timed, training_device(config.compute))
    voxels = float(np.prod(size)) * section.batch_size
    return voxels, seconds * voxels / float(np.prod(timed))


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
    seconds = time_steps(plan, batch, 2)
    # Beside other work threads wait for one another many times longer than the work takes: one alone does not.
    with one_thread():
        return min(seconds, time_steps(plan, batch, 2))


def _estimate_megabytes(config: RunConfig, n_cases: int, n_modalities: int) -> dict[str, str]:
    case_mb = float(np.prod(config.ingest.size_voxels)) * (n_modalities * BYTES_PER_VOXEL + 2) / 1e6
    sizes = dict.fromkeys(STAGES, "")
    sizes["ingest"] = f", {n_cases * case_mb:.0f} MB"
    sizes["generate"] = f", {config.generate.n_cases * case_mb:.0f} MB"
    if n_generators := len(list_origins(config.evaluate)) - 1:
        sizes["evaluate"] = f", {n_generators * config.generate.n_cases * case_mb:.0f} MB while it runs"
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
