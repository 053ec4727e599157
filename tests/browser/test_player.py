"""The offline player: a file in a browser without a network."""

import pytest

from lab.inspector import Inspector

pytestmark = pytest.mark.slow


def test_a_page_that_holds_the_player_scrubs_offline_from_a_file(browser, results_folder, tmp_path):
    with Inspector(results_folder) as inspector:
        inspector.wait(120.0)
        inspector.state.layers = {"rgb": 1.0, "flow arrows": 0.9}
        path = tmp_path / "page.html"
        path.write_text(f"<!doctype html><meta charset=utf-8>{inspector.as_html().data}", encoding="utf-8")
        count = len(inspector.clip.frames)
    context = browser.new_context(offline=True)
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(path.as_uri())
    frame = page.frame_locator("iframe")
    slider = frame.get_by_role("slider", name="Frame")
    slider.focus()
    seen = {frame.locator("#frame").get_attribute("src")}
    for _ in range(10):
        page.keyboard.press("ArrowRight")
        seen.add(frame.locator("#frame").get_attribute("src"))
    assert len(seen) == 11
    assert frame.locator("#said").inner_text().startswith(f"frame 11 of {count}")
    frame.get_by_role("button", name="play").click()
    page.wait_for_timeout(500)
    assert slider.input_value() != "10"
    assert complaints == []
    assert all(url.startswith(("file:", "data:", "about:")) for url in asked)
    context.close()
