"""Stage evaluate: segmenters with and without synthetic scans, compared on real test patients."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cohort import Case, Cohort, open_cohort, write_json
from pipeline.config import ArmName
from pipeline.errors import DataError
from pipeline.evaluate.arms import Arm, ScanPool, Window, choose_real_cases, fit_window, make_arm
from pipeline.evaluate.comparison import Score, Statistics
from pipeline.evaluate.gain import write_results
from pipeline.evaluate.metrics import score_patient
from pipeline.evaluate.segmenter import SIZE_MULTIPLE, BestSegmenter, SegmenterPlan, predict_case, train_segmenter
from pipeline.figures import tumor_centre
from pipeline.runner import StageContext
from pipeline.seeds import derive_seed

MAX_PICTURED = 4
SCORES_FILE, PICTURED_FILE = "scores.json", "pictured.npy"


@dataclass(frozen=True)
class Experiment:
    """What all trainings share.

    Parameters
    ----------
    real : Cohort
    arms : dict of str to Arm
    scans : ScanPool
        Training scans, opened once.
    window : tuple of slice
        Field of view that holds every training scan, the same in each arm.
    pictured : tuple of Case
        Test patients that are shown, from small to large tumours.
    """

    real: Cohort
    arms: dict[ArmName, Arm]
    scans: ScanPool
    window: Window
    pictured: tuple[Case, ...]


def run(context: StageContext) -> dict[str, Any]:
    """Train every arm with every seed, score them on test patients, write ``gain.json``, ``scores.csv``, figures."""
    config = context.config.evaluate
    experiment = open_experiment(context)
    scores: list[Score] = []
    curves: dict[str, list[list[float]]] = {}
    for arm in experiment.arms.values():
        for seed in range(config.n_seeds):
            record = train_and_score(context, experiment, arm, seed)
            scores += _unpack_scores(record["scores"], arm.name, seed)
            curves.setdefault(arm.name, []).append(record["dice_val"])
    statistics = Statistics(config.n_bootstrap, config.alpha, derive_seed(context.seed, "bootstrap"))
    return write_results(context, experiment, scores, curves, statistics)
