import gc
import shutil

import numpy as np
import pandas as pd
import pytest

from ifttn import cli
from ifttn.experiment import training
from ifttn.gallery import figures_1_7, sources
from ifttn.insight.deepdraw import DrawingStep


@pytest.mark.parametrize(("actions", "shown"), [(1, [0]), (2, [0, 1]), (3, [0, 1]), (101, [0, 1, 98, 99])])
def test_the_actions_of_a_figure_are_actions_of_the_data_set(actions, shown):
    assert sources.spread_couples(actions, 4) == shown


@pytest.mark.slow
def test_of_all_drawings_only_those_that_are_shown_are_kept(two_steps, embedded, tmp_path, monkeypatch):
    work = embedded.work(tmp_path)
    for recipe in ("spatial", "temporal", "if-ttn"):
        training.train(work, recipe)
    monkeypatch.setattr(figures_1_7, "SEEDS_DRAWN", 2)
    monkeypatch.setattr(figures_1_7, "AT_ONCE", 8)
    made = sources.Sources(work, work.run("if-ttn"), full=True)
    finished, together = figures_1_7.draw_best, []

    def watched(*arguments, **named):
        together.append(sum(type(each) is DrawingStep for each in gc.get_objects()))
        return finished(*arguments, **named)

    monkeypatch.setattr(figures_1_7, "draw_best", watched)
    drawn = figures_1_7._draw_pairs(made)
    assert len(drawn.report) == len(drawn.frames) == 16 * 2
    assert drawn.shown.keys() == set(made.shown)
    best = drawn.report.loc[drawn.report.groupby("action").margin.idxmax()].set_index("action").seed
    assert {action: seed for action, (seed, *_) in drawn.shown.items()} == {a: best[a] for a in made.shown}
    assert max(together) <= 2 * len(made.shown) + 3 * figures_1_7.AT_ONCE
    assert made._frames[0] == 15


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
