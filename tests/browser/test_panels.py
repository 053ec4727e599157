"""The panels in JupyterLab, by mouse and keys, with a screenshot of each."""

import time

import pytest

from tests.browser.conftest import FIRST_FRAME, READY

pytestmark = pytest.mark.slow


def test_clicks_lead_from_a_row_of_a_table_to_a_clip(run_cell, opening):
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
    page.locator(".ifttn").get_by_role("button", name="continue").click()
    page.wait_for_function(f"!{paused}", timeout=60_000)
    page.locator(".ifttn").get_by_role("button", name="keep").click()
    page.wait_for_selector(".ifttn figure figcaption:has-text('seed 0')", timeout=60_000)
    began = time.monotonic()
    page.locator(".ifttn").get_by_role("button", name="stop").click()
    page.wait_for_function(READY, timeout=60_000)
    with capsys.disabled():
        print(f"\nstop took {time.monotonic() - began:.2f} s, from the click to 'ready' ({status.inner_text()})")
    frame = page.locator(".ifttn img.picture").first
    drawn = frame.get_attribute("src")
    page.locator(".ifttn").get_by_role("button", name="swap A and B").click()
    page.wait_for_function("document.querySelector('.ifttn img.picture').parentElement.textContent === 'B: frame'")
    assert frame.get_attribute("src") != drawn
    page.locator(".ifttn").get_by_role("button", name="swap A and B").click()
    page.locator(".ifttn .noUi-handle").last.press("Home")
    page.wait_for_selector(".ifttn small:has-text('step 1: p(A,B)')")
    notebook.shot("deepdraw")
    assert notebook.complaints == []


def test_an_interrupt_of_the_kernel_stops_a_drawing(run_cell, opening):
    page = run_cell(opening("deepdraw_studio", "DeepDrawStudio", ", length=4.0")).page
    page.locator(".ifttn").get_by_role("button", name="draw", exact=False).first.click()
    page.wait_for_function(FIRST_FRAME, timeout=60_000)
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()")
    page.wait_for_function(READY, timeout=60_000)
    run_cell("assert 0 < panel.drawn.step < panel.drawn.steps")


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
"""Keys with which JupyterLab changes, leaves or runs cells, or restarts a kernel."""


def settled(page, panel):
    """Wait until a panel is ready. The monitor never is, because it follows the runs."""
    page.wait_for_timeout(500)
    if panel != "Monitor":
        page.wait_for_function(READY, timeout=120_000)


@pytest.mark.parametrize("panel", PANELS)
def test_jupyterlab_gets_no_key_after_a_click_on_a_control(run_cell, opening, panel):
    notebook = run_cell(opening(PANELS[panel], panel))
    page = notebook.page
    settled(page, panel)
    before = page.evaluate(NOTEBOOK)
    for kind in ("button:enabled", "select", "input", "input[type=range]", ".noUi-handle", "h3", ".picture", "table"):
        control = page.locator(f".ifttn {kind}:visible").first
        if control.count() == 0:
            continue
        (control.focus if kind == "select" else control.click)()  # a click would open the list above the page
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
    const panel = e.closest('.ifttn').getBoundingClientRect().right;
    const outside = e.matches('button, input, select, canvas') && e.getBoundingClientRect().right > panel - 7;
    return cut || scrolls || outside ? [`${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`] : [] })"""
"""Elements with cut text, with a scroll bar, or outside their panel."""
UNNAMED = """() => [...document.querySelectorAll('.ifttn :is(select, input, textarea)')].filter(e => e.offsetParent)
    .filter(e => !e.ariaLabel && !e.placeholder && ![...e.labels].some(each => each.textContent.trim()))
    .map(e => e.outerHTML)"""
"""Controls without a label for screen readers."""


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
    assert page.evaluate(UNNAMED) == []
    for columns in page.locator(".ifttn-columns, .ifttn-player").all():
        left, right = (part.bounding_box() for part in columns.locator(":scope > *").all())
        assert left["y"] == right["y"]
        assert right["x"] > left["x"] + left["width"]


def test_two_inspectors_side_by_side_fit_beside_the_side_bar_of_a_small_screen(run_cell, results_folder):
    notebook = run_cell(f"from lab.pair import SideBySide\npanel = SideBySide({str(results_folder)!r}, {{}})\npanel")
    page = notebook.page
    page.wait_for_function("document.querySelectorAll('canvas[data-drawn]').length === 2", timeout=120_000)
    notebook.shot("small_pair")
    assert page.evaluate(CROWDED) == []
    for inspector in page.locator(".ifttn .ifttn").all():
        heading, status = (inspector.locator(each).first.bounding_box() for each in ("h3", "[role=status]"))
        assert abs(heading["y"] - status["y"]) < 12
        places = {round(each.bounding_box()["y"] / 12) for each in inspector.locator("select:visible").all()}
        assert len(places) <= 5  # four lines of pickers, and that of the maps


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
def test_a_panel_without_results_shows_what_to_do(run_cell, module, panel):
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


LINES = """() => [...document.querySelectorAll(':is(.ifttn, .ifttn *).jupyter-widgets-disconnected')]
    .map(e => getComputedStyle(e, '::before').content).filter(content => content !== 'none')"""
"""The messages of widgets that a kernel has been restarted."""


def test_after_a_restart_of_the_kernel_the_panel_shows_one_line_about_it(run_cell, opening):
    page = run_cell(opening("monitor", "Monitor")).page
    settled(page, "Monitor")
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.wait_for_function(f"({LINES})().length > 0", timeout=60_000)
    assert page.evaluate(LINES) == ['"The kernel was restarted: run this cell again."']
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", timeout=180_000
    )
