"""Peak memory of generate with many cases against few: it must not grow with the cohort.

    python benchmarks/generate_memory.py [--few 10] [--many 100]

One small phantom cohort and generator; then the stage generate, candidates, choice and measures included, by a process
of its own for each size. What is compared is the largest resident memory of that process (``getrusage``). The last line
is JSON.
"""

import argparse
import json
import resource
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


def run(folder: Path, *arguments: str) -> None:
    """Run the command on the benchmark's config."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(folder / "config.yaml")]
    command += ["--out", str(folder / "run"), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


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
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        # The few first: the largest of all processes until now is what the system tells.
        for n_cases in (arguments.few, arguments.many):
            run(folder, "--from", "generate", "--until", "generate", "--set", f"generate.n_cases={n_cases}")
            mib.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    figures = {"few": arguments.few, "many": arguments.many, "few_mib": round(mib[0]), "many_mib": round(mib[1])}
    figures["before_mib"] = round(before / 1024)
    print(json.dumps({"name": "generate_memory", **figures, "ratio": round(mib[1] / mib[0], 3), "runs": 1}))


if __name__ == "__main__":
    main()
