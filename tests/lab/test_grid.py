"""The grid of clips without a browser: rows, filters, tags, thumbnails and messages."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ifttn.experiment.scores import READINGS, Scores
from ifttn.vocabulary import IfttnError, Video
from lab.grid import ClipGrid
from lab.grid_rows import GridState, Tags, clip_rows
from lab.shelf import Shelf
from lab.thumbnails import FRAMES, SIZE, strip

ACTIONS = ("Climb", "Climb Down", "Jump")
FACTORS = {"up": np.array([1, 0, 1])}


def video(name, label):
    return Video(name, Path(name), ACTIONS[label], label, "")


@pytest.fixture
def rows():
    """Predictions: a and c are right, b and d are wrong, e has no scores. With reversed snippets, a is wrong."""
    videos = [video(name, label) for name, label in (("c", 1), ("a", 0), ("b", 0), ("e", 2), ("d", 2))]
    logits = np.array([[0, 4, 0], [3, 0, 0], [0, 1, 0], [2, 0, 1.5]], np.float32)
    backwards = np.array([[0, 4, 0], [0, 3, 0], [0, 1, 0], [2, 0, 1.5]], np.float32)
    readings = dict(zip(READINGS, ({"rgb": logits}, {"rgb": backwards}, {"rgb": logits}), strict=True))
    scores = Scores(("c", "a", "b", "d"), np.array([1, 0, 0, 2]), ACTIONS, {"rgb": logits}, readings)
    return clip_rows(videos, ACTIONS, scores, "rgb", {"a": 2.0, "c": 1.0}, FACTORS)


def named(rows, tags=None, **chosen):
    return "".join(rows.names[row] for row in rows.arranged(GridState(**chosen), tags or {}))


def test_rows_are_sorted_by_class_and_name_and_have_their_quantities(rows):
    assert named(rows) == "abcde"
    assert rows.predicted.tolist() == [0, 1, 1, 0, -1]
    e = np.exp
    assert rows.numbers["confidence"][0] == pytest.approx(e(3) / (e(3) + 2))
    assert rows.numbers["margin"][3] == pytest.approx((e(1.5) - e(2)) / (e(2) + 1 + e(1.5)))
    assert rows.numbers["order, reversed"][:4] == pytest.approx([(e(3) - 1) / (e(3) + 2), 0, 0, 0])
    assert rows.numbers["order, shuffled"][:4] == pytest.approx([0] * 4)
    assert np.isnan(rows.numbers["confidence"][4])


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"action": "Climb"}, "ab"),  # the class of this name, and not those that have it in theirs
        ({"action": "climb"}, "abc"),
        ({"action": "nothing"}, ""),
        ({"predicted": "Climb Down"}, "bc"),
        ({"outcome": "wrong"}, "bd"),
        ({"outcome": "right"}, "ac"),
        ({"outcome": "wrong: up"}, "b"),
        ({"outcome": "right: up"}, "acd"),
        ({"tag": "odd"}, "be"),
        ({"only": ("d", "a")}, "ad"),
        ({"outcome": "wrong", "tag": "odd"}, "b"),
        ({"by": "confidence"}, "dbace"),
        ({"by": "confidence", "descending": True}, "cabde"),
        ({"by": "length (s)"}, "cabde"),
        ({"by": "length (s)", "within": (0.5, 1.5)}, "c"),
        ({"descending": True}, "edcba"),
    ],
)
def test_filters_leave_the_right_clips_in_the_right_order(rows, chosen, expected):
    assert named(rows, {"b": ["odd"], "e": ["odd", "dark"]}, **chosen) == expected


def test_the_error_for_an_unknown_outcome_has_the_known_ones(rows):
    with pytest.raises(IfttnError, match="'wrong: down': choose from right, wrong, wrong: up"):
        named(rows, outcome="wrong: down")


def test_without_scores_there_are_no_predictions_and_quantities():
    rows = clip_rows([video("a", 0)], ACTIONS)
    assert (named(rows), named(rows, outcome="right"), named(rows, predicted="Climb")) == ("a", "", "")
    assert rows.numbers == {}


def test_a_tag_is_added_and_removed_and_tags_of_other_panels_remain(tmp_path):
    one, other = Tags(tmp_path / "tags" / "set.json"), Tags(tmp_path / "tags" / "set.json")
    assert one.read() == {}
    one.toggle("b", "odd")
    other.toggle("a", "dark")
    assert one.toggle("b", "böse") == {"a": ["dark"], "b": ["böse", "odd"]}
    assert other.toggle("a", "dark") == json.loads(one.path.read_text()) == {"b": ["böse", "odd"]}


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}'])
def test_a_damaged_file_of_tags_is_an_error_and_is_not_changed(tmp_path, content):
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(IfttnError, match=r"set\.json holds no tags"):
        Tags(tmp_path / "set.json").toggle("a", "dark")
    assert (tmp_path / "set.json").read_text() == content


def frames_of(content: bytes) -> np.ndarray:
    picture = np.asarray(Image.open(io.BytesIO(content))).astype(int)
    return picture.reshape(SIZE[1], FRAMES, SIZE[0], 3).transpose(1, 0, 2, 3)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_strip_has_frames_from_the_first_to_the_last(tmp_path, encode, kind):
    levels = [np.full((48, 64, 3), 16 * i, np.uint8) for i in range(15)]
    path = encode(tmp_path / "v.mp4", levels)
    if kind == "folder":
        path = tmp_path / "images"
        path.mkdir()
        for i, image in enumerate(levels):
            Image.fromarray(image).save(path / f"{i:05d}.png")
    content = strip(Video("A/v", path, "A", 0, ""), None, tmp_path / "kept")
    np.testing.assert_allclose(frames_of(content).mean((1, 2, 3)), np.arange(0, 240, 32), atol=4)


def test_a_strip_of_the_store_looks_like_that_of_the_file(shelf, tmp_path):
    store, first = shelf.store("embedded-ucf", "smallest"), shelf.split("embedded-ucf", 1).test[0]
    prepared, decoded = (frames_of(strip(first, each, tmp_path / str(each))) for each in (store, None))
    assert np.abs(prepared - decoded).mean() < 6


def test_a_strip_is_cached_until_its_video_changes(tmp_path, encode):
    path = encode(tmp_path / "v.mp4", [np.full((48, 64, 3), 200, np.uint8)] * 8)
    video = Video("A/v", path, "A", 0, "")
    first = strip(video, None, tmp_path / "kept")
    (kept,) = (tmp_path / "kept").rglob("*.jpg")
    kept.write_bytes(b"kept")
    assert strip(video, None, tmp_path / "kept") == b"kept"
    os.utime(path, (kept.stat().st_mtime + 10,) * 2)
    assert strip(video, None, tmp_path / "kept") == first


@pytest.fixture
def grid(opened, shelf, tmp_path, monkeypatch):
    """A grid and its messages with strips."""
    monkeypatch.setattr("lab.grid.GridView.send", lambda view, content, buffers: sent.append((content, buffers)))
    root, sent = tmp_path / "results", []
    for part in ("data", "stores", "runs"):
        root.mkdir(exist_ok=True)
        (root / part).symlink_to(shelf.places.root.resolve() / part)
    panel = opened(ClipGrid, root)
    assert panel.wait(60.0)
    assert panel.worker.error == ""
    panel.sent = sent
    return panel


def shown(panel):
    return np.frombuffer(panel.view.shown["rows"], np.uint32).tolist()


def test_the_grid_shows_the_test_videos_of_a_split_with_the_predictions_of_its_usual_run(grid, shelf):
    split, scores = shelf.split("embedded-ucf", 1), shelf.runs("embedded-ucf", 1)["if-ttn"].scores()
    assert sorted(grid.view.videos["names"]) == sorted(video.name for video in split.test)
    assert (grid.run.value, [value for _, value in grid.head.options]) == ("if-ttn", ["", *scores.heads])
    labels, predicted = (np.frombuffer(each, np.int16) for each in (grid.view.videos["labels"], grid.view.predicted))
    grid.state.outcome = "right"
    assert shown(grid) == np.flatnonzero(labels == predicted).tolist()
    for head in scores.heads:
        grid.head.value = head
        assert grid.wait(60.0)
        by_name = dict(zip(scores.videos, scores.heads[head].argmax(1), strict=True))
        predicted = np.frombuffer(grid.view.predicted, np.int16).tolist()
        assert predicted == [by_name[name] for name in grid.view.videos["names"]]
    edition = grid.view.videos["edition"]
    grid.side.value = "train"
    assert grid.wait(60.0)
    assert grid.view.videos["edition"] == edition + 1
    assert "only the side test has scores" in grid._absent.value
    assert grid.outcome.layout.display == "none"
    grid.all.click()
    assert len(shown(grid)) == len(split.train)


def test_clips_are_sorted_by_a_quantity_and_filtered_by_its_range(grid):
    grid.by.value = "confidence"
    values = grid.rows.numbers["confidence"]
    assert shown(grid) == np.argsort(values, kind="stable").tolist()
    grid.within.value = (float(np.median(values)), 1.0)
    assert len(shown(grid)) == len(values) // 2
    grid.by.value = "margin"
    assert grid.state.within == ()
    assert len(shown(grid)) == len(values)


def test_the_requested_strips_are_sent_and_cached(grid):
    grid.view._handle_custom_msg({"wanted": [3, 0], "edition": 1}, [])
    assert grid.wait(60.0)
    assert sorted(row for content, _ in grid.sent for row in content["rows"]) == [0, 3]
    assert all(frames_of(bytes(strip)).shape[0] == FRAMES for _, strips in grid.sent for strip in strips)
    assert len([*(grid.shelf.places.root / "thumbnails" / "embedded-ucf").rglob("*.jpg")]) == 2
    grid.view._handle_custom_msg({"wanted": [1], "edition": 0}, [])  # of videos that are no longer listed
    assert grid.wait(60.0)
    assert len(grid.sent) <= 2


def test_a_clip_is_tagged_filtered_by_its_tag_and_opened(grid):
    name = grid.view.videos["names"][2]
    grid.view._handle_custom_msg({"row": 2, "tag": " odd  one "}, [])
    assert grid.view.tags == {"2": ["odd one"]}
    grid.tag.value = "odd one"
    assert shown(grid) == [2]
    grid.view._handle_custom_msg({"open": 2}, [])
    assert grid.inspector.wait(60.0)
    assert grid.inspector.worker.error + grid.inspector.worker.details == ""
    assert grid.inspector.clip.name == name
    assert grid.inspector.run.value == "if-ttn"
    grid.toggle_tag(name, "odd one")
    assert shown(grid) == []
    assert grid.worker.error == ""


def test_without_a_run_or_a_store_the_grid_shows_the_videos_and_says_what_is_missing(opened, shelf, tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copytree(shelf.places.root / "data" / "embedded-ucf", tmp_path / "data" / "embedded-ucf")
    panel = opened(ClipGrid, tmp_path, side="both")
    assert panel.wait(60.0)
    assert panel.worker.error == ""
    assert len(shown(panel)) == 32
    assert "ifttn reproduce --quick" in panel._absent.value
    assert "No lengths" in panel._absent.value
    assert [value for _, value in panel.by.options] == [""]
    assert {control.layout.display for control in (panel.head, panel.predicted, panel.outcome)} == {"none"}


@pytest.mark.parametrize(
    ("chosen", "choices"),
    [
        ({"run": "nope"}, "no run 'nope' with scores: choose from spatial, temporal, if-ttn"),
        ({"head": "mv"}, "no head 'mv' in the run if-ttn: choose from rgb, flow, ttn"),
        ({"outcome": "odd"}, "no outcome 'odd': choose from right, wrong, wrong: scene"),
        ({"by": "size"}, "margin"),
    ],
)
def test_an_unknown_choice_is_an_error(opened, shelf, chosen, choices):
    panel = opened(ClipGrid, Shelf(shelf.places.root), **chosen)
    assert panel.wait(60.0)
    assert choices in panel.worker.error
    assert panel.worker.details == ""
