"""Map a function over cases: in processes here, on a Dask cluster by one config line."""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from joblib import Parallel, cpu_count, delayed, parallel_config

from pipeline.config import ComputeSection
from pipeline.errors import ConfigError
from pipeline.open_files import raise_file_limit
from pipeline.progress import progress, say, use_plain_lines

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

SECONDS_BETWEEN_LOOKS = 0.2
# A queue may be longer, and then it is better known than waited for.
SECONDS_FOR_A_WORKER = 600


def map_cases(
    function: Callable[[Item], Result], items: Sequence[Item], compute: ComputeSection, description: str
) -> list[Result]:
    """Apply a function to each item, in any order; results come in the items' order.

    Parameters
    ----------
    function : callable
        Picklable; pure but for files of its own, so that workers change nothing.
    items : sequence
    compute : ComputeSection
        Number of workers, scheduler.
    description : str
        Shown with the progress.

    Returns
    -------
    list

    Raises
    ------
    ConfigError
        If a Dask scheduler is named and dask is not installed, or it cannot be reached, or has no worker in time.
    """
    results: list[Result] = []
    with progress(description, len(items)) as task:
        for result in iterate_cases(function, items, compute):
            results.append(result)
            task.advance()
    return results


def iterate_cases(
    function: Callable[[Item], Result], items: Sequence[Item], compute: ComputeSection
) -> Iterator[Result]:
    """Yield a function of each item, in the items' order, as they come; see :func:`map_cases`.

    Workers do not wait for whoever takes the results: where these are large, hand over some items at a time.
    """
    if compute.scheduler != "local":
        yield from _iterate_on_cluster(_work, function, items, compute.scheduler)
        return
    n_workers = min(compute.workers or cpu_count(), max(len(items), 1))
    if n_workers == 1:
        yield from map(function, items)
        return
    with _processes(n_workers):
        parallel = Parallel(return_as="generator", pre_dispatch="2*n_jobs")
        yield from parallel(delayed(_work)(function, item, os.getpid()) for item in items)


def iterate_trainings(
    function: Callable[[Item], Result], items: Sequence[Item], compute: ComputeSection
) -> Iterator[Result]:
    """Do trainings that do not need each other: side by side on CPU cores, one after the other on a GPU.

    With a Dask scheduler each worker takes one after the other, on its own device, whatever the device here. On a CPU
    each training has one thread, however many workers there are, so that their number changes no byte; small networks
    are faster that way too.

    Parameters
    ----------
    function : callable
        Picklable; shows its own progress.
    items : sequence
        Picklable.
    compute : ComputeSection

    Yields
    ------
    object
        Results in the items' order, as they come.
    """
    if compute.scheduler != "local":
        yield from _iterate_on_cluster(_train, function, items, compute.scheduler)
        return
    if training_device(compute) == "cuda":
        yield from map(function, items)
        return
    n_workers = min(compute.workers or cpu_count(), max(len(items), 1))
    if n_workers == 1:
        with one_thread():
            yield from map(function, items)
        return
    with _processes(n_workers):
        parallel = Parallel(return_as="generator", pre_dispatch="n_jobs")
        yield from parallel(delayed(_train)(function, item, os.getpid()) for item in items)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread, then in as many as before."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def training_device(compute: ComputeSection) -> str:
    """Return the device of the trainings, ``cpu`` or ``cuda``.

    Raises
    ------
    ConfigError
        If a GPU is asked for and there is none.
    """
    import torch

    if compute.accelerator == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.accelerator: cuda, and torch sees no GPU; expected one; use auto or cpu")
    return "cuda" if compute.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def _train(function: Callable[[Item], Result], item: Item, owner: int) -> Result:
    import torch

    torch.set_num_threads(1)
    return _work(function, item, owner)


def _work(function: Callable[[Item], Result], item: Item, owner: int) -> Result:
    """Apply a function in a worker process that ends with its owner and shows progress in plain lines."""
    if os.getpid() != owner:
        use_plain_lines()
        raise_file_limit()
        _end_with_owner()
    return function(item)


@cache
def _end_with_owner() -> None:
    """Watch the parent process: a worker that outlived a killed run would write where the next run writes."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _processes(n_workers: int) -> Iterator[None]:
    with warnings.catch_warnings(), parallel_config("loky", n_jobs=n_workers, inner_max_num_threads=1):
        # A worker whose memory has grown is replaced, and nothing is lost: no news for a user.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        yield


def _iterate_on_cluster(
    work: Callable[[Callable[[Item], Result], Item, int], Result],
    function: Callable[[Item], Result],
    items: Sequence[Item],
    address: str,
) -> Iterator[Result]:
    """Yield a function of each item, all handed to a scheduler at once: workers that come later take their part.

    Not through joblib: it counts the workers once, and with one of them does everything here.
    """
    with _client(address) as client:
        n = len(items)
        futures = client.map(work, [function] * n, items, [os.getpid()] * n, pure=False)
        futures.reverse()
        while futures:
            yield futures.pop().result()


@contextmanager
def _client(address: str) -> Iterator["Client"]:
    """Connect to a scheduler that has a worker."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(f"compute.scheduler: {address} needs Dask; install synthcohort[cluster]") from error
    try:
        client = Client(address)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"compute.scheduler: {address} cannot be reached; expected the address of a running Dask scheduler, "
            "such as tcp://host:8786; start it, or use `local`"
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            say(f"      no worker at {address} yet; waiting up to {SECONDS_FOR_A_WORKER / 60:g} minutes for one")
        try:
            client.wait_for_workers(1, timeout=SECONDS_FOR_A_WORKER)
        except TimeoutError as error:
            raise ConfigError(
                f"compute.scheduler: no worker at {address} after {SECONDS_FOR_A_WORKER / 60:g} minutes; expected one "
                "at least; start them, then type the same line again"
            ) from error
        yield client
