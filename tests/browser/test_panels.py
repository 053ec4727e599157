"""The panels as a person meets them: by mouse and keys, in JupyterLab, with a picture of each kept."""

import statistics
import time
from itertools import pairwise

import numpy as np
import pytest

pytestmark = pytest.mark.slow

FIRST_FRAME = """[...document.querySelectorAll('.ifttn canvas, img.picture')]
    .some(i => i.offsetParent && (i.naturalWidth > 10 || i.dataset.drawn))"""
READY = "document.querySelector('.ifttn [role=status]').textContent.includes('ready')"
AT = "document.querySelector('input.ifttn-frame').valueAsNumber"
LAST = "+document.querySelector('input.ifttn-frame').max"
WATCH = """() => {
    window.painted = [];
    const canvas = document.querySelector('.ifttn canvas');
    const look = now => {
        const seen = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let sum = 0;
        for (let i = 0; i < seen.length; i += 5) sum = (31 * sum + seen[i]) | 0;
        if (sum !== window.painted.at(-1)?.[0]) window.painted.push([sum, now, +canvas.dataset.drawn]);
        window.watching = requestAnimationFrame(look) };
    requestAnimationFrame(look) }"""
"""At every frame of the page: a sum of the pixels that are seen, since when (ms), and of which frame they are."""


@pytest.fixture
def opening(results_folder):
    """open(module, panel, more): a cell that opens a panel of the study."""
    return lambda module, panel, more="": (
        f"from lab.{module} import {panel}\npanel = {panel}({str(results_folder)!r}{more})\npanel"
    )


def open_inspector(run_cell, opening):
    notebook = run_cell(opening("inspector", "Inspector"))
    began = time.monotonic()
    notebook.page.wait_for_function(FIRST_FRAME, timeout=120_000)
    return notebook, time.monotonic() - began


BUSY = 27
"""Steps a second under which the page itself comes too late to ask for 30: its machine is busy with others."""
STEPS = """([count, each]) => new Promise(done => {
    const panel = document.querySelector('.ifttn'), began = performance.now();
    let left = count;
    const timer = setInterval(() => {
        panel.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', bubbles: true, cancelable: true}));
        if (!--left) { clearInterval(timer); setTimeout(() => done(performance.now() - began - 500), 500) }
    }, each) })"""
"""So many steps back, one every so many milliseconds; ends with the time that they took."""


def test_the_inspector_is_scrubbed_by_keys_and_every_press_paints_its_frame(run_cell, opening, capsys):
    notebook, waited = open_inspector(run_cell, opening)
    page = notebook.page
    page.wait_for_function(READY, timeout=60_000)
    notebook.shot("inspector")
    panel = page.locator(".ifttn").first
    panel.focus()
    cells, presses = page.locator(".jp-Cell").count(), 60
    page.evaluate(WATCH)
    page.wait_for_function("window.painted.length")
    for frame in range(1, presses + 1):
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"window.painted.at(-1)?.[2] === {frame}", timeout=10_000)
    painted = {pixels for pixels, _, _ in page.evaluate("window.painted")}
    assert page.evaluate(AT) == presses
    assert page.locator(".jp-Cell").count() == cells  # no key went to JupyterLab, where arrows and letters are commands
    page.evaluate("window.painted.length = 0")
    took = page.evaluate(STEPS, [presses, 1000 / 30])
    page.evaluate("cancelAnimationFrame(window.watching)")
    back, rate = [pixels for pixels, _, _ in page.evaluate("window.painted")], 1000 * presses / took
    assert page.evaluate(AT) == 0
    with capsys.disabled():
        print(
            f"\nfirst frame {waited:.2f} s after the cell ran; scrubbing by keys: {len(painted) - 1} distinct "
            f"frames painted of {presses}; at {rate:.0f} of 30 steps a second: "
            f"{len(set(back)) - 1} of {presses}{', on a machine too busy to judge' if rate < BUSY else ''}"
        )
    assert len(painted) - 1 == presses
    assert back[-1] in painted
    assert rate < BUSY or len(set(back)) - 1 >= 0.95 * presses
    for key in ("2", "3", "8", "r", "Shift+ArrowRight", "x"):
        page.keyboard.press(key)
    page.wait_for_function("document.body.textContent.includes('as filmed')")
    page.wait_for_timeout(1000)
    page.wait_for_function(READY, timeout=60_000)
    notebook.shot("inspector_layers")
    assert page.locator(".jp-Cell").count() == cells
    assert notebook.complaints == []


def test_playing_paints_every_frame_in_order(run_cell, opening, capsys):
    notebook, _ = open_inspector(run_cell, opening)
    page = notebook.page
    page.wait_for_function(READY, timeout=60_000)
    page.evaluate(WATCH)
    page.wait_for_function("window.painted.length")
    page.locator(".ifttn-play").first.click()
    last = page.evaluate(LAST)
    page.wait_for_function(f"{AT} >= {last}", timeout=60_000)
    page.wait_for_timeout(500)
    page.evaluate("cancelAnimationFrame(window.watching)")
    pixels, times, painted = zip(*page.evaluate("window.painted"), strict=True)
    seconds = (times[-1] - times[1]) / 1000
    gaps = sorted(b - a for a, b in pairwise(times[1:]))
    with capsys.disabled():
        print(
            f"\nplaying at 25 frames a second: {len(painted) - 1} painted of {last:.0f} asked, in {seconds:.2f} s, "
            f"{(len(painted) - 2) / seconds:.1f} a second; a frame stays {gaps[len(gaps) // 2]:.0f} ms, "
            f"{gaps[-1]:.0f} at most"
        )
    assert list(painted) == list(range(int(last) + 1))
    assert len(set(pixels)) == len(pixels)
    run_cell(f"assert panel.state.frame == {last}  # the kernel knows as well")


def test_a_click_on_the_time_line_and_the_play_button_move_the_cursor(run_cell, opening):
    notebook, _ = open_inspector(run_cell, opening)
    page = notebook.page
    line = page.locator(".timeline").first
    line.click(position={"x": 0.75 * line.bounding_box()["width"], "y": 8})
    last = page.evaluate(LAST)
    assert abs(page.evaluate(AT) - 0.75 * last) <= 2
    page.keyboard.press("Home")
    page.locator(".ifttn-play").first.click()
    page.wait_for_function(f"{AT} > 5", timeout=60_000)
    assert notebook.complaints == []
    run_cell("del panel")  # closed while it plays
    page.wait_for_timeout(500)
    assert notebook.complaints == []


def test_a_row_of_a_table_is_clicked_through_to_a_clip(run_cell, opening):
    notebook = run_cell(opening("table_desk", "TableDesk"))
    page = notebook.page
    page.wait_for_function(READY, timeout=60_000)
    page.locator(".ifttn").get_by_role("button", name="complete IF-TTN").click(timeout=60_000)
    page.wait_for_selector(".ifttn-errors option", timeout=120_000)
    notebook.shot("tables")
    name = page.locator(".ifttn-errors option").first.inner_text().split()[0]
    page.locator(".ifttn-errors select").select_option(index=0)
    page.wait_for_function(FIRST_FRAME, timeout=120_000)
    assert page.locator(".ifttn .ifttn small", has_text=name).count() >= 1
    assert notebook.complaints == []


def test_the_desk_warns_when_a_slider_is_moved(run_cell, opening):
    notebook = run_cell(opening("fusion_desk", "FusionDesk"))
    page = notebook.page
    page.locator(".noUi-handle").first.focus(timeout=60_000)
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("document.body.textContent.includes('not a result')", timeout=60_000)
    notebook.shot("fusion")
    assert notebook.complaints == []


def test_a_drawing_is_started_paused_resumed_and_stopped(run_cell, opening, capsys):
    notebook = run_cell(opening("deepdraw_studio", "DeepDrawStudio", ", length=4.0"))  # else it may end first
    page = notebook.page
    notebook.shot("deepdraw_empty")
    status = page.locator(".ifttn [role=status]").first
    paused = "document.querySelector('.ifttn [role=status]').textContent.includes('paused')"
    page.locator(".ifttn").get_by_role("button", name="draw", exact=False).first.click()
    page.wait_for_function(FIRST_FRAME, timeout=60_000)
    page.locator(".ifttn").get_by_role("button", name="pause").click()
    page.wait_for_function(paused, timeout=60_000)
    page.locator(".ifttn").get_by_role("button", name="keep").click()
    page.locator(".ifttn").get_by_role("button", name="go on").click()
    page.wait_for_function(f"!{paused}", timeout=60_000)
    page.locator(".ifttn").get_by_role("button", name="keep").click()
    page.wait_for_selector(".ifttn figure figcaption:has-text('seed 0')", timeout=60_000)
    began = time.monotonic()
    page.locator(".ifttn").get_by_role("button", name="stop").click()
    page.wait_for_function(READY, timeout=60_000)
    with capsys.disabled():
        print(f"\nstop took {time.monotonic() - began:.2f} s, from the click to 'ready' ({status.inner_text()})")
    page.locator(".ifttn").get_by_role("button", name="options").click()
    page.wait_for_timeout(500)
    notebook.shot("deepdraw")
    assert notebook.complaints == []


PANELS = {
    "ClipGrid": "grid",
    "Inspector": "inspector",
    "CamExplorer": "cam_explorer",
    "DeepDrawStudio": "deepdraw_studio",
    "Monitor": "monitor",
    "FusionDesk": "fusion_desk",
    "TableDesk": "table_desk",
}
"""Panel -> its module."""
NOTEBOOK = """(() => { const notebook = window.jupyterapp.shell.currentWidget.content;
    return [notebook.mode, notebook.activeCellIndex, document.querySelectorAll('.jp-Dialog').length,
        ...notebook.model.toJSON().cells.map(cell => [cell.cell_type, cell.source])] })()"""
COMMANDS = [*"ddmyr1abxcvz00iikjlo", "Shift+M", "ArrowDown", "ArrowUp", "Escape", "Enter", "Shift+Enter"]
"""Keys with which JupyterLab deletes, cuts, pastes, merges, turns, adds, leaves or runs cells, or restarts a kernel."""


def settled(page, panel):
    """The monitor is never ready: it follows."""
    page.wait_for_timeout(500)
    if panel != "Monitor":
        page.wait_for_function(READY, timeout=120_000)


@pytest.mark.parametrize("panel", PANELS)
def test_no_key_goes_to_jupyterlab_after_a_click_on_any_control(run_cell, opening, panel):
    notebook = run_cell(opening(PANELS[panel], panel))
    page = notebook.page
    settled(page, panel)
    before = page.evaluate(NOTEBOOK)
    for kind in ("button:enabled", "select", "input", "input[type=range]", ".noUi-handle", "h3", ".picture", "table"):
        control = page.locator(f".ifttn {kind}:visible").first
        if control.count() == 0:
            continue
        (control.focus if kind == "select" else control.click)()  # to click a list opens it above the page
        for key in COMMANDS:
            page.keyboard.press(key)
        page.wait_for_timeout(300)
        assert page.evaluate(NOTEBOOK) == before, kind
    assert notebook.complaints == []


CROWDED = """() => [...document.querySelectorAll('.ifttn, .ifttn *')].filter(e => e.offsetParent).flatMap(e => {
    const look = getComputedStyle(e);
    const wide = e.scrollWidth > e.clientWidth + 1, high = e.scrollHeight > e.clientHeight + 1;
    const cut = e.matches('button, label') && wide;
    const scrolls = !e.matches('select, textarea, pre, .ifttn-clips .view') &&
        (wide && /auto|scroll/.test(look.overflowX) || high && /auto|scroll/.test(look.overflowY));
    return cut || scrolls ? [`${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`] : [] })"""
"""What is cut, or has a scroll bar of its own."""


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_fits_beside_the_side_bar_of_a_small_screen(run_cell, opening, panel):
    notebook = run_cell(opening(PANELS[panel], panel))
    page = notebook.page
    settled(page, panel)
    if panel == "DeepDrawStudio":
        page.locator(".ifttn").get_by_role("button", name="draw", exact=False).first.click()
        page.wait_for_function(FIRST_FRAME, timeout=60_000)
        settled(page, panel)
    notebook.shot(f"small_{PANELS[panel]}")
    assert page.evaluate("window.innerWidth") == 1280
    assert page.locator("#jp-left-stack").bounding_box()["width"] > 200
    assert page.evaluate(CROWDED) == []
    for columns in page.locator(".ifttn-columns, .ifttn-player").all():
        left, right = (part.bounding_box() for part in columns.locator(":scope > *").all())
        assert left["y"] == right["y"]
        assert right["x"] > left["x"] + left["width"]


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (360, 640)])
def test_a_clip_is_as_wide_as_its_panel_and_keeps_its_shape(run_cell, results_folder, encode, tmp_path, width, height):
    path = encode(tmp_path / "own.mp4", [np.full((height, width, 3), 20 * i, np.uint8) for i in range(8)])
    page = run_cell(
        f"from lab.inspector import Inspector\npanel = Inspector({str(results_folder)!r}, file={str(path)!r})\npanel"
    ).page
    page.wait_for_function(FIRST_FRAME, timeout=120_000)
    picture, stage = page.locator(".ifttn canvas").first, page.locator(".ifttn .picture").first.bounding_box()
    natural = picture.evaluate("c => c.width / c.height")
    assert natural == pytest.approx(width / height, rel=0.02)
    box = picture.bounding_box()
    assert box["width"] == pytest.approx(stage["width"], abs=2)
    assert stage["width"] > 360
    assert picture.evaluate("c => getComputedStyle(c).objectFit") == "contain"  # a tall one is smaller, not squashed
    assert box["height"] == pytest.approx(min(box["width"] / natural, 540), abs=2)


def test_a_cell_that_is_run_again_leaves_one_panel_and_one_thread(run_cell, results_folder):
    source = f"from lab.monitor import Monitor\nagain = Monitor({str(results_folder)!r})\nagain"
    for _ in range(3):
        run_cell(source)
    count = "sum(t.name.startswith('worker') for t in threading.enumerate())"
    notebook = run_cell(f"import threading\nprint('threads', {count})\nagain.close()")
    assert notebook.page.locator(".jp-OutputArea-output", has_text="threads").inner_text().split() == ["threads", "1"]


@pytest.mark.parametrize(
    ("module", "panel"), [("inspector", "Inspector"), ("table_desk", "TableDesk"), ("monitor", "Monitor")]
)
def test_a_panel_without_results_says_in_the_page_what_to_do(run_cell, module, panel):
    notebook = run_cell(f"from lab.{module} import {panel}\npanel = {panel}('nothing')\npanel")
    notebook.page.wait_for_selector(".ifttn [role=alert]", timeout=60_000)
    assert "ifttn" in notebook.page.locator(".ifttn [role=alert]").inner_text()
    notebook.shot(f"empty_{module}")
    assert notebook.complaints == []


@pytest.mark.parametrize(
    ("name", "module", "panel"), [("cam", "cam_explorer", "CamExplorer"), ("monitor", "monitor", "Monitor")]
)
def test_the_other_panels_show_something(run_cell, opening, name, module, panel):
    notebook = run_cell(opening(module, panel))
    wanted = "table.cams img" if name == "cam" else ".chart polyline"
    notebook.page.wait_for_selector(wanted, state="attached", timeout=120_000)  # a level curve counts as hidden
    notebook.shot(name)
    assert notebook.complaints == []


def test_kernel_memory_stays_after_opening_and_closing_fifty_clips(run_cell, results_folder, capsys):
    source = (
        f"results = {str(results_folder)!r}"
        + """
import resource, time
from ipywidgets.widgets.widget import _instances
from lab.inspector import Inspector
from lab.shelf import Shelf
shelf = Shelf(results)
before, sizes, names = len(_instances), [], [video.name for video in shelf.split("embedded-ucf", 1).test]
for i in range(50):
    with Inspector(shelf, video=names[i % len(names)]) as panel:
        panel.wait()
        panel.worker.error and print(panel.worker.error)
    time.sleep(0.5)  # as a hand at its quickest: Jupyter drops what comes at more than 1,000 messages a second
    sizes.append(int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() / 2**20)
print('sizes', *map(round, sizes), 'widgets', before, 'then', len(_instances))"""
    )
    notebook = run_cell(source, timeout=900)
    text = notebook.page.locator(".jp-OutputArea-output", has_text="sizes").first.inner_text()
    words = text.split()
    sizes = [int(word) for word in words[1:51]]
    with capsys.disabled():
        print(
            f"\nkernel memory: {sizes[0]} MB after 1 clip, {sizes[9]} after 10, {sizes[49]} after 50; "
            f"widgets before: {words[-3]}, after: {words[-1]}"
        )
    assert words[0] == "sizes"
    assert words[-1] == words[-3]
    assert statistics.mean(sizes[40:]) < statistics.mean(sizes[5:15]) + 60


LINES = """() => [...document.querySelectorAll(':is(.ifttn, .ifttn *).jupyter-widgets-disconnected')]
    .map(e => getComputedStyle(e, '::before').content).filter(content => content !== 'none')"""
"""What the widgets say of a kernel that is gone."""


def test_after_a_restart_of_the_kernel_one_line_says_so(run_cell, opening):
    page = run_cell(opening("monitor", "Monitor")).page
    settled(page, "Monitor")
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.wait_for_function(f"({LINES})().length > 0", timeout=60_000)
    assert page.evaluate(LINES) == ['"The kernel was restarted: run this cell again."']
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", timeout=180_000
    )
