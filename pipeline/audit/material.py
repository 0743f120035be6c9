"""What attacks are given, made of cases on disk and of networks; see :mod:`pipeline.audit.targets`."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from pipeline.audit.attacks.reconstruction import fit_generic_model, predictability_errors, reconstruction_errors
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Reference, Release, Scores, Targets
from pipeline.audit.views import view_synthetic, view_targets
from pipeline.cohort import Case
from pipeline.progress import progress
from pipeline.train.data import one_hot, read_scan
from pipeline.train.discriminator import Discriminator
from pipeline.train.generator import Generator

SLICES_AT_ONCE = 16


def open_release(
    cases: Sequence[Case], generator: Generator, setting: Setting, discriminator: Discriminator | None = None
) -> Release:
    """Return a release of synthetic cases and a generator."""
    judge = None if discriminator is None else partial(judge_targets, discriminator=discriminator, setting=setting)
    reconstruct = partial(reconstruction_errors, generator=generator, setting=setting)
    return Release(view_synthetic(cases, setting), reconstruct, judge, cases=tuple(cases))


def open_reference(val: Sequence[Case], targets: Targets, setting: Setting) -> Reference:
    """Return what attackers have beside the release; how predictable the targets are is measured once.

    Parameters
    ----------
    val : sequence of Case
        Other people.
    targets : Targets
        Those who will be asked about.
    setting : Setting
    """
    errors = predictability_errors(targets, fit_generic_model(val, setting), setting)
    known = dict(zip(targets.subjects, errors.tolist(), strict=True))
    return Reference(view_targets(val, setting), partial(_look_up, known=known), setting.seed)


def _look_up(targets: Targets, known: dict[str, float]) -> Scores:
    return np.array([known[subject] for subject in targets.subjects])


@torch.no_grad()
def judge_targets(targets: Targets, discriminator: Discriminator, setting: Setting) -> Scores:
    """Return the discriminator's mean logit over scales and places of each scan with its label map: (n,)."""
    device = next(discriminator.parameters()).device
    is_flat = any(isinstance(module, torch.nn.Conv2d) for module in discriminator.modules())
    logits = np.empty(len(targets))
    with progress("judge", len(targets)) as task:
        for index, case in enumerate(targets.cases):
            scan = torch.from_numpy(read_scan(case, setting.modalities, (slice(None),) * 3))
            condition = case.condition(setting.scheme)
            code = torch.from_numpy(one_hot(condition, setting.scheme.n_condition_classes))
            if is_flat:
                levels = np.flatnonzero((condition > 0).any(axis=(0, 1)))
                batches = np.array_split(levels, -(-len(levels) // SLICES_AT_ONCE))
                pairs = [(scan[..., b].movedim(-1, 0), code[..., b].movedim(-1, 0)) for b in batches]
            else:
                pairs = [(scan[None], code[None])]
            found = [discriminator(x.float().to(device), c.float().to(device)) for x, c in pairs]
            per_image = [torch.stack([scale[-1].flatten(1).mean(dim=1) for scale in one]).mean(dim=0) for one in found]
            logits[index] = float(torch.cat(per_image).mean())
            task.advance()
    return logits
