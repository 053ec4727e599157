"""The long work of one panel, in a thread: the latest job only, with progress, stop, pause and errors as traits."""

import time
from collections.abc import Callable, Iterator
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


class Worker(HasTraits):
    """Does one job at a time, each in a thread; a new job takes the place of the one under way.

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
        self._stopped = self._closed = False
        self._thread: Thread | None = None
        """Of the latest job."""

    def start(self, doing: str, job: Job) -> None:
        """Do this now, in place of what is under way. A closed worker does nothing more."""
        with self._lock:
            if self._closed:
                return
            before, self._stopped = self._thread, False
            self._thread = Thread(target=self._run, args=(doing, job, before), name=f"worker: {doing}", daemon=True)
            self._thread.start()
        self.pause(False)

    def stop(self) -> None:
        """Give up the job under way, and the one that waits."""
        self._stopped = True
        self.pause(False)

    def pause(self, paused: bool = True) -> None:
        """Halt the job between two values, or let it go on."""
        self.paused = paused
        (self._going_on.clear if paused else self._going_on.set)()

    def wait(self, timeout: float | int | None = None) -> bool:
        """Until nothing is left to do; False where that took longer than `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (thread := self._thread) is not None and thread.is_alive():
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
            if thread.is_alive():
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

    def _run(self, doing: str, job: Job, before: Thread | None) -> None:
        if before is not None:
            before.join()
        if self._may_go_on():
            self._do(doing, job)

    def _do(self, doing: str, job: Job) -> None:
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
        return current_thread() is self._thread and not self._stopped
