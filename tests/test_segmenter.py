"""Training of a segmenter: resume, step size, and the checkpoint chosen on val."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from segment_builders import plan_of, tiny_evaluation

from pipeline.errors import DataError
from pipeline.segmentation import segmenter
from pipeline.segmentation.scans import ScanPool
from pipeline.segmentation.segmenter import check_val, learning_rate, train_segmenter, validate


def test_the_step_size_falls_along_half_a_cosine():
    config = tiny_evaluation()
    # 4 steps: cos(0) = 1, cos(pi / 2) = 0
    assert learning_rate(config.evaluate, 0) == pytest.approx(1e-3)
    assert learning_rate(config.evaluate, 2) == pytest.approx(5e-4)


def test_the_step_size_rises_over_the_first_tenth_of_the_steps():
    longer = tiny_evaluation().evaluate.model_copy(update={"steps": 100})
    rates = [learning_rate(longer, step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == rates[9] == pytest.approx(1e-3, rel=0.03)
    assert np.all(np.diff(rates[:10]) > 0)
    assert np.all(np.diff(rates[9:]) < 0)


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_background_counts_what_the_config_says(monkeypatch, tmp_path, real, synthetic, weight):
    honest, used = segmenter.supervised_loss, []

    def note(criterion, logits, labels):
        used.append(criterion.cross_entropy.weight.tolist())
        return honest(criterion, logits, labels)

    monkeypatch.setattr(segmenter, "supervised_loss", note)
    config = tiny_evaluation(background_weight=weight)
    train_segmenter(plan_of(config, real, synthetic), ScanPool(real.modalities), tmp_path)
    assert used == [pytest.approx([weight, 1.0, 1.0, 1.0])] * config.evaluate.steps


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"network": "dynunet"},
        {"dimensions": 3, "batch_size": 2},
        {"network": "dynunet", "dimensions": 3, "levels": 2, "batch_size": 2, "patch_voxels": [8, 8, 8]},
        {"patch_voxels": [16, 16], "test_time_flips": True},
    ],
    ids=["segresnet", "dynunet", "volumes", "dynunet-patches", "patches"],
)
def test_a_killed_training_ends_with_the_same_weights(monkeypatch, tmp_path, real, synthetic, changes):
    config = tiny_evaluation(**changes)
    plan, scans = plan_of(config, real, synthetic), ScanPool(real.modalities)
    assert plan.validation_steps == (2, 4)
    whole = train_segmenter(plan, scans, tmp_path / "whole")
    validated, honest = [], segmenter.validate

    def kill_at_the_end(network, plan):
        validated.append("")
        if len(validated) == 2:
            raise KeyboardInterrupt
        return honest(network, plan)

    monkeypatch.setattr(segmenter, "validate", kill_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        train_segmenter(plan, scans, tmp_path / "cut")
    resumed = train_segmenter(plan, scans, tmp_path / "cut")
    # Two before the kill, and the second again: the first was not repeated.
    assert len(validated) == 3
    assert whole.state_dict().keys() == resumed.state_dict().keys()
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_the_best_weights_on_val_are_kept(monkeypatch, tmp_path, real, synthetic):
    answers, seen = iter([0.6, 0.4]), []

    def fake_validate(network, plan):
        seen.append({key: value.clone() for key, value in network.state_dict().items()})
        return next(answers)

    monkeypatch.setattr(segmenter, "validate", fake_validate)
    best = train_segmenter(plan_of(tiny_evaluation(), real, synthetic), ScanPool(real.modalities), tmp_path)
    assert best.curve.tolist() == [0.6, 0.4]
    for key, value in best.segmenter.state_dict().items():
        assert torch.equal(value, seen[0][key])


@pytest.mark.parametrize("where", ["loss", "weights"])
def test_a_diverged_training_is_told_apart_and_a_rerun_goes_on_from_what_was_sound(
    monkeypatch, tmp_path, real, synthetic, where
):
    plan, scans = plan_of(tiny_evaluation(), real, synthetic), ScanPool(real.modalities)
    honest, n_calls = segmenter.supervised_loss, []

    def spoil(criterion, logits, labels):
        n_calls.append("")
        loss = honest(criterion, logits, labels)
        if len(n_calls) < 4:
            return loss
        # A loss that is not finite, or a finite one whose gradient is not: 0 to the power of .5, squared.
        return loss * torch.nan if where == "loss" else loss + (logits * 0.0).abs().pow(0.5).sum()

    monkeypatch.setattr(segmenter, "supervised_loss", spoil)
    with pytest.raises(DataError, match=r"real-syn-aug-1: diverged by step 4 of 4; .* lower evaluate\.learning_rate"):
        train_segmenter(plan, scans, tmp_path)
    assert [mark.stem for mark in (tmp_path / "checkpoints").glob("*.json")] == ["step-00000002"]
    monkeypatch.setattr(segmenter, "supervised_loss", honest)
    lower = replace(plan, config=plan.config.model_copy(update={"learning_rate": 1e-4}))
    best = train_segmenter(lower, scans, tmp_path)
    assert bool(best.losses.isfinite().all())
    assert all(bool(weight.isfinite().all()) for weight in best.segmenter.parameters())


def test_gradients_are_clipped_to_a_norm_of_12(monkeypatch, tmp_path, real, synthetic):
    honest, norms = segmenter.supervised_loss, []
    monkeypatch.setattr(segmenter, "supervised_loss", lambda *given: 1e4 * honest(*given))
    step = torch.optim.AdamW.step

    def note(optimizer, *given, **named):
        gradients = [weight.grad for group in optimizer.param_groups for weight in group["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.cat([one.flatten() for one in gradients]))))
        return step(optimizer, *given, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    train_segmenter(plan_of(tiny_evaluation(), real, synthetic), ScanPool(real.modalities), tmp_path)
    assert norms == pytest.approx([12.0] * 4, rel=1e-3)


class Patient:
    def __init__(self, tumor_map):
        self._tumor_map = np.array(tumor_map, np.uint8)

    def tumor_map(self):
        return self._tumor_map


def test_dice_on_val_is_the_mean_over_patients_of_the_regions_that_they_have(monkeypatch, real, synthetic):
    # Classes: 1 necrotic core, 2 oedema, 3 enhancing. The prediction is oedema in the first two of four voxels.
    monkeypatch.setattr(segmenter, "predict_case", lambda *_: np.array([2, 2, 0, 0], np.uint8))
    plan = plan_of(tiny_evaluation(), real, synthetic)
    oedema_only, with_core, without = Patient([2, 0, 0, 0]), Patient([1, 2, 0, 0]), Patient([0, 0, 0, 0])
    # WT 2 * 1 / (2 + 1) = 2/3; it has no core and no enhancing tumour, so these do not count.
    first = 2 / 3
    # WT 1, TC 0; no enhancing tumour.
    second = (1 + 0) / 2
    for patients, expected in (
        ((oedema_only,), first),
        ((oedema_only, with_core), (first + second) / 2),
        ((oedema_only, without), first),
    ):
        found = validate(torch.nn.Identity(), replace(plan, val_cases=patients))
        assert found == pytest.approx(expected)
    with pytest.raises(DataError, match="no patient of val has a tumour"):
        check_val([without, without])
