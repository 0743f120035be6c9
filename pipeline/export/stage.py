"""Stage export: ask the gate, write what may leave the building, check it as a receiver would."""

import json
import re
from pathlib import Path
from typing import Any

from pipeline.audit.policy import policy_file
from pipeline.cohort import open_cohort, read_tsv, write_json
from pipeline.errors import DataError
from pipeline.export.bids import write_bids
from pipeline.export.card import Release, write_card, write_license
from pipeline.export.croissant import describe_croissant
from pipeline.export.gate import AUDITED_STAGES, GateDecision, check_record, decide, read_audit, release_digests
from pipeline.export.generator import is_planned, write_generator
from pipeline.export.manifest import list_files, write_manifest
from pipeline.export.public_audit import public_audit
from pipeline.export.verify import AUDIT_FILE, verify_release
from pipeline.layout import WEIGHTS_FILE, read_done
from pipeline.progress import say
from pipeline.runner import StageContext

TEXT_SUFFIXES = frozenset({".json", ".md", ".tsv", ".txt"})


def run(context: StageContext) -> dict[str, Any]:
    """Write the release into ``context.out``, if the gate lets it.

    Raises
    ------
    GateRefused
        If the gate refuses; see :func:`pipeline.export.gate.check_record` and :func:`pipeline.export.gate.decide`.
    DataError
        If the synthetic cohort cannot be exported, or the release that was written does not hold.
    """
    config = context.config.export
    policy = policy_file(context.config.audit.policy)
    released = release_digests(context.folder("train") / WEIGHTS_FILE, context.folder("generate"), policy)
    audit = read_audit(context.folder("audit") / AUDIT_FILE)
    records = {stage: read_done(context.folder(stage)) for stage in AUDITED_STAGES}
    check_record(context.folder("audit") / AUDIT_FILE, read_done(context.folder("audit")), records)
    decision = decide(audit, released, config.override_reason)
    context.tracker.tags({"verdict": decision.verdict, "override": "yes" if decision.overridden else "no"})
    if decision.overridden:
        say(f"      OVERRIDE: verdict {decision.in_words}; released for the reason: {decision.reason}")
    else:
        say(f"      verdict: {decision.in_words}")
    release = Release(
        cohort=open_cohort(context.folder("generate")),
        config=config,
        volume_edges_ml=context.config.generate.volume_edges_ml,
        audit=public_audit(audit),
        decision=decision,
        gain=read_gain(context.folder("evaluate") / "gain.json"),
    )
    write_bids(release.cohort, config, context.config.compute, context.out / "bids")
    if is_planned(audit):
        write_generator(context.folder("train"), context.out)
    write_pages(release, context.out)
    write_manifest(context.out, config.title, release.audit, released, decision)
    check_no_pseudonym(context.out, context.folder("ingest") / "participants.tsv")
    result = verify_release(context.out)
    if result.problems:
        raise DataError(
            f"the release does not hold: {len(result.problems)} problems, the first: {result.problems[0]}; expected "
            "none; was a file changed while it was written? Run the export again"
        )
    return _record(context, decision, result.n_files)


def write_pages(release: Release, out: Path) -> None:
    """Write what stands beside ``bids/``: card, licence, public audit, Croissant."""
    write_card(release, out / "README.md")
    write_license(release.config, out / "LICENSE.txt")
    write_json(out / AUDIT_FILE, release.audit)
    write_json(out / "croissant.json", describe_croissant(release, out))


def read_gain(path: Path) -> str:
    """Return what was found of the gain and of cheap rivals, with what to be careful of; empty if there is nothing.

    Raises
    ------
    DataError
        If the file is there and no JSON object.
    """
    if not path.is_file():
        return ""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path.name} is damaged; expected JSON; run the stage evaluate again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path.name} is no JSON object; run the stage evaluate again")
    cautions = content.get("cautions") or ()
    return " ".join(map(str, filter(None, (content.get("summary"), content.get("rivals"), *cautions))))


def check_no_pseudonym(release: Path, participants: Path) -> None:
    """Look for pseudonyms of the private cohort in the names and texts of a release.

    Parameters
    ----------
    release : Path
    participants : Path
        participants.tsv of the ingested cohort.

    Raises
    ------
    DataError
        If there is one (the message does not repeat it), or the table is missing or names nobody to look for.
    """
    if not participants.is_file():
        raise DataError(f"{participants.name} of the ingested cohort not found; run the stage ingest")
    rows = read_tsv(participants)
    private = {row[key].removeprefix("sub-") for row in rows for key in ("participant_id", "person") if row.get(key)}
    if not private:
        raise DataError(
            f"{participants.name} of the ingested cohort names nobody; expected persons; run the stage ingest"
        )
    for name in list_files(release):
        path = release / name
        text = path.read_text(encoding="utf-8") if path.suffix in TEXT_SUFFIXES else ""
        # Whole words: a checksum holds any short run of digits sooner or later.
        if private & set(re.findall(r"[A-Za-z0-9]+", f"{name} {text}")):
            raise DataError(
                f"{path.suffix} file with a pseudonym of the private cohort; expected none in a release; report this"
            )


def _record(context: StageContext, decision: GateDecision, n_files: int) -> dict[str, Any]:
    n_bytes = sum((context.out / name).stat().st_size for name in list_files(context.out))
    megabytes = round(n_bytes / 1e6, 1)
    context.tracker.metrics({"release_files": float(n_files), "release_megabytes": megabytes})
    return {
        "files": n_files,
        "megabytes": megabytes,
        "verdict": decision.verdict,
        "overridden": decision.overridden,
    }
