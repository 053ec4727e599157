from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ifttn.data.augmentation import test_crops as crops_of
from ifttn.data.doctor import pan
from ifttn.data.flow import to_bytes
from ifttn.data.video import decode
from ifttn.experiment import speed
from ifttn.experiment.speed import DECODE, DEFINITIONS, RATE, ROWS, VECTORS, Conditions, Result, Task, Timing
from ifttn.vocabulary import IfttnError


@pytest.fixture(scope="module")
def video(tmp_path_factory, encode):
    return encode(tmp_path_factory.mktemp("speed") / "pan.avi", pan(40, 160, 120, (3, 1)))


def test_every_row_is_read_from_a_file_as_its_network_takes_it(video):
    for name in ROWS:
        setup = ROWS[name].at("small")
        inputs = speed.read_inputs(video, setup, segments=3)
        assert {m: tuple(x.shape) for m, x in inputs.items()} == setup.inputs(1, speed.fitting(setup, 40, 3)), name
        assert all(x.dtype == torch.uint8 for x in inputs.values())


def test_motion_of_a_pan_is_what_it_is_whether_it_comes_of_vectors_flow_or_differences(video):
    scale = speed.stored_size(ROWS["mv-if-ttn"].at("small"))[0] / 160
    step = to_bytes(np.array([3.0, 1.0]) * scale, speed.BOUND).astype(int)
    for name, modality in (("mv-if-ttn", "mv"), ("if-ttn", "flow")):
        fields = speed.read_inputs(video, ROWS[name].at("small"), 2)[modality].unflatten(2, (-1, 2))
        median = fields[..., 20:-20, 20:-20].float().flatten(-2).median(-1).values
        assert (median - torch.from_numpy(step)).abs().max() <= 2
    accumulated = speed.read_inputs(video, ROWS["coviar"].paper, 2)["accumulated"][0].unflatten(0, (2, -1))
    grown = accumulated[0, :, 0, 60:-60, 60:-60].float().flatten(1).median(-1).values
    assert (grown.diff() >= 0).all()  # further from its I-frame, frame after frame
    assert grown[-1] > grown[0] + 20


def test_vectors_are_cut_from_the_frames_that_the_pictures_are_cut_from(video):
    setup = ROWS["mv-if-ttn"].at("small")
    inputs, size = speed.read_inputs(video, setup, 3), speed.stored_size(setup)
    decoded, starts = decode(video, size), speed.starts_of(setup, 40, 3)
    part = crops_of(size[1], size[0], 64, 1)[0].region
    for k, start in enumerate(starts):
        np.testing.assert_array_equal(inputs["rgb"][0, k].permute(1, 2, 0), decoded.frames[start + 2][part])
        fields = to_bytes(decoded.vectors[start : start + 5], speed.BOUND)[..., *part]
        np.testing.assert_array_equal(inputs["mv"][0, k].unflatten(0, (5, 2)), fields)


def test_long_rows_take_no_more_segments_than_fit():
    i3d, ours = ROWS["two-stream-i3d"].paper, ROWS["mv-if-ttn"].paper
    assert (speed.span(i3d), speed.span(ours), speed.span(ROWS["coviar"].paper)) == (65, 6, 12)
    assert (speed.fitting(i3d, 186, 7), speed.fitting(ours, 186, 7)) == (2, 7)
    assert speed.fitting(ours, 20, 7) == 7  # as the recognizer samples it, overlapping
    starts = speed.starts_of(i3d, 186, 7)
    assert len(starts) == 2
    assert starts[1] - starts[0] >= 55
    assert starts[-1] + 65 <= 186


def test_multiply_adds_are_counted_without_computing():
    setup = ROWS["mv-if-ttn"].paper
    with torch.device("meta"):
        network = setup.network(101).eval()
    # 4.09 of the RGB stream, 0.28 more for a stem of ten planes, 2.83 of the TTN for each of six pairs of seven
    assert speed.macs(network, setup.inputs(1, 7)) / 1e9 == pytest.approx(7 * 8.45 + 6 * 2.83 + 2.8, rel=0.05)


def test_a_run_measures_each_definition_in_turns_and_stops_repeating_what_takes_long(video):
    conditions = Conditions(video, "small", ("tsn-rgb", "mv-if-ttn"), segments=2)
    built = [*speed.tasks(conditions)]
    assert [(t.row, t.definition) for t in built] == [
        (DECODE, ""),
        (VECTORS, ""),
        (RATE, ""),
        *((row, definition) for row in conditions.rows for definition in DEFINITIONS),
    ]
    result = Result(conditions, *speed.watched(video))
    result.timings.extend(speed.timings(built, conditions, repetitions=3, minutes=1.0))
    assert [t.round for t in result.timings] == sorted(t.round for t in result.timings)
    assert len(result.timings) == 3 * len(built)
    assert result.timings[-1].left == pytest.approx(0, abs=1e-9)
    for row in conditions.rows:
        rates = {definition: result.rate(row, definition) for definition in DEFINITIONS}
        assert all(
            rate and 0 < rate.low <= rate.median <= rate.high and rate.repetitions == 3 for rate in rates.values()
        )
        assert rates["end to end"].median < rates["videos"].median < rates["snippets"].median
    assert any(line.startswith("MV-IF-TTN passes real time") for line in result.claims())


def test_what_takes_long_is_measured_once(video):
    clock = [0.0]
    slow, quick = (
        Task(n, "videos", 1.0, lambda s=s: clock.__setitem__(0, clock[0] + s), float(s))
        for n, s in (("s", 50), ("q", 1))
    )
    conditions, timer = Conditions(video), SimpleNamespace(process_time=lambda: clock[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "time", timer)
        found = [(t.task.row, t.round) for t in speed.timings([slow, quick], conditions, repetitions=9, minutes=0.1)]
    assert found == [("s", 0), ("q", 0), ("q", 1), ("q", 2)]


def result_of(video, seconds, segments=7, num_frames=186):
    """A run of known figures: (row, definition) -> seconds."""
    result = Result(Conditions(video, segments=segments), num_frames, 25.0)
    for (row, definition), values in seconds.items():
        task = Task(row, definition, 34.0 if row == RATE else 1.0, lambda: None, 80.0)
        result.timings.extend(Timing(task, r, s, 0.0) for r, s in enumerate(values))
    return result


def test_claims_are_arithmetic_on_the_figures_of_one_run(video):
    figures = {
        (DECODE, ""): [0.1],
        (VECTORS, ""): [0.2],
        (RATE, ""): [1.0],
        ("mv-if-ttn", "snippets"): [2.0],
        ("mv-if-ttn", "videos"): [2.0],
        ("mv-if-ttn", "end to end"): [2.5, 2.5],
        ("if-ttn", "videos"): [2.0],
        ("if-ttn", "end to end"): [24.0, 26.0],
    }
    text = "\n".join(result_of(video, figures).claims())
    assert "10.0 [9.8, 10.2] times as fast; at least 10 holds" in text
    assert "35 fields that the snippets hold: 22800 ms" in text
    assert "80% of its time" in text
    assert f"{(25 + 22.8 * (185 / 35 - 1)) / 2.5:.1f} times" in text  # every field's flow
    assert "passes real time: 3.0 times" in text
    assert f"It takes 2500.0, {80 / 34 / 2.5:.2f} of the larger (aim met: 0.8)" in text
    slower = "\n".join(result_of(video, {**figures, ("mv-if-ttn", "end to end"): [9.0]}).claims())
    assert "at least 10 does not hold" in slower
    assert "misses real time" in slower
    assert "aim missed" in slower


def test_nothing_is_claimed_of_what_was_not_measured(video):
    assert result_of(video, {}).claims() == []
    assert result_of(video, {(RATE, ""): [1.0]}).rate("mv-if-ttn", "videos") is None


def test_an_unknown_size_is_named():
    with pytest.raises(IfttnError, match="choose from paper, small"):
        ROWS["off"].at("huge")
