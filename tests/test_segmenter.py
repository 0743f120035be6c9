import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.cohort import Case, CaseData, digest_tree, open_cohort, write_case, write_cohort_files
from pipeline.config import RunConfig
from pipeline.errors import DataError
from pipeline.evaluate import stage, trainings
from pipeline.labels import MODALITIES, LabelScheme
from pipeline.runner import StageContext
from pipeline.seeds import numpy_stream, torch_stream
from pipeline.segmentation.arms import ArmSampler, ScanPool, choose_real_cases, fit_window, make_arm
from pipeline.segmentation.augmentation import augment
from pipeline.segmentation.segmenter import SegmenterPlan, learning_rate, predict_case, train_segmenter

SHAPE = (18, 16, 6)
SPLITS = ("train", "train", "train", "train", "val", "test", "test", "test")


def write_tiny_cohort(root, splits, first=0):
    """Brains are boxes within a margin, tumours bright cubes within them."""
    rows = []
    for number, split in enumerate(splits, start=first):
        rng = np.random.default_rng(number)
        tissue, tumor = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
        tissue[3:15, 2:14, 1:5] = 2
        x, y = rng.integers(4, 9, 2)
        tumor[x : x + 4, y : y + 4, 2:4], tumor[x : x + 2, y : y + 2, 2:4] = 2, 1
        tissue[tumor > 0] = 0
        brain = (tissue > 0) | (tumor > 0)
        noise = rng.integers(0, 40, SHAPE)
        images = {name: (brain * (300 + 200 * tumor.astype(int) + noise)).astype(np.int16) for name in MODALITIES}
        subject = f"s{number:03d}"
        write_case(root, CaseData(subject, images, tissue, tumor, np.diag([4.0, 4.0, 4.0, 1.0]), {}))
        rows.append({"participant_id": f"sub-{subject}", "source": "made", "split": split})
    write_cohort_files(root, "tiny", LabelScheme(), rows, "made for tests")


@pytest.fixture
def config():
    sections = {"steps": 4, "validate_every": 2, "filters": 8, "batch_size": 4, "n_seeds": 1, "n_bootstrap": 200}
    return RunConfig.model_validate({"evaluate": sections, "compute": {"accelerator": "cpu"}})


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_tiny_cohort(folder / "cohort", SPLITS)
    write_tiny_cohort(folder / "synthetic", ("n/a",) * 3, first=100)
    return folder


@pytest.fixture
def real(run_dir):
    return open_cohort(run_dir / "cohort")


@pytest.fixture
def synthetic(run_dir):
    return open_cohort(run_dir / "synthetic")


class Recorder:
    """Takes what a stage records; raises once a metric is recorded that often."""

    def __init__(self, fail_after=None):
        self.values, self.tables, self.images, self._left = {}, {}, [], fail_after

    def metrics(self, values, step=0):
        if self._left == 0:
            raise KeyboardInterrupt
        self._left = None if self._left is None else self._left - 1
        for key, value in values.items():
            self.values.setdefault(key, []).append((step, value))

    def table(self, name, rows):
        self.tables[name] = rows

    def image(self, key, path, step=0):
        self.images.append(path)


def plan_of(config, real, synthetic, name="real-syn-aug"):
    arm = make_arm(name, real.split("train"), synthetic.cases, config.evaluate)
    window = fit_window(np.ones(SHAPE[:2], bool), 8)
    return SegmenterPlan(
        arm, real.split("val"), real.scheme, real.modalities, config.evaluate, config.compute, window, seed=3
    )


@pytest.mark.parametrize(
    ("name", "n_real", "n_synthetic", "share", "strength"),
    [
        ("real", 4, 0, 0.0, 0.0),
        ("real-aug", 4, 0, 0.0, 1.0),
        ("real-syn", 4, 3, 0.25, 0.0),
        ("real-syn-aug", 4, 3, 0.25, 1.0),
        ("syn", 0, 3, 1.0, 0.0),
    ],
)
def test_each_arm_uses_its_cases(config, real, synthetic, name, n_real, n_synthetic, share, strength):
    arm = make_arm(name, real.split("train"), synthetic.cases, config.evaluate)
    assert (len(arm.real_cases), len(arm.synthetic_cases)) == (n_real, n_synthetic)
    assert (arm.synthetic_share, arm.augmentation_strength) == (share, strength)


def test_an_arm_without_its_cases_is_refused(config, real):
    with pytest.raises(DataError, match="synthetic training cases"):
        make_arm("syn", real.split("train"), (), config.evaluate)


def test_a_smaller_share_of_real_patients_is_a_subset(real):
    train = real.split("train")
    half, most = (choose_real_cases(train, share, seed=5) for share in (0.5, 0.75))
    assert (len(half), len(most)) == (2, 3)
    assert {case.subject for case in half} <= {case.subject for case in most}
    assert choose_real_cases(train, 0.01, seed=5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("share", "n_persons"), [(0.01, 1), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_all_scans_of_a_person_are_chosen_or_none(tmp_path, seed, share, n_persons):
    # Four persons with 3, 1, 2 and 1 scans, in an order that mixes them.
    owners = ["a", "b", "c", "a", "d", "c", "a"]
    scans = [Case(f"{number:04x}", tmp_path, attributes={"person": owner}) for number, owner in enumerate(owners)]
    chosen = choose_real_cases(scans, share, seed)
    persons = {scan.person for scan in chosen}
    assert len(persons) == n_persons
    assert list(chosen) == [scan for scan in scans if scan.person in persons]


def test_batches_hold_the_synthetic_share_on_average(config, real, synthetic):
    arm = make_arm("real-syn", real.split("train"), synthetic.cases, config.evaluate)
    sampler = ArmSampler(arm, ScanPool(("t1",)), fit_window(np.ones(SHAPE[:2], bool), 8))
    drawn = {"real": 0, "synthetic": 0}

    class Counter:
        def __init__(self, kind):
            self.kind = kind

        def __len__(self):
            return 1

        def __getitem__(self, index):
            drawn[self.kind] += 1
            return SimpleNamespace(
                choose_slice=lambda *_: 0, read_slice=lambda *_: (np.zeros((1, 2, 2), np.int16), np.zeros((2, 2)))
            )

    sampler._real, sampler._synthetic = Counter("real"), Counter("synthetic")
    for step in range(200):
        sampler.draw(6, numpy_stream(0, step))
    # A quarter of 6 is 1.5: 300 of 1,200; SD of the rounding sqrt(200) / 2 = 7
    assert drawn["synthetic"] == pytest.approx(300, abs=28)
    assert sum(drawn.values()) == 1200


def test_half_of_the_slices_have_tumour_at_least(config, real, synthetic):
    plan = plan_of(config, real, synthetic, "real")
    scan, labels = ArmSampler(plan.arm, ScanPool(real.modalities), plan.window).draw(200, numpy_stream(1))
    assert scan.shape == (200, 4, 18, 16)
    assert float(scan.min()) == -1.0
    assert float(scan.max()) <= 1.0
    # Half on purpose, and of the other half 2 of the 4 slices with brain: .75, SD .03
    assert (labels > 0).flatten(1).any(dim=1).float().mean() == pytest.approx(0.75, abs=0.12)


def test_the_window_holds_the_extent_and_suits_the_network():
    extent = np.zeros((40, 21), bool)
    extent[10:19, 5:20] = True
    # 9 -> 16 voxels about (10 + 19) / 2; 15 -> 16, moved to stay inside
    assert fit_window(extent, 8) == (slice(6, 22), slice(4, 20))
    assert fit_window(np.ones((20, 20), bool), 8) == (slice(0, 20), slice(0, 20))


@pytest.mark.parametrize("spatial", [(20, 24), (12, 16, 10)])
def test_augmentation_keeps_shapes_range_and_background(spatial):
    scan = torch.full((16, 4, *spatial), -1.0)
    labels = torch.zeros(16, 1, *spatial)
    inside = (slice(None), slice(None), *[slice(3, n - 3) for n in spatial])
    scan[inside] = torch.rand(scan[inside].shape, generator=torch_stream(0)) - 0.5
    labels[(slice(None), slice(None), *[slice(4, 8)] * len(spatial))] = 3.0
    moved, moved_labels = augment(scan, labels, 1.0, torch_stream(1))
    assert (moved.shape, moved.dtype) == (scan.shape, torch.float32)
    assert moved.min() == -1.0
    assert moved.max() <= 1.0
    # The corner is outside of every rotated and scaled box.
    assert (moved[(slice(None), slice(None), *[0] * len(spatial))] == -1.0).all()
    assert set(moved_labels.unique().tolist()) == {0.0, 3.0}
    assert not torch.equal(moved, scan)
    again, _ = augment(scan, labels, 1.0, torch_stream(1))
    assert torch.equal(moved, again)


def test_background_stays_where_nothing_moves(monkeypatch):
    from pipeline.segmentation import augmentation

    for name in ("FLIP_PROBABILITY", "ROTATION_PROBABILITY", "SCALE_PROBABILITY"):
        monkeypatch.setattr(augmentation, name, 0.0)
    changes = tuple((1.0, change) for _, change in augmentation._INTENSITY_CHANGES)
    monkeypatch.setattr(augmentation, "_INTENSITY_CHANGES", changes)
    scan = torch.full((4, 2, 16, 16), -1.0)
    scan[:, :, 4:12, 4:12] = torch.rand(4, 2, 8, 8, generator=torch_stream(0))
    labels = (scan[:, :1] > 0.5).float()
    changed, same_labels = augment(scan, labels, 1.0, torch_stream(2))
    outside = (scan == -1.0).all(dim=1, keepdim=True).expand_as(scan)
    assert (changed[outside] == -1.0).all()
    assert not torch.equal(changed[~outside], scan[~outside])
    assert torch.equal(labels, same_labels)


def test_labels_move_with_the_scan():
    labels = torch.zeros(32, 1, 20, 28)
    labels[:, :, 6:12, 8:18] = 1.0
    moved, moved_labels = augment(labels * 1.5 - 0.9, labels, 1.0, torch_stream(4))
    inside = (moved * moved_labels).sum(dim=(1, 2, 3)) / moved_labels.sum(dim=(1, 2, 3))
    outside = (moved * (1 - moved_labels)).sum(dim=(1, 2, 3)) / (1 - moved_labels).sum(dim=(1, 2, 3))
    assert (inside - outside > 0.5).all()


def test_augmentation_of_strength_zero_changes_nothing():
    scan, labels = torch.rand(2, 1, 8, 8) - 0.5, torch.ones(2, 1, 8, 8)
    moved, moved_labels = augment(scan, labels, 0.0, torch_stream(0))
    assert torch.equal(moved, scan)
    assert torch.equal(moved_labels, labels)


def test_the_step_size_falls_along_half_a_cosine(config):
    # 4 steps: cos(0) = 1, cos(pi / 2) = 0
    assert learning_rate(config.evaluate, 0) == pytest.approx(1e-3)
    assert learning_rate(config.evaluate, 2) == pytest.approx(5e-4)


def test_the_step_size_rises_over_the_first_tenth_of_the_steps(config):
    longer = config.evaluate.model_copy(update={"steps": 100})
    rates = [learning_rate(longer, step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == rates[9] == pytest.approx(1e-3, rel=0.03)
    assert np.all(np.diff(rates[:10]) > 0)
    assert np.all(np.diff(rates[9:]) < 0)


def test_a_killed_training_ends_with_the_same_weights(monkeypatch, tmp_path, config, real, synthetic):
    from pipeline.segmentation import segmenter

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


def test_the_best_weights_on_val_are_kept(monkeypatch, tmp_path, config, real, synthetic):
    from pipeline.segmentation import segmenter

    answers, seen = iter([0.6, 0.4]), []

    def fake_validate(network, plan):
        seen.append({key: value.clone() for key, value in network.state_dict().items()})
        return next(answers)

    monkeypatch.setattr(segmenter, "validate", fake_validate)
    best = train_segmenter(plan_of(config, real, synthetic), ScanPool(real.modalities), tmp_path)
    assert best.curve.tolist() == [0.6, 0.4]
    for key, value in best.segmenter.state_dict().items():
        assert torch.equal(value, seen[0][key])


def test_prediction_covers_the_brain_beyond_the_training_window(real):
    class Threshold(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def forward(self, scan):
            tumor = (scan[:, :1] > 0.0).float()
            return torch.cat([1 - tumor, tumor], dim=1)

    case = real.split("test")[0]
    predicted = predict_case(Threshold(), case, real.modalities, (slice(6, 14), slice(4, 12)))
    # Tumour intensities start at 500, the middle of the scale; noise of up to 39 is added.
    assert predicted.dtype == np.uint8
    assert np.array_equal(predicted > 0, (np.asarray(case.tumor_map()) > 0) & (case.image("t1") > 500))


def test_the_stage_writes_the_same_bytes_after_a_kill(tmp_path, config, run_dir):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    recorder = Recorder()
    for folder in (whole, cut):
        folder.mkdir()
    summary = stage.run(StageContext(config, run_dir, whole, 7, recorder))
    # Two validations a training: killed in the second arm's first.
    with pytest.raises(KeyboardInterrupt):
        stage.run(StageContext(config, run_dir, cut, 7, Recorder(fail_after=2)))
    assert stage.run(StageContext(config, run_dir, cut, 7, Recorder())) == summary
    assert digest_tree(whole) == digest_tree(cut)
    assert not list(whole.rglob("*.safetensors"))
    check_outputs(whole, config, recorder)


def check_outputs(folder, config, recorder):
    gain = json.loads((folder / "gain.json").read_text())
    assert [arm["name"] for arm in gain["arms"]] == list(config.evaluate.arms)
    for arm in gain["arms"]:
        assert {"share", "regions", "n_patients", "n_seeds", "steps"} <= arm.keys()
        assert {"mean", "sd", "ci"} == arm["regions"]["WT"]["hd95"].keys()
    # 4 arms beside the baseline, 3 regions, 2 metrics
    assert len(gain["comparisons"]) == 24
    expected = {"arm", "baseline", "share", "region", "metric", "delta", "ci", "p_holm", "sentence"}
    assert expected <= gain["comparisons"][0].keys()
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Three test patients, and no other.
    assert {row["patient"] for row in rows} == {"s005", "s006", "s007"}
    for name in ("arms", "gain", "segmentations"):
        assert (folder / "figures" / f"{name}.png").is_file()
    assert [step for step, _ in recorder.values["real-aug/dice_val"]] == [2, 4]
    assert len(recorder.tables["arms"]) == 5
    # Four steps teach nothing, and the summary says so.
    assert "has not been learnt in" in gain["summary"]


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_a_cohort_without_one_side_of_the_split_is_refused(real, synthetic, missing):
    kept = SimpleNamespace(split=lambda side: () if side == missing else real.cases)
    with pytest.raises(DataError, match=f"no {missing} patients"):
        trainings.check_cohorts(kept, synthetic)


def test_a_synthetic_cohort_with_other_modalities_is_refused(real, synthetic):
    import dataclasses

    with pytest.raises(DataError, match="modalities of the synthetic cohort"):
        trainings.check_cohorts(real, dataclasses.replace(synthetic, modalities=("t1",)))


def test_a_curve_that_still_rises_has_no_plateau():
    assert stage.has_plateau([0.5, 0.6, 0.605])
    assert not stage.has_plateau([0.5, 0.6, 0.62])
    assert not stage.has_plateau([0.5])
