"""Maps over cases and trainings: results in the items' order, the device as asked for."""

import os
import sys
import time

import pytest

from pipeline import parallel
from pipeline.config import ComputeSection
from pipeline.errors import ConfigError
from pipeline.parallel import iterate_cases, iterate_trainings, map_cases, training_device


def double(item: int) -> int:
    return 2 * item


def threads(_: int) -> int:
    import torch

    return torch.get_num_threads()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers):
    compute = ComputeSection(workers=workers, accelerator="cpu")
    expected = [2 * item for item in range(7)]
    assert map_cases(double, range(7), compute, "double") == expected
    assert list(iterate_cases(double, range(7), compute)) == expected
    assert list(iterate_trainings(double, range(7), compute)) == expected
    assert map_cases(double, [], compute, "double") == []


@pytest.mark.parametrize("workers", [1, 2])
def test_each_training_has_one_thread_and_leaves_the_others_as_they_were(workers):
    import torch

    before = torch.get_num_threads()
    assert list(iterate_trainings(threads, range(3), ComputeSection(workers=workers, accelerator="cpu"))) == [1, 1, 1]
    assert torch.get_num_threads() == before


def test_a_gpu_that_is_not_there_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert training_device(ComputeSection(accelerator="auto")) == "cpu"
    with pytest.raises(ConfigError, match=r"compute\.accelerator: cuda.*use auto or cpu"):
        training_device(ComputeSection(accelerator="cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert training_device(ComputeSection(accelerator="auto")) == "cuda"
    assert training_device(ComputeSection(accelerator="cpu")) == "cpu"


def test_a_dask_scheduler_without_dask_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    compute = ComputeSection(workers=2, scheduler="tcp://127.0.0.1:9", accelerator="cpu")
    words = r"compute\.scheduler: tcp://127\.0\.0\.1:9 needs Dask; install synthcohort\[cluster\]"
    with pytest.raises(ConfigError, match=words):
        map_cases(double, range(3), compute, "double")
    with pytest.raises(ConfigError, match=words):
        list(iterate_trainings(double, range(3), compute))


def double_elsewhere(item: int) -> tuple[int, int]:
    return 2 * item, os.getpid()


def test_a_dask_cluster_does_the_work_and_gives_it_back_in_order(monkeypatch):
    distributed = pytest.importorskip("distributed")
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**settings, host="127.0.0.1") as cluster:
        compute = ComputeSection(workers=1, scheduler=cluster.scheduler_address, accelerator="cpu")
        results = map_cases(double_elsewhere, range(7), compute, "double")
        assert [doubled for doubled, _ in results] == [2 * item for item in range(7)]
        assert os.getpid() not in {process for _, process in results}
        assert list(iterate_trainings(threads, range(3), compute)) == [1, 1, 1]
        assert map_cases(double, [], compute, "double") == []
        # A GPU here keeps no training from the workers, each of which looks for one of its own; nor does its lack.
        for has_gpu, accelerator in ((True, "auto"), (False, "cuda")):
            monkeypatch.setattr("torch.cuda.is_available", lambda has_gpu=has_gpu: has_gpu)
            asked = compute.model_copy(update={"accelerator": accelerator})
            trained = list(iterate_trainings(double_elsewhere, range(3), asked))
            assert [doubled for doubled, _ in trained] == [0, 2, 4]
            assert os.getpid() not in {process for _, process in trained}


def work_slowly(item: int) -> tuple[int, int]:
    time.sleep(0.5)
    return item, os.getpid()


def test_workers_that_come_late_take_their_part(monkeypatch, capsys):
    distributed = pytest.importorskip("distributed")
    settings = {"n_workers": 0, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**settings, host="127.0.0.1") as cluster:
        compute = ComputeSection(scheduler=cluster.scheduler_address, accelerator="cpu")
        monkeypatch.setattr(parallel, "SECONDS_FOR_A_WORKER", 0.2)
        with pytest.raises(ConfigError, match=r"compute\.scheduler: no worker at tcp://127\.0\.0\.1:\d+ after"):
            list(iterate_trainings(work_slowly, range(2), compute))
        assert "yet; waiting up to" in capsys.readouterr().err
        monkeypatch.undo()
        cluster.scale(1)
        taken = iterate_trainings(work_slowly, range(40), compute)
        done = [next(taken)]
        cluster.scale(2)
        done += list(taken)
    assert [item for item, _ in done] == list(range(40))
    assert len({process for _, process in done}) == 2


def test_a_scheduler_that_is_not_there_is_told(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
    for address in ("tcp://127.0.0.1:9", "no address"):
        with pytest.raises(ConfigError, match=r"compute\.scheduler: .* cannot be reached; expected the address"):
            list(iterate_trainings(double, range(3), ComputeSection(scheduler=address, accelerator="cpu")))
