"""The policy of the audit: what makes one weaker than the shipped one, and how that is said."""

import pytest
import yaml
from export_builders import write_policy

from pipeline.audit.policy import DEFAULT_FILE, Policy, describe_policy, load_policy, policy_file, weaker_than_shipped

ATTACK = "nearest-tumor"
# Of each number: a stricter value, a weaker one, and what is said of it.
NUMBERS = {
    "auc_limit__dataset": (0.55, 0.61, "AUC limit of attacks on the data set 0.61 instead of 0.6"),
    "auc_limit__model": (0.55, 0.61, "AUC limit of attacks on the generator 0.61 instead of 0.6"),
    "alpha": (0.01, 0.1, "alpha 0.1 instead of 0.05"),
    "control_alpha": (0.05, 0.001, "alpha of negative controls 0.001 instead of 0.01"),
    "min_patients_a_side": (30, 19, "persons a side 19 instead of 20"),
    "min_references_to_pass": (16, 2, "reference generators 2 instead of 10"),
    "copies__min_recall": (1.0, 0.8, "recall of the search for copies 0.8 instead of 0.85"),
    "copies__max_false_alarms": (0.0, 0.2, "false alarms of the search for copies 0.2 instead of 0.1"),
    "planted_auc": (0.9, 0.79, "AUC that a planted leak must reach 0.79 instead of 0.8"),
}


def house(tmp_path, **numbers):
    return load_policy(write_policy(tmp_path / "house.yaml", **numbers))


def with_limit_of_attack(value):
    content = yaml.safe_load(DEFAULT_FILE.read_text())
    content["auc_limit"]["attacks"] = {ATTACK: {"value": value, "reason": "A reason that is long enough to be one."}}
    return Policy.model_validate(content)


def test_the_shipped_policy_is_not_weaker_than_itself():
    assert weaker_than_shipped(load_policy("default")) == []
    assert describe_policy(load_policy("default")) == "policy 'default', the shipped one"
    assert policy_file("default") == DEFAULT_FILE


def numbers_of(content, path=()):
    """Yield the path of each number of a policy."""
    for key, value in content.items():
        if key == "value":
            yield "__".join(path)
        elif isinstance(value, dict):
            yield from numbers_of(value, (*path, key))


def test_each_number_of_the_shipped_policy_is_compared():
    assert set(numbers_of(load_policy("default").model_dump())) == set(NUMBERS)


@pytest.mark.parametrize("key", NUMBERS)
def test_a_weaker_number_is_named_with_both_values_and_a_stricter_one_is_not(tmp_path, key):
    stricter, weaker, words = NUMBERS[key]
    assert weaker_than_shipped(house(tmp_path, **{key: stricter})) == []
    assert weaker_than_shipped(house(tmp_path, **{key: weaker})) == [words]


def test_all_weaker_numbers_are_named_together(tmp_path):
    weak = {key: weaker for key, (_, weaker, _) in NUMBERS.items()}
    found = weaker_than_shipped(house(tmp_path, **weak))
    assert sorted(found) == sorted(words for *_, words in NUMBERS.values())


def test_an_attack_with_a_higher_limit_of_its_own_is_weaker():
    assert weaker_than_shipped(with_limit_of_attack(0.7)) == [f"AUC limit of '{ATTACK}' 0.7 instead of 0.6"]
    assert weaker_than_shipped(with_limit_of_attack(0.55)) == []


def test_a_level_that_is_not_searched_for_copies_is_weaker():
    content = yaml.safe_load(DEFAULT_FILE.read_text())
    content["copies"]["levels"] = ["labels", "scan"]
    assert weaker_than_shipped(Policy.model_validate(content)) == ["no search for copies of level 'tumor'"]


def test_a_difference_too_small_for_few_digits_is_told(tmp_path):
    found = weaker_than_shipped(house(tmp_path, auc_limit__dataset=0.60000001))
    assert found == ["AUC limit of attacks on the data set 0.60000001 instead of 0.6"]


def test_a_policy_is_named_on_one_line_and_a_stricter_one_is_not_called_the_shipped_one(tmp_path):
    policy = house(tmp_path, auc_limit__dataset=0.55).model_copy(update={"name": " of\nthe  house "})
    assert describe_policy(policy) == "policy 'of the house', nowhere weaker than the shipped one"
