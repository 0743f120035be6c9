"""Evidence for a plateau: twice the steps."""

import pytest

from pipeline.evaluate.steps_check import StepsCheck


@pytest.mark.parametrize(
    ("dice_val", "doubled", "is_plateau"),
    [
        (0.80, 0.805, True),
        (0.80, 0.79, True),
        (0.80, 0.82, False),
        # Four times too short: its own curve was flat at the end, as the step size had fallen to 0.
        (0.563, 0.822, False),
        # Nothing learnt, and nothing gained: no plateau.
        (0.0, 0.0, False),
        (0.0, 0.6, False),
    ],
)
def test_a_plateau_is_where_twice_the_steps_gain_next_to_nothing(dice_val, doubled, is_plateau):
    check = StepsCheck("real-aug", 1.0, 1200, dice_val, doubled)
    assert check.is_plateau == is_plateau
    assert check.sentence.startswith(
        f"Best Dice on val of real-aug is {dice_val:.3f} with 1200 steps and {doubled:.3f} with 2400: "
    )
    assert ("plateau reached" in check.sentence) == is_plateau
