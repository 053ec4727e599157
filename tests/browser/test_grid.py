"""The grid of clips in JupyterLab, with a study and with a data set as large as UCF101."""

import time

import numpy as np
import pytest

from ifttn.experiment.runs import Run
from ifttn.experiment.scores import READINGS, Scores
from lab.shelf import Shelf
from tests.browser.conftest import COUNT

pytestmark = pytest.mark.slow

MANY = 13_000
PICTURES = "document.querySelectorAll('.ifttn-clips .strip[style*=blob]').length"
CELLS = "document.querySelectorAll('.ifttn-clips .clip').length"
AT = "document.querySelector('.ifttn-clips [aria-selected=true]')"


@pytest.fixture(scope="session")
def many(encode, tmp_path_factory):
    """Results with a data set of MANY videos, which are links to one file, and with the scores of a run."""
    root = tmp_path_factory.mktemp("many")
    film = encode(root / "film.mp4", [np.full((96, 128, 3), 15 * i, np.uint8) for i in range(16)])
    for number in range(MANY):
        folder = root / "data" / "many" / f"class_{number % 101:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"v_{number:05d}.mp4").symlink_to(film)
    split = Shelf(root).split("many", 1)
    run = Run.of(root / "runs", "many", 1, "spatial")
    run.folder.mkdir(parents=True)
    (run.folder / "recipe.json").write_text("{}")
    rng = np.random.default_rng(0)
    heads = {"rgb": rng.normal(size=(len(split.test), 101)).astype(np.float32)}
    names, labels = tuple(video.name for video in split.test), np.array([video.label for video in split.test])
    Scores(names, labels, split.actions, heads, {reading: heads for reading in READINGS}).save(
        run.folder / "scores.npz"
    )
    return root


def test_the_grid_is_filtered_played_tagged_and_opened_by_mouse_and_keys(run_cell, results_folder):
    notebook = run_cell(f"from lab.grid import ClipGrid\npanel = ClipGrid({str(results_folder)!r})\npanel")
    page = notebook.page
    page.wait_for_function(f"{PICTURES} > 3 && {PICTURES} === {CELLS}", timeout=60_000)
    notebook.shot("grid")
    cells = page.locator(".jp-Cell").count()
    page.locator(".ifttn-clips .clip").nth(1).hover()
    strip = page.locator(".ifttn-clips .clip:hover .strip")
    seen = {
        strip.evaluate("s => getComputedStyle(s).backgroundPositionX")
        for _ in range(40)
        if page.wait_for_timeout(40) is None
    }
    assert len(seen) > 4
    page.locator(".ifttn-clips .view").focus()
    first = page.evaluate(f"{AT}.title")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.evaluate(f"{AT}.title") != first
    page.keyboard.press("t")
    page.keyboard.type("odd one")
    page.keyboard.press("Enter")
    page.wait_for_function(f"{AT}.textContent.includes('#odd one')", timeout=10_000)
    page.locator(".ifttn-clips .tagging button").click()
    page.wait_for_function(f"!{AT}.textContent.includes('#odd one')", timeout=10_000)
    page.locator(".ifttn-clips .tagging input").focus()
    page.keyboard.press("Escape")
    name = page.evaluate(f"{AT}.title")
    page.keyboard.press("Enter")
    page.wait_for_selector(f".ifttn .ifttn small:has-text('{name.rpartition('/')[2]}')", timeout=120_000)
    assert page.locator(".jp-Cell").count() == cells
    notebook.shot("grid_opened")
    assert notebook.complaints == []


def test_a_grid_of_thirteen_thousand_clips_opens_scrolls_and_sorts_quickly(run_cell, many, capsys):
    page = run_cell("from lab.grid import ClipGrid").page
    page.evaluate(COUNT)
    began = time.monotonic()
    source = f"from lab.grid import ClipGrid\npanel = ClipGrid({str(many)!r}, side='both')\npanel"
    notebook = run_cell(source)
    page.wait_for_function(f"{CELLS} > 10", timeout=60_000)
    listed = time.monotonic() - began
    page.wait_for_function(f"{PICTURES} > 3 && {PICTURES} === {CELLS}", timeout=60_000)
    pictured, opening = time.monotonic() - began, page.evaluate("window.messages")
    page.evaluate(COUNT)
    page.evaluate(
        "() => { window.longest = 0; let last = performance.now(); const look = now => {"
        "window.longest = Math.max(window.longest, now - last); last = now;"
        "window.watching = requestAnimationFrame(look) }; requestAnimationFrame(look) }"
    )
    page.locator(".ifttn-clips .view").focus()
    for _ in range(40):
        page.keyboard.press("PageDown")
    page.keyboard.press("End")
    assert page.evaluate(f"+{AT}.getAttribute('aria-posinset')") == MANY
    page.wait_for_function(f"{PICTURES} > 3 && {PICTURES} === {CELLS}", timeout=60_000)
    scrolling, longest = page.evaluate("window.messages"), page.evaluate("window.longest")
    page.evaluate("cancelAnimationFrame(window.watching)")
    page.evaluate(COUNT)
    began = time.monotonic()
    page.locator(".ifttn select", has_text="confidence").select_option("confidence")
    page.wait_for_function("document.querySelector('.ifttn-clips .clip').textContent.includes('confidence 0.0')")
    sorted_in, sorting = time.monotonic() - began, page.evaluate("window.messages")
    with capsys.disabled():
        for what, messages in (("opening", opening), ("to the end", scrolling), ("sorting", sorting)):
            print(
                f"\n{what}: {messages['iopub']} messages from the kernel ({messages['bytes'] / 1e3:.0f} kB), "
                f"{messages['shell']} to it",
                end="",
            )
        print(
            f"\n{MANY:,} clips: cells after {listed:.2f} s, all thumbnails in sight after {pictured:.2f} s; "
            f"the page's longest pause while scrolling {longest:.0f} ms; sorted in {sorted_in:.2f} s"
        )
    assert page.evaluate(CELLS) < 60
    assert opening["iopub"] < 250  # three for each of its controls
    assert scrolling["shell"] < 60
    assert sorting["iopub"] < 40
    notebook.shot("grid_many")
    assert notebook.complaints == []


def test_two_players_side_by_side_are_at_the_same_fraction_of_their_clips(run_cell, results_folder):
    more = "from lab.pair import SideBySide\n"
    page = run_cell(f"{more}panel = SideBySide({str(results_folder)!r}, {{}}, {{'run': 'spatial'}})\npanel").page
    page.wait_for_function("document.querySelectorAll('canvas[data-drawn]').length === 2", timeout=120_000)
    left, right = page.locator(".ifttn-frame").all()
    left.focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    assert (left.input_value(), right.input_value()) == ("7", "7")
    right.focus()
    page.keyboard.press("End")
    assert left.input_value() == right.input_value() == right.get_attribute("max")
    page.keyboard.press("Home")
    page.locator(".ifttn-play").first.click()
    page.wait_for_function("+document.querySelectorAll('.ifttn-frame')[1].value > 5", timeout=60_000)
    assert abs(int(left.input_value()) - int(right.input_value())) <= 2  # read one after the other
    page.locator(".ifttn-play").first.click()
