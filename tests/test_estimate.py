"""What a dry run says of the evaluation."""

from segment_builders import tiny_evaluation

from pipeline.estimate import describe_detectable, describe_generators, describe_trainings
from pipeline.labels import LabelScheme


def test_trainings_are_counted_by_arm_and_share_with_those_of_the_search():
    config = tiny_evaluation(
        arms=["real-aug", "real-syn-aug", "syn"],
        shares=[1.0, 0.25],
        n_seeds=3,
        search={"synthetic_shares": [0.25, 0.5], "schedules": ["mixed", "synthetic-first"], "steps": 3, "n_seeds": 2},
    )
    # 2 arms at 2 shares and one without real scans, 3 seeds each; 4 candidates, 2 seeds each.
    assert describe_trainings(config.evaluate) == (
        "15 trainings of 4 steps (3 each of real-aug at 100% and 25%, real-syn-aug at 100% and 25%, syn once of the "
        "real patients), a search of 8 trainings of 3 steps for real-syn-aug"
    )


def test_further_generators_are_counted_by_share():
    arms = ["real-aug", "real-syn-aug", "syn"]
    config = tiny_evaluation(arms=arms, shares=[1.0, 0.25], n_seeds=3, n_generators=3)
    # Two beside the run's own of all patients, three of a quarter.
    assert describe_generators(config) == (
        f"5 more generators of {config.train.steps} steps, of 100% and 25% of the real patients"
    )
    assert describe_generators(tiny_evaluation(arms=arms)) == ""


def test_the_search_of_each_rival_and_the_longer_training_are_counted():
    config = tiny_evaluation(
        arms=["real-aug", "real-syn-aug", "copypaste-aug", "random-contrast-aug"],
        search={"synthetic_shares": [0.25, 0.5], "paste_shares": [0.3, 0.6], "n_seeds": 2},
        steps_check=True,
    )
    assert describe_trainings(config.evaluate).endswith(
        ", a search of 12 trainings of 4 steps for real-syn-aug and copypaste-aug and random-contrast-aug, real-aug "
        "once with 8 steps"
    )


def test_without_candidates_there_is_no_search():
    assert describe_trainings(tiny_evaluation(arms=["real-aug"]).evaluate) == (
        "1 trainings of 4 steps (1 each of real-aug at 100% of the real patients)"
    )


def test_the_smallest_gain_that_could_be_found_is_said_before_anything_is_trained():
    # 100 cases, a quarter for test; 1 pair, 3 regions by Dice: the primary comparison and 2 others.
    arms = ["real-aug", "real-syn-aug"]
    said = describe_detectable(tiny_evaluation(arms=arms, n_seeds=3), 100, LabelScheme())
    assert said.startswith(
        "in Dice, 25 test patients and 3 trainings of each arm would find, with a probability of 80%, a true gain of "
    )
    assert " or more in the primary comparison and a true gain of " in said
    assert " in one of 2 secondary comparisons (assumed standard deviations" in said
    alone = describe_detectable(tiny_evaluation(arms=arms), 100, LabelScheme())
    assert (
        "1 training of each arm would find, with a probability of 80%, no gain, however large, in the primary" in alone
    )
    assert describe_detectable(tiny_evaluation(arms=["real-aug"]), 100, LabelScheme()) == "nothing to compare"
