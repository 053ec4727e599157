"""Every notebook in JupyterLab: run from an empty folder, and read without a kernel."""

from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_the_browser_without_errors_or_requests_to_other_machines(open_notebook, path):
    notebook = open_notebook(nbformat.read(path, as_version=4), path.stem, timeout=900)
    notebook.page.locator(".jp-Notebook").screenshot(path=notebook.shots / f"notebook_{path.stem}.png")
    assert notebook.complaints == []


def test_an_executed_notebook_is_readable_offline_and_its_player_works(open_notebook, browser, tmp_path):
    from nbconvert import HTMLExporter

    (path,) = (path for path in NOTEBOOKS if path.stem == "1_clips_and_motion")
    notebook = open_notebook(nbformat.read(path, as_version=4), "offline", timeout=900)
    notebook.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    notebook.page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
    assert "widgets" not in nbformat.read(notebook.path, as_version=4).metadata
    page_of_html, _ = HTMLExporter(template_name="lab").from_filename(str(notebook.path))
    (tmp_path / "page.html").write_text(page_of_html, encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 1400})
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    frame = page.frame_locator("iframe")
    slider = frame.get_by_role("slider", name="Frame")
    slider.focus()
    seen = set()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
        seen.add(frame.locator("canvas").evaluate("c => c.toDataURL()"))
    assert len(seen) == 10
    page.screenshot(path=notebook.shots / "static_page.png", full_page=True)
    context.close()
