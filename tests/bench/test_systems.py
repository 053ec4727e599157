import numpy as np
import pytest
import torch

from ifttn.bench import systems
from ifttn.bench.clock import Clock
from ifttn.bench.measured_speeds import MeasuredSpeeds
from ifttn.bench.systems import DECODE, DEFINITIONS, PRODUCT, ROWS, VECTORS, Conditions
from ifttn.data.augmentation import test_crops as crops_of
from ifttn.data.doctor import pan
from ifttn.data.flow import to_bytes
from ifttn.data.video import decode
from ifttn.experiment.presets import PRESETS
from ifttn.vocabulary import IfttnError

BOUND = PRESETS["paper"].store.bound


@pytest.fixture(scope="module")
def video(tmp_path_factory, encode):
    return encode(tmp_path_factory.mktemp("speed") / "pan.avi", pan(40, 160, 120, (3, 1)))


def test_every_row_is_read_from_a_file_as_its_network_takes_it(video):
    for name in ROWS:
        variant = ROWS[name].at("small")
        inputs = systems.read_inputs(video, variant, segments=3)
        assert {m: tuple(x.shape) for m, x in inputs.items()} == variant.inputs(
            1, systems.segments_taken(variant, 40, 3)
        ), name
        assert all(x.dtype == torch.uint8 for x in inputs.values())


def test_motion_of_a_pan_is_what_it_is_whether_it_comes_of_vectors_flow_or_differences(video):
    scale = systems.stored_size(ROWS["mv-if-ttn"].at("small"))[0] / 160
    step = to_bytes(np.array([3.0, 1.0]) * scale, BOUND).astype(int)
    for name, modality in (("mv-if-ttn", "mv"), ("if-ttn", "flow")):
        fields = systems.read_inputs(video, ROWS[name].at("small"), 2)[modality].unflatten(2, (-1, 2))
        median = fields[..., 20:-20, 20:-20].float().flatten(-2).median(-1).values
        assert (median - torch.from_numpy(step)).abs().max() <= 2
    accumulated = systems.read_inputs(video, ROWS["coviar"].paper, 2)["accumulated"][0].unflatten(0, (2, -1))
    grown = accumulated[0, :, 0, 60:-60, 60:-60].float().flatten(1).median(-1).values
    assert (grown.diff() >= 0).all()  # further from its I-frame, frame after frame
    assert grown[-1] > grown[0] + 20


def test_vectors_are_cut_from_the_frames_that_the_pictures_are_cut_from(video):
    variant = ROWS["mv-if-ttn"].at("small")
    inputs, size = systems.read_inputs(video, variant, 3), systems.stored_size(variant)
    decoded, starts = decode(video, size), systems.starts_of(variant, 40, 3)
    part = crops_of(size[1], size[0], 64, 1)[0].region
    for k, start in enumerate(starts):
        np.testing.assert_array_equal(inputs["rgb"][0, k].permute(1, 2, 0), decoded.frames[start + 2][part])
        fields = to_bytes(decoded.vectors[start : start + 5], BOUND)[..., *part]
        np.testing.assert_array_equal(inputs["mv"][0, k].unflatten(0, (5, 2)), fields)


def test_long_rows_take_no_more_segments_than_fit():
    i3d, ours = ROWS["two-stream-i3d"].paper, ROWS["mv-if-ttn"].paper
    assert (systems.span(i3d), systems.span(ours), systems.span(ROWS["coviar"].paper)) == (65, 6, 12)
    assert (systems.segments_taken(i3d, 186, 7), systems.segments_taken(ours, 186, 7)) == (2, 7)
    assert systems.segments_taken(ours, 20, 7) == 7  # as the recognizer samples it, overlapping
    starts = systems.starts_of(i3d, 186, 7)
    assert len(starts) == 2
    assert starts[1] - starts[0] >= 55
    assert starts[-1] + 65 <= 186


def test_multiply_adds_are_counted_without_computing():
    variant = ROWS["mv-if-ttn"].paper
    with torch.device("meta"):
        network = variant.network(101).eval()
    # 4.09 of the RGB stream, 0.28 more for a stem of ten planes, 2.83 of the TTN for each of six pairs of seven
    assert systems.macs(network, variant.inputs(1, 7)) / 1e9 == pytest.approx(7 * 8.45 + 6 * 2.83 + 2.8, rel=0.05)


def test_a_run_measures_each_definition_in_turns_and_stops_repeating_what_takes_long(video):
    conditions = Conditions(video, "small", ("tsn-rgb", "mv-if-ttn"), segments=2)
    num_frames, fps = systems.frames_and_rate(video)
    built = [*systems.workloads(conditions, num_frames)]
    assert [(t.row, t.definition) for t in built] == [
        (DECODE, ""),
        (VECTORS, ""),
        (PRODUCT, ""),
        *((row, definition) for row in conditions.rows for definition in DEFINITIONS),
    ]
    speeds = MeasuredSpeeds(conditions, num_frames, fps)
    speeds.timings.extend(Clock().rounds(built, repetitions=3, minutes=1.0))
    assert [t.round for t in speeds.timings] == sorted(t.round for t in speeds.timings)
    assert len(speeds.timings) == 3 * len(built)
    assert speeds.timings[-1].left == pytest.approx(0, abs=1e-9)
    for row in conditions.rows:
        rates = {definition: speeds.rate(row, definition) for definition in DEFINITIONS}
        assert all(
            rate and 0 < rate.low <= rate.median <= rate.high and rate.repetitions == 3 for rate in rates.values()
        )
        assert rates["end to end"].median < rates["videos"].median < rates["snippets"].median
    assert any(line.startswith("MV-IF-TTN passes real time") for line in speeds.claims())


def test_an_unknown_size_is_named():
    with pytest.raises(IfttnError, match="choose from paper, small"):
        ROWS["off"].at("huge")
