"""Gather the evidence of an audit: attack the target, plant leaks on purpose, search for copies."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.asked import Asked
from pipeline.audit.attacks.reconstruction import reconstruction, reconstruction_errors
from pipeline.audit.attacks.registry import (
    BY_NAME,
    ShadowFindings,
    attack_references,
    attack_release,
    attack_with_shadows,
)
from pipeline.audit.conclusions import Evidence
from pipeline.audit.controls import Dealt, Planted
from pipeline.audit.copies import LEVELS, judge_copies, view_copy
from pipeline.audit.copy_search import search_copies
from pipeline.audit.dealing import deal_again
from pipeline.audit.planting import PLANTED_SHARES, MemorisingGenerator, n_planted, plant_copies
from pipeline.audit.references import ReferenceFindings
from pipeline.audit.setting import Setting
from pipeline.audit.targets import Reference, Release, Scores, Targets, by_person
from pipeline.audit.views import LEVELS as VIEWED
from pipeline.cohort import Case
from pipeline.seeds import derive_seed, numpy_stream
from pipeline.train.generator import Generator

MEMORY_SHARE = 0.2
N_DEALT = 100
# What tells most of a generator trained on few: benchmarks/audit_dose.py.
SEES_FEW = "nearest-texture"


def gather_evidence(
    asked: Asked,
    release: Release,
    generator: Generator,
    reference: Reference,
    setting: Setting,
    found_on_references: ReferenceFindings,
    is_in: NDArray[np.bool_],
) -> Evidence:
    """Attack the target, plant leaks, search for copies.

    Parameters
    ----------
    asked : Asked
    release : Release
        The target.
    generator : Generator
        The target's.
    reference : Reference
    setting : Setting
    found_on_references : ReferenceFindings
    is_in : ndarray, (references, persons), bool
    """
    targets, shadows = asked.targets, found_on_references.as_they_are
    found = attack_release(targets, release, reference)
    scores = found | attack_with_shadows(targets, release, reference, found, shadows.shadows())
    search = search_copies(
        asked.persons,
        asked.is_member,
        reference.others.cases,
        release.cases,
        setting,
        derive_seed(setting.seed, "construct"),
    )
    copies = {level: judge_copies(search, level) for level in LEVELS}
    return Evidence(
        asked.is_member,
        asked.per_person(scores),
        asked.per_person(attack_references(targets, reference, shadows)),
        is_in,
        [
            *(
                planted
                for share in PLANTED_SHARES
                for planted in _copies_planted(asked, release, reference, setting, share)
            ),
            _memory_planted(asked, generator, reference, setting, found["reconstruction"]),
        ],
        copies,
        deal_evidence(asked, reference, shadows, len(is_in), setting.seed),
        asked.per_person(attack_references(targets, reference, found_on_references.telling_everything)),
    )


def deal_evidence(
    asked: Asked, reference: Reference, shadows: ShadowFindings, n_references: int, seed: int
) -> list[Dealt]:
    """Return the references' scores by memberships dealt out anew, those of attacks with shadows made with them."""
    return [
        Dealt(
            table,
            asked.per_person(
                attack_references(asked.targets, reference, replace(shadows, is_member=table[:, asked.owners]))
            ),
        )
        for table in deal_again(asked.is_member, n_references, N_DEALT, seed)
    ]


def choose_members(asked: Asked, n: int, seed: int, name: str) -> list[Case]:
    """Draw members by a stream of the seed and a name; of each, the first scan."""
    members = np.flatnonzero(asked.is_member)
    picks = numpy_stream(seed, "chosen", name).choice(members, min(n, len(members)), replace=False)
    return [asked.persons[int(i)][0] for i in picks]


def _copies_planted(
    asked: Asked, release: Release, reference: Reference, setting: Setting, share: float
) -> list[Planted]:
    chosen = choose_members(asked, n_planted(share, int(asked.is_member.sum())), setting.seed, f"copies {share:g}")
    stream = numpy_stream(setting.seed, "planted", f"{share:g}")
    views = [view_copy(case, setting, stream, VIEWED) for case in chosen]
    copies = {level: np.stack([one[level] for one in views]) for level in VIEWED}
    members = _take(asked.targets, [case.subject for case in chosen])
    return plant_copies(members, _scans_of_others(asked), release, reference, copies, share)


def _memory_planted(
    asked: Asked, generator: Generator, reference: Reference, setting: Setting, found: Scores
) -> Planted:
    """Give the generator a memory of some members: the reconstruction attack must see it.

    The memory does not change what the attack gives the others, so that they are not rendered again.
    """
    chosen = choose_members(asked, n_planted(MEMORY_SHARE, int(asked.is_member.sum())), setting.seed, "memory")
    memorising = MemorisingGenerator(generator, chosen, setting)
    leaking = Release({}, partial(reconstruction_errors, generator=memorising, setting=setting))
    scores = reconstruction(_take(asked.targets, [case.subject for case in chosen]), leaking, reference)
    clean = by_person(found, asked.targets.subjects, asked.persons)[~asked.is_member]
    return Planted(
        "planted-memory",
        f"generator made to half remember {len(chosen)} members, seen by '{BY_NAME['reconstruction'].title}'",
        scores,
        clean,
    )


def plant_few(asked: Asked, few: Sequence[Case], found: Mapping[str, Scores]) -> Planted:
    """Return what an attack gave on the release of few: its members, and all others whoever they are."""
    scores = asked.per_person(found)[SEES_FEW]
    inside = np.array([cases[0].person in {case.person for case in few} for cases in asked.persons])
    title = f"generator trained on {len(few)} members alone, seen by '{BY_NAME[SEES_FEW].title}'"
    return Planted("overtrained", title, scores[inside], scores[~inside])


def _take(targets: Targets, subjects: Sequence[str]) -> Targets:
    places = [targets.subjects.index(subject) for subject in subjects]
    cases = tuple(targets.cases[place] for place in places)
    return Targets(tuple(subjects), {level: views[places] for level, views in targets.views.items()}, cases)


def _scans_of_others(asked: Asked) -> Targets:
    others = [cases for cases, is_in in zip(asked.persons, asked.is_member, strict=True) if not is_in]
    return _take(asked.targets, [case.subject for cases in others for case in cases])
