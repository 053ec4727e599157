"""The DeepDraw studio without a browser: drawings, gallery, errors and messages."""

import time

import pytest
import torch
from PIL import Image as Pillow

from ifttn.experiment.scores import LATE_FUSION
from ifttn.insight.deepdraw import DrawingStep
from ifttn.insight.drawing_settings import DRAWING_PRESETS
from ifttn.insight.embedded.denoiser import Denoiser, denoiser_file, packed
from ifttn.insight.order import probabilities
from ifttn.vocabulary import IfttnError
from lab.deepdraw_studio import DeepDrawStudio
from lab.drawings import StudioState, outcome, tiles


def test_a_drawing_is_paused_resumed_stopped_and_kept(opened, shelf, tmp_path, wait_for):
    panel = opened(DeepDrawStudio, shelf, tmp_path, seed=3)
    with pytest.raises(IfttnError, match="no drawing to keep"):
        panel.keep()
    panel.start_button.click()
    wait_for(lambda: panel.drawn is not None and panel.drawn.step > 2)
    panel.pause_button.click()
    time.sleep(0.3)
    halted = panel.drawn.step
    time.sleep(0.3)
    assert panel.drawn.step == halted
    panel.keep_button.click()
    panel.pause_button.click()
    wait_for(lambda: panel.drawn.step > halted)
    panel.stop_button.click()
    assert panel.wait(10.0)
    panel.keep_button.click()
    assert len(panel.gallery) == 2
    assert "seed 3" in panel.gallery[0].title
    files = sorted(tmp_path.glob("*_seed3.png"))
    assert len(files) == 2
    with Pillow.open(files[0]) as picture:
        assert picture.text["step"] == f"{halted} of {panel.drawn.steps}"
        assert picture.text["action"] == panel.state.action
    assert panel._kept.value.count("<figure") == 2
    assert panel.as_html().data.count("<img") == 4
    assert panel.gallery[0].swapped is not None
    assert panel.worker.error == ""
    assert all(image.value for image in panel.tiles)


def test_an_earlier_step_and_the_swapped_pair_can_be_shown(opened, shelf, tmp_path, wait_for):
    panel, sends = opened(DeepDrawStudio, shelf, tmp_path, length=0.25), list[bool]()
    panel.ascent.observe(lambda change: sends.append(change["new"]), "continuous_update")
    panel.start()
    wait_for(lambda: len(panel.drawing.seen) > 1 or not panel.worker.doing)
    assert panel.wait(120.0)
    assert sends == [False, True]  # meanwhile the page sends back no step that it got late
    assert panel.ascent.value == panel.ascent.max == len(panel.drawing.seen) - 1
    last = [image.value for image in panel.tiles]
    panel.swapped.value = True
    assert [image.value for image in panel.tiles] == [last[i] for i in (1, 0, 3, 2)]
    assert "B: frame" in panel._tiles.children[0].children[0].value
    assert f"p(B,A) = {dict(panel.drawing.curves['p(B,A)'])[panel.drawn.step]:.2f}" in panel._order.value
    panel.swapped.value, panel.ascent.value = False, 0
    first = min(panel.drawing.seen)
    assert [image.value for image in panel.tiles] == panel.drawing.seen[first] != last
    assert f"step {first}: p(A,B)" in panel._order.value


def test_the_best_of_three_seeds_is_shown_and_all_are_in_the_gallery(opened, shelf, tmp_path):
    panel = opened(DeepDrawStudio, shelf, tmp_path, seed=2**32 - 2, seeds=3, length=0.25)
    panel.start()
    assert panel.wait(300.0)
    assert panel.worker.error == ""
    assert [kept.path.name.rpartition("seed")[2] for kept in panel.gallery] == [
        "4294967294.png",
        "4294967295.png",
        "0.png",
    ]
    best = max(panel.gallery, key=lambda kept: float(kept.outcome.rpartition("= ")[2]))
    assert panel.drawing.title in best.title
    assert f"the best of 3 seeds is {panel.drawing.facts['seed']}" in panel._status_line.value


def test_without_a_network_draw_shows_how_to_train_one(opened, tmp_path):
    panel = opened(DeepDrawStudio, tmp_path)
    panel.start_button.click()
    assert "no data set in" in panel.worker.error
    assert "ifttn reproduce --quick" in panel.worker.error


def test_one_seed_draws_one_picture(opened, shelf, tmp_path, wait_for):
    drawn = []
    panel = opened(DeepDrawStudio, shelf, tmp_path, head="rgb")
    for _ in range(2):
        panel.start()
        wait_for(lambda: (panel.drawn is not None and panel.drawn.step == 5) or not panel.worker.doing)
        assert panel.wait(120.0)
        drawn.append(panel.drawn.rgb)
    assert (drawn[0] == drawn[1]).all()
    assert "p(B,A)" not in panel.drawing.curves


def test_a_stopped_drawing_ends_within_a_third_of_a_second(opened, shelf, tmp_path, wait_for):
    panel, waited = opened(DeepDrawStudio, shelf, tmp_path), []
    for _ in range(3):
        panel.start()
        wait_for(lambda: panel.worker.doing and panel.drawn is not None and 2 < panel.drawn.step < 20)
        step, began = panel.drawn.step, time.monotonic()
        panel.stop_button.click()
        assert panel.wait(10.0)
        waited.append(time.monotonic() - began)
        assert panel.drawn.step <= step + 2  # the one under way, and one that ended meanwhile
    assert min(waited) < 0.3  # the machine may be busy with others once


@pytest.mark.parametrize("options", [{"length": 0.5}, {"head": "fused"}], ids=lambda options: "-".join(options))
def test_every_option_of_the_studio_draws_another_picture(opened, shelf, tmp_path, options, wait_for):
    drawn = []
    for chosen in ({}, options):
        panel = opened(DeepDrawStudio, shelf, tmp_path, settings="tiny", **{"length": 0.25, **chosen})
        panel.start()
        wait_for(lambda panel=panel: panel.worker.error or (panel.drawn is not None and panel.drawn.step >= 5))
        panel.stop()
        assert panel.wait(60.0)
        assert panel.worker.error == ""
        drawn.append((panel.drawn.steps, *(panel.drawing.curves[curve][3][1] for curve in ("logit", "p(A,B)"))))
    assert drawn[0] != drawn[1]


def test_a_trained_denoiser_becomes_the_recipe_of_the_studio(opened, shelf, tmp_path, wait_for):
    path = denoiser_file(shelf.places.runs, "embedded-ucf", 1, ("rgb", "flow"))
    path.write_bytes(packed(Denoiser({"rgb": 3, "flow": 10}, 5)))
    try:
        panel = opened(DeepDrawStudio, shelf, tmp_path)
        assert (panel.settings.value, panel.head.value) == ("tiny-denoised", "fused")
        panel.start()
        wait_for(lambda: panel.worker.error or (panel.drawn is not None and panel.drawn.step >= 3))
        panel.stop()
        assert panel.wait(60.0)
        assert panel.worker.error == ""
        assert "noise" in panel._status_line.value
        assert all(image.value for image in panel.tiles)
    finally:
        path.unlink()


def test_the_error_says_why_something_cannot_be_drawn(opened, shelf, tmp_path, wait_for):
    panel = opened(DeepDrawStudio, shelf, tmp_path, settings="tiny-denoised")
    panel.start()
    wait_for(lambda: panel.worker.error)
    assert "figures --denoise" in panel.worker.error
    assert panel.worker.details == ""


def test_the_title_names_the_length_only_if_it_is_not_that_of_the_recipe():
    plain = StudioState(settings="tiny")
    assert plain.drawing_settings() == DRAWING_PRESETS["tiny"]
    assert plain.in_words == ""
    longer = StudioState(settings="paper", length=0.5)
    assert [octave.steps for octave in longer.drawing_settings().octaves] == [95, 225]
    assert longer.in_words == "steps ½"


def test_the_swap_of_the_fused_head_is_that_of_the_late_fusion(shelf):
    network = shelf.recognizer(shelf.runs("embedded-ucf", 1)["if-ttn"]).network
    generator = torch.Generator().manual_seed(0)
    pair = {m: 255 * torch.rand((2, c, 64, 64), generator=generator) for m, c in (("rgb", 3), ("flow", 10))}
    with torch.no_grad():
        logits = network({m: x.flip(0)[None] for m, x in pair.items()}).logits
    fused = sum(LATE_FUSION[head] * each for head, each in logits.items())
    assert torch.allclose(probabilities(network, pair, "fused")[1], fused.softmax(1)[0], atol=1e-5)
    assert torch.allclose(probabilities(network, pair, "ttn")[1], logits["ttn"].softmax(1)[0], atol=1e-5)


def test_every_listed_run_can_draw_also_one_on_rgb_differences(opened, wider, tmp_path, wait_for):
    panel = opened(DeepDrawStudio, wider, tmp_path, run="rgbdiff", settings="tiny", length=0.25)
    assert panel.run.options == ("spatial", "temporal", "rgbdiff", "if-ttn")
    assert panel.head.options == ("rgbdiff",)
    panel.start()
    assert panel.wait(60.0)
    assert panel.worker.error == ""
    assert panel.drawn.motion.shape[1] == 15
    assert [bool(image.value) for image in panel.tiles] == [False, False, True, False]


def test_rgb_differences_keep_their_colours():
    motion = torch.full((1, 15, 4, 6), 128.0)
    motion[:, 2::3] = 200.0  # blue comes up in all five differences
    state = DrawingStep(0, 1, 1, 0.0, 1.0, None, motion, 0.0, 0.0)
    *_, tile, none = tiles(state)
    assert none is None
    assert tile.shape == (4, 6, 3)
    assert tile[0, 0].tolist() == [128, 128, 200]


@pytest.mark.parametrize("text", ["1e3", "", "-1", "1.5", "seven", "4294967296"])
def test_an_invalid_seed_is_an_error_and_starts_no_drawing(opened, shelf, tmp_path, text):
    panel = opened(DeepDrawStudio, shelf, tmp_path, seed=7)
    panel.seed.value = text
    assert f"the seed {text!r} is not a whole number" in panel.worker.error
    assert panel.state.seed == 7
    panel.start_button.click()
    assert panel.wait(60.0)
    assert "is not a whole number" in panel.worker.error
    assert panel.drawn is None
    panel.seed.value = " 12 "
    assert (panel.state.seed, panel.worker.error) == (12, "")


def test_a_drawing_keeps_the_choices_of_its_start(opened, shelf, tmp_path, wait_for):
    panel = opened(DeepDrawStudio, shelf, tmp_path, seed=3, length=0.25)
    with shelf.lock:  # it cannot take its first step before the choices change
        panel.start()
        panel.state.seed, panel.state.head = 4, "rgb"
    wait_for(lambda: panel.drawn is not None)
    panel.stop()
    panel.keep()
    assert "ttn of" in panel.gallery[0].title
    assert "seed 3" in panel.gallery[0].title
    assert panel.gallery[0].path.name.endswith("_ttn_seed3.png")


def test_a_new_studio_continues_the_numbers_of_the_files(opened, shelf, tmp_path, wait_for):
    for number in (1, 2):
        panel = opened(DeepDrawStudio, shelf, tmp_path, length=0.25)
        panel.start()
        wait_for(lambda panel=panel: panel.drawn is not None)
        panel.stop()
        panel.keep()
        assert panel.gallery[0].path.name.startswith(f"0{number}_")
        assert panel.gallery[0].path.name in panel._kept.value.replace("<wbr>", "")
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_a_failed_drawing_has_a_note(opened, shelf, tmp_path):
    half, failed, good = (
        DrawingStep(0, step, 9, 0.0, p, None, None, 0.0, 0.0) for step, p in ((4, 0.05), (9, 0.05), (9, 0.9))
    )
    assert outcome(half) == "p = 0.05"
    assert outcome(failed) == "this drawing did not succeed: p = 0.05"
    assert outcome(good) == "p = 0.90"
    panel = opened(DeepDrawStudio, shelf, tmp_path, head="rgb", length=0.25)  # too short, of a network hardly trained
    panel.start()
    assert panel.wait(60.0)
    assert panel.drawn.probability < 0.5
    panel.keep()
    note = f"this drawing did not succeed: p = {panel.drawn.probability:.2f}"
    assert note in panel._status_line.value
    assert note in panel._kept.value
