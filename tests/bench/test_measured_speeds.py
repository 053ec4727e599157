from pathlib import Path

import pytest

from ifttn.bench.clock import Timing, Workload
from ifttn.bench.measured_speeds import MeasuredSpeeds
from ifttn.bench.systems import DECODE, PRODUCT, VECTORS, Conditions


def speeds_of(seconds, segments=7, num_frames=186):
    """A run of known figures: (row, definition) -> seconds."""
    speeds = MeasuredSpeeds(Conditions(Path("pan.avi"), segments=segments), num_frames, 25.0)
    for (row, definition), values in seconds.items():
        workload = Workload(row, definition, 34.0 if row == PRODUCT else 1.0, lambda: None, 80.0)
        speeds.timings.extend(Timing(workload, r, s, 0.0) for r, s in enumerate(values))
    return speeds


def test_claims_are_arithmetic_on_the_figures_of_one_run():
    figures = {
        (DECODE, ""): [0.1],
        (VECTORS, ""): [0.2],
        (PRODUCT, ""): [1.0],
        ("mv-if-ttn", "snippets"): [2.0],
        ("mv-if-ttn", "videos"): [2.0],
        ("mv-if-ttn", "end to end"): [2.5, 2.5],
        ("if-ttn", "videos"): [2.0],
        ("if-ttn", "end to end"): [24.0, 26.0],
    }
    text = "\n".join(speeds_of(figures).claims())
    assert "10.0 [9.8, 10.2] times as fast; at least 10 holds" in text
    assert "The flow of the 35 fields of the snippets takes 22800 ms" in text
    assert "80% of its time" in text
    assert f"{(25 + 22.8 * (185 / 35 - 1)) / 2.5:.1f} times" in text  # every field's flow
    assert "passes real time: 3.0 times" in text
    assert f"It takes 2500.0; the larger bound is {80 / 34 / 2.5:.2f} of this (aim met: 0.8)" in text
    slower = "\n".join(speeds_of({**figures, ("mv-if-ttn", "end to end"): [9.0]}).claims())
    assert "at least 10 does not hold" in slower
    assert "misses real time" in slower
    assert "aim missed" in slower


def test_nothing_is_claimed_of_what_was_not_measured():
    assert speeds_of({}).claims() == []
    assert speeds_of({(PRODUCT, ""): [1.0]}).rate("mv-if-ttn", "videos") is None


def test_frames_are_counted_as_table_5_counts_them():
    figures = {
        (VECTORS, ""): [0.2],
        ("mv-if-ttn", "snippets"): [0.5],
        ("if-ttn", "snippets"): [0.5],
        ("if-ttn", "videos"): [2.0],
        ("if-ttn", "end to end"): [9.2],
        ("c3d", "snippets"): [0.5],
    }
    speeds = speeds_of(figures)
    assert speeds.paper_fps("mv-if-ttn") == pytest.approx(2)  # a snippet is a frame
    assert speeds.paper_fps("c3d") == pytest.approx(2 * 16)  # a snippet is sixteen
    assert speeds.paper_fps("if-ttn") == pytest.approx(1 / (0.5 + 7 / 7))  # 7 of the 9.2 seconds are flow
    unread = {key: value for key, value in figures.items() if key != (VECTORS, "")}
    assert speeds_of(unread).paper_fps("if-ttn") is None
    assert speeds_of(unread).paper_fps("mv-if-ttn") == pytest.approx(2)
