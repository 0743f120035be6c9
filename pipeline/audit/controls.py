"""Controls: what must not fire, and what must. An audit whose controls misbehave is invalid, whatever it says."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from pipeline.audit.attacks.registry import BY_NAME
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Reference, Release, Scores, Targets, Vectors
from pipeline.cohort import Case
from pipeline.statistics import auc, holm
from pipeline.train.data import one_hot, one_hot_slices, read_scan
from pipeline.train.generator import Generator

MIN_PLANTED = 3
PLANTED_SHARES = (0.05, 0.2)
# Attacks that must see a whole scan with its label map among the released ones.
MUST_SEE_COPIES = ("nearest-neighbour", "nearest-tumor", "nearest-labels")
MEMORY = 0.5


@dataclass(frozen=True)
class Control:
    """One control.

    Parameters
    ----------
    name, title : str
    expected, observed : str
        In words and figures.
    behaved : bool
    curve : tuple of ndarray
        Scores of the two sides, for the picture.
    """

    name: str
    title: str
    expected: str
    observed: str
    behaved: bool
    curve: tuple[Scores, Scores] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what goes into audit.json."""
        return {key: value for key, value in asdict(self).items() if key != "curve"}


@dataclass(frozen=True)
class Planted:
    """A leak made on purpose, and what an attack gave those planted and those not.

    Parameters
    ----------
    name, title : str
    planted, clean : ndarray, (n,) and (m,), float64
    """

    name: str
    title: str
    planted: Scores
    clean: Scores

    def judged(self, least_auc: float) -> Control:
        """Return the control: the attack must tell the planted from the clean."""
        value = auc(self.planted, self.clean)
        return Control(
            self.name,
            self.title,
            f"AUC of at least {least_auc:g}",
            f"AUC {value:.2f}",
            value >= least_auc,
            (self.planted, self.clean),
        )


def judge_negative(
    outcomes: Mapping[str, Scores],
    permuted: Mapping[str, Scores],
    untouched: Mapping[str, Scores],
    is_member: NDArray[np.bool_],
    alpha: float,
) -> list[Control]:
    """Judge the negative controls of each attack; Holm over attacks and controls.

    Permuted membership must give .5 on average. And the two sides of the split are compared by references that saw
    neither: what is found there is a difference between the sides, or a fault of the scorer, and would be taken for a
    leak on the target.

    Parameters
    ----------
    outcomes : mapping of str to ndarray, (persons,), float64
        By attack, on the target.
    permuted : mapping of str to ndarray, (permutations,), float64
        AUCs under random membership.
    untouched : mapping of str to ndarray, (persons,), float64
        Mean score by references that did not see the person.
    is_member : ndarray, (persons,), bool
    alpha : float
    """
    rows: list[tuple[str, str, str, float]] = []
    for name, aucs in permuted.items():
        mean, deviation = float(aucs.mean()), float(aucs.std())
        p = float(2 * stats.norm.sf(abs(mean - 0.5) / max(deviation / np.sqrt(len(aucs)), 1e-12)))
        low, high = np.quantile(aucs, [alpha / 2, 1 - alpha / 2])
        value = auc(outcomes[name][is_member], outcomes[name][~is_member])
        observed = (
            f"mean {mean:.3f}, {1 - alpha:.0%} of {len(aucs)} between {low:.2f} and {high:.2f} "
            f"(true membership: {value:.2f})"
        )
        rows.append((f"permuted-{name}", f"{BY_NAME[name].title}, membership dealt out at random", observed, p))
    for name, scores in untouched.items():
        value = auc(scores[is_member], scores[~is_member])
        # Not by permutations: a thousand of them never give a p below .001, which Holm would bring above any level.
        p = float(stats.mannwhitneyu(scores[is_member], scores[~is_member]).pvalue)
        title = f"{BY_NAME[name].title} by references that saw neither side, train against test persons"
        rows.append((f"untouched-{name}", title, f"AUC {value:.2f}", p))
    adjusted = holm([p for *_, p in rows])
    return [
        Control(
            name,
            title,
            f"p of at least {alpha:g}, Holm over {len(rows)} negative controls",
            f"{observed}, p = {p:.3g}",
            p >= alpha,
        )
        for (name, title, observed, _), p in zip(rows, adjusted, strict=True)
    ]


def n_planted(share: float, n_members: int) -> int:
    """Return how many members are planted: a share of them, three at least."""
    return min(n_members, max(MIN_PLANTED, round(share * n_members)))


def plant_copies(
    members: Targets,
    others: Targets,
    release: Release,
    reference: Reference,
    copies: Mapping[str, Vectors],
    share: float,
) -> list[Planted]:
    """Plant copies of members among the released scans: attacks by the nearest neighbour must see them.

    The planted are compared with all non-members, so that the control has power whatever the share.

    Parameters
    ----------
    members : Targets
        Those who are planted, one scan each.
    others : Targets
        Scans of non-members.
    release : Release
    reference : Reference
    copies : mapping of str to ndarray, (planted, dimensions), float32
        Views of the copies.
    share : float
        What share of members that is meant to be; for the name.
    """
    views = {level: np.concatenate([made, copies[level]]) for level, made in release.views.items() if level in copies}
    leaking = replace(release, views=views)
    found = []
    for name in MUST_SEE_COPIES:
        run = BY_NAME[name].run
        scores = [run(asked, leaking, reference) for asked in (members, others)]
        title = f"copies of {len(members)} members ({share:.0%}) planted among the synthetic scans, seen by '"
        found.append(
            Planted(f"planted-copies-{share:g}-{name}", f"{title}{BY_NAME[name].title}'", scores[0], scores[1])
        )
    return found


class MemorisingGenerator(Generator):
    """A generator that renders the mean of its own work and the scan, where it recognises a person's label map.

    Parameters
    ----------
    generator : Generator
    cases : sequence of Case
        Persons to remember.
    setting : Setting
        Gives scheme and modalities.
    """

    def __init__(self, generator: Generator, cases: Sequence[Case], setting: Setting) -> None:
        super().__init__(generator.config)
        self.load_state_dict(generator.state_dict())
        self.to(next(generator.parameters()).device)
        self._memory: dict[bytes, Tensor] = {}
        config = generator.config
        for case in cases:
            condition = case.condition(setting.scheme)
            scan = torch.from_numpy(read_scan(case, setting.modalities, (slice(None),) * 3))
            if config.dimensions == 3:
                self._memory[_key(one_hot(condition, config.n_classes))] = scan
                continue
            padded = np.pad(condition, ((0, 0), (0, 0), (config.context_slices, config.context_slices)))
            codes = one_hot_slices(padded, config.n_classes, config.context_slices)
            self._memory |= {_key(code): scan[..., index] for index, code in enumerate(codes)}

    def forward(self, condition: Tensor, style: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render as :meth:`Generator.forward`, then mix in what is remembered."""
        rendered = super().forward(condition, style, noise)
        mixed = []
        for image, code in zip(rendered, condition.cpu().numpy(), strict=True):
            scan = self._memory.get(_key(code))
            mixed.append(image if scan is None else torch.lerp(image, scan.to(image), MEMORY))
        return torch.stack(mixed)


def _key(code: NDArray[np.float32]) -> bytes:
    """Return what a one-hot label map is recognised by."""
    return np.packbits(code > 0).tobytes()
