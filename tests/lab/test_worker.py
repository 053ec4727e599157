import threading
import time
from types import SimpleNamespace

import pytest

from ifttn.vocabulary import IfttnError
from lab.worker import Worker


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]


def counting(seen, step=0.005, until=100_000):
    def job():
        for i in range(until):
            seen.append(i)
            time.sleep(step)
            yield i / until

    return job


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_job_runs_to_its_end_and_the_worker_shows_its_name(worker):
    seen = []
    names = []
    worker.observe(lambda change: names.append(change.new), "doing")
    worker.start("counting", counting(seen, step=0, until=5))
    assert worker.wait(10.0)
    assert seen == [0, 1, 2, 3, 4]
    assert names == ["counting", ""]


def test_a_job_stops_within_0_3_s(worker):
    seen = []
    worker.start("counting", counting(seen))
    wait_for(lambda: len(seen) > 3)
    began = time.monotonic()
    worker.stop()
    assert worker.wait(10.0)
    assert time.monotonic() - began < 0.3
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count


def test_a_paused_job_continues_where_it_was(worker):
    seen = []
    worker.start("counting", counting(seen))
    wait_for(lambda: len(seen) > 3)
    worker.pause()
    time.sleep(0.05)
    halted = len(seen)
    time.sleep(0.1)
    assert len(seen) == halted
    worker.pause(False)
    wait_for(lambda: len(seen) > halted + 3)
    assert seen == list(range(len(seen)))


def test_a_paused_job_can_be_stopped(worker):
    seen = []
    worker.start("counting", counting(seen))
    wait_for(lambda: len(seen) > 1)
    worker.pause()
    worker.stop()
    assert worker.wait(1.0)
    assert not worker.paused


def test_only_the_latest_of_many_jobs_runs_to_its_end(worker):
    first, last = [], []
    worker.start("first", counting(first))
    wait_for(lambda: first)
    for _ in range(50):
        worker.start("skipped", counting([]))
    worker.start("last", counting(last, step=0, until=3))
    assert worker.wait(10.0)
    assert last == [0, 1, 2]


def test_workers_share_a_thread_unless_they_work_at_the_same_time(worker):
    def job():
        threads.append(threading.get_ident())
        yield None

    threads = []
    for _ in range(20):
        other = Worker()
        other.start("alone", job)
        assert other.wait(10.0)
        other.close()
    assert len(set(threads)) == 1
    seen = []
    worker.start("counting", counting(seen))
    wait_for(lambda: seen)
    other = Worker()
    other.start("beside it", job)
    assert other.wait(10.0)
    assert len(set(threads)) == 2
    other.close()


def test_an_expected_error_is_one_line_and_an_unexpected_one_has_a_traceback(worker):
    def mistake():
        raise IfttnError("there is no such run")
        yield

    def fault():
        yield 1 / 0

    worker.start("a mistake", mistake)
    worker.wait(10.0)
    assert (worker.error, worker.details) == ("there is no such run", "")
    worker.start("a fault", fault)
    worker.wait(10.0)
    assert worker.error == "unexpected ZeroDivisionError: division by zero"
    assert "in fault" in worker.details
    worker.start("no fault", counting([], step=0, until=2))
    worker.wait(10.0)
    assert worker.error == ""


def test_progress_is_reported_at_most_ten_times_a_second_with_the_expected_time(worker):
    reported = []
    worker.observe(lambda change: reported.append(worker.share), "share")
    began = time.monotonic()
    worker.start("counting", counting([], step=0.005, until=60))
    worker.wait(30.0)
    assert 1 <= len([share for share in reported if share]) <= 10 * (time.monotonic() - began) + 1
    assert worker.seconds_left is not None
    assert worker.seconds_left >= 0


def test_the_expected_time_is_that_of_the_present_part_without_earlier_parts_and_pauses(worker, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("lab.worker.time", SimpleNamespace(monotonic=lambda: clock.now))
    reported = []
    worker.observe(lambda change: reported.append(change.new), "seconds_left")

    def job():
        clock.now += 100
        yield None  # a network is loaded
        for share in (0.5, 1.0):
            clock.now += 30
            yield share  # a file is read
        for share in (0.25, 0.5):
            clock.now += 2
            yield share  # its frames are drawn

    halted = worker._may_go_on

    def may_go_on():
        clock.now += 1000  # paused
        return halted()

    monkeypatch.setattr(worker, "_may_go_on", may_go_on)
    worker.start("two parts", job)
    worker.wait(10.0)
    assert reported == pytest.approx([30, 0, 6, 4])


def test_a_closed_worker_starts_no_job(worker):
    seen = []
    worker.close()
    worker.start("counting", counting(seen))
    time.sleep(0.05)
    assert not seen
