"""Open files: the limit is raised, in workers too, and what the system says without room is put in words."""

import os
import resource

import pytest

from pipeline.config import ComputeSection
from pipeline.errors import DataError
from pipeline.open_files import MANY_FILES, enough_files, raise_file_limit
from pipeline.parallel import iterate_cases, iterate_trainings
from pipeline.segmentation.scans import ScanPool


@pytest.fixture
def limit_asked(monkeypatch):
    """Return what the system is asked for, which it refuses, by the limits that it says it has."""

    def ask_with(soft, hard):
        asked = []

        def refuse(kind, limits):
            asked.append((kind, limits))
            raise ValueError("not allowed to raise maximum limit")

        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", refuse)
        raise_file_limit()
        return asked

    return ask_with


def test_a_system_that_refuses_more_open_files_stops_no_run(limit_asked):
    endless = resource.RLIM_INFINITY
    # macOS: no limit is said, and no more than some 10,000 are granted.
    assert limit_asked(256, endless) == [(resource.RLIMIT_NOFILE, (MANY_FILES, endless))]
    assert limit_asked(1024, 4096) == [(resource.RLIMIT_NOFILE, (4096, 4096))]


@pytest.mark.parametrize(
    ("soft", "hard"),
    [(4096, 4096), (MANY_FILES, resource.RLIM_INFINITY), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)],
)
def test_enough_open_files_are_left_as_they_are(limit_asked, soft, hard):
    assert limit_asked(soft, hard) == []


def soft_limit(_):
    return os.getpid(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def lower_and_tell(number):
    """Lower the limit of a worker, once, as a cluster's would be; the next task of it tells."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return soft_limit(number)


@pytest.mark.parametrize("iterate", [iterate_cases, iterate_trainings])
def test_a_worker_raises_its_own_limit(iterate):
    compute = ComputeSection(workers=2, accelerator="cpu")
    lowered = {process for process, _ in iterate(lower_and_tell, range(4), compute)}
    told = list(iterate(soft_limit, range(8), compute))
    assert lowered & {process for process, _ in told}
    assert os.getpid() not in lowered
    assert min(limit for _, limit in told) > 500


@pytest.fixture
def few_files():
    """Leave room for 12 more open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened[0] + 12, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.close(opened[0])


def test_more_scans_than_may_be_open_are_refused_in_words(few_files, real):
    pool = ScanPool(real.modalities)
    with pytest.raises(DataError, match=r"training scans: too many open files; .* got \d+ .* raise the limit"):
        for case in real.cases:
            pool[case]


def test_other_errors_of_the_system_pass():
    with pytest.raises(FileNotFoundError), enough_files("scans"):
        raise FileNotFoundError(2, "none")
