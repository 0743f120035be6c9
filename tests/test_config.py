"""Config: every shipped file loads, and a wrong one is refused in words that help."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline.config import RunConfig, dump_config, load_config, parse_config
from pipeline.config_params import flatten_config
from pipeline.errors import ConfigError
from pipeline.ingest.manifest import load_manifest

REPOSITORY = Path(__file__).parent.parent
CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
MANIFESTS = sorted((REPOSITORY / "data_manifests").glob("*.yaml"))


def load_text(tmp_path, text, *overrides):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def refusal(tmp_path, text, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text, *overrides)
    return str(caught.value)


def test_there_are_configs_and_manifests_to_load():
    assert {"demo", "brats-quick", "brats-2d", "brats-3d"} <= {path.stem for path in CONFIGS}
    needed = {"phantom", "phantom-dicom", "brats2018", "brats2021", "brats2023", "msd-task01", "dicom"}
    assert needed <= {path.stem for path in MANIFESTS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_shipped_config_loads_and_survives_being_written_out(path):
    config = load_config(path)
    assert load_manifest(config.ingest.manifest).modalities
    assert parse_config(yaml.safe_load(dump_config(config)), "again") == config


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_each_shipped_manifest_loads_by_name_and_by_path(path):
    manifest = load_manifest(path.stem)
    assert manifest == load_manifest(str(path))
    assert manifest.modalities == ("t1", "t1ce", "t2", "flair")
    assert manifest.scheme.tumor == ("necrotic_core", "oedema", "enhancing")
    assert manifest.license
    assert manifest.citation


def test_every_field_is_described():
    def undescribed(model, path):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from undescribed(field.annotation, f"{path}{name}.")
            elif not field.description:
                yield f"{path}{name}"

    assert list(undescribed(RunConfig, "")) == []


def test_a_misspelt_key_is_named_with_its_path_and_the_nearest_known_key(tmp_path):
    message = refusal(tmp_path, "train: {stpes: 10}")
    assert "train.stpes: unknown key; did you mean `steps`?" in message
    message = refusal(tmp_path, "ingest: {split: {trian: 0.6}}")
    assert "ingest.split.trian: unknown key; did you mean `train`?" in message


def test_an_unknown_section_is_refused_and_the_known_ones_are_listed(tmp_path):
    assert "evalute: unknown key; did you mean `evaluate`?" in refusal(tmp_path, "evalute: {}")
    message = refusal(tmp_path, "xyzzy: {}")
    assert "xyzzy: unknown key; known keys: run, ingest, train, generate, audit, evaluate, export" in message


def test_a_wrong_type_is_named_with_path_what_was_expected_and_what_came(tmp_path):
    message = refusal(tmp_path, "train: {steps: many}")
    assert "train.steps:" in message
    assert "valid integer" in message
    assert "got 'many'" in message


def test_all_problems_are_listed_at_once(tmp_path):
    message = refusal(tmp_path, "train: {stepz: 1, batch_size: -1}\ncompute: {accelerator: quantum}")
    assert "train.stepz" in message
    assert "train.batch_size" in message
    assert "compute.accelerator" in message
    assert "'cuda'" in message


@pytest.mark.parametrize("text", ["1e-4", "0.0001", "1.0e-4", "'1e-4'"])
def test_an_exponent_is_a_number_however_it_is_written(tmp_path, text):
    # YAML 1.1 takes 1e-4 for text.
    assert load_text(tmp_path, f"train: {{learning_rate_generator: {text}}}").train.learning_rate_generator == 1e-4


def test_overrides_win_over_the_file_and_reach_nested_and_new_sections(tmp_path):
    config = load_text(
        tmp_path,
        "train: {steps: 10}",
        "train.steps=20",
        "generate.label_sources={recombine: 1.0, atlas: 0.0}",
        "ingest.split.train=0.5",
        "ingest.split.val=0.25",
        "export.override_reason='told: so'",
        "ingest.size_voxels=[64, 64, 64]",
    )
    assert config.train.steps == 20
    assert config.generate.label_sources == {"recombine": 1.0, "atlas": 0.0}
    assert config.ingest.split.model_dump() == {"train": 0.5, "val": 0.25, "test": 0.25}
    assert config.export.override_reason == "told: so"
    assert config.ingest.size_voxels == (64, 64, 64)


def test_an_override_may_fill_a_section_that_the_file_leaves_empty(tmp_path):
    assert load_text(tmp_path, "train:\nrun: {seed: 3}", "train.steps=20").train.steps == 20


@pytest.mark.parametrize("override", ["train.steps", "steps=3", ".steps=3", "train.=3"])
def test_an_override_that_is_no_key_and_value_is_refused(tmp_path, override):
    assert f"--set {override}: expected section.key=value" in refusal(tmp_path, "{}", override)


def test_an_override_below_a_value_is_refused(tmp_path):
    assert "steps is a value, not a section" in refusal(tmp_path, "train: {steps: 3}", "train.steps.more=1")


def test_an_override_that_is_no_yaml_is_refused(tmp_path):
    assert "not YAML; put it in quotes" in refusal(tmp_path, "{}", "export.title=a: b: [")


def test_a_misspelt_override_is_refused_like_a_misspelt_key(tmp_path):
    assert "did you mean `n_cases`?" in refusal(tmp_path, "{}", "generate.n_case=3")


@pytest.mark.parametrize("text", ["- a\n- b", "just text", "3"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    assert "expected sections such as `train:`" in refusal(tmp_path, text)


@pytest.mark.parametrize("content", [b"train: {steps: [", b"\xff\xfe\x00"])
def test_a_file_that_is_no_yaml_is_refused(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(path)


@pytest.mark.parametrize("text", ["train: 3", "train: {steps: null}", "3: 4", "train: {3: 4}"])
def test_odd_shapes_are_refused_too(tmp_path, text):
    assert len(refusal(tmp_path, text).splitlines()) == 1


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"not found; expected a YAML file such as configs/demo\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_an_empty_file_means_defaults(tmp_path):
    assert load_text(tmp_path, "") == RunConfig()


def test_a_grid_that_the_generator_cannot_halve_is_refused(tmp_path):
    text = "train: {levels: 3}\ningest: {size_voxels: [64, 60, 33]}"
    message = refusal(tmp_path, text)
    assert "2^train.levels = 8" in message
    assert "(64, 60)" in message
    # In 2D the third axis is not seen by the network.
    load_text(tmp_path, text.replace("60", "56"))
    assert "(64, 56, 33)" in refusal(tmp_path, text.replace("60", "56").replace("{levels", "{dimensions: 3, levels"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ingest: {split: {train: 0.7}}", "ingest.split: expected shares that sum to 1"),
        ("generate: {label_sources: {atlas: 0.4}}", "shares that sum to 1"),
        ("generate: {volume_edges_ml: [5, 25, 25, 60]}", "four increasing volumes"),
        ("audit: {n_references: 3}", "an even number"),
        ("compute: {devices: 2}", "a training runs on one device so far, got 2 x 1"),
        ("compute: {nodes: 3}", "a training runs on one device so far, got 1 x 3"),
        ("evaluate: {arms: [real, syn]}", "baseline: expected one of the arms real, syn"),
        ("evaluate: {arms: [real-aug, syn, syn]}", "arms: expected each once"),
        ("evaluate: {shares: [0.5, 0.5]}", "shares: expected each once"),
        ("evaluate: {shares: [0.3333333, 0.33333334]}", "shares: expected each once, numbers to six digits"),
        ("evaluate: {pretraining_share: 1.0}", "pretraining_share"),
        ("evaluate: {search: {synthetic_shares: [1.0]}}", "synthetic_shares"),
        ("evaluate: {search: {synthetic_shares: [0.5, 0.25, 0.5]}}", "synthetic_shares: expected each once"),
        ("evaluate: {search: {schedules: [mixed, mixed]}}", "schedules: expected each once"),
        ("evaluate: {search: {n_synthetic: [all, 8, 8]}}", "n_synthetic: expected each once"),
        (
            "evaluate: {arms: [real-aug, syn-ft], search: {synthetic_shares: [0.25, 0.5]}}",
            "search: expected one candidate, as no arm mixes synthetic scans in",
        ),
        (
            "ingest: {size_voxels: [160, 192, 160]}\nevaluate: {dimensions: 3}",
            "evaluate: whole volumes in 3D; expected at most 16,777,216 voxels in a batch, got 39,321,600",
        ),
        ("evaluate: {comparisons: [[syn-ft, real-aug]]}", "comparisons: expected pairs of two different arms among"),
        ("evaluate: {comparisons: [[syn, syn]]}", "got syn and syn"),
        ("evaluate: {comparisons: [[syn, real], [syn, real]]}", "comparisons: expected each once"),
        ("evaluate: {planned_metrics: [dice, dice]}", "planned_metrics: expected each once"),
        ("evaluate: {planned_metrics: [hd95]}", "planned_metrics: expected dice among them"),
        ("evaluate: {patch_voxels: [32, 32, 32]}", "patch_voxels: expected 2 numbers, one for each axis, got 3"),
        ("evaluate: {patch_voxels: [32, 36]}", "expected multiples of 2^levels = 8, at least 16, got (32, 36)"),
        ("generate: {judge: {dimensions: 3}}", "judge: expected dimensions 2"),
    ],
)
def test_values_that_do_not_go_together_are_refused(tmp_path, text, words):
    assert words in refusal(tmp_path, text)


def test_by_default_arms_are_compared_with_the_baseline_and_the_plain_pair_with_one_another():
    section = parse_config({}, "x").evaluate
    others = ("real", "real-syn", "real-syn-aug", "syn")
    assert section.planned == (*((arm, "real-aug") for arm in others), ("real-syn", "real"))
    assert parse_config({"evaluate": {"baseline": "real"}}, "x").evaluate.planned.count(("real-syn", "real")) == 1
    rivals = ["real-aug", "real-syn-aug", "copypaste-aug", "random-contrast-aug"]
    planned = parse_config({"evaluate": {"arms": rivals}}, "x").evaluate.planned
    assert planned[-2:] == (("real-syn-aug", "copypaste-aug"), ("real-syn-aug", "random-contrast-aug"))
    against_main = {"arms": rivals, "baseline": "real-syn-aug"}
    assert len(parse_config({"evaluate": against_main}, "x").evaluate.planned) == 3
    given = {"arms": ["real-aug", "syn-ft"], "comparisons": [["syn-ft", "real-aug"]]}
    assert parse_config({"evaluate": given}, "x").evaluate.planned == (("syn-ft", "real-aug"),)


def test_flat_parameters_hold_no_path_and_no_address(tmp_path):
    config = load_text(
        tmp_path,
        "ingest: {source: /home/someone/scans, manifest: /home/someone/m.yaml, key_file: /home/someone/key,"
        " split_file: /home/someone/s.tsv}\n"
        "tracking: {uri: 'http://host:5000'}\ncompute: {scheduler: 'tcp://host:8786'}",
    )
    flat = flatten_config(config)
    assert flat["train.steps"] == "20000"
    assert flat["ingest.size_voxels"] == "160, 192, 160"
    assert flat["ingest.split.train"] == "0.6"
    assert not [text for text in flat.values() if "/" in text or "host" in text or "someone" in text]
    paths = ("ingest.source", "ingest.manifest", "ingest.key_file", "ingest.split_file", "compute.scheduler")
    assert all(re.fullmatch("sha256:[0-9a-f]{12}", flat[key]) for key in paths)
    assert "tracking.uri" not in flat
    assert flatten_config(RunConfig())["ingest.manifest"] == "phantom"
    assert "" not in flat.values()


def test_plain_names_of_folders_files_and_hosts_are_tracked_as_digests_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meier-manifest").write_text("a manifest of one's own, named like a shipped one")
    named = {
        "ingest.source": "Klinik_Meier",
        "ingest.manifest": "meier-manifest",
        "ingest.key_file": "hospitalkey",
        "ingest.split_file": "patients",
        "ingest.attributes_file": "meier-patients",
        "ingest.brain_weights": "meier-weights",
        "audit.policy": "meier-policy",
        "compute.scheduler": "meierhost",
    }
    flat = flatten_config(load_text(tmp_path, "{}", *[f"{key}={name}" for key, name in named.items()]))
    for key in named:
        assert re.fullmatch("sha256:[0-9a-f]{12}", flat[key]), key
    assert not [key for key, text in flat.items() if any(name in text for name in named.values())]
    assert len({flat[key] for key in named}) == len(named)
    other = flatten_config(load_text(tmp_path, "{}", "ingest.manifest=Klinik_Meier"))
    assert other["ingest.manifest"] == flat["ingest.source"]


def test_the_products_own_names_are_tracked_as_they_are(tmp_path):
    flat = flatten_config(load_text(tmp_path, "ingest: {manifest: msd-task01}"))
    assert flat["ingest.source"] == "phantom"
    assert flat["ingest.manifest"] == "msd-task01"
    assert flat["audit.policy"] == "default"
    assert flat["compute.scheduler"] == "local"


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize("key", ["ingest.spacing_mm", "train.learning_rate_generator"])
def test_a_number_that_is_not_finite_is_refused(tmp_path, key, value):
    assert f"{key}: Input should be a finite number; got" in refusal(tmp_path, "{}", f"{key}={value}")


MANIFEST = """
name: mine
license: mine
citation: mine
format: nifti
subject: 'P\\d+'
images: {t1: '{subject}_t1.nii'}
tumor: '{subject}_seg.nii'
labels: {oedema: 1}
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format: nifti", "format: nifty", "format"),
        ("name: mine", "nmae: mine", "nmae"),
        ("{t1: '{subject}_t1.nii'}", "{pet: '{subject}_t1.nii'}", "expected some of t1, t1ce, t2, flair, got pet"),
        ("labels: {oedema: 1}", "", "format nifti needs labels"),
        ("labels: {oedema: 1}", "labels: {cyst: 1}", "cyst"),
        ("labels: {oedema: 1}", "labels: {oedema: 0}", "0 is background"),
        ("labels: {oedema: 1}", "labels: {oedema: 1, enhancing: [2, 1]}", "1 means two classes"),
        ("'P\\d+'", "'P(\\d+'", "regular expression"),
        ("'{subject}_t1.nii'", "'t1.nii'", "{subject}"),
        ("name: mine", "name: [", "not YAML"),
        ("name: mine", "name: mine\ntumor_on: t1c", "tumor_on: expected one of t1, got t1c"),
        ("name: mine", "name: mine\nsegments: {oedema: x}", "format nifti has no use for segments"),
    ],
)
def test_a_wrong_manifest_is_refused_in_words(tmp_path, old, new, words):
    path = tmp_path / "mine.yaml"
    assert old in MANIFEST
    path.write_text(MANIFEST)
    assert load_manifest(str(path)).scheme.tumor == ("oedema",)
    path.write_text(MANIFEST.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_manifest(str(path))
    assert words in str(caught.value)


def test_a_series_rule_that_is_no_regular_expression_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    text = (REPOSITORY / "data_manifests" / "phantom-dicom.yaml").read_text()
    for old, new in (("'^T2 AX'", "'^T2 (AX'"), ("'TUMOR SEG'", "'TUMOR [SEG'"), ("exclude: 'GAD'", "exclude: '*GAD'")):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(ConfigError, match="regular expression"):
            load_manifest(str(path))


def test_a_manifest_that_is_not_there_is_answered_with_the_shipped_names():
    with pytest.raises(ConfigError, match=r"bratz not found; .*brats2018, brats2021, brats2023"):
        load_manifest("bratz")
