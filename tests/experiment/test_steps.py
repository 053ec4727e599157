import operator
import os
import signal
import time

import pytest
import torch

from ifttn.experiment.steps import Progress, Step, run_steps, timed
from ifttn.vocabulary import IfttnError


def test_the_time_to_go_is_at_the_pace_of_the_work_and_not_of_what_was_found_done():
    steps = [Step(name, print, weight=weight) for name, weight in (("a", 1.0), ("b", 2.0), ("c", 4.0))]
    progress = Progress(steps, done={"a"})
    assert progress.seconds_left(1) is None
    progress.seconds["a"] = 60.0  # by an earlier call: to find it done took no time
    assert progress.seconds_left(1) == 360.0
    assert progress.seconds_left(2) == 180.0
    progress.failed["b"] = "why"
    assert progress.seconds_left(1) == 240.0


def test_the_bar_moves_while_a_long_step_runs(monkeypatch):
    steps = [Step("short", print), Step("long", print, weight=9.0)]
    progress = Progress(steps, seconds={"short": 60.0}, done={"short"}, running={"long": 1000.0})
    for now, share, left in ((1000.0, 0.1, 540.0), (1270.0, 0.55, 270.0), (9999.0, 0.955, 27.0)):
        monkeypatch.setattr("ifttn.experiment.steps.time.monotonic", lambda now=now: now)
        assert progress.share == pytest.approx(share)
        assert progress.seconds_left(1) == pytest.approx(left)


def test_a_running_step_is_reported_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr("ifttn.experiment.steps.TICK", 0.05)
    found = [p.changed for p in run_steps([Step("a", time.sleep, (0.5,))], jobs=1, timings=tmp_path / "timings.json")]
    assert found[0]
    assert found[-1]
    assert found.count(False) > 3


def test_a_step_that_fails_stops_only_those_that_need_it(tmp_path):
    steps = [
        Step("good", time.sleep, (0.01,)),
        Step("bad", operator.truediv, (1, 0)),
        Step("after bad", time.sleep, (0.01,), needs=("bad",)),
        Step("after good", time.sleep, (0.01,), needs=("good",)),
    ]
    *_, last = run_steps(steps, jobs=1, timings=tmp_path / "timings.json")
    assert last.done == {"good", "after good"}
    assert set(last.failed) == {"bad", "after bad"}
    assert "division by zero" in last.failed["bad"]
    assert last.failed["after bad"] == "needs bad, which failed"
    assert set(last.seconds) == {"good", "after good"}
    assert last.share == 0.5


def die(marker, survivals):
    """Kill the process of the step, but for the last `survivals` times that it is tried."""
    tries = len(marker.read_text()) if marker.exists() else 0
    marker.write_text("x" * (tries + 1))
    if tries >= survivals:
        return
    time.sleep(0.5)  # the others are in the middle of theirs
    os.kill(os.getpid(), signal.SIGKILL)


def begin(marker):
    marker.write_text(marker.read_text() + "x" if marker.exists() else "x")
    time.sleep(1.5)


@pytest.mark.slow
def test_a_killed_process_costs_its_step_a_second_try_and_no_other_step_anything(tmp_path):
    steps = [
        Step("beside", begin, (tmp_path / "beside",)),
        Step("killed once", die, (tmp_path / "once", 1)),
        Step("after it", time.sleep, (0.01,), needs=("killed once",)),
        Step("killed always", die, (tmp_path / "always", 9)),
        Step("needs that", time.sleep, (0.01,), needs=("killed always",)),
    ]
    *_, last = run_steps(steps, jobs=2, timings=tmp_path / "timings.json")
    assert last.done == {"beside", "killed once", "after it"}
    assert last.killed == {"killed once", "killed always"}
    assert "killed twice" in last.failed["killed always"]
    assert "memory" in last.failed["killed always"]
    assert last.failed["needs that"] == "needs killed always, which failed"
    assert [len((tmp_path / name).read_text()) for name in ("beside", "once", "always")] == [1, 2, 2]


def lack_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a capacity of 79 GiB")


def test_a_step_without_memory_says_so_in_a_line():
    with pytest.raises(IfttnError, match=r"^the device has too little memory \(Tried to allocate 20.00 GiB\)$"):
        timed(Step("large", lack_memory))
