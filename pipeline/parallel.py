"""Map a function over cases: in processes here, on a Dask cluster by one config line."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from joblib import Parallel, cpu_count, delayed, parallel_config

from pipeline.config import ComputeSection
from pipeline.errors import ConfigError
from pipeline.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")


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
        If a Dask scheduler is named and dask is not installed.
    """
    n_workers = min(compute.workers or cpu_count(), max(len(items), 1))
    results: list[Result] = []
    with progress(description, len(items)) as task:
        if n_workers == 1 and compute.scheduler == "local":
            for item in items:
                results.append(function(item))
                task.advance()
            return results
        with _backend(compute, n_workers):
            parallel = Parallel(return_as="generator", pre_dispatch="2*n_jobs")
            for result in parallel(delayed(function)(item) for item in items):
                results.append(result)
                task.advance()
    return results


@contextmanager
def _backend(compute: ComputeSection, n_workers: int) -> Iterator[None]:
    if compute.scheduler == "local":
        with parallel_config("loky", n_jobs=n_workers, inner_max_num_threads=1):
            yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError(f"compute.scheduler: {compute.scheduler} needs Dask; install synthcohort[cluster]") from error
    with Client(compute.scheduler), parallel_config("dask"):
        yield
