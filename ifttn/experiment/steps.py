"""Runs the steps of a study in processes, several at once. A step starts when the steps that it needs are done."""

import json
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from joblib.externals.loky import get_reusable_executor

from ifttn.files import write_whole
from ifttn.memory import explained
from ifttn.vocabulary import IfttnError

TICK = 2.0
"""Seconds between two reports of progress while no step starts or ends."""


@dataclass(frozen=True)
class Step:
    """A function that does its work, continues it, or finds it done."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()
    """Names of the steps that must be done first."""
    weight: float = 1.0
    """Expected time relative to other steps, for the estimate."""


@dataclass
class Progress:
    """Which steps are done, and which run."""

    steps: Sequence[Step]
    seconds: dict[str, float] = field(default_factory=dict)
    """Step -> the seconds of its work (and not those of a call that found it done)."""
    running: dict[str, float] = field(default_factory=dict)
    """Step -> when it started (`time.monotonic`)."""
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Step -> the reason. A step that needs a failed step has failed, too."""
    killed: set[str] = field(default_factory=set)
    """Steps whose process was killed. Each runs once more, alone."""
    changed: bool = True
    """Whether a step started or ended since the last time."""

    @property
    def share(self) -> float:
        """The share of the expected work that is done, in 0..1."""
        done = _weight(step for step in self.steps if step.name in self.done)
        return (done + self._done_of_running()) / _weight(self.steps)

    def seconds_left(self, jobs: int) -> float | None:
        """The expected time of the remaining steps, `jobs` at once, at the pace of the finished steps (also those of
        earlier calls). None before any step is finished."""
        if (pace := self._pace()) is None:
            return None
        remaining = _weight(step for step in self.steps if step.name not in self.done | self.failed.keys())
        return (remaining - self._done_of_running()) * pace / jobs

    def _pace(self) -> float | None:
        """The seconds of a finished step of weight 1."""
        timed = [step for step in self.steps if step.name in self.done & self.seconds.keys()]
        return sum(self.seconds[step.name] for step in timed) / _weight(timed) if timed else None

    def _done_of_running(self) -> float:
        """The expected weight that running steps have done. A step that takes longer than expected stays at 95 %."""
        pace, now = self._pace(), time.monotonic()
        if pace is None:
            return 0.0
        running = [step for step in self.steps if step.name in self.running]
        return math.fsum(min(0.95 * step.weight, (now - self.running[step.name]) / pace) for step in running)


def _weight(steps: Iterable[Step]) -> float:
    return sum((step.weight for step in steps), start=0.0)


def run_steps(steps: Sequence[Step], *, jobs: int, timings: Path) -> Iterator[Progress]:
    """Run the steps, `jobs` at once. Yields after every change, and every TICK seconds.

    If a step fails, only the steps that need it fail, too. A step whose process is killed runs once more, alone, and
    fails if it is killed again. The file `timings` keeps how long each step took.
    """
    known: dict[str, float] = json.loads(timings.read_text()) if timings.exists() else {}
    progress = Progress(steps, {step.name: known[step.name] for step in steps if step.name in known})
    # One process for each pool, so that a killed process disturbs no other step. Idle ones have all modules imported.
    idle, futures = list[ProcessPoolExecutor](), dict[Future[float], tuple[Step, ProcessPoolExecutor]]()
    try:
        while len(progress.done) + len(progress.failed) < len(steps):
            for step in _next(progress, jobs):
                future, pool = _start(step, idle, jobs)
                futures[future] = step, pool
                progress.running[step.name] = time.monotonic()
            yield progress
            ended = wait(futures, TICK, FIRST_COMPLETED).done
            progress.changed = bool(ended) or not futures
            for future in ended:
                step, pool = futures.pop(future)
                if not isinstance(future.exception(), BrokenProcessPool):
                    idle.append(pool)
                if _record(step, future, progress):
                    known[step.name] = progress.seconds[step.name]
                    write_whole(timings, json.dumps(known, indent=1).encode())
        yield progress
        for pool in idle:
            pool.shutdown()
    except BaseException:
        _terminate([*idle, *(pool for _, pool in futures.values())])
        raise


def _next(progress: Progress, jobs: int) -> list[Step]:
    """The steps to start now. A step whose process was killed waits until it can run alone."""
    ready = _ready(progress)
    never_killed = [step for step in ready if step.name not in progress.killed]
    if progress.running.keys() & progress.killed:
        return []
    return never_killed[: jobs - len(progress.running)] if never_killed or progress.running else ready[:1]


def _ready(progress: Progress) -> list[Step]:
    """The steps that can start. Steps that need a failed step are marked as failed."""
    for step in progress.steps:
        broken = [need for need in step.needs if need in progress.failed]
        if broken and step.name not in progress.failed:
            progress.failed[step.name] = f"needs {broken[0]}, which failed"
    begun = progress.running.keys() | progress.done | progress.failed.keys()
    return [step for step in progress.steps if step.name not in begun and progress.done.issuperset(step.needs)]


def _start(step: Step, idle: list[ProcessPoolExecutor], jobs: int) -> tuple[Future[float], ProcessPoolExecutor]:
    while idle:
        pool = idle.pop()
        with suppress(BrokenProcessPool):  # its process was killed while it was idle
            return pool.submit(timed, step), pool
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_prepare_process, initargs=(jobs,))
    return pool.submit(timed, step), pool


def _record(step: Step, future: Future[float], progress: Progress) -> bool:
    """Record the result of a step. Returns whether its time counts. It counts if it is larger than the known time,
    because a call that finds a step done takes less time than the work."""
    progress.running.pop(step.name)
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        if step.name in progress.killed:
            progress.failed[step.name] = (
                "its process was killed twice, the second time while no other step ran; most likely this machine has "
                "too little memory for it"
            )
        progress.killed.add(step.name)
    elif error:
        reason = str(error) if isinstance(error, IfttnError) else f"{type(error).__name__}: {error}"
        progress.failed[step.name] = " ".join(reason.split())
    else:
        progress.done.add(step.name)
        if future.result() > progress.seconds.get(step.name, 0.0):
            progress.seconds[step.name] = future.result()
            return True
    return False


def _terminate(pools: Sequence[ProcessPoolExecutor]) -> None:
    """End all processes now, so that none continues unnoticed."""
    for pool in pools:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def timed(step: Step) -> float:
    """Run a step in this process. Returns its seconds.

    Raises IfttnError if the memory is too small, and every error of the step.
    """
    started = time.monotonic()
    with explained({}):
        step.function(*step.arguments)
    seconds = time.monotonic() - started
    # joblib keeps idle processes for five minutes, and a process with children cannot end.
    get_reusable_executor().shutdown(wait=True)
    return seconds


def _prepare_process(jobs: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the study, which ends its processes
    torch.backends.cudnn.benchmark = True  # all batches of a stage but the last have the same shape
    if jobs > 1:  # threads of several processes would wait for one another
        torch.set_num_threads(1)
