"""Every panel without a browser: controls, empty states, errors, stop and cleanup."""

import base64
import io
import json
import random
import re
import shutil
import threading
import time
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from ipywidgets import Dropdown, SelectMultiple
from ipywidgets.widgets.widget import _instances
from PIL import Image as Pillow

from ifttn.experiment.runs import Run
from ifttn.experiment.table_frames import to_frame
from ifttn.vocabulary import IfttnError
from lab import pictures
from lab.cam_explorer import CamExplorer
from lab.deepdraw_studio import DeepDrawStudio
from lab.fusion_desk import FusionDesk
from lab.grid import ClipGrid
from lab.inspector import Inspector
from lab.layers import painted
from lab.monitor import LINES, Monitor, look_ahead
from lab.pair import SideBySide
from lab.panel import refill
from lab.shelf import Shelf
from lab.sketches import Curve
from lab.table_desk import TableDesk
from lab.tables import style

PANELS = (ClipGrid, Inspector, FusionDesk, TableDesk, Monitor, CamExplorer, DeepDrawStudio)


@pytest.fixture
def inspector(opened, shelf, tmp_path):
    panel = opened(Inspector, shelf, tmp_path / "out")
    assert panel.wait(60.0)
    assert panel.worker.error == ""
    return panel


def shown(panel) -> dict[str, list[bytes]]:
    """The pictures of the visible layers in the page."""
    return {name: panel.player.pictures_of(name) for name in panel.state.layers}


def clip_shown(panel) -> bool:
    return panel.player.layout.display != "none" and panel._empty.layout.display == "none"


@pytest.mark.parametrize("kind", PANELS)
def test_a_panel_without_results_says_what_to_do(kind, tmp_path, opened):
    panel = opened(kind, tmp_path / "none")
    assert panel.wait(60.0)
    assert "ifttn" in panel.worker.error
    assert panel.worker.details == ""
    assert "role=alert" in panel._alert.value


@pytest.mark.parametrize("kind", PANELS)
def test_a_panel_is_shown_by_a_notebook(kind, shelf, opened):
    panel = opened(kind, shelf)
    assert "application/vnd.jupyter.widget-view+json" in panel._repr_mimebundle_()


@pytest.mark.parametrize("kind", PANELS)
def test_an_unexpected_error_of_a_callback_is_shown_with_its_traceback(kind, shelf, opened):
    panel = opened(kind, shelf)
    panel.wait(60.0 if kind is not Monitor else 0.5)
    panel.worker.stop()
    panel.wait(10.0)
    panel.guard(lambda: {}["absent"])
    assert "KeyError" in panel._alert.value
    assert "<details>" in panel._alert.value


def test_every_frame_of_a_clip_has_a_picture_and_votes(inspector):
    count, clip, votes = len(inspector.clip.frames), inspector.player.clip, inspector.player.votes
    assert len(set(shown(inspector)["rgb"])) == count
    assert getattr(inspector.player, "pictures of rgb")["numbers"] == list(range(count))
    assert (clip["shown"], clip["fps"], len(clip["seconds"]), len(clip["kinds"])) == (count, 25.0, count, count)
    assert [head["name"] for head in votes["heads"]] == ["rgb", "flow", "ttn"]
    assert [head["pairs"] for head in votes["heads"]] == [False, False, True]
    for head in votes["heads"]:
        assert len(head["votes"]) == count
        assert all(sum(each) == pytest.approx(1, abs=1e-2) for each in head["probabilities"])


def test_a_layer_is_sent_only_once_when_it_is_toggled_or_its_opacity_changes(inspector, monkeypatch):
    sent = []
    monkeypatch.setattr(inspector.player, "draw", lambda name, layer, first: sent.append(name) or iter(()))
    for name in ("flow", "flow arrows", "vectors", "vector arrows", "CAM ttn"):
        for layers in ({"rgb": 1.0, name: 0.7}, {"rgb": 1.0, name: 0.3}, {"rgb": 1.0}, {name: 0.5}):
            inspector.state.layers = layers
            assert inspector.wait(60.0)
    assert sent == ["flow", "flow arrows", "vectors", "vector arrows", "CAM ttn"]
    inspector.state.layers = {"CAM ttn": 0.5}
    inspector.state.map_action = inspector.reading.actions[3]  # another map
    assert inspector.wait(60.0)
    assert sent[5:] == ["CAM ttn"]
    assert inspector.worker.error == ""


def test_the_pictures_around_the_cursor_come_first(inspector, monkeypatch):
    inspector.player.frame = 20
    portions = []
    inspector.player.observe(lambda change: portions.append(change["new"]["data"]), "pictures of flow")
    inspector.state.layers = {"flow": 1.0}
    assert inspector.wait(60.0)
    ready = [{i for i, each in enumerate(data) if each} for data in portions]
    assert ready[0] == {20}
    assert ready[1] == set(range(20 - 8, 20 + 8)) or ready[1] == set(range(20 - 7, 20 + 9))
    assert len(ready[2]) == len(inspector.clip.frames)


def test_a_map_is_sent_once_for_each_vote(inspector):
    inspector.state.layers = {"CAM ttn": 0.7, "CAM rgb": 0.7}
    assert inspector.wait(60.0)
    for head in ("ttn", "rgb"):
        assert len(inspector.player.pictures_of(f"CAM {head}")) == len(inspector.reading.votes[head])
        frames = [inspector.reading.vote(head, i) for i in range(len(inspector.clip.frames))]
        assert getattr(inspector.player, f"pictures of CAM {head}")["numbers"] == frames


def test_after_many_quick_choices_the_page_has_the_right_pictures(inspector):
    rng = random.Random(0)
    for _ in range(30):
        name, layers = rng.choice(["rgb", "flow", "flow arrows", "vectors", "CAM ttn"]), dict(inspector.state.layers)
        inspector.state.layers = layers if layers.pop(name, None) else {**layers, name: 0.5}
        inspector.player.frame = rng.randrange(len(inspector.clip.frames))
        if rng.random() < 0.3:
            inspector._on_message(inspector.player, {"reorder": rng.choice(["reverse", "swap pair", "as filmed"])}, [])
        time.sleep(rng.random() * 0.05)
    inspector.player.layers = {"rgb": 1.0, "flow": 0.5, "flow arrows": 0.5, "CAM ttn": 0.5}
    assert inspector.wait(120.0)
    for name, pictures_there in shown(inspector).items():
        layer = painted(inspector.clip, name, inspector.reading, inspector._maps_of([name]))
        assert pictures_there == [pictures.for_page(layer.paint(number)) for number in sorted(set(layer.numbers))], name
    assert inspector.worker.error == ""


def test_layers_are_synchronised_between_notebook_and_page(opened, shelf):
    panel = opened(Inspector, shelf, layers={"rgb": 1.0, "vector arrows": 0.4})
    assert panel.wait(60.0)
    assert panel.player.layers == {"rgb": 1.0, "vector arrows": 0.4}
    panel.player.set_state({"layers": {"rgb": 1.0, "flow": 0.7}, "frame": 3})
    assert panel.wait(60.0)
    assert panel.state.layers == {"rgb": 1.0, "flow": 0.7}
    assert panel.state.frame == 3
    assert len(panel.player.pictures_of("flow")) == len(panel.clip.frames)


def test_a_layer_whose_drawing_was_stopped_is_sent_complete_the_next_time(inspector):
    for stop_after in (1, 5):
        inspector.worker.stop()
        drawing = inspector._draw(["flow"])
        for _ in zip(range(stop_after), drawing, strict=False):
            pass
        drawing.close()
    assert len(inspector.player.pictures_of("flow")) < len(inspector.clip.frames)
    inspector.state.layers = {"flow": 0.7}
    assert inspector.wait(60.0)
    assert len(inspector.player.pictures_of("flow")) == len(inspector.clip.frames)


def test_only_heads_of_the_run_have_a_layer_of_maps(inspector):
    visible = {each["name"] for each in inspector.player.offered}
    assert {name for name in visible if name.startswith("CAM")} == {"CAM rgb", "CAM flow", "CAM ttn"}


def test_reversed_snippets_change_the_votes_of_pairs_and_not_those_of_streams(inspector):
    inspector._reorder("reverse")
    inspector.wait(60.0)
    assert inspector.state.order == (3, 2, 1, 0)
    rows = dict(zip(("rgb", "flow", "ttn"), inspector.player.verdict.split("<tr>")[2:5], strict=True))
    assert "the same" in rows["rgb"]
    assert "the same" in rows["flow"]
    inspector._reorder("swap pair")
    inspector.wait(60.0)
    assert inspector.state.order == (1, 0, 2, 3)
    inspector._reorder("shuffle")
    inspector.wait(60.0)
    assert sorted(inspector.state.order) == [0, 1, 2, 3]
    assert inspector.state.order != (0, 1, 2, 3)
    inspector._reorder("as filmed")
    inspector.wait(60.0)
    assert "<table" not in inspector.player.verdict


def test_another_video_has_new_pictures_in_the_same_widgets(inspector):
    widgets = set(_instances)
    for name in [name for _, name in inspector.video.options][1:4]:
        before = shown(inspector)
        inspector.video.value = name
        assert inspector.wait(60.0)
        assert inspector.clip.name == inspector.player.clip["name"] == name
        assert len(shown(inspector)["rgb"]) == len(inspector.clip.frames)
        assert shown(inspector) != before
    assert set(_instances) == widgets
    assert inspector.worker.error == ""


def test_a_part_of_a_long_video_can_be_chosen_and_the_next_video_is_complete(opened, shelf, encode, tmp_path):
    path = encode(tmp_path / "long.avi", [np.full((48, 64, 3), i % 250, np.uint8) for i in range(330)])
    panel = opened(Inspector, shelf, file=str(path))
    assert panel.wait(60.0)
    assert (panel.span.layout.display, panel.span.value, panel.clip.step) == ("", (0, 13.2), 2)
    panel.span.value = (2.0, 4.0)
    assert panel.wait(60.0)
    assert (panel.state.span, len(panel.clip.kinds), panel.clip.step) == ((2.0, 4.0), 50, 1)
    assert panel.player.clip["seconds"][0] == 2.0
    assert panel.reading.sampled.max() < 50
    panel.span.value = (0, 13.2)
    assert panel.wait(60.0)
    assert (panel.state.span, len(panel.clip.kinds)) == ((), 330)
    panel.span.value = (2.0, 4.0)
    panel.video.value = panel.video.options[1][1]
    assert panel.wait(60.0)
    assert (panel.state.span, panel.span.layout.display, panel.worker.error) == ((), "none", "")


@pytest.mark.parametrize("span", [(20.0, 30.0), (3.0, 2.0), (1.0,)])
def test_a_part_outside_the_video_is_an_error(opened, shelf, span):
    panel = opened(Inspector, shelf, span=span)
    assert panel.wait(60.0)
    assert f"the video has no part {span}: choose two seconds from 0 to " in panel.worker.error


def test_a_dropped_file_is_received_in_parts_and_shown(opened, shelf, encode, tmp_path, monkeypatch):
    panel, requests = opened(Inspector, shelf), []
    monkeypatch.setattr(panel.upload, "folder", tmp_path / "uploads")
    monkeypatch.setattr(panel.upload, "send", requests.append)

    def drop(name, content, part):
        for at in range(0, len(content), part):
            message = {"name": name, "at": at, "size": len(content)}
            panel.upload._handle_custom_msg(message, [memoryview(content[at : at + part])])
        assert panel.wait(60.0)

    for level, part in ((10, 700), (20, 10**6)):  # another file of the same name, in one part
        own = encode(tmp_path / "own.avi", [np.full((48, 64, 3), level + i, np.uint8) for i in range(20)])
        drop("../own.avi", own.read_bytes(), part)
        assert panel.worker.error == ""
        assert (panel.clip.name, panel.file.value) == ("own.avi", str(tmp_path / "uploads" / "own.avi"))
        assert panel.clip.frames[0].mean() == pytest.approx(level, abs=2)
    assert [each["at"] for each in requests[:2]] == [700, 1400]
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["own.avi"]
    drop("letter.mp4", b"Dear Sir or Madam", 5)
    assert "letter.mp4 cannot be read as a video" in panel.worker.error
    assert not clip_shown(panel)


def test_a_class_filters_the_videos_and_the_train_side_has_other_videos(inspector):
    action = inspector.action.options[3]
    inspector.action.value = action
    inspector.wait(60.0)
    assert {name.partition("/")[0] for _, name in inspector.video.options} == {action}
    test = {name for _, name in inspector.video.options}
    inspector.side.value = "train"
    inspector.wait(60.0)
    assert not test & {name for _, name in inspector.video.options}
    assert inspector.clip.label == action


def test_a_file_is_read_without_a_store_and_the_error_names_a_missing_one(inspector, tmp_path):
    inspector.file.value = str(tmp_path / "none.mp4")
    inspector.wait(60.0)
    assert "is not there" in inspector.worker.error
    inspector.file.value = str(inspector.shelf.video("embedded-ucf", inspector.video.options[1][1]).path)
    assert inspector.wait(120.0)
    assert inspector.worker.error == ""
    assert inspector.clip.label is None
    assert inspector.reading is not None


def test_after_a_path_is_cleared_the_listed_video_is_shown_and_can_be_chosen_again(inspector):
    listed = inspector.video.value
    path = str(inspector.shelf.video("embedded-ucf", inspector.video.options[1][1]).path)
    for back in (lambda: setattr(inspector.file, "value", ""), lambda: setattr(inspector.video, "value", listed)):
        inspector.file.value = f"'{path}'"  # as some file managers copy it
        assert inspector.wait(120.0)
        assert inspector.clip.name == Path(path).name
        assert inspector.video.value is None
        back()
        assert inspector.wait(120.0)
        assert inspector.clip.name == inspector.video.value == listed
        assert inspector.file.value == ""
    assert inspector.worker.error == ""


def test_a_path_is_relative_to_the_notebook_or_to_the_results_and_a_folder_is_an_error(
    inspector, monkeypatch, tmp_path
):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    root = inspector.shelf.places.root.resolve()
    path = inspector.shelf.video("embedded-ucf", inspector.video.value).path.resolve().relative_to(root.parent)
    inspector.file.value = str(path)
    assert inspector.wait(120.0)
    assert inspector.worker.error == ""
    assert inspector.clip.name == path.name
    inspector.file.value = "none.mp4"
    inspector.wait(60.0)
    assert str(tmp_path / "notebooks") in inspector.worker.error
    assert str(root.parent) in inspector.worker.error
    assert (inspector.clip, inspector.reading) == (None, None)  # what was shown before is not shown under this name
    assert not clip_shown(inspector)
    inspector.file.value = str(path.parent)
    inspector.wait(60.0)
    assert "is a folder" in inspector.worker.error
    assert path.name in inspector.worker.error or "v_" in inspector.worker.error


def test_after_a_path_is_cleared_without_a_data_set_no_clip_is_shown(opened, shelf, tmp_path):
    panel = opened(Inspector, tmp_path / "nothing", file=str(shelf.split("embedded-ucf", 1).test[0].path))
    assert panel.wait(120.0)
    panel.file.value = ""
    panel.wait(60.0)
    assert panel.clip is None
    assert not clip_shown(panel)


def test_a_prepared_data_set_is_listed_and_shown_with_the_command_to_train_on_it(opened, results, tmp_path):
    """A prepared data set outside the results. The manifest of its store has its path."""
    own = tmp_path / "my data"
    shutil.copytree(results / "data" / "embedded-ucf", own)
    store = tmp_path / "results" / "stores" / "my data-smallest"
    shutil.copytree(results / "stores" / "embedded-ucf-smallest", store)
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps({**manifest, "data": str(own)}))
    panel = opened(Inspector, tmp_path / "results")
    assert panel.wait(60.0)
    assert panel.worker.error == ""
    assert panel.dataset.options == ("my data",)
    assert shown(panel)["rgb"]
    assert f"ifttn train if-ttn --data &#x27;{own}&#x27; --preset smallest" in panel.player.votes["unread"]
    assert "ifttn prepare" not in panel.player.votes["unread"]


def test_a_part_of_a_class_name_filters_the_videos_and_an_unknown_one_is_an_error(inspector):
    inspector.action.value = "updown"
    assert {name.partition("/")[0] for _, name in inspector.video.options} == {
        action for action in inspector.action.options if "UpDown" in action
    }
    inspector.wait(60.0)
    inspector.action.value = "juggling"
    assert "no test video of 'juggling'" in inspector.worker.error


def test_a_file_can_be_shown_without_a_study(opened, shelf, tmp_path):
    path = shelf.split("embedded-ucf", 1).test[0].path
    panel = opened(Inspector, tmp_path / "nothing", file=str(path))
    assert panel.wait(120.0)
    assert panel.worker.error == ""
    assert shown(panel)["rgb"]
    assert clip_shown(panel)


def test_an_inspector_without_a_video_shows_what_to_do_and_no_player(opened, tmp_path):
    panel = opened(Inspector, tmp_path / "nothing")
    assert "drop a file of your own, or type its path" in panel._empty.value
    assert not clip_shown(panel)


@pytest.mark.parametrize(("kind", "suffix", "count"), [("PNG", "png", 1), ("GIF", "gif", None), ("MP4", "mp4", None)])
def test_a_saved_clip_has_every_frame(inspector, kind, suffix, count):
    inspector.save(kind)
    inspector.wait(120.0)
    assert inspector.worker.error == ""
    (path,) = inspector.out.glob(f"*.{suffix}")
    assert str(path.name) in inspector.player.saved
    if suffix != "mp4":
        with Pillow.open(path) as picture:
            assert getattr(picture, "n_frames", 1) == (count or len(inspector.clip.frames))


def test_a_split_without_runs_still_shows_frames_and_motion(opened, shelf):
    panel = opened(Inspector, shelf, split=2)
    panel.wait(60.0)
    assert panel.worker.error == ""
    assert panel.reading is None
    assert shown(panel)["rgb"]
    assert "No trained run" in panel.player.votes["unread"]
    panel.guard(lambda: panel._reorder("reverse"))
    assert "ifttn train if-ttn --data" in panel.worker.error
    assert "--preset smallest --split 2" in panel.worker.error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_error_of_a_kernel_without_a_gpu_says_how_to_use_the_cpu(results):
    with pytest.raises(IfttnError, match="works on the CPU"):
        Shelf(results, device="cuda")


def test_the_error_names_an_unknown_trait(opened, shelf):
    panel = opened(Inspector, shelf, colour="red")
    assert "no 'colour' to choose" in panel.worker.error


@pytest.mark.parametrize(
    ("chosen", "choices"),
    [
        ({"side": "left"}, "'test', 'train'"),
        ({"layers": {"flwo": 1}}, "flow"),
        ({"layers": {"rgb": 7}}, "from 0 to 1"),
        ({"run": "iff-ttn"}, "spatial, temporal, if-ttn"),
        ({"video": "v_None_g01_c01"}, "no video 'v_None_g01_c01'"),
    ],
)
def test_the_error_for_an_unknown_choice_has_the_known_ones(opened, shelf, chosen, choices):
    panel = opened(Inspector, shelf, **chosen)
    assert panel.wait(60.0)
    assert choices in panel.worker.error
    assert panel.worker.details == ""


def test_the_side_of_a_chosen_video_is_found(opened, shelf):
    name = shelf.split("embedded-ucf", 1).train[0].name
    panel = opened(Inspector, shelf, video=name)
    assert panel.wait(60.0)
    assert panel.clip.name == panel.video.value == name
    assert panel.side.value == "train"


def test_a_click_is_not_lost_while_a_thread_fills_lists_and_filling_is_no_choice(opened, shelf):
    explorer = opened(CamExplorer, shelf)
    assert explorer.wait(60.0)
    filling, done = threading.Event(), threading.Event()
    action = explorer.map_action.options[5][1]

    def fill():
        with explorer.filling():
            filling.set()
            done.wait(0.3)
            explorer.map_action.options = list(explorer.map_action.options)
            explorer.map_action.value = explorer.state.map_action

    thread = threading.Thread(target=fill)
    thread.start()
    filling.wait(10.0)
    explorer.map_action.value = action
    thread.join()
    assert explorer.state.map_action == explorer.map_action.value == action


@pytest.fixture
def in_cell(monkeypatch):
    """in_cell(cell, run): the following code seems to run in this cell of a notebook."""

    def enter(cell, run):
        parent = {"metadata": {"cellId": cell} if cell else {}, "header": {"msg_id": run}}
        shell = SimpleNamespace(get_parent=lambda: parent)
        monkeypatch.setattr("lab.panel.get_ipython", lambda: shell)

    return enter


def test_a_cell_that_runs_again_closes_only_its_old_panel_and_thread(opened, shelf, in_cell):
    def closed(panel):
        return panel.comm is None and panel.worker._closed

    in_cell("a", "1")
    first, beside = opened(Monitor, shelf), opened(Monitor, shelf)
    in_cell("b", "2")
    other = opened(Monitor, shelf)
    in_cell("", "3")
    made_by_a_click = opened(Monitor, shelf)
    assert not any(map(closed, (first, beside, other, made_by_a_click)))
    in_cell("a", "4")
    opened(FusionDesk, shelf)
    assert not closed(first)
    again = opened(Monitor, shelf)
    assert closed(first)
    assert closed(beside)
    assert not any(map(closed, (other, made_by_a_click, again)))


def test_an_interrupt_of_the_kernel_stops_the_jobs_of_all_panels(opened, shelf, monkeypatch, wait_for):
    kernel = SimpleNamespace(saved_sigint_handler=None)
    monkeypatch.setattr("lab.panel.get_ipython", lambda: SimpleNamespace(kernel=kernel, get_parent=dict))
    monitor, studio = opened(Monitor, shelf), opened(DeepDrawStudio, shelf, length=4.0)
    studio.start()
    wait_for(lambda: studio.drawn is not None)
    kernel.saved_sigint_handler(2, None)
    assert monitor.wait(5.0)
    assert studio.wait(5.0)
    assert studio.drawn.step < studio.drawn.steps


def test_the_desk_starts_with_the_weights_of_the_tables_and_warns_of_others(opened, shelf):
    desk = opened(FusionDesk, shelf)
    assert desk.state.weights == {("if-ttn", "rgb"): 1.0, ("if-ttn", "flow"): 1.5, ("if-ttn", "ttn"): 1.5}
    assert "not a result" not in desk._warning.value
    desk._sliders["if-ttn", "ttn"].value = 0.0
    assert "not a result" in desk._warning.value
    assert "these weights" in desk._accuracy.value
    for slider in desk._sliders.values():
        slider.value = 0.0
    assert "Every weight is 0" in desk._warning.value
    desk.set_preset()
    assert "not a result" not in desk._warning.value
    assert desk._sliders["if-ttn", "ttn"].value == 1.5


def test_the_desk_lists_exactly_the_videos_with_a_changed_prediction(opened, shelf):
    desk = opened(FusionDesk, shelf)
    preset = desk.fused(desk.state.weights).argmax(1)
    desk._sliders["if-ttn", "ttn"].value = 0.0
    desk._sliders["if-ttn", "rgb"].value = 0.0
    now = desk.fused(desk.state.weights).argmax(1)
    assert sorted(index for _, index in desk.changed.options) == (now != preset).nonzero()[0].tolist()
    index = desk.changed.options[0][1]
    desk.changed.value = index
    scores = next(iter(desk.scores.values()))
    assert desk.inspector.wait(60.0)
    assert desk.inspector.clip.name == scores.videos[index]
    assert desk.inspector.run.value == "if-ttn"
    assert desk.inspector in desk.children
    other = desk.changed.options[1][1]
    desk.changed.value = other  # in the same inspector
    assert desk.inspector.wait(60.0)
    assert desk.inspector.clip.name == scores.videos[other]


def test_a_row_of_a_table_leads_to_its_run_its_errors_and_their_clip(opened, shelf, tmp_path):
    desk = opened(TableDesk, shelf, out=tmp_path)
    desk.wait(60.0)
    assert desk.worker.error == ""
    row = [cell.method for cell in desk.cells].index("complete IF-TTN")
    desk._table._handle_custom_msg({"pick": str(row)}, [])
    assert desk.state.row == row
    assert "embedded-ucf/split1/if-ttn" in desk._run.value
    accuracy = desk.cells[row].accuracy
    wrong = round((1 - accuracy.percent["measured"] / 100) * accuracy.videos)
    assert len(desk.errors.options) == wrong
    desk.errors.value = desk.errors.options[0][1]
    desk.inspector.wait(60.0)
    assert desk.inspector.clip.name == desk.inspector.video.value == desk.errors.options[0][1]
    assert desk.inspector.worker.error == ""


def test_a_mean_over_seeds_has_their_number_and_its_errors_have_their_seed(opened, shelf, tmp_path):
    for room in ("data", "runs", "runs/seed1"):
        (tmp_path / room).mkdir()
        folder = shelf.places.root.resolve() / room.removesuffix("/seed1") / "embedded-ucf"
        (tmp_path / room / "embedded-ucf").symlink_to(folder)
    desk = opened(TableDesk, tmp_path, out=tmp_path)
    assert desk.wait(60.0)
    desk.state.row = [cell.method for cell in desk.cells].index("complete IF-TTN")
    assert "<th scope=col>seeds</th>" in desk._table.value
    assert "test videos of seed 0;" in desk._count.value
    assert "seeds" in style(to_frame(desk.table)).to_html()


@pytest.mark.parametrize(("named", "has"), [("embedded-ucf", False), ("UCF101", True)])
def test_only_numbers_of_the_papers_data_set_have_a_difference_from_the_paper(opened, shelf, tmp_path, named, has):
    for room in ("data", "runs"):
        (tmp_path / room).mkdir()
        (tmp_path / room / named).symlink_to(shelf.places.root.resolve() / room / "embedded-ucf")
    desk = opened(TableDesk, tmp_path, out=tmp_path)
    assert desk.wait(60.0)
    measured = [cell for cell in desk.cells if cell.accuracy]
    assert ("diff." in desk._table.value) == has
    assert len(re.findall(r"<td>[+-]\d+\.\d</td>", desk._table.value)) == has * len(measured)


def test_a_cell_of_the_confusion_matrix_opens_its_clips_in_the_grid(opened, shelf):
    desk = opened(FusionDesk, shelf)
    predicted, scores = desk.fused(desk.state.weights).argmax(1), next(iter(desk.scores.values()))
    for place in (0, -1):
        true, taken = scores.labels[place], predicted[place]
        assert f"data-pick='{true} {taken}'" in desk._matrix.value
        desk._matrix._handle_custom_msg({"pick": f"{true} {taken}"}, [])
        assert desk.grid.wait(60.0)
        wanted = {v for v, t, p in zip(scores.videos, scores.labels, predicted, strict=True) if (t, p) == (true, taken)}
        rows = np.frombuffer(desk.grid.view.shown["rows"], np.uint32)
        assert {desk.grid.view.videos["names"][row] for row in rows} == wanted
    assert desk.grid.run.value == "if-ttn"
    assert (desk.worker.error, desk.grid.worker.error) == ("", "")


def test_every_table_can_be_shown_and_exported(opened, shelf, tmp_path):
    desk = opened(TableDesk, shelf, out=tmp_path)
    desk.wait(60.0)
    for number in range(1, 8):
        desk.state.number = number
        desk.export("tex")
        assert f"\\label{{tab:{number}}}" in (tmp_path / f"table_{number}.tex").read_text()
        desk.export("csv")
        assert desk.text.value == (tmp_path / f"table_{number}.csv").read_text()
        assert desk._table.value.count("data-pick") == len(desk.table.rows)
    assert desk.worker.error == ""


def test_the_monitor_shows_a_run_that_another_process_writes(opened, shelf, results, tmp_path, wait_for):
    panel = opened(Monitor, shelf, runs=("embedded-ucf/split1/if-ttn",))
    wait_for(lambda: "tested" in panel._table.value)
    wait_for(lambda: "stage 2" in panel._recipe.value)
    panel.state.runs = ("embedded-ucf/split1/if-ttn", "embedded-ucf/split1/spatial")
    assert panel._chart.value.count("<polyline") == 2
    began = time.monotonic()
    panel.worker.stop()
    assert panel.wait(5.0)
    assert time.monotonic() - began < 0.3


def test_the_error_of_the_monitor_for_an_unknown_run_has_the_known_ones(opened, shelf):
    panel = opened(Monitor, shelf, runs=("nope",))
    assert "no run 'nope': choose from embedded-ucf/split1/" in panel.worker.error
    assert not panel.worker.doing
    panel.follow()
    panel.state.runs = ("embedded-ucf/split1/if-ttn",)
    assert "<polyline" in panel._chart.value


def test_the_monitor_filters_runs_smooths_within_a_stage_and_gives_every_epoch_as_csv(opened, shelf, wait_for):
    panel = opened(Monitor, shelf)
    panel.worker.stop()
    assert panel.wait(10.0)
    panel.only.value = "SPLIT1 ttn"
    assert panel.runs.options == ("embedded-ucf/split1/if-ttn",)
    panel.only.value = ""
    panel.state.runs = names = tuple(shelf.all_runs())
    raw = re.findall("points='([^']*)'", panel._chart.value)
    panel.smoothing.value = 0.6
    drawn = re.findall("points='([^']*)'", panel._chart.value)
    assert drawn[: len(raw)] == raw  # the values themselves stay, behind
    assert panel._chart.value.count("opacity=0.3") == len(raw)
    run = shelf.all_runs()["embedded-ucf/split1/if-ttn"].metrics()
    curve = Curve("", range(len(run)), run["loss"].to_list(), "")
    smooth = panel._smoothed(curve, run["stage"].to_list())[1].y
    first = run.groupby("stage").head(1).index
    assert [smooth[i] for i in first] == [curve.y[i] for i in first]  # nothing of the stage before
    link = re.search("href='data:text/csv;base64,([^']*)'", panel._table.value)
    table = pd.read_csv(io.BytesIO(base64.b64decode(link[1])))
    assert set(table["run"]) == set(names)
    assert table[table["run"] == "embedded-ucf/split1/if-ttn"]["loss"].to_list() == pytest.approx(curve.y)


@pytest.mark.parametrize(("kind", "chosen"), [(SelectMultiple, lambda i: (i,)), (Dropdown, lambda i: i)])
def test_a_message_never_sets_a_value_that_is_not_among_the_options(kind, chosen, monkeypatch):
    control = kind(options=range(6), value=chosen(5))
    page = control.get_state()

    def receive(message, **_):
        page.update(message["state"])
        assert np.max(page["index"]) < len(page["_options_labels"])

    monkeypatch.setattr(control, "_send", receive)
    for count in (2, 4, 3):
        refill(control, range(count), chosen(count - 1))
        assert (page["index"], len(page["_options_labels"])) == (chosen(count - 1), count)
    for each in (control, control.layout, control.style):
        each.close()


def test_the_lines_of_two_dozen_runs_are_all_different():
    assert len(set(LINES)) == len(LINES) == 24


def test_the_expected_time_is_that_of_the_remaining_epochs(results, tmp_path):
    identity = Run(results / "runs" / "embedded-ucf" / "split1" / "if-ttn").identity
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.begin({key: value for key, value in identity.items() if key != "made_with"})
    assert look_ahead(run, run.metrics()).state == "begun"
    line = {
        "stage": "ttn",
        "epoch": 0,
        "of": 1,
        "loss": 2.0,
        "accuracy": 0.5,
        "lr": 1.0,
        "seconds": 7.0,
        "videos_per_second": 3.0,
    }
    run.log(line)
    outlook = look_ahead(run, run.metrics())
    assert (outlook.state, outlook.epoch, outlook.epochs, outlook.seconds_left) == ("training", 1, 2, 7.0)


def test_the_explorer_draws_all_heads_for_all_pairs_and_scalings(opened, shelf):
    panel = opened(CamExplorer, shelf)
    panel.wait(60.0)
    figures = {panel._grid.value}
    for name, value in (
        ("pair", 2),
        ("scaling", "positive"),
        ("scaling", "each map"),
        ("finer", 1),
        ("map_action", panel.map_action.options[5][1]),
        ("method", "gradcam"),
    ):
        setattr(panel.state, name, value)
        panel.wait(60.0)
        figures.add(panel._grid.value)
    assert panel.worker.error == ""
    assert len(figures) == 7
    assert panel._grid.value.count("<img") == 2 * 5
    assert panel.map_action.options[5][1] in panel._caption.value


def test_repeatedly_opened_and_closed_inspectors_leave_no_widgets_and_one_thread(results):
    before, threads = set(_instances), set()
    for _ in range(5):
        with Inspector(results) as panel:
            panel.wait(60.0)
            assert panel.clip is not None
        assert (panel.clip, panel.reading, shown(panel)["rgb"]) == (None, None, [])  # not left to the collector
        threads.add(threading.active_count())
    assert set(_instances) == before
    assert len(threads) == 1


@pytest.mark.parametrize("kind", PANELS)
def test_a_panel_that_is_closed_while_it_works_ends_at_once(kind, results, tmp_path, wait_for):
    before = set(_instances)
    panel = kind(results)
    if isinstance(panel, DeepDrawStudio):
        panel.start()
        wait_for(lambda: panel.drawn is not None)
    began = time.monotonic()
    panel.close()
    assert time.monotonic() - began < (1 if isinstance(panel, DeepDrawStudio | Monitor) else 10)
    assert set(_instances) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]


def test_the_page_without_a_kernel_has_visible_layers_maps_and_votes_and_loads_nothing(inspector):
    inspector.state.layers = {"rgb": 1.0, "flow arrows": 0.9}
    html = str(inspector.as_html().data)
    text = unescape(html.partition('srcdoc="')[2].partition('" style')[0])
    assert "http" not in text
    assert "{{" not in text
    found = re.search(r"offline\((\{.*\})\), el:", text)
    assert found
    state = json.loads(found[1])
    pictures_of = {name: state[f"pictures of {name}"]["data"] for name in state["known"]}
    count = len(inspector.clip.frames)
    assert {name: len(data) for name, data in pictures_of.items() if data} == {
        "rgb": count,
        "flow arrows": count,
        "CAM rgb": 4,
        "CAM flow": 4,
        "CAM ttn": 3,
    }
    assert base64.b64decode(pictures_of["rgb"][7]) == inspector.player.pictures_of("rgb")[7]
    assert [each["name"] for each in state["offered"]] == [name for name, data in pictures_of.items() if data]
    assert [head["name"] for head in state["votes"]["heads"]] == ["rgb", "flow", "ttn"]


def test_two_clips_runs_or_orders_are_shown_side_by_side(opened, shelf):
    first, second = (video.name for video in shelf.split("embedded-ucf", 1).test[:2])
    panel = opened(SideBySide, shelf, {"video": first}, {"video": second, "run": "spatial", "order": (3, 2, 1, 0)})
    assert panel.wait(60.0)
    left, right = panel.both
    assert (left.clip.name, right.clip.name) == (first, second)
    assert (left.run.value, right.run.value) == ("if-ttn", "spatial")
    assert (left.reordered, right.reordered.order) == (None, (3, 2, 1, 0))
    assert (left.worker.error, right.worker.error) == ("", "")


def test_a_page_without_a_kernel_shows_the_same_as_the_panel(opened, shelf):
    explorer, desk = opened(CamExplorer, shelf), opened(FusionDesk, shelf)
    assert "<table class=cams>" in str(explorer.as_html().data)
    assert "preset weights" in str(desk.as_html().data)


@pytest.mark.parametrize("kind", [Inspector, CamExplorer])
def test_only_runs_with_a_network_are_listed_and_each_can_be_opened(kind, opened, wider):
    panel = opened(kind, wider)
    assert [run for _, run in panel.run.options] == ["spatial", "temporal", "rgbdiff", "if-ttn"]
    for _, run in panel.run.options:
        panel.state.run = run
        assert panel.wait(60.0)
        assert panel.worker.error == ""
        assert set(panel.reading.votes) == set(wider.recognizer(panel.chosen_run).network.heads)


@pytest.mark.parametrize("kind", [Inspector, CamExplorer])
def test_after_a_run_that_cannot_be_opened_the_earlier_predictions_are_gone(kind, opened, wider, monkeypatch):
    panel = opened(kind, wider)
    assert panel.wait(60.0)

    def shows():
        return str(panel.player.votes) if kind is Inspector else panel._grid.value

    before = shows()

    def broken(run):
        raise IfttnError("its weights are cut short")

    with monkeypatch.context() as patch:
        patch.setattr(wider, "recognizer", broken)
        panel.run.value = "spatial"
        assert panel.wait(60.0)
        assert "cut short" in panel.worker.error
        assert "There are no predictions" in shows()
    panel.run.value = "if-ttn"
    assert panel.wait(60.0)
    assert panel.worker.error == ""
    assert shows() == before


def test_a_video_from_a_peers_errors_has_a_note_about_the_run_that_is_shown(opened, wider, tmp_path):
    desk = opened(TableDesk, wider, out=tmp_path, number=5)
    assert desk.wait(60.0)
    desk.state.column = 1
    methods = [cell.method for cell in desk.cells]
    desk.state.row = methods.index("C3D [20]")
    desk.errors.value = desk.errors.options[0][1]
    assert desk.inspector.wait(60.0)
    assert desk.inspector.clip.name == desk.errors.value
    assert (desk.inspector.run.value, desk.inspector.worker.error) == ("if-ttn", "")
    assert "The run c3d has scores but no network. The video below has the predictions of if-ttn." in desk._note.value
    desk.state.row = methods.index("TSN (RGB) [27]")
    assert "c3d" not in desk._note.value


def test_every_run_has_curves_and_every_late_fusion_has_weights(opened, wider):
    monitor, desk = opened(Monitor, wider), opened(FusionDesk, wider)
    for name in wider.all_runs():
        monitor.state.runs = (name,)
        assert "<polyline" in monitor._chart.value
        assert f"<dd>{name.rpartition('/')[2]}</dd>" in monitor._recipe.value
    for name in ("rgb-difference", "c3d", "complete"):
        assert name in desk.fusion.options
        desk.state.fusion = name
        assert desk.state.weights == desk.preset
    assert (monitor.worker.error, desk.worker.error) == ("", "")


def test_the_caption_of_maps_describes_the_chosen_method_only(opened, shelf):
    panel = opened(CamExplorer, shelf)
    assert panel.wait(60.0)
    assert "striped blue is evidence against" in panel._caption.value
    assert "ttn has one map for a pair" in panel._caption.value
    figures = set()
    for scaling in panel.scaling.options:  # grad-cam's maps come scaled: nothing is left to choose
        panel.state.method, panel.state.scaling = "gradcam", scaling[1]
        assert panel.wait(60.0)
        assert panel.scaling.disabled
        assert "blue" not in panel._caption.value
        assert panel._caption.value.count("not strengths") == 1
        figures.add(panel._grid.value)
    assert len(figures) == 1
    assert "rgb Grad-CAM" in figures.pop()
    panel.state.method = "cam"
    assert not panel.scaling.disabled
