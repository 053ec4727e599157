"""Calls one function on many items, in processes of this machine or of a Dask cluster. Any process may die.

If a process dies (a decoder crashes, memory runs out, a machine is switched off), its items are repeated one at a time
in a new process. An item whose process dies again becomes a `Crash`, and the other items continue.
"""

import re
import signal
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import joblib
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool

from ifttn.vocabulary import IfttnError

Item = TypeVar("Item")
Returned = TypeVar("Returned")

# One thread per process, because the work is parallel over processes. A crash is reported without a stack trace.
PROCESS_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": ""}


@dataclass(frozen=True)
class Crash:
    """The result for an item whose process died twice: with other items, and alone."""

    how: str
    """The signal, such as "SIGSEGV(-11)", if it is known."""


def each(
    function: Callable[[Item], Returned],
    items: Sequence[Item],
    jobs: int | str | None = None,
    shared: Sequence[Path] = (),
) -> Generator[tuple[Item, Returned | Crash]]:
    """Yield (item, result) in the order in which items are finished.

    When the iterator is closed, processes on this machine end. Processes of a cluster finish their present items.

    Args:
        function: a function that can be pickled. An error of the function ends the iteration.
        items: any number of items.
        jobs: processes on this machine, by default one per CPU and at least two; 1 is this process itself, which a
            crash ends. A string is the address of a Dask scheduler ("tcp://host:8786"), whose workers call `function`.
        shared: paths that must exist for every worker of the cluster.

    Raises:
        IfttnError: the cluster cannot be reached, or is lost.
    """
    if jobs == 1:
        yield from ((item, function(item)) for item in items)
        return
    waiting, count = deque(items), jobs or max(2, joblib.cpu_count())
    while waiting:
        lost = list[Item]()
        with _cluster(count, shared) if isinstance(count, str) else _processes(min(count, len(items))) as pool:
            for item, future in _finished(function, waiting, pool):
                if isinstance(future.exception(), pool.death):
                    lost.append(item)
                else:
                    yield item, future.result()
        yield from _alone(function, lost)


class _Pool(NamedTuple):
    executor: Executor
    most: int
    """Largest number of items at once."""
    death: type[Exception]
    """The error of a future whose worker died."""


def _finished(
    function: Callable[[Item], Returned], waiting: deque[Item], pool: _Pool
) -> Iterator[tuple[Item, "Future[Returned]"]]:
    """Items of `waiting` and their futures, until `waiting` is empty or the pool is broken."""
    begun = dict["Future[Returned]", Item]()
    while waiting or begun:
        with suppress(BrokenProcessPool):
            while waiting and len(begun) < pool.most:
                future = pool.executor.submit(function, waiting[0])
                begun[future] = waiting.popleft()
        if not begun:
            return
        for future in wait(begun, return_when=FIRST_COMPLETED).done:
            yield begun.pop(future), future


def _alone(function: Callable[[Item], Returned], items: Sequence[Item]) -> Iterator[tuple[Item, Returned | Crash]]:
    waiting = deque(items)
    while waiting:
        with _processes(1) as pool:
            for item, future in _finished(function, waiting, pool):
                error = future.exception()
                if isinstance(error, pool.death):
                    signals = re.search(r"\{(.+)\}", str(error))
                    yield item, Crash(signals[1] if signals else "")
                else:
                    yield item, future.result()


@contextmanager
def _processes(count: int) -> Iterator[_Pool]:
    # Ctrl-C reaches every process of a terminal. The first process then ends the others.
    ignore = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    pool = ProcessPoolExecutor(count, env=PROCESS_ENVIRONMENT, **ignore)
    with warnings.catch_warnings():
        # A process that uses too much memory is replaced. The warning about this does not help a user.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        try:
            yield _Pool(pool, count + count // 2, BrokenProcessPool)
        finally:
            pool.shutdown(kill_workers=True)


@contextmanager
def _cluster(address: str, shared: Sequence[Path]) -> Iterator[_Pool]:
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise IfttnError(
            "a Dask scheduler needs the package distributed: install the extra, `pip install 'ifttn[cluster]'`"
        ) from error
    try:
        client: Any = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise IfttnError(f"no Dask scheduler answers at {address} ({_line(error)})") from error
    with client:
        unseen = _unseen(client, shared)
        if not unseen:
            raise IfttnError(f"the Dask scheduler at {address} has no workers: start some with `dask worker {address}`")
        for worker, hidden in unseen.items():
            if hidden:
                raise IfttnError(
                    f"the Dask worker {worker} does not see {hidden}: data set and store must be on a file system that "
                    f"every machine of the cluster mounts in the same place"
                )
        try:
            yield _Pool(client.get_executor(pure=False), 2 * sum(client.ncores().values()), KilledWorker)
        except IfttnError:
            raise
        except Exception as error:  # an error of Dask: the scheduler is lost, or a worker cannot load the function
            raise IfttnError(f"the Dask cluster failed ({type(error).__name__}: {_line(error)})") from error


def _unseen(client: Any, shared: Sequence[Path]) -> Mapping[str, str]:
    """For each worker, the paths that do not exist for it."""
    try:
        return client.run(partial(_hidden, shared))
    except Exception as error:
        raise IfttnError(
            f"the Dask workers cannot run ifttn ({type(error).__name__}: {_line(error)}): install this version on each"
        ) from error


def _hidden(shared: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in shared if not path.exists())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
