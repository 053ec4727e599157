"""The panels as a person meets them: by mouse and keys, in JupyterLab, with a picture of each kept."""

import statistics
import time

import pytest

pytestmark = pytest.mark.slow

FIRST_FRAME = (
    "[...document.querySelectorAll('.picture img, img.picture')].some(i => i.offsetParent && i.naturalWidth > 10)"
)
AT = "Math.round(+document.querySelector('.ifttn-scrub .noUi-handle').getAttribute('aria-valuenow'))"
WATCH = """() => {
    window.painted = [];
    const look = () => {
        const images = [...document.querySelectorAll('.picture img, img.picture')];
        const image = images.find(i => i.offsetParent && i.complete && i.naturalWidth);
        if (image && image.src !== window.painted.at(-1)) window.painted.push(image.src);
        window.watching = requestAnimationFrame(look) };
    look() }"""


@pytest.fixture
def opening(results_folder):
    return f"results = {str(results_folder)!r}"


def open_inspector(run_cells, opening, name):
    notebook = run_cells(name, opening, "from lab.inspector import Inspector\npanel = Inspector(results)\npanel")
    began = time.monotonic()
    notebook.page.wait_for_function(FIRST_FRAME, timeout=120_000)
    return notebook, time.monotonic() - began


def test_the_inspector_is_scrubbed_by_keys_and_every_press_paints_its_frame(run_cells, opening, capsys):
    notebook, waited = open_inspector(run_cells, opening, "inspector")
    page = notebook.page
    page.wait_for_function(
        "document.querySelector('.ifttn [role=status]').textContent.includes('ready')", timeout=60_000
    )
    notebook.shot("inspector")
    panel = page.locator(".ifttn").first
    panel.focus()
    cells, presses = page.locator(".jp-Cell").count(), 40
    page.evaluate(WATCH)
    for _ in range(presses):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(33)
    page.wait_for_timeout(500)
    painted = page.evaluate("window.painted.length") - 1
    assert page.evaluate(AT) == presses
    assert page.locator(".jp-Cell").count() == cells  # no key went to JupyterLab, where arrows and letters are commands
    with capsys.disabled():
        print(
            f"\nscrubbing by keys: {painted} frames painted of {presses}; first frame {waited:.2f} s after the cell ran"
        )
    assert painted >= 0.9 * presses
    for key in ("2", "3", "r", "Shift+ArrowRight", "x"):
        page.keyboard.press(key)
    page.wait_for_function("document.body.textContent.includes('as filmed')")
    page.wait_for_timeout(3000)
    notebook.shot("inspector_layers")
    assert page.locator(".jp-Cell").count() == cells
    assert notebook.complaints == []


def test_a_click_on_the_time_line_and_the_play_button_move_the_cursor(run_cells, opening):
    notebook, _ = open_inspector(run_cells, opening, "timeline")
    page = notebook.page
    box = page.locator(".timeline").first.bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 8)
    last = page.evaluate("+document.querySelector('.ifttn-scrub .noUi-handle').getAttribute('aria-valuemax')")
    assert abs(page.evaluate(AT) - 0.75 * last) <= 2
    page.keyboard.press("Home")
    page.locator(".widget-play button").first.click()
    page.wait_for_function(f"{AT} > 5", timeout=20_000)
    assert notebook.complaints == []


def test_a_row_of_a_table_is_clicked_through_to_a_clip(run_cells, opening):
    notebook = run_cells("tables", opening, "from lab.table_desk import TableDesk\npanel = TableDesk(results)\npanel")
    page = notebook.page
    page.get_by_role("button", name="complete IF-TTN").click(timeout=60_000)
    page.wait_for_selector(".ifttn-errors option", timeout=30_000)
    notebook.shot("tables")
    name = page.locator(".ifttn-errors option").first.inner_text().split()[0]
    page.locator(".ifttn-errors select").select_option(index=0)
    page.wait_for_function(FIRST_FRAME, timeout=120_000)
    assert page.locator(".ifttn .ifttn small", has_text=name).count() >= 1
    assert notebook.complaints == []


def test_the_desk_warns_when_a_slider_is_moved(run_cells, opening):
    notebook = run_cells(
        "fusion", opening, "from lab.fusion_desk import FusionDesk\npanel = FusionDesk(results)\npanel"
    )
    page = notebook.page
    page.locator(".noUi-handle").first.focus(timeout=60_000)
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("document.body.textContent.includes('not a result')", timeout=20_000)
    notebook.shot("fusion")
    assert notebook.complaints == []


def test_a_drawing_is_started_paused_resumed_and_stopped(run_cells, opening, capsys):
    notebook = run_cells(
        "deepdraw", opening, "from lab.deepdraw_studio import DeepDrawStudio\npanel = DeepDrawStudio(results)\npanel"
    )
    page = notebook.page
    status = page.locator(".ifttn [role=status]").first
    page.get_by_role("button", name="draw").click()
    page.wait_for_function(FIRST_FRAME, timeout=60_000)
    page.get_by_role("button", name="pause").click()
    page.wait_for_function(
        "document.querySelector('.ifttn [role=status]').textContent.includes('paused')", timeout=20_000
    )
    page.get_by_role("button", name="go on").click()
    page.wait_for_function(
        "!document.querySelector('.ifttn [role=status]').textContent.includes('paused')", timeout=20_000
    )
    began = time.monotonic()
    page.get_by_role("button", name="stop").click()
    page.wait_for_function(
        "document.querySelector('.ifttn [role=status]').textContent.includes('ready')", timeout=20_000
    )
    with capsys.disabled():
        print(f"\nstop took {time.monotonic() - began:.2f} s, from the click to 'ready' ({status.inner_text()})")
    notebook.shot("deepdraw")
    assert notebook.complaints == []


@pytest.mark.parametrize(
    ("name", "module", "panel"), [("cam", "cam_explorer", "CamExplorer"), ("monitor", "monitor", "Monitor")]
)
def test_the_other_panels_show_something(run_cells, opening, name, module, panel):
    notebook = run_cells(name, opening, f"from lab.{module} import {panel}\npanel = {panel}(results)\npanel")
    wanted = "table.cams img" if name == "cam" else ".chart polyline"
    notebook.page.wait_for_selector(wanted, timeout=120_000)
    notebook.shot(name)
    assert notebook.complaints == []


def test_kernel_memory_after_opening_and_closing_fifty_clips(run_cells, opening, capsys):
    source = """
import resource
from lab.inspector import Inspector
panel = Inspector(results)
sizes, names = [], [name for _, name in panel.video.options]
for i in range(50):
    panel.state.video = names[i % len(names)]
    panel.wait()
    sizes.append(int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() / 2**20)
panel.close()
print('sizes', *map(round, sizes))"""
    notebook = run_cells("memory", opening, source)
    text = notebook.page.locator(".jp-OutputArea-output", has_text="sizes").first.inner_text()
    sizes = [int(word) for word in text.split()[1:51]]
    with capsys.disabled():
        print(f"\nkernel memory: {sizes[9]} MB after 10 clips, {sizes[49]} MB after 50")
    assert statistics.mean(sizes[40:]) < statistics.mean(sizes[5:15]) + 60
