from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from ifttn.data.planes import Snippets
from ifttn.data.sampling import centre_starts, snippet_indices
from ifttn.data.store import Store
from ifttn.data.video import Reader, decode
from ifttn.experiment.presets import PRESETS
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import IfttnError
from lab import clip, video_file

SETTINGS = PRESETS["smallest"].store


def finish(steps):
    """The result of a generator, and its yielded values."""
    shares = []
    while True:
        try:
            shares.append(next(steps))
        except StopIteration as end:
            return end.value, shares


@pytest.fixture(scope="module")
def video(embedded):
    return embedded.split.test[0]


@pytest.fixture(scope="module")
def loaded(embedded, video):
    return finish(clip.load_clip(video.path, video.name, video.action, SETTINGS, Store(embedded.store)))[0]


def test_a_clip_from_a_store_is_equal_to_the_clip_from_the_file(loaded, video):
    own, shares = finish(clip.load_clip(video.path, video.name, None, SETTINGS))
    assert shares == sorted(shares)
    frames, fields = snippet_indices(centre_starts(own.source.frames, 4), own.source.frames)
    for modality, tolerance in (("rgb", 4), ("flow", 3), ("mv", 3), ("rgbdiff", 3)):
        mine, theirs = (Snippets(each.source, frames, fields).planes(modality) for each in (own, loaded))
        assert np.abs(mine.astype(int) - theirs).mean() < tolerance  # a store holds JPEGs
    assert np.abs(own.levels.astype(int) - loaded.levels).mean() < 3
    assert own.cuts == loaded.cuts
    assert (own.frames == loaded.frames).all()
    assert len(loaded.kinds) == len(loaded.frames) == len(loaded.flow) == len(loaded.vectors)
    assert loaded.kinds[0] == "I"


def test_a_folder_of_frames_gives_the_same_clip_as_the_video(loaded, video, tmp_path):
    for number, frame in enumerate(decode(video.path).frames, 7):
        cv2.imwrite(str(tmp_path / f"img_{number:05}.png"), frame[..., ::-1])
    own, shares = finish(clip.load_clip(tmp_path, "frames", None, SETTINGS))
    assert shares == sorted(shares)
    assert own.kinds == "I" * len(loaded.kinds)
    assert (own.frames == loaded.frames).all()
    assert own.cuts == loaded.cuts
    assert own.vectors.shape == loaded.vectors.shape
    assert np.abs(own.levels.astype(int) - loaded.levels).mean() < 3
    np.testing.assert_allclose(own.seconds, np.arange(len(own.kinds)) / 25)


def test_the_cuts_of_the_embedded_videos_are_found(loaded):
    lengths = np.diff([0, *loaded.cuts, len(loaded.kinds)])
    assert len(loaded.cuts) >= 3
    assert lengths[1:-1].min() >= 13
    assert lengths[1:-1].max() <= 16


def test_a_reading_has_the_prediction_of_the_recognizer(results, loaded, video):
    recognizer = Recognizer.load(results / "runs" / "embedded-ucf" / "split1" / "if-ttn")
    reading = clip.read_clip(recognizer, loaded)
    prediction = recognizer(video.path)
    assert reading.sampled.tolist() == np.rint(prediction.seconds * loaded.fps).astype(int).tolist()
    for head, votes in reading.votes.items():
        assert np.corrcoef(votes.ravel(), prediction.votes[head].ravel())[0, 1] > 0.98  # JPEG, again
    assert reading.fused.sum() == pytest.approx(1)


def test_the_mean_of_a_map_is_its_vote_and_a_finer_map_covers_the_same_pixels(results, loaded):
    recognizer = Recognizer.load(results / "runs" / "embedded-ucf" / "split1" / "if-ttn")
    reading, cells = clip.read_clip(recognizer, loaded), clip.cell_maps(recognizer, loaded, 3)
    finer = clip.cell_maps(recognizer, loaded, 3, finer=4)
    pixels = clip.pixel_maps(recognizer, loaded, 3, finer=4)
    side = recognizer.preset.size
    for head, votes in reading.votes.items():
        bias = recognizer.network.heads[head].bias.detach().numpy()[3]
        assert cells[head].mean((1, 2)) + bias == pytest.approx(votes[:, 3], abs=1e-4)
        assert finer[head][:, ::4, ::4] == pytest.approx(cells[head], abs=1e-4)
        assert pixels[head].shape == (len(votes), side, side)
        # Cell i of level 5 is centred on pixel 32 i, where resizing it as a picture would put pixel 32 i + 16.
        assert pixels[head][:, ::32, ::32] == pytest.approx(cells[head], abs=1e-4)


def test_grad_cam_is_positive_and_has_a_value_for_each_pixel(results, loaded):
    recognizer = Recognizer.load(results / "runs" / "embedded-ucf" / "split1" / "if-ttn")
    maps = clip.pixel_maps(recognizer, loaded, 3, method="gradcam")
    assert {head: len(each) for head, each in maps.items()} == {"rgb": 4, "flow": 4, "ttn": 3}
    assert all(each.min() >= 0 and each.max() <= 1 for each in maps.values())
    assert all(each.shape[1:] == (recognizer.preset.size,) * 2 for each in maps.values())


def test_another_order_changes_the_pairs_and_no_stream(results, loaded):
    recognizer = Recognizer.load(results / "runs" / "embedded-ucf" / "split1" / "if-ttn")
    filmed, turned = clip.read_clip(recognizer, loaded), clip.read_clip(recognizer, loaded, (3, 2, 1, 0))
    for head in ("rgb", "flow"):
        assert turned.votes[head] == pytest.approx(filmed.votes[head][::-1], abs=1e-5)
        assert turned.probabilities(head) == pytest.approx(filmed.probabilities(head), abs=1e-5)
    assert turned.votes["ttn"] != pytest.approx(filmed.votes["ttn"], abs=1e-5)


def test_a_frame_belongs_to_its_nearest_snippet_and_to_the_pair_around_it(results, loaded):
    reading = clip.read_clip(Recognizer.load(results / "runs" / "embedded-ucf" / "split1" / "if-ttn"), loaded)
    last = len(loaded.kinds) - 1
    assert [reading.snippet(t) for t in reading.sampled.tolist()] == [0, 1, 2, 3]
    assert (reading.snippet(0), reading.snippet(last)) == (0, 3)
    assert (reading.pair(0), reading.pair(int(reading.sampled[1])), reading.pair(last)) == (0, 1, 2)
    assert reading.vote("ttn", last) == 2
    assert reading.vote("rgb", last) == 3


def test_the_error_names_a_file_that_is_missing_or_is_no_video(tmp_path):
    with pytest.raises(IfttnError, match="is not there"):
        next(video_file.probe(tmp_path / "none.mp4"))
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(IfttnError, match=r"text\.avi cannot be read as a video"):
        next(video_file.probe(tmp_path / "text.avi"))


def test_of_a_long_file_every_second_frame_is_shown(tmp_path, encode, monkeypatch):
    monkeypatch.setattr(clip, "MOST_FRAMES", 10)
    path = encode(tmp_path / "v.avi", [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(20)])
    made, _ = finish(clip.load_clip(path, "v", None, SETTINGS))
    assert (made.step, len(made.frames), len(made.kinds)) == (2, 10, 20)
    assert [round(float(frame.mean()) / 10) for frame in made.frames] == list(range(0, 20, 2))


def test_the_memory_of_a_clip_does_not_grow_with_its_length(tmp_path, encode, monkeypatch):
    monkeypatch.setattr(clip, "MOST_FRAMES", 10)

    def kept(count):
        path = encode(tmp_path / f"{count}.avi", [np.full((48, 64, 3), i % 250, np.uint8) for i in range(count)])
        made, _ = finish(clip.load_clip(path, "v", None, SETTINGS))
        arrays = [array for kind in made.source._kept.values() for array in kind.values()]
        return sum(array.nbytes for array in (*arrays, made.frames, made.vectors, made.levels))

    assert kept(1300) <= 1.05 * kept(200)  # once, a file of more than 1200 frames was refused


@pytest.mark.parametrize(("ending", "options"), [("avi", {}), ("mp4", {"codec": "h264", "b_frames": 2})])
def test_a_part_of_a_file_has_the_frames_of_its_seconds_and_later_frames_are_not_read(
    tmp_path, encode, monkeypatch, ending, options
):
    rng = np.random.default_rng(0)
    path = encode(tmp_path / f"v.{ending}", list(rng.integers(0, 255, (100, 48, 64, 3), dtype=np.uint8)), **options)
    assert video_file.length(path) == pytest.approx(4.0, abs=0.05)
    whole, _ = finish(clip.load_clip(path, "v", None, SETTINGS))
    read, packets = [], Reader._packets
    monkeypatch.setattr(Reader, "_packets", lambda *a: (read.append(each) or each for each in packets(*a)))
    part, shares = finish(clip.load_clip(path, "v", None, SETTINGS, span=(1.0, 2.0)))
    assert max(np.bincount([each.pts or 0 for each in read])) <= 3  # once for the types, the pictures, the networks
    assert len({each.pts for each in read}) < 50
    assert shares == sorted(shares)
    assert len(part.kinds) == len(part.frames) == part.source.frames == 25
    assert np.abs(part.frames.astype(int) - whole.frames[25:50]).mean() < 30  # B-frames are re-encoded
    assert part.seconds == pytest.approx(whole.seconds[25:50], abs=1e-3)
    last, _ = finish(clip.load_clip(path, "v", None, SETTINGS, span=(3.6, 9.0)))
    assert len(last.kinds) == 10
    with pytest.raises(IfttnError, match="shows 0 of its frames from 5 to 6 s"):
        finish(clip.load_clip(path, "v", None, SETTINGS, span=(5.0, 6.0)))


def test_a_part_of_a_folder_of_images_has_the_frames_of_its_seconds(tmp_path):
    for number in range(50):
        cv2.imwrite(str(tmp_path / f"img_{number:05}.png"), np.full((48, 64, 3), 5 * number, np.uint8))
    assert video_file.length(tmp_path) == 2.0
    part, _ = finish(clip.load_clip(tmp_path, "frames", None, SETTINGS, span=(0.4, 1.2)))
    assert [round(float(frame.mean()) / 5) for frame in part.frames] == list(range(10, 30))
    assert part.seconds[0] == pytest.approx(0.4)


def test_a_network_with_another_number_of_segments_than_the_presets_can_sample_a_clip(video):
    made, _ = finish(clip.load_clip(video.path, "v", None, SETTINGS, segments=5))
    frames, fields = snippet_indices(centre_starts(made.source.frames, 5), made.source.frames)
    assert len(Snippets(made.source, frames, fields).planes("flow")) == 5


def test_a_clip_has_the_times_of_its_file(shared_data):
    made, _ = finish(clip.load_clip(shared_data / "faults" / "variable_rate.mp4", "v", None, SETTINGS))
    assert made.seconds[18] == pytest.approx(0.72)
    assert made.seconds[-1] == pytest.approx(5.8)


def test_a_clip_has_the_shape_in_which_a_player_shows_it(tmp_path, encode, shared_data):
    portrait, _ = finish(clip.load_clip(shared_data / "faults" / "portrait_rot90.mp4", "v", None, SETTINGS))
    assert portrait.frames.shape[1:3] == (96, 72)
    wide = encode(tmp_path / "wide.avi", [np.full((360, 640, 3), 10 * i, np.uint8) for i in range(4)])
    assert finish(clip.load_clip(wide, "v", None, SETTINGS))[0].frames.shape[1:3] == (270, 480)
    with av.open(str(tmp_path / "oblong.mp4"), "w") as made:
        stream = made.add_stream("mpeg4", 25)
        stream.width, stream.height, stream.pix_fmt, stream.sample_aspect_ratio = 64, 48, "yuv420p", Fraction(3, 2)
        for level in range(4):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * level, np.uint8))))
        made.mux(stream.encode())
    assert finish(clip.load_clip(tmp_path / "oblong.mp4", "v", None, SETTINGS))[0].frames.shape[1:3] == (48, 96)


def test_the_error_names_a_file_with_a_single_frame(tmp_path, encode):
    path = encode(tmp_path / "still.avi", [np.full((48, 64, 3), 90, np.uint8)])
    with pytest.raises(IfttnError, match=r"still\.avi has a single frame"):
        finish(clip.load_clip(path, "still", None, SETTINGS))
