"""The long work of one panel, in a thread: the latest job only, with progress, stop, pause and errors as traits."""

import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event, Lock, Thread, current_thread
from traceback import format_exc

from traitlets import Bool, Float, HasTraits, Unicode

from ifttn.vocabulary import IfttnError

Job = Callable[[], Iterator[float | None]]
"""Starts a piece of work. Each value of its iterator is the share done, in 0..1, or None where that is not known.

A job of several parts counts each of them from 0 to 1: a share that falls begins the next part.
"""

TICK = 0.1
"""Shortest time (s) between two reports of progress: a browser need not draw more."""


_idle: list["SimpleQueue[tuple[Callable[[], None], Event]]"] = []


def _in_a_thread(call: Callable[[], None], done: Event) -> None:
    """Call in a thread that is idle, or else in a new one, and say when it is done.

    A thread that ends keeps what it freed from the system and from most other threads (the arenas of glibc), so that
    a new thread for every job would take up to 16 times the memory of one.
    """
    try:
        queue = _idle.pop()
    except IndexError:
        queue = SimpleQueue()
        Thread(target=_serve, args=(queue,), daemon=True).start()
    queue.put((call, done))


def _serve(queue: "SimpleQueue[tuple[Callable[[], None], Event]]") -> None:
    while True:
        call, done = queue.get()
        try:
            call()
            del call  # it holds a panel
            current_thread().name = "idle"
            _idle.append(queue)
        finally:
            done.set()


class Worker(HasTraits):
    """Does one job at a time, in a thread; a new job takes the place of the one under way.

    The worker asks a job for its next value over and over. Between two values it can stop, pause or replace the job. A
    paused job is asked no more, so it goes on exactly where it was. The thread sets the traits.
    """

    doing = Unicode(help="what is being done; empty: nothing")
    share = Float(None, allow_none=True, help="of the job, done so far")
    seconds_left = Float(None, allow_none=True, help="for the part under way; a pause and earlier parts do not count")
    paused = Bool(False)
    error = Unicode(help="why the last job failed, in a sentence")
    details = Unicode(help="the traceback; empty for a mistake that a person can mend")

    def __init__(self) -> None:
        super().__init__()
        self._lock, self._going_on = Lock(), Event()
        self._stopped = self._closed = self._busy = False
        self._next: tuple[str, Job] | None = None
        self._done = Event()
        self._done.set()

    def start(self, doing: str, job: Job) -> None:
        """Do this now, in place of what is under way. A closed worker does nothing more."""
        with self._lock:
            if self._closed:
                return
            self._next, self._stopped = (doing, job), False
            if not self._busy:
                self._busy, self._done = True, Event()
                _in_a_thread(self._run, self._done)
        self.pause(False)

    def stop(self) -> None:
        """Give up the job under way, and the one that waits."""
        self._next, self._stopped = None, True
        self.pause(False)

    def pause(self, paused: bool = True) -> None:
        """Halt the job between two values, or let it go on."""
        self.paused = paused
        (self._going_on.clear if paused else self._going_on.set)()

    def wait(self, timeout: float | int | None = None) -> bool:
        """Until nothing is left to do; False where that took longer than `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._done.is_set():
            if not self._done.wait(None if end is None else max(0.0, end - time.monotonic())):
                return False
        return True

    def close(self) -> None:
        """Stop, and end the thread."""
        with self._lock:
            self._closed = True
        self.stop()
        self.wait(10)
        self.unobserve_all()

    def report_error(self, error: Exception) -> None:
        """Show an error of a job or of a callback, which would else be lost."""
        mendable = isinstance(error, IfttnError)
        self.details = "" if mendable else format_exc()
        self.error = str(error) if mendable else f"unexpected {type(error).__name__}: {error}"

    def _run(self) -> None:
        while True:
            with self._lock:
                task, self._next = self._next, None
                self._busy = task is not None
            if task is None:
                return
            if self._may_go_on():
                self._do(*task)

    def _do(self, doing: str, job: Job) -> None:
        current_thread().name = f"worker: {doing}"
        self.error = self.details = ""
        self.share = self.seconds_left = None
        self.doing = doing
        began = resumed = reported = time.monotonic()
        last = 0.0
        try:
            for share in job():
                now = time.monotonic()
                if share is None:
                    began = now
                elif share < last:
                    began = resumed
                if share is not None and now - reported >= TICK:
                    reported = now
                    self.share, self.seconds_left = share, (now - began) * (1 - share) / share if share else None
                if not self._may_go_on():
                    break
                last, resumed = share or 0.0, time.monotonic()
                began += resumed - now
        except Exception as error:
            self.report_error(error)
        self.doing = ""

    def _may_go_on(self) -> bool:
        """Wait while the job is paused. False: it was stopped or replaced."""
        self._going_on.wait()
        return self._next is None and not self._stopped
