"""Peak memory of ingest with many phantom cases against few: it must not grow with the cohort.

    python benchmarks/ingest_memory.py [--few 20] [--many 200] [--workers 2]

Each cohort is ingested by a process of its own; what is compared is the largest resident memory that this process or a
worker of it had (``getrusage``, so 1.0 is also said where the larger cohort needed less). The last line is JSON.
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
compute: {workers: WORKERS, accelerator: cpu}
tracking: {uri: none}
ingest: {source: phantom, manifest: phantom, phantom_cases: N, phantom_spacing_mm: 4.0, spacing_mm: 4.0,
  size_voxels: [48, 56, 48]}
"""


def peak_mib(n_cases: int, workers: int) -> float:
    """Ingest phantoms; return the largest resident memory in MiB that any process has had until now."""
    with tempfile.TemporaryDirectory(prefix="ingest-memory-") as folder:
        config = Path(folder, "config.yaml")
        config.write_text(CONFIG.replace("WORKERS", str(workers)).replace("N,", f"{n_cases},"), encoding="utf-8")
        command = [sys.executable, "-c", "from pipeline.cli import main; main()"]
        command += ["run", str(config), "--out", f"{folder}/run", "--until", "ingest"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    """Run both and print the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    few = peak_mib(arguments.few, arguments.workers)
    many = peak_mib(arguments.many, arguments.workers)
    figures = {"few": arguments.few, "many": arguments.many, "few_mib": round(few), "many_mib": round(many)}
    print(json.dumps({**figures, "ratio": round(many / few, 3)}))


if __name__ == "__main__":
    main()
