"""What must not be asked for together with differential privacy: each setting that looks at a patient elsewhere.

The promise covers what the discriminator learned by DP-SGD and what follows from it. A generator that also sees a real
scan, a real label map, or a statistic of the members by another way is not covered, however small its epsilon.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import RunConfig


def list_conflicts(config: "RunConfig") -> list[str]:
    """Return what breaks the promise of differential privacy, each with its reason; nothing without `train.privacy`.

    Parameters
    ----------
    config : RunConfig

    Returns
    -------
    list of str
        ``key: expected ..., got ...: why``.
    """
    train, generate = config.train, config.generate
    if train.privacy is None:
        return []
    recombined = generate.label_sources.get("recombine", 0.0)
    private_contrast = "contrast" in generate.strata and generate.contrast_edges is None
    rules = [
        (
            train.reconstruction_weight > 0,
            f"train.reconstruction_weight: expected 0, got {train.reconstruction_weight:g}: an L1 to real scans shows "
            "them to the generator itself",
        ),
        (
            train.class_balance > 0,
            f"train.class_balance: expected 0, got {train.class_balance:g}: weights by the batch let one "
            "patient's label map change the others' gradients, and clipping bounds each patient's own alone",
        ),
        (
            train.feature_matching_weight > 0,
            f"train.feature_matching_weight: expected 0, got {train.feature_matching_weight:g}: features of real scans "
            "reach the generator without noise",
        ),
        (
            train.perceptual_weight > 0,
            f"train.perceptual_weight: expected 0, got {train.perceptual_weight:g}: the perceptual loss compares with "
            "real scans",
        ),
        (
            train.style == "measured",
            "train.style: expected random, got measured: style codes are fitted on the members' scans",
        ),
        (
            recombined > 0,
            f"generate.label_sources: expected {{atlas: 1}}, got recombine {recombined:g}: its label maps are "
            "patients' own, recombined",
        ),
        (
            generate.balance in ("like-source", "fill-gaps"),
            f"generate.balance: expected uniform or table, got {generate.balance}: it copies, or complements, how "
            "tumours are distributed among the members",
        ),
        (
            private_contrast,
            "generate.contrast_edges: expected two numbers, got none: they would be quantiles of the members' scans",
        ),
        (
            generate.curation.candidates > 1,
            f"generate.curation.candidates: expected 1, got {generate.curation.candidates}: a segmenter trained on "
            "real patients would choose",
        ),
        (
            generate.curation.drop_near_duplicates,
            "generate.curation.drop_near_duplicates: expected false, got true: which candidates are refused tells who "
            "was looked up; the audit still searches for copies",
        ),
        (
            config.ingest.missing_modalities == "train",
            "ingest.missing_modalities: expected quarantine, got train: modalities that members lack would teach the "
            "generator to leave them out",
        ),
        (
            config.compute.precision != "32-true",
            f"compute.precision: expected 32-true, got {config.compute.precision}: gradients must be clipped exactly",
        ),
    ]
    return [text for breaks, text in rules if breaks]
