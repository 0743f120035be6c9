"""Peak memory of generate with many cases against few: it must not grow with the cohort.

    python benchmarks/generate_memory.py [--few 10] [--many 100]

One small phantom cohort and generator; then the stage generate, candidates, choice and measures included, by a process
of its own for each size. What is compared is the largest resident memory of that process (``wait4``). The last line
is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = """
run: {seed: 11}
compute: {workers: 1, accelerator: cpu}
tracking: {uri: none}
ingest: {source: phantom, manifest: phantom, phantom_cases: 12, phantom_spacing_mm: 4.0, spacing_mm: 4.0,
  size_voxels: [48, 56, 48], leakage_guard: false}
train: {channels: 8, levels: 2, steps: 2, discriminator_channels: 8, discriminator_layers: 2}
generate: {n_cases: 4, judge: {steps: 2, filters: 8, validate_every: 1}, two_sample_steps: 1}
"""


def run(folder: Path, *arguments: str) -> float:
    """Run the command on the benchmark's config; return its largest resident memory, MiB."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(folder / "config.yaml")]
    command += ["--out", str(folder / "run"), *arguments]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Of this child alone.
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"the run ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024


def main() -> None:
    """Run both and print the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--many", type=int, default=100)
    arguments = parser.parse_args()
    mib = []
    with tempfile.TemporaryDirectory(prefix="generate-memory-") as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
        run(folder, "--until", "train")
        for n_cases in (arguments.few, arguments.many):
            chosen = f"generate.n_cases={n_cases}"
            mib.append(run(folder, "--from", "generate", "--until", "generate", "--set", chosen))
    figures = {"few": arguments.few, "many": arguments.many, "few_mib": round(mib[0]), "many_mib": round(mib[1])}
    print(json.dumps({"name": "generate_memory", **figures, "ratio": round(mib[1] / mib[0], 3), "runs": 1}))


if __name__ == "__main__":
    main()
