import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.text import Text

from lab.accuracy_figures import clips_curve, order_lollipops
from lab.figures import (
    CamExample,
    DrawnAction,
    confusion_figure,
    figure_1_7,
    figure_6,
    flow_colours,
    localisation,
    order_gaps,
    time_bars,
    training_curves,
)


def texts(figure: Figure) -> list[str]:
    """All texts of a figure."""
    figure.savefig(io.BytesIO(), format="png")
    return [text.get_text() for text in figure.findobj(Text)]


def pictures(figure: Figure) -> list[np.ndarray]:
    return [axes.images[0].get_array() for axes in figure.findobj(lambda artist: getattr(artist, "images", None))]


def stack(x: int, y: int) -> np.ndarray:
    planes = np.full((2, 10, 12, 16), 128, np.uint8)
    planes[:, 0::2, 2:8, 2:8] += np.uint8(x % 256)
    planes[:, 1::2, 2:8, 2:8] += np.uint8(y % 256)
    return planes


def example(shift: float = 0.0) -> CamExample:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 12, 16, 3), np.uint8)
    maps = rng.uniform(-1, 1, (5, 12, 16)).astype(np.float32) + np.float32(shift)
    return CamExample("Jump", frames, stack(40, 0), maps[:2], maps[2:4], maps[4], (0.1, 0.25, 0.98))


def drawn(photographs: list, motion: np.ndarray | None = None) -> DrawnAction:
    drawings = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3), np.uint8)
    return DrawnAction("Jump", drawings, photographs, motion, "p(A,B) 0.99")


@pytest.mark.parametrize(
    ("x", "y", "colour"), [(40, 0, [255, 0, 0]), (-40, 0, [0, 255, 255]), (0, 40, [128, 255, 0]), (0, 0, [255] * 3)]
)
def test_direction_is_hue_and_stillness_is_white(x, y, colour):
    colours = flow_colours(stack(x, y))
    assert np.abs(colours[0, 4, 4].astype(int) - colour).max() <= 1
    assert (colours[:, 0, 0] == 255).all()


def test_half_the_speed_has_half_the_saturation():
    assert flow_colours(stack(40, 0), full=80.0)[0, 4, 4].tolist() == [255, 128, 128]


def test_noise_around_no_motion_stays_pale():
    noise = np.random.default_rng(0).integers(127, 130, (2, 10, 12, 16)).astype(np.uint8)
    assert flow_colours(noise).min() > 150


def test_figure_6_has_two_rows_of_five_tiles_and_the_map_of_the_pair_on_both_frames():
    figure = figure_6([example(), example(0.2)])
    shown_texts = texts(figure)
    assert {"frame", "motion", "spatial CAM, p = 0.10", "IF-TTN CAM, p = 0.98", "second snippet"} <= set(shown_texts)
    assert len(pictures(figure)) == 2 * 2 * 5 + 1  # and the wheel of directions


def test_figure_6_has_outlines_and_notes_below_the_maps():
    outlined = np.zeros((2, 12, 16), bool)
    outlined[:, 3:7, 4:9] = True
    plain, rich = figure_6([example()]), figure_6([replace(example(), outlined=outlined)], ["a\nb", "c", "d", "e"])
    lines = [len(figure.findobj(QuadContourSet)) for figure in (plain, rich)]
    assert lines == [0, 10]
    assert {"a\nb", "c", "d", "e"} <= set(texts(rich)) - set(texts(plain))
    (path,) = rich.findobj(QuadContourSet)[0].get_paths()
    assert path.get_extents().bounds == (3.5, 2.5, 5.0, 4.0)


def test_the_map_of_a_pair_is_on_both_frames():
    one = example()
    same = CamExample("Jump", one.frames[[0, 0]], one.motion, one.spatial, one.temporal, one.pair)
    shown = pictures(figure_6([same]))
    np.testing.assert_array_equal(shown[4], shown[9])
    assert np.abs(shown[2] - shown[7]).max() > 0.05


def test_a_map_is_red_for_evidence_and_blue_for_evidence_against():
    one = example()
    pair = np.ones((12, 16), np.float32)
    pair[:, 8:] = -1
    shown = pictures(figure_6([CamExample("Jump", one.frames, one.motion, one.spatial, one.temporal, pair)]))[4]
    assert (shown[:, 0, 0] > shown[:, 0, 2]).all()
    assert (shown[:, -1, 0] < shown[:, -1, 2]).all()


def test_figures_1_and_7_have_photographs_above_drawings_or_a_black_tile():
    photograph = np.full((12, 16, 3), 77, np.uint8)
    figure = figure_1_7([drawn([photograph, None, photograph])] * 3)
    shown = pictures(figure)
    assert len(shown) == 18
    assert shown[0].shape == (12, 16, 3)
    assert (shown[1] == 0).all()
    np.testing.assert_array_equal(shown[5], drawn([]).drawings[2])
    assert {"Jump", "TSN", "TTN, first snippet", "p(A,B) 0.99"} <= set(texts(figure))


def test_a_failed_drawing_has_a_note_in_its_title():
    failed = replace(drawn([None] * 3), succeeded=False)
    shown_texts = texts(figure_1_7([drawn([None] * 3), failed]))
    assert "Jump" in shown_texts
    assert "Jump: this drawing did not succeed" in shown_texts


def test_a_photograph_of_another_aspect_ratio_is_cropped_to_its_middle():
    photograph = np.zeros((12, 30, 3), np.uint8)
    photograph[:, 7:23] = 200
    shown = pictures(figure_1_7([drawn([photograph] * 3)]))[0]
    assert shown.shape == (12, 16, 3)
    assert (shown == 200).all()


def test_localisation_has_a_panel_for_each_region_and_a_mark_for_each_method():
    index = pd.MultiIndex.from_product(
        [["rgb", "flow", "ttn"], ["balls", "background"], ["CAM", "random map"]], names=["head", "region", "method"]
    )
    table = pd.DataFrame(0.5, index, ["pointing", "energy"]).assign(area=0.3)
    for measured in ("pointing", "energy"):
        table[f"{measured} low"], table[f"{measured} high"] = 0.4, 0.6
    figure = localisation(table)
    assert len(figure.axes) == 4
    assert {"spatial", "temporal", "IF-TTN", "balls", "background", "CAM", "random map"} <= set(texts(figure))


def test_order_gaps_have_means_and_counts():
    figure = order_gaps({"drawn": np.array([0.9, 0.001, -0.001]), "TSN": np.zeros(3)})
    assert {"drawn", "TSN", "+0.30  (> 0: 2 of 3)", "+0.00  (> 0: 0 of 3)"} <= set(texts(figure))


def test_drawn_motion_has_a_row():
    assert "drawn motion" in texts(figure_1_7([drawn([None] * 3, stack(40, 0))]))
    assert "drawn motion" not in texts(figure_1_7([drawn([None] * 3)]))


def test_training_curves_have_a_panel_for_each_run_and_a_line_for_each_stage():
    table = pd.DataFrame({"stage": ["ttn", "ttn", "joint"], "loss": [2.0, 1.0, 0.5]})
    figure = training_curves({name: table for name in ("spatial", "temporal", "if-ttn", "mv-if-ttn")})
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["spatial", "temporal", "if-ttn", "mv-if-ttn"]
    assert [list(line.get_xdata()) for line in panels[3].lines] == [[1, 2], [3]]


def test_the_axis_of_the_curves_includes_the_highest_loss_of_all_runs():
    runs = {name: pd.DataFrame({"stage": ["one"] * 2, "loss": [top, 1.0]}) for name, top in (("a", 2.0), ("b", 9.0))}
    for axes in training_curves(runs).axes:
        low, high = axes.get_ylim()
        assert low == 0
        assert high >= 9


def test_confusion_shows_the_share_of_each_true_action():
    scores = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    figure = confusion_figure(scores, np.array([0, 0, 0, 2]), ["a", "b", "c"])
    np.testing.assert_allclose(pictures(figure)[0], [[200 / 3, 100 / 3, 0], [0, 0, 0], [0, 0, 100]])
    assert {"67", "33", "100", "top-1 75.0 %"} <= set(texts(figure))


def gains_of(count: int) -> pd.DataFrame:
    gain = np.linspace(0.8, -0.2, count)
    columns = {"in order": 0.8, "shuffled": 0.8 - gain, "gain": gain, "low": gain - 0.1, "high": gain + 0.1}
    return pd.DataFrame({"action": [f"action {i}" for i in range(count)], "videos": 20} | columns)


def test_every_action_has_a_mark_at_its_gain():
    figure = order_lollipops(gains_of(6))
    change = figure.axes[0]
    assert [text.get_text() for text in change.get_yticklabels()] == [f"action {i}" for i in range(6)]
    dots = np.asarray(change.collections[-1].get_offsets())
    np.testing.assert_allclose(dots, [(80 - 20 * i, i) for i in range(6)])
    intervals = [segment[:, 0] for segment in change.collections[0].get_segments()]
    np.testing.assert_allclose(intervals, [(70 - 20 * i, 90 - 20 * i) for i in range(6)])


def test_only_the_first_and_the_last_of_many_actions_are_drawn():
    figure = order_lollipops(gains_of(174))
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == [f"action {i}" for i in (*range(15), *range(159, 174))]
    assert "144 actions between" in texts(figure)
    assert figure.get_size_inches()[1] < 7


def test_the_curve_of_clips_has_a_line_for_each_head_and_ticks_at_its_counts():
    rows = [
        (c, head, 2, 9, a, a - 0.1, a + 0.1, a - 0.05, a + 0.05)
        for head, a in (("rgb", 0.3), ("together", 0.6))
        for c in (4, 16)
    ]
    columns = ["clips", "head", "seeds", "videos", "accuracy", "low", "high", "lowest", "highest"]
    axes = clips_curve(pd.DataFrame(rows, columns=columns), "if-ttn", 16).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["4", "16"]
    lines = {str(line.get_label()): list(line.get_ydata()) for line in axes.lines}
    np.testing.assert_allclose([lines["spatial"], lines["together"]], [[30, 30], [60, 60]])


def test_times_are_in_seconds_or_minutes():
    assert {"prepare", "88.0 s", "5.0 min"} <= set(texts(time_bars({"prepare": 88.0, "train": 300.0})))


def test_figures_are_made_without_pyplot():
    command = "import sys, lab.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
