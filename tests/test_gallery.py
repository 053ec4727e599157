import gc
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ifttn import cli, gallery
from ifttn.experiment import training
from ifttn.insight import deepdraw
from ifttn.insight.deepdraw import Material, State


@pytest.mark.parametrize(("actions", "shown"), [(1, [0]), (2, [0, 1]), (3, [0, 1]), (101, [0, 1, 98, 99])])
def test_the_actions_of_a_figure_are_actions_of_the_data_set(actions, shown):
    assert gallery.spread_couples(actions, 4) == shown


@pytest.fixture
def two_steps(monkeypatch):
    for name, settings in deepdraw.PRESETS.items():
        octaves = tuple(replace(octave, steps=2) for octave in settings.octaves)
        monkeypatch.setitem(deepdraw.PRESETS, name, replace(settings, octaves=octaves))


def test_of_all_drawings_only_those_that_are_shown_are_kept(two_steps, embedded, tmp_path, monkeypatch):
    work = embedded.work(tmp_path)
    for recipe in ("spatial", "temporal", "if-ttn"):
        training.train(work, recipe)
    monkeypatch.setattr(gallery, "SEEDS", 2)
    monkeypatch.setattr(gallery, "AT_ONCE", 8)
    rooms = gallery.Gallery(work, work.run("if-ttn"), full=True)
    drawn, together = gallery._last, []

    def watched(*arguments):
        together.append(sum(type(each) is State for each in gc.get_objects()))
        return drawn(*arguments)

    monkeypatch.setattr(gallery, "_last", watched)
    sat = gallery._sat(rooms, deepdraw.preset_for(64), Material(rooms.palettes()), None)
    assert len(sat.proved) == 16 * 2
    assert sat.shown.keys() == set(rooms.shown)
    assert max(together) <= 2 * len(rooms.shown) + 3 * gallery.AT_ONCE
    assert rooms._frames[0] == 15


def test_figures_are_drawn_of_two_videos_a_class(two_steps, embedded, tmp_path):
    """One to train on and one to test on, of three classes in a folder of one's own: no lists, no masks, no judge."""
    own = tmp_path / "mine"
    for number, video in enumerate(sorted(embedded.data.glob("*/*.avi"))[:6]):
        (own / "abc"[number // 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(video, own / "abc"[number // 2] / f"{number}.avi")
    where = ["--data", own, "--store", tmp_path / "store", "--runs", tmp_path / "runs", "--preset", "smallest"]
    where = [str(each) for each in (*where, "--device", "cpu")]
    assert cli.main(["prepare", str(own), str(tmp_path / "store"), "--preset", "smallest", "--jobs", "1"]) == 0
    assert cli.main(["train", "if-ttn", *where]) == 0
    assert cli.main(["test", "if-ttn", *where]) == 0
    assert cli.main(["figures", *where, "--full", "--out", str(tmp_path / "figures")]) == 0
    order = pd.read_csv(tmp_path / "figures" / "order.csv")
    assert order.action.isin(["a", "b", "c"]).all()
    assert np.isfinite(order["own p(A,B)"]).all()
