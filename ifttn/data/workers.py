"""One function over many items, in processes of this machine or of a Dask cluster, of which any may die.

A process that dies (a decoder that crashes, a kernel short of memory, a machine switched off) takes down what it was
doing. Whatever had begun by then is done again, one at a time in a process of its own; what ends that one as well is
told as a Crash, and the rest goes on.
"""

import re
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import joblib
from joblib import Parallel, delayed
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool
from joblib.parallel import ParallelBackendBase

from ifttn.vocabulary import IfttnError

Item = TypeVar("Item")
Result = TypeVar("Result")

BEGIN = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: only the first one answers
os.environ.setdefault("PYTHONFAULTHANDLER", "")  # a crash is told in the report, not as a stack on the terminal
"""
QUIET: dict[str, Any] = {"initializer": exec, "initargs": (BEGIN,)}


@dataclass(frozen=True)
class Crash:
    """The process that worked on an item died, and so did the one that tried it alone."""

    how: str
    """Such as "SIGSEGV(-11)", where that is known."""


def each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int | str | None = None,
    shared: Sequence[Path] = (),
) -> Generator[tuple[Item, Result | Crash]]:
    """(item, result) as they come, in any order; at most 1.5 items a process wait.

    Closing the iterator ends the processes of this machine; those of a cluster finish what they are at.

    Args:
        function: can be pickled, and raises only what must end the whole.
        items: of any number.
        jobs: processes on this machine, by default one a CPU and at least two; 1 is this process itself, which a crash
            ends. A string is the address of a Dask scheduler ("tcp://host:8786"), whose workers do it.
        shared: paths that every worker of the cluster must see where this process sees them.

    Raises IfttnError where there is no such cluster, or where it goes away.
    """
    if jobs == 1:
        yield from ((item, function(item)) for item in items)
    elif items:
        yield from _spread(function, items, jobs, shared)


def _spread(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int | str | None, shared: Sequence[Path]
) -> Iterator[tuple[Item, Result | Crash]]:
    waiting, begun = deque(enumerate(items)), dict[int, Item]()

    def feed() -> Iterator[Any]:
        while waiting:
            number, item = waiting.popleft()
            begun[number] = item
            yield delayed(_numbered)(function, number, item)

    with _parallel(jobs, shared) as parallel:
        while waiting:  # a new Parallel each time: a used one keeps tasks that it has not handed out
            with suppress(BrokenProcessPool), closing(_outcomes(parallel(), feed())) as outcomes:
                for number, result in outcomes:
                    yield begun.pop(number), result
            yield from _alone(function, tuple(begun.values()))
            begun.clear()


def _numbered(function: Callable[[Item], Result], number: int, item: Item) -> tuple[int, Result]:
    return number, function(item)


def _outcomes(parallel: Parallel, tasks: Iterator[Any]) -> Generator[tuple[int, Any]]:
    outcomes = cast(Generator[Any], parallel(tasks))
    try:
        for outcome in outcomes:
            if outcome is not None:
                yield outcome
    finally:
        with warnings.catch_warnings():  # joblib warns when it is left early, which is meant
            warnings.simplefilter("ignore", UserWarning)
            outcomes.close()


def _alone(function: Callable[[Item], Result], begun: Sequence[Item]) -> Iterator[tuple[Item, Result | Crash]]:
    process = None
    try:
        for item in begun:
            process = process or ProcessPoolExecutor(1, **QUIET)
            try:
                result = process.submit(function, item).result()
            except BrokenProcessPool as error:
                process = None
                signals = re.search(r"\{(.+)\}", str(error))
                result = Crash(signals[1] if signals else "")
            yield item, result
    finally:
        if process:
            process.shutdown(kill_workers=True)


@contextmanager
def _parallel(jobs: int | str | None, shared: Sequence[Path]) -> Iterator[Callable[[], Parallel]]:
    options: dict[str, Any] = {"return_as": "generator_unordered", "batch_size": 1, "pre_dispatch": "1.5*n_jobs"}
    if isinstance(jobs, str):
        with _cluster(jobs, shared) as backend:
            yield partial(Parallel, backend=backend, n_jobs=-1, **options)
    else:
        yield partial(Parallel, n_jobs=jobs or max(2, joblib.cpu_count()), **options, **QUIET)


@contextmanager
def _cluster(address: str, shared: Sequence[Path]) -> Iterator["ClusterBackend"]:
    try:
        from distributed import Client
    except ImportError as error:
        raise IfttnError(
            "a Dask scheduler needs the package distributed, the extra `cluster`: pip install 'ifttn[cluster]'"
        ) from error
    try:
        client = Client(address, timeout=10, set_as_default=False)
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
        yield ClusterBackend(client)


def _unseen(client: Any, shared: Sequence[Path]) -> Mapping[str, str]:
    """Of each worker, what it does not see."""
    try:
        return client.run(partial(_hidden, shared))
    except Exception as error:
        raise IfttnError(
            f"the Dask workers cannot run ifttn ({type(error).__name__}: {_line(error)}): install this version for each"
        ) from error


def _hidden(shared: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in shared if not path.exists())


class ClusterBackend(ParallelBackendBase):
    """joblib on a Dask cluster. joblib's own backend waits for ever for a task whose workers died (joblib 1.6)."""

    supports_retrieve_callback = True

    def __init__(self, client: Any) -> None:
        """`client`: a distributed.Client."""
        super().__init__(nesting_level=0)
        self.client = client

    def effective_n_jobs(self, n_jobs: int) -> Any:
        """The threads of all workers; joblib would do a single job itself, in this process."""
        return max(2, sum(self.client.ncores().values()))

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> Any:
        """Have a batch done by a worker, or by another where that one dies."""
        future = self.client.submit(func, pure=False)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """The results of a batch of one; None where every worker that tried it died."""
        from distributed import KilledWorker

        try:
            return out.result()
        except KilledWorker:
            return [None]
        except IfttnError:
            raise
        except Exception as error:  # Dask's own: the scheduler is gone, a worker cannot load what it was sent
            raise IfttnError(f"the Dask cluster failed ({type(error).__name__}: {_line(error)})") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
