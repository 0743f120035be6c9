"""What the arms are made of, and that they all see the same real patients at each step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from segment_builders import QUARTER, SHAPE, arm_of, tiny_evaluation

from pipeline.cohort import Case
from pipeline.config_evaluate import MIXED_ARMS, AugmentationSection
from pipeline.errors import DataError
from pipeline.seeds import numpy_stream
from pipeline.segmentation import sampling
from pipeline.segmentation.arms import DESIGNS, Mixing, choose_real_cases, choose_synthetic_cases, list_arms, make_arm
from pipeline.segmentation.sampling import ArmSampler
from pipeline.segmentation.scans import FieldOfView, ScanPool

WHOLE = FieldOfView((slice(0, 18), slice(0, 16)))


def sampler_of(config, real, synthetic, name, mixing=QUARTER, view=WHOLE):
    arm = arm_of(config, real, synthetic, name, mixing)
    return ArmSampler(arm, ScanPool(real.modalities), view, real.scheme, len(real.modalities), seed=7)


@pytest.mark.parametrize(
    ("name", "share", "counts", "mixing", "augments"),
    [
        ("real", 0.5, (4, 0), (0.0, "mixed"), False),
        ("real-aug", 0.5, (4, 0), (0.0, "mixed"), True),
        ("real-syn", 0.5, (4, 3), (0.25, "mixed"), False),
        ("real-syn-aug", 0.5, (4, 3), (0.25, "mixed"), True),
        ("syn", 0.0, (0, 3), (1.0, "mixed"), False),
        ("syn-aug", 0.0, (0, 3), (1.0, "mixed"), True),
        ("syn-ft", 0.5, (4, 3), (0.4, "synthetic-first"), False),
        ("syn-ft-aug", 0.5, (4, 3), (0.4, "synthetic-first"), True),
        ("copypaste-aug", 0.5, (4, 0), (0.0, "mixed"), True),
        ("random-contrast-aug", 0.5, (4, 3), (0.25, "mixed"), True),
    ],
)
def test_each_arm_uses_its_cases(real, synthetic, name, share, counts, mixing, augments):
    config = tiny_evaluation(pretraining_share=0.4)
    arm = arm_of(config, real, synthetic, name, share=0.5)
    assert arm.share == share
    assert (len(arm.real_cases), len(arm.synthetic_cases)) == counts
    assert (arm.mixing.synthetic_share, arm.mixing.schedule) == mixing
    assert arm.augmentation == (AugmentationSection() if augments else AugmentationSection.off())
    assert arm.is_rendered == (name == "random-contrast-aug")
    assert arm.mixing.paste_share == (0.5 if name == "copypaste-aug" else 0.0)


def test_arms_that_mix_take_the_chosen_schedule(real, synthetic):
    chosen = Mixing(0.75, "synthetic-first")
    for name in ("real-syn", "random-contrast-aug"):
        assert arm_of(tiny_evaluation(), real, synthetic, name, chosen).mixing == chosen


def test_synthetic_first_shows_its_share_of_the_steps_whole_batches():
    mixing = Mixing(0.4, "synthetic-first")
    assert [mixing.share_at(step / 5) for step in range(5)] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert [Mixing(0.4).share_at(step / 5) for step in range(5)] == [0.4] * 5


def test_arms_are_listed_at_each_share_and_those_without_real_scans_once():
    config = tiny_evaluation(arms=["real-aug", "syn", "syn-ft"], shares=[1.0, 0.25]).evaluate
    assert list_arms(config) == (
        ("real-aug", 1.0),
        ("real-aug", 0.25),
        ("syn", 0.0),
        ("syn-ft", 1.0),
        ("syn-ft", 0.25),
    )


def test_an_arm_without_its_cases_is_refused(real):
    with pytest.raises(DataError, match="synthetic training cases"):
        make_arm("syn", 0.0, real.split("train"), (), QUARTER, tiny_evaluation().evaluate)


def test_pasting_needs_two_patients(real, synthetic):
    with pytest.raises(DataError, match=r"copypaste-aug at share 0\.1: expected at least two real training patients"):
        make_arm("copypaste-aug", 0.1, real.split("train")[:1], synthetic.cases, QUARTER, tiny_evaluation().evaluate)


def test_fewer_synthetic_cases_are_a_subset_of_more(synthetic):
    one, two = (choose_synthetic_cases(synthetic.cases, n, seed=3) for n in (1, 2))
    assert (len(one), len(two)) == (1, 2)
    assert {case.subject for case in one} < {case.subject for case in two}
    assert choose_synthetic_cases(synthetic.cases, None, seed=3) == synthetic.cases
    with pytest.raises(DataError, match="expected at most the 3 synthetic cases that there are, got 4"):
        choose_synthetic_cases(synthetic.cases, 4, seed=3)


def test_a_smaller_share_of_real_patients_is_a_subset(real):
    train = real.split("train")
    half, most = (choose_real_cases(train, share, seed=5) for share in (0.5, 0.75))
    assert (len(half), len(most)) == (2, 3)
    assert {case.subject for case in half} <= {case.subject for case in most}
    assert choose_real_cases(train, 0.01, seed=5)
    draws = {number: choose_real_cases(train, 0.5, 5, number) for number in range(8)}
    assert draws[0] == half
    assert len({tuple(case.subject for case in draw) for draw in draws.values()}) > 1
    assert {case.subject for draw in draws.values() for case in draw} == {case.subject for case in train}


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


def test_batches_hold_the_synthetic_share_on_average(real, synthetic):
    sampler = sampler_of(tiny_evaluation(), real, synthetic, "real-syn")
    drawn = [sampler.choose(6, step, 200) for step in range(200)]
    # A quarter of 6 is 1.5: 300 of 1,200; SD of the rounding sqrt(200) / 2 = 7
    assert sum(len(some) for some, _ in drawn) == pytest.approx(300, abs=28)
    assert all(len(some) in (1, 2) and len(some) + len(others) == 6 for some, others in drawn)


@pytest.mark.parametrize("name", ["real-aug", "real-syn", "real-syn-aug", "random-contrast-aug", "copypaste-aug"])
def test_every_arm_draws_the_same_real_slices_at_a_step_but_for_those_displaced(real, synthetic, name):
    config = tiny_evaluation()
    plain, other = (sampler_of(config, real, synthetic, arm) for arm in ("real", name))
    for step in range(10):
        _, expected = plain.choose(8, step, 10)
        displacing, found = other.choose(8, step, 10)
        assert [(one.scan.case.subject, one.place) for one in found] == [
            (one.scan.case.subject, one.place) for one in expected[len(displacing) :]
        ]
    assert len({one.scan.case.subject for step in range(10) for one in plain.choose(8, step, 10)[1]}) == 4


@pytest.mark.parametrize("name", ["syn-ft", "syn-ft-aug"])
def test_fine_tuning_sees_what_the_arms_of_real_scans_see_at_these_steps(real, synthetic, name):
    config = tiny_evaluation()
    plain, tuned = (sampler_of(config, real, synthetic, arm) for arm in ("real", name))
    counts = [tuple(map(len, tuned.choose(4, step, 10))) for step in range(10)]
    assert counts == [(4, 0)] * 5 + [(0, 4)] * 5
    for step in range(5, 10):
        (_, expected), (_, found) = plain.choose(4, step, 10), tuned.choose(4, step, 10)
        assert [(one.scan.case.subject, one.place) for one in found] == [
            (one.scan.case.subject, one.place) for one in expected
        ]


def test_a_real_slice_is_augmented_alike_in_every_arm(real, synthetic):
    config = tiny_evaluation()
    plain, mixed = (sampler_of(config, real, synthetic, arm) for arm in ("real-aug", "real-syn-aug"))
    for step in range(6):
        (first, first_labels), (second, second_labels) = (one.draw(6, step, 6) for one in (plain, mixed))
        n = len(mixed.choose(6, step, 6)[0])
        assert n > 0
        torch.testing.assert_close(first[n:], second[n:], rtol=0, atol=1e-5)
        assert torch.equal(first_labels[n:], second_labels[n:])
        assert not torch.equal(first[:n], second[:n])


def test_half_of_the_slices_have_tumour_at_least(real, synthetic):
    scan, labels = sampler_of(tiny_evaluation(), real, synthetic, "real").draw(200, 0, 1)
    assert scan.shape == (200, 4, 18, 16)
    assert float(scan.min()) == -1.0
    assert float(scan.max()) <= 1.0
    # Half on purpose, and of the other half 2 of the 4 slices with brain: .75, SD .03
    assert (labels > 0).flatten(1).any(dim=1).float().mean() == pytest.approx(0.75, abs=0.12)


@pytest.mark.parametrize(
    "view",
    [
        FieldOfView((slice(2, 18), slice(0, 16)), (8, 8)),
        FieldOfView((slice(2, 18), slice(0, 16), slice(0, 6)), (8, 8, 4)),
    ],
)
def test_half_of_the_patches_hold_tumour_and_all_lie_within_the_window(real, synthetic, view):
    sampler = sampler_of(tiny_evaluation(), real, synthetic, "real", view=view)
    _, drawn = sampler.choose(100, 0, 1)
    for one in drawn:
        for part, side, length in zip(one.place, view.window, view.size, strict=False):
            assert side.start <= part.start
            assert part.stop <= side.stop
            assert part.stop - part.start == length
    with_tumor = [one.scan.read(one.place)[1].any() for one in drawn]
    # Half by choice; of the others some by chance.
    assert np.mean(with_tumor) >= 0.4
    scan, labels = sampler.draw(3, 0, 1)
    assert scan.shape == (3, 4, *view.size)
    assert labels.shape == (3, 1, *view.size)


def test_a_volume_is_drawn_whole_where_no_patch_is_asked_for(real, synthetic):
    view = FieldOfView((slice(0, 18), slice(0, 16), slice(0, 6)))
    scan, labels = sampler_of(tiny_evaluation(), real, synthetic, "real", view=view).draw(2, 0, 1)
    assert (scan.shape, labels.shape) == ((2, 4, *SHAPE), (2, 1, *SHAPE))


@pytest.mark.parametrize("view", [WHOLE, FieldOfView((slice(0, 18), slice(0, 16), slice(0, 6)))])
def test_random_contrasts_show_the_label_maps_of_the_synthetic_cases_and_none_of_their_scans(real, synthetic, view):
    rendered, drawn = (
        sampler_of(tiny_evaluation(), real, synthetic, name, view=view) for name in ("random-contrast-aug", "real-syn")
    )
    rendered._arm = replace(rendered._arm, augmentation=AugmentationSection.off())
    (scan, labels), (scan_gan, labels_gan) = (one.draw(8, 0, 1) for one in (rendered, drawn))
    n = len(rendered.choose(8, 0, 1)[0])
    assert n == 2
    assert torch.equal(labels, labels_gan)
    assert torch.equal(scan[n:], scan_gan[n:])
    # The same brains, in other contrasts.
    assert torch.equal((scan[:n] > -1).any(dim=1), (scan_gan[:n] > -1).any(dim=1))
    assert (scan[:n] - scan_gan[:n]).abs().mean() > 0.05


def test_pasting_changes_some_real_slices_and_leaves_the_others(real, synthetic):
    config = tiny_evaluation()
    pasted = sampler_of(config, real, synthetic, "copypaste-aug")
    plain = sampler_of(config, real, synthetic, "real")
    pasted._arm = replace(pasted._arm, augmentation=AugmentationSection.off())
    changed = []
    for step in range(10):
        (scan, labels), (expected, expected_labels) = (one.draw(8, step, 10) for one in (pasted, plain))
        for number in range(8):
            same = torch.equal(scan[number], expected[number])
            assert same == torch.equal(labels[number], expected_labels[number])
            changed.append(not same)
            # A pasted tumour adds to what was there and covers none of it.
            before = expected_labels[number] > 0
            assert torch.equal(labels[number][before], expected_labels[number][before])
    # Half are tried, and not all of these have room.
    assert 0.1 < np.mean(changed) <= 0.65


def test_the_config_names_the_arms_that_mix():
    mixed = [name for name, one in DESIGNS.items() if one.uses_real and one.synthetic != "none" and not one.pretrains]
    assert list(MIXED_ARMS) == mixed


def test_a_batch_is_on_its_device_before_it_is_augmented(monkeypatch, real, synthetic):
    arm = arm_of(tiny_evaluation(), real, synthetic)
    view = FieldOfView(tuple(slice(0, n) for n in SHAPE[:2]))
    sampler = ArmSampler(arm, ScanPool(real.modalities), view, real.scheme, len(real.modalities), 0)
    seen = []
    monkeypatch.setattr(sampling, "augment", lambda scan, labels, *_: seen.append((scan.device, labels.device)))
    # A device without memory or arithmetic stands for a GPU.
    sampler.draw(4, 0, 10, "meta")
    assert seen == [(torch.device("meta"), torch.device("meta"))]


def test_persons_are_drawn_alike_however_many_scans_they_have(real, synthetic):
    first, *others = real.split("train")
    scans = [replace(first, attributes={"person": "a"})] * 9
    scans += [replace(case, attributes={"person": case.subject}) for case in others]
    arm = make_arm("real", 1.0, scans, (), QUARTER, tiny_evaluation().evaluate)
    sampler = ArmSampler(arm, ScanPool(real.modalities), WHOLE, real.scheme, len(real.modalities), seed=7)
    persons = [one.scan.case.subject for step in range(50) for one in sampler.choose(8, step, 50)[1]]
    # One of four persons: .25, SD .02; by scans it were .75.
    assert persons.count(first.subject) / len(persons) == pytest.approx(0.25, abs=0.07)


def test_another_donor_is_tried_where_the_first_has_no_place_and_what_was_pasted_is_counted(
    real, synthetic, monkeypatch
):
    def find_no_place_half_the_time(image, labels, piece, piece_map, stream):
        return (image, labels) if stream.random() < 0.5 else (image.copy(), labels)

    monkeypatch.setattr(sampling, "paste_tumor", find_no_place_half_the_time)
    sampler = sampler_of(tiny_evaluation(), real, synthetic, "copypaste-aug")
    sampler._arm = replace(sampler._arm, mixing=Mixing(paste_share=1.0))
    assert sampler.count_pasted(8, 50) == pytest.approx(1 - 0.5**8, abs=0.02)
    counted = [
        image is not before
        for step in range(2)
        for stream in [numpy_stream(7, "paste", step)]
        for item in sampler.choose(8, step, 2)[1]
        for before, labels in [item.scan.read(item.place)]
        for image, _ in [sampler._paste(item, before, labels, stream)]
    ]
    assert sampler.count_pasted(8, 2) == np.mean(counted)
    assert sampler_of(tiny_evaluation(), real, synthetic, "real-aug").count_pasted(8, 50) == 0.0


def test_tumours_that_are_larger_than_the_patch_are_not_pasted(real, synthetic):
    view = FieldOfView((slice(0, 18), slice(0, 16)), (4, 4))
    assert sampler_of(tiny_evaluation(), real, synthetic, "copypaste-aug", view=view).count_pasted(8, 50) == 0.0
