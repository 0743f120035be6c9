"""Run folders that the export stage reads, and its run on them."""

import json
import shutil
from pathlib import Path

import numpy as np
import yaml

from pipeline.audit.policy import DEFAULT_FILE, load_policy
from pipeline.cohort import CaseData, digest_file, digest_of, digest_tree, write_case, write_cohort_files, write_json
from pipeline.config import RunConfig, TrackingSection, parse_config
from pipeline.export.stage import run
from pipeline.labels import MODALITIES, LabelScheme
from pipeline.layout import FOLDERS
from pipeline.runner import StageContext
from pipeline.tracking import Tracking

REASON = "phantoms only, shown for teaching"
PSEUDONYM = "0123456789abcdef"
AFFINE = np.array([[4.0, 0, 0, -14], [0, 4, 0, -14], [0, 0, 4, -14], [0, 0, 0, 1]])
SHAPE = (8, 8, 8)


def write_synthetic_cohort(root, n_cases=3, name="sub-syn{:04d}", split="n/a"):
    stream = np.random.default_rng(0)
    rows = []
    for number in range(1, n_cases + 1):
        tumor_map = np.zeros(SHAPE, np.uint8)
        tumor_map[1:4, 2:5, 2:5] = number % 3 + 1
        tissue_map = np.where(tumor_map > 0, 0, 2).astype(np.uint8)
        images = {modality: stream.integers(0, 1001, SHAPE).astype(np.int16) for modality in MODALITIES}
        subject = name.format(number)
        sidecars = {"t1": {"Donor": PSEUDONYM}}
        write_case(root, CaseData(subject.removeprefix("sub-"), images, tissue_map, tumor_map, AFFINE, sidecars))
        rows.append(
            {"participant_id": subject, "source": "recombine", "split": split, "person": "someone"}
            | {"volume_ml": f"{10.0 * number}", "hemisphere": "left", "lobe": "frontal"}
            | {"enhancing_share": "0.30", "n_foci": "1"}
            | {"asked_volume": "small", "asked_hemisphere": "left"}
        )
    write_cohort_files(root, "Synthetic", LabelScheme(), rows, "# Synthetic\n")


def build_audit(run_dir, verdict):
    bound_to = {
        "generator": digest_file(run_dir / "model" / "generator.safetensors"),
        "synthetic": digest_of(digest_tree(run_dir / "synthetic")),
        "policy": digest_file(DEFAULT_FILE),
    }
    rates = {"0.1": {"value": 0.1, "ci": [0.0, 0.4], "resolved": True}, "0.01": {"value": 0.0, "resolved": False}}
    attack = {"name": "nearest", "threat_model": "dataset", "n_members": 24, "n_nonmembers": 10, "auc": 0.512}
    attack |= {"auc_ci": [0.4, 0.62], "auc_either_sign": 0.512, "tpr_at_fpr": rates, "scores": [0.1, 0.2]}
    paired = {"attack": "nearest", "threat_model": "dataset", "n_patients": 34, "n_references": 8, "auc": 0.5}
    return {
        "verdict": verdict,
        "reasons": ["too few references"],
        "policy": load_policy("default").model_dump(mode="json"),
        "unit": "patient",
        "attacks": [attack],
        "paired": [paired | {"auc_ci": [0.45, 0.55]}],
        "controls": {"negative": [{"name": "permuted", "expected": 0.5, "observed": 0.5, "behaved": True}]},
        "copies": {"n_near_duplicates": 0, "recall": 0.98, "nearest_pairs": [[PSEUDONYM, "syn0001"]]},
        "patients_needed": 299,
        "bound_to": bound_to,
        "patients": [{"patient": PSEUDONYM, "risk": 0.9}],
    }


def build_run(run_dir, verdict="pass", **cohort_options):
    """Make a run folder with all that the stage reads."""
    (run_dir / "model").mkdir(parents=True)
    (run_dir / "model" / "generator.safetensors").write_bytes(b"weights")
    write_synthetic_cohort(run_dir / "synthetic", **cohort_options)
    (run_dir / "cohort").mkdir()
    row = f"sub-{PSEUDONYM}\tphantom\ttrain\t{PSEUDONYM}\n"
    (run_dir / "cohort" / "participants.tsv").write_text(f"participant_id\tsource\tsplit\tperson\n{row}")
    (run_dir / "audit").mkdir()
    (run_dir / "audit" / "audit.json").write_text(json.dumps(build_audit(run_dir, verdict)))
    (run_dir / "evaluation").mkdir()
    (run_dir / "evaluation" / "gain.json").write_text(
        json.dumps({"summary": "Dice rose by 0.01 in this run.", "cautions": ["Few patients."]})
    )
    write_records(run_dir)


def write_records(run_dir):
    """Write the records of the stages before the export, as the runner does."""
    upstream = {}
    for stage in ("ingest", "train", "generate", "audit"):
        record = record_of(run_dir / FOLDERS[stage], {}, upstream)
        write_json(run_dir / FOLDERS[stage] / "done.json", record)
        upstream = {**upstream, stage: record["digest"]}


def edit_audit(run_dir, change):
    """Make the audit another one: as if the stage had written it so."""
    path = run_dir / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    path.write_text(json.dumps(change(audit)))
    write_records(run_dir)


def record_of(folder, summary, upstream):
    files = digest_tree(folder)
    record = {"fingerprint": "f" * 64, "upstream": dict(upstream), "summary": summary, "digest": digest_of(files)}
    record |= {"files": files, "code": f"0.1.0.dev0+{'c' * 12}"}
    return {**record, "finished": "2026-01-01T00:00:00+00:00", "seconds": 1.0}


def write_policy(path, **numbers):
    """Write a copy of the shipped policy, called house, with other numbers; return its path as text."""
    content = yaml.safe_load(DEFAULT_FILE.read_text()) | {"name": "house"}
    for key, value in numbers.items():
        part = content
        for name in key.split("__"):
            part = part[name]
        part["value"] = value
    path.write_text(yaml.safe_dump(content))
    return str(path)


def audit_under(run_dir, policy):
    """Make the audit one that was made under a policy."""
    dumped, digest = load_policy(policy).model_dump(mode="json"), digest_file(Path(policy))
    edit_audit(run_dir, lambda audit: audit | {"policy": dumped, "bound_to": audit["bound_to"] | {"policy": digest}})


def export(run_dir, reason="", policy="default", **options):
    """Run the stage as the runner does; return its folder and summary."""
    out = run_dir / "release"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    (out / "fingerprint.txt").write_text("f" * 64)
    sections = {"audit": {"policy": policy}, "export": {"override_reason": reason, **options}}
    config = parse_config({**sections, "compute": {"workers": 1}}, "test")
    assert isinstance(config, RunConfig)
    with Tracking(run_dir, TrackingSection(uri="none"), {}) as tracking:
        context = StageContext(config, run_dir, out, 0, tracking.start_stage("export", "f", "c"))
        summary = run(context)
    (out / "fingerprint.txt").unlink()
    write_json(out / "done.json", record_of(out, summary, {"audit": "a" * 64}))
    return out, summary
