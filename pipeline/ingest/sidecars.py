"""JSON sidecars of an ingested case: what was done to it, step by step; no header field of the source."""

from typing import Any

from pipeline.cohort import INTENSITY_MAX
from pipeline.config import IngestSection
from pipeline.ingest.manifest import Manifest

EXTRACTION_METHODS = {
    "atlas": "mask of the ICBM 2009a atlas, brought onto the scan by affine registration",
    "synthstrip": "SynthStrip (Hoopes et al. 2022), weights named by the user",
    "hd-bet": "HD-BET (Isensee et al. 2019), weights named by the user",
}


def build_sidecars(
    manifest: Manifest, config: IngestSection, reference: str, found_brain: bool
) -> dict[str, dict[str, Any]]:
    """Return the sidecar of each modality and of the two label maps.

    Parameters
    ----------
    manifest : Manifest
    config : IngestSection
    reference : str
        Modality that the others were brought onto, and that tissue classes were made from.
    found_brain : bool
        Whether the brain was extracted here, neither given nor stripped already.
    """
    low, high = config.intensity_percentiles
    image = {
        "Description": "Harmonised for training: oriented, resampled, scaled",
        "SkullStripped": True,
        **_alignment(manifest, config, reference, found_brain),
        "IntensityScaling": {
            "Method": "linear within the brain mask, clipped",
            "Percentiles": [low, high],
            "Range": [0, INTENSITY_MAX],
        },
        "Resampling": {
            "Orientation": "RAS",
            "SpacingMillimetres": config.spacing_mm,
            "Interpolation": "Gaussian against aliasing, then linear",
        },
    }
    sidecars: dict[str, dict[str, Any]] = {name: dict(image) for name in manifest.modalities}
    sidecars["tumor"] = {"Manual": True, "Resampling": "largest share of a voxel"}
    sidecars["tissue"] = {
        "Manual": False,
        "Method": "hidden Markov random field (Zhang et al. 2001), tumour excluded",
        "Reference": reference,
        "Beta": config.tissue_smoothness,
    }
    return sidecars


def _alignment(manifest: Manifest, config: IngestSection, reference: str, found_brain: bool) -> dict[str, Any]:
    """Return the steps that were switched on for this data set."""
    steps: dict[str, Any] = {}
    registers = config.coregister if config.coregister is not None else not manifest.prepared.coregistered
    if registers:
        steps["CoRegistration"] = {"Method": "rigid, Mattes mutual information", "Reference": reference}
    if found_brain:
        steps["BrainExtraction"] = {"Method": EXTRACTION_METHODS[config.brain_extraction]}
    if config.atlas_registration:
        steps["AtlasRegistration"] = {"Method": "affine, Mattes mutual information", "Atlas": "ICBM 2009a, 2 mm"}
    if config.bias_correction:
        steps["BiasCorrection"] = {"Method": "N4 (Tustison et al. 2010)", "ShrinkFactor": 2, "Iterations": [20] * 3}
    return steps
