"""Runs the jobs of one panel in a thread. Progress, pause and errors are traits; a new job replaces the old one."""

import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event, Lock, Thread, current_thread
from traceback import format_exc

from traitlets import Bool, Float, HasTraits, Unicode

from ifttn.vocabulary import IfttnError

Job = Callable[[], Iterator[float | None]]
"""Starts a piece of work. Its iterator yields the share done, in 0..1, or None if the share is unknown.

A job with several parts counts each part from 0 to 1: when the share falls, the next part begins.
"""

REPORT_INTERVAL = 0.1
"""Shortest time (s) between two reports of progress: a browser need not draw more often."""

_idle: list["SimpleQueue[tuple[Callable[[], None], Event]]"] = []


def _in_a_thread(call: Callable[[], None], done: Event) -> None:
    """Call a function in an idle thread or else in a new one, then set `done`.

    glibc does not return the freed memory of an ended thread to the system (its arena). A new thread for every job
    would take up to 16 times the memory of one thread.
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
            del call  # it refers to a panel
            current_thread().name = "idle"
            _idle.append(queue)
        finally:
            done.set()


class Worker(HasTraits):
    """Does one job at a time in a thread. A new job replaces the running one.

    The worker takes one value after the other from the iterator of a job. Between two values it can stop, pause or
    replace the job. A paused job continues exactly where it was. The thread sets the traits.
    """

    doing = Unicode(help="name of the running job; empty: none runs")
    share = Float(None, allow_none=True, help="share of the job that is done")
    seconds_left = Float(None, allow_none=True, help="expected time for the present part, without pauses")
    paused = Bool(False)
    error = Unicode(help="why the last job failed, in a sentence")
    details = Unicode(help="the traceback; empty for an error that a person can correct")

    def __init__(self) -> None:
        super().__init__()
        self._lock, self._going_on = Lock(), Event()
        self._stopped = self._closed = self._busy = False
        self._next: tuple[str, Job] | None = None
        self._done = Event()
        self._done.set()

    def start(self, doing: str, job: Job) -> None:
        """Start a job in place of the running one. A closed worker starts none."""
        with self._lock:
            if self._closed:
                return
            self._next, self._stopped = (doing, job), False
            if not self._busy:
                self._busy, self._done = True, Event()
                _in_a_thread(self._run, self._done)
        self.pause(False)

    def stop(self) -> None:
        """Give up the running job and the waiting one."""
        self._next, self._stopped = None, True
        self.pause(False)

    def pause(self, paused: bool = True) -> None:
        """Pause the job at its next value, or continue it."""
        self.paused = paused
        (self._going_on.clear if paused else self._going_on.set)()

    def wait(self, timeout: float | int | None = None) -> bool:
        """Wait until nothing is left to do. False: it took longer than `timeout` seconds."""
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
        """Show an error of a job or of a callback, with its traceback if it is a fault of the program."""
        expected = isinstance(error, IfttnError)
        self.details = "" if expected else format_exc()
        self.error = str(error) if expected else f"unexpected {type(error).__name__}: {error}"

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
                if share is not None and now - reported >= REPORT_INTERVAL:
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
