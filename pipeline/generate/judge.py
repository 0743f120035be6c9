"""The judge: a segmenter trained on real training patients, that looks at synthetic scans.

It says whether a scan shows the tumour that its label map asks for, and its inner features are what realism is
measured on. It is trained on members and stays in the building.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.cohort import INTENSITY_MAX, Case, Cohort
from pipeline.config import ComputeSection
from pipeline.config_evaluate import SegmenterSection
from pipeline.labels import LabelScheme, UInt8Array
from pipeline.segmentation.arms import Arm
from pipeline.segmentation.inference import PREDICTION_BATCH, Inference, predict_case
from pipeline.segmentation.metrics import dice
from pipeline.segmentation.networks import Segmenter
from pipeline.segmentation.scans import ScanPool
from pipeline.segmentation.segmenter import SegmenterPlan, train_segmenter


@dataclass(frozen=True)
class Judge:
    """A trained segmenter, ready to look at cases.

    Parameters
    ----------
    segmenter : Segmenter
    inference : Inference
        How it is applied.
    scheme : LabelScheme
    """

    segmenter: Segmenter
    inference: Inference
    scheme: LabelScheme

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that it looks at."""
        return self.inference.modalities

    @property
    def device(self) -> torch.device:
        """Where the segmenter is."""
        return next(self.segmenter.parameters()).device

    def segment(self, case: Case) -> UInt8Array:
        """Return the tumour map that the judge sees: (x, y, z), uint8."""
        return predict_case(self.segmenter, case, self.inference)

    def score(self, case: Case, seen: UInt8Array) -> dict[str, float]:
        """Return the Dice of what is seen with the case's own label map, by region."""
        asked = np.asarray(case.tumor_map())
        return {
            region: dice(self.scheme.region_mask(seen, region), self.scheme.region_mask(asked, region))
            for region in self.scheme.regions
        }

    @torch.no_grad()
    def features(self, scans: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what the judge's encoder makes of slices: means over each slice of its deepest features.

        Parameters
        ----------
        scans : ndarray, (n, modalities, x, y), float32 in [0, 1000]

        Returns
        -------
        ndarray, (n, features), float64
        """
        rows = []
        for start in range(0, len(scans), PREDICTION_BATCH):
            batch = torch.from_numpy(scans[start : start + PREDICTION_BATCH]) * (2.0 / INTENSITY_MAX) - 1.0
            rows.append(self.segmenter.encode(batch.to(self.device)).mean(dim=(2, 3)).double().cpu().numpy())
        return np.concatenate(rows)


def train_judge(
    cohort: Cohort,
    members: Sequence[Case],
    config: SegmenterSection,
    compute: ComputeSection,
    seed: int,
    folder: Path,
) -> Judge:
    """Train a judge; its checkpoint is chosen on val.

    Parameters
    ----------
    cohort : Cohort
    members : sequence of Case
        Those that the generator was trained on; who lacks a modality is left out.
    config : SegmenterSection
    compute : ComputeSection
    seed : int
    folder : Path
        For ``checkpoints/``; one found there is gone on from.
    """
    members = cohort.complete(members)
    scans = ScanPool(cohort.modalities)
    window = scans.fit_window(members, config.dimensions, 2**config.levels)
    plan = SegmenterPlan(
        arm=Arm("real-aug", 1.0, members, config.augmentation),
        val_cases=cohort.patients("val"),
        scheme=cohort.scheme,
        modalities=cohort.modalities,
        config=config,
        compute=compute,
        window=window,
        seed=seed,
        description="judge",
        section="generate.judge",
    )
    best = train_segmenter(plan, scans, folder)
    return Judge(best.segmenter, plan.inference, cohort.scheme)
