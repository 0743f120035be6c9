"""Fuzz the ingest stage: damage one file of a good case, thousands of times, and see that nothing worse happens than
that the case is quarantined.

For each mutant, discovery and preprocessing run in a worker process. A failure is an exception other than a
DataError, a warning of our own package, more than 10 s, more than 2 GiB (asked for or used), or a planted identifier
in a message, in what is printed or in a series report.

    python tests/campaigns/fuzz_ingest.py --format dicom --n 2000 --seed 1
    python tests/campaigns/fuzz_ingest.py --format nifti --only bomb:17
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

# A script sees its own folder only.
sys.path.insert(0, str(Path(__file__).parents[1]))
from campaigns import dicom_mutants, nifti_mutants
from campaigns.fuzz_cases import CONFIG, PLANTED, make_manifests, write_good_case

from pipeline.errors import CaseError, DataError
from pipeline.ingest.dicom import discover_dicom
from pipeline.ingest.discover import discover_nifti
from pipeline.ingest.manifest import Manifest
from pipeline.ingest.preprocess import preprocess_case

LIMIT_S, LIMIT_BYTES = 10.0, 2 * 2**30
# Beyond that the worker gets a MemoryError, so that a campaign does not bring down the machine.
NET_BYTES = 6 * 2**30
START_LIMIT_S = 120.0
LOOK_EVERY_S = 0.02
PLACING = ("set-affine", "scale-affine", "set-pixdim", "swap-dims")
MUTATIONS = {"nifti": nifti_mutants.MUTATIONS, "dicom": dicom_mutants.MUTATIONS}


@dataclass(frozen=True)
class Mutant:
    """One damaged file: which, of which good case, and how to make it again."""

    file_format: str
    mutation: str
    seed: int
    kind: str
    file: str
    content: bytes

    @property
    def key(self) -> str:
        """Name and seed, as ``--only`` takes them."""
        return f"{self.mutation}:{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``read``, ``quarantined``, or a kind of failure; with the message or the traceback."""

    verdict: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def is_failure(self) -> bool:
        return self.verdict not in ("read", "quarantined")


def make_mutant(cases: Path, file_format: str, mutation: str, seed: int) -> Mutant:
    """Damage one file of a good case: a pure function of its arguments."""
    stream = np.random.default_rng([seed, zlib.crc32(mutation.encode())])
    if file_format == "nifti":
        # Registration takes its time; what spoils the place of a scan matters most there.
        kind = "nifti-raw" if stream.random() < (0.5 if mutation in PLACING else 0.1) else "nifti"
        files = sorted((cases / kind).rglob("*.nii*"))
    else:
        role = {"damage-frames": "SEG", "damage-contours": "RTSTRUCT"}.get(mutation)
        role = role or str(stream.choice(["MR", "SEG", "RTSTRUCT"], p=[0.5, 0.25, 0.25]))
        kind = "dicom-rt" if role == "RTSTRUCT" else "dicom-seg"
        files = sorted(path for path in (cases / kind).rglob("*.dcm") if f"_{role}" in path.name)
    path = files[int(stream.integers(len(files)))]
    content = MUTATIONS[file_format][mutation](path.read_bytes(), stream)
    return Mutant(file_format, mutation, seed, kind, str(path.relative_to(cases / kind)), content)


def list_mutants(file_format: str, n: int, seed: int) -> Iterator[tuple[str, int]]:
    """Yield name and seed of ``n`` mutations, each kind in turn."""
    names = list(MUTATIONS[file_format])
    for number in range(n):
        yield names[number % len(names)], seed * 1_000_000 + number // len(names)


# In the worker --------------------------------------------------------------------------------------------------------


def ingest_folder(folder: Path, manifest: Manifest) -> Outcome:
    """Discover and preprocess what lies in a folder, as the stage does."""
    said, n_read = [], 0
    try:
        cases = (discover_dicom if manifest.format == "dicom" else discover_nifti)(folder, manifest)
        said += [" ".join(choice.columns().values()) for case in cases for choice in case.choices]
        for case in cases:
            try:
                preprocess_case(case, "pseudonym", manifest, CONFIG)
                n_read += 1
            except CaseError as error:
                said.append(str(error))
                _look_for_memory_error(error)
    except DataError as error:
        said.append(str(error))
    except MemoryError:
        return Outcome("memory", traceback.format_exc())
    except Warning:
        return Outcome("warning", traceback.format_exc())
    except Exception as error:
        return Outcome(f"traceback {type(error).__name__}", traceback.format_exc())
    text = "\n".join(said)
    if carries_identifier(text):
        return Outcome("identifier", text)
    return Outcome("read" if n_read else "quarantined", text)


def _look_for_memory_error(error: BaseException) -> None:
    """Raise MemoryError if that is what lies behind a case's error: it was asked for before it was refused."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, MemoryError):
            raise cause
        cause = cause.__cause__


def carries_identifier(text: str) -> bool:
    return any(word in text.lower() for word in PLANTED)


def work(link: Connection, folder: Path, cases: Path) -> None:
    """Serve mutants until the link ends: put each in place of the good file, ingest, put the good one back."""
    tempfile.tempdir = str(folder)
    manifests = make_manifests()
    shutil.copytree(cases, folder / "cases")
    log = (folder / "log").open("w+b")
    for number in (1, 2):
        os.dup2(log.fileno(), number)
    warnings.filterwarnings("error", module=r"pipeline\.")
    for kind in sorted({mutant_kind for mutant_kind in manifests if (cases / mutant_kind).is_dir()}):
        whole = ingest_folder(folder / "cases" / kind, manifests[kind])
        if whole.verdict != "read":
            link.send(Outcome(f"good case {whole.verdict}", whole.detail))
            return
    base = _memory_bytes("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (base + NET_BYTES, base + NET_BYTES))
    link.send(Outcome("read"))
    while True:
        try:
            mutant = link.recv()
        except EOFError:
            return
        path = folder / "cases" / mutant.kind / mutant.file
        good = path.read_bytes()
        path.write_bytes(mutant.content)
        peak = max(_memory_bytes("VmPeak"), base)
        log.seek(0)
        log.truncate()
        outcome = ingest_folder(folder / "cases" / mutant.kind, manifests[mutant.kind])
        path.write_bytes(good)
        printed = Path(log.name).read_text(errors="replace")
        asked = _memory_bytes("VmPeak")
        of_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        if not outcome.is_failure and carries_identifier(printed):
            outcome = Outcome("identifier printed", printed)
        elif not outcome.is_failure and (asked > max(peak, base + LIMIT_BYTES) or of_child > LIMIT_BYTES):
            outcome = Outcome("memory", f"{(asked - base) >> 20} MiB asked for, {of_child >> 20} by a child process")
        link.send(outcome)


def _memory_bytes(name: str, pid: int | str = "self") -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


# In the parent --------------------------------------------------------------------------------------------------------


class Bench:
    """A worker process that is watched, and started anew when it had to be ended."""

    def __init__(self, cases: Path, scratch: Path) -> None:
        self.cases, self.scratch, self.n_started = cases, scratch, 0
        self.process: multiprocessing.process.BaseProcess | None = None

    def _start(self) -> None:
        self.n_started += 1
        self.folder = self.scratch / f"worker{self.n_started}"
        self.folder.mkdir(parents=True)
        context = multiprocessing.get_context("spawn")
        self.link, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.folder, self.cases), daemon=True)
        self.process.start()
        theirs.close()
        ready = self._wait(START_LIMIT_S)
        if ready.verdict != "read":
            raise RuntimeError(f"the good case is no good: {ready.verdict}\n{ready.detail}")

    def run(self, mutant: Mutant) -> Outcome:
        """Ingest a mutant; one that takes too long is tried twice, for the machine may have been busy."""
        outcome = self._run_once(mutant)
        return self._run_once(mutant) if outcome.verdict == "hang" else outcome

    def _run_once(self, mutant: Mutant) -> Outcome:
        if self.process is None:
            self._start()
        start = time.monotonic()
        self.link.send(mutant)
        outcome = self._wait(LIMIT_S)
        if outcome.verdict in ("hang", "memory", "crash"):
            self.end()
        return Outcome(outcome.verdict, outcome.detail, time.monotonic() - start)

    def _wait(self, limit_s: float) -> Outcome:
        pid, end = self.process.pid, time.monotonic() + limit_s
        while time.monotonic() < end:
            try:
                if self.link.poll(LOOK_EVERY_S):
                    return self.link.recv()
            except (EOFError, ConnectionError):
                self.process.join(5)
                return Outcome("crash", f"exit code {self.process.exitcode}")
            used = max((_resident_bytes(p) for p in (pid, *_children(pid))), default=0)
            if used > LIMIT_BYTES:
                return Outcome("memory", f"{used >> 20} MiB used")
        return Outcome("hang", f"more than {limit_s:g} s")

    def end(self) -> None:
        if self.process is not None:
            for pid in (*_children(self.process.pid), self.process.pid):
                with _gone_is_fine():
                    os.kill(pid, 9)
            self.process.join()
            self.link.close()
            self.process = None
            shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except (ProcessLookupError, FileNotFoundError):
        return


def _resident_bytes(pid: int) -> int:
    with _gone_is_fine():
        return _memory_bytes("VmRSS", pid)
    return 0


def _children(pid: int) -> list[int]:
    with _gone_is_fine():
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def write_good_cases(folder: Path, file_format: str) -> Path:
    """Write the good cases of a format, each below a folder of its kind."""
    for kind in make_manifests():
        if kind.startswith(file_format):
            write_good_case(folder / kind, kind)
    return folder


def run_campaign(
    file_format: str, chosen: Sequence[tuple[str, int]], folder: Path, limit_s: float = np.inf
) -> list[tuple[str, Outcome]]:
    """Run mutants, given by name and seed; return the key and the outcome of each."""
    cases = write_good_cases(folder / "good", file_format)
    bench, found, end = Bench(cases, folder), [], time.monotonic() + limit_s
    try:
        for mutation, seed in chosen:
            if time.monotonic() > end:
                break
            mutant = make_mutant(cases, file_format, mutation, seed)
            found.append((mutant.key, bench.run(mutant)))
    finally:
        bench.end()
    return found


def summarise(found: Sequence[tuple[str, Outcome]]) -> str:
    """Return a table: mutation, how many were read, quarantined and failed, and the longest time."""
    lines = [f"{'mutation':18s} {'n':>5s} {'read':>5s} {'quarantined':>11s} {'failed':>6s} {'max s':>6s}"]
    names = list(dict.fromkeys(key.split(":")[0] for key, _ in found))
    for name in [*names, "all"]:
        outcomes = [outcome for key, outcome in found if name in ("all", key.split(":")[0])]
        counts = Counter("failed" if outcome.is_failure else outcome.verdict for outcome in outcomes)
        slowest = max((outcome.seconds for outcome in outcomes), default=0.0)
        columns = f"{counts['read']:5d} {counts['quarantined']:11d} {counts['failed']:6d} {slowest:6.1f}"
        lines.append(f"{name:18s} {len(outcomes):5d} {columns}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the ingest stage.")
    parser.add_argument("--format", choices=("nifti", "dicom"), required=True)
    parser.add_argument("--n", type=int, default=2000, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one mutant, as MUTATION:SEED from the list of failures")
    parser.add_argument("--minutes", type=float, default=np.inf, help="stop after that long")
    arguments = parser.parse_args()
    chosen = list(list_mutants(arguments.format, arguments.n, arguments.seed))
    if arguments.only:
        mutation, seed = arguments.only.split(":")
        chosen = [(mutation, int(seed))]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        found = run_campaign(arguments.format, chosen, Path(folder), arguments.minutes * 60)
    for key, outcome in found:
        if outcome.is_failure or arguments.only:
            print(f"{outcome.verdict}: --format {arguments.format} --only {key}\n{outcome.detail}\n")
    reasons = Counter(outcome.detail for _, outcome in found if outcome.verdict == "quarantined")
    print("\n".join(f"{n:5d} {reason[:160]!r}" for reason, n in reasons.most_common(15)), end="\n\n")
    print(summarise(found))
    return int(any(outcome.is_failure for _, outcome in found))


if __name__ == "__main__":
    sys.exit(main())
