"""What other de-identifiers leave of the planted identities that none may come out of ingest with.

    pip install dicom-anonymizer dicognito
    python tests/campaigns/compare_deidentifiers.py

Each tool gets the planted DICOM studies of the tests and its own defaults; so does dcm2niix with anonymisation on,
whose output is NIfTI and JSON. Prints a table in Markdown: tokens planted, and left, by the kind of place.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import dcm2niix

sys.path.insert(0, str(Path(__file__).parents[1]))
from planting import WORD, plant_dicom
from test_planted_identity import make_config

from pipeline.runner import run_stages

TOKEN = re.compile(rb"%s\d{5}" % WORD.encode())
N_STUDIES = 6


def run_ours(source: Path, out: Path) -> None:
    run_stages(make_config(source.parent, "phantom-dicom"), out, last="ingest")


def run_command(*command: str) -> None:
    """Run a tool; some files make some tools fail, and what they wrote till then counts."""
    result = subprocess.run(command, capture_output=True, check=False, text=True)
    if result.returncode:
        print(f"{Path(command[0]).name}: exit code {result.returncode}: {result.stderr[-200:]}", file=sys.stderr)


def run_dicom_anonymizer(source: Path, out: Path) -> None:
    # It walks one folder, not those below.
    for number, folder in enumerate(sorted({path.parent for path in source.rglob("*.dcm")})):
        (out / str(number)).mkdir(parents=True)
        run_command(find("dicom-anonymizer"), str(folder), str(out / str(number)))


def run_dicognito(source: Path, out: Path) -> None:
    # Its command calls main without the arguments that main wants (0.19); its interpreter lies beside it.
    program = "import sys; from dicognito.__main__ import main; sys.exit(main(sys.argv[1:]))"
    python = str(Path(find("dicognito")).with_name("python"))
    run_command(python, "-c", program, "--output-directory", str(out), str(source))


def run_dcm2niix(source: Path, out: Path) -> None:
    out.mkdir()
    run_command(str(dcm2niix.bin), "-ba", "y", "-b", "y", "-o", str(out), str(source))


TOOLS = {
    "synthcohort ingest": run_ours,
    "dicom-anonymizer": run_dicom_anonymizer,
    "dicognito": run_dicognito,
    "dcm2niix -ba y": run_dcm2niix,
}


def find(program: str) -> str:
    found = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        raise SystemExit(f"{program} is not installed; pip install dicom-anonymizer dicognito")
    return found


def tokens_in(folder: Path) -> tuple[set[str], int]:
    """Return the tokens in names and bytes below a folder, and the number of files."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    texts = [path.relative_to(folder).as_posix().encode() + path.read_bytes() for path in paths]
    return {match.decode() for text in texts for match in TOKEN.findall(text)}, len(paths)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare de-identifiers on planted identities.")
    parser.add_argument("--only", choices=TOOLS, action="append")
    chosen = parser.parse_args().only or list(TOOLS)
    with tempfile.TemporaryDirectory(prefix="deidentifiers-") as folder:
        source = Path(folder, "source")
        tokens = plant_dicom(source, N_STUDIES)
        planted, left, n_files = tokens.count(), {}, {}
        for number, name in enumerate(chosen):
            out = Path(folder, f"out{number}")
            TOOLS[name](source, out)
            found, n_files[name] = tokens_in(out)
            left[name] = Counter(tokens.kinds[token] for token in found)
    print(f"| kind | planted | {' | '.join(chosen)} |\n|---|---{'|---' * len(chosen)}|")
    for kind, n in sorted(planted.items()):
        print(f"| {kind} | {n} | {' | '.join(str(left[name][kind]) for name in chosen)} |")
    print(f"| all | {planted.total()} | {' | '.join(str(left[name].total()) for name in chosen)} |")
    print(f"| files written | | {' | '.join(str(n_files[name]) for name in chosen)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
