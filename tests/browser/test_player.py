"""The page of a clip without a kernel, as a file in a browser that is offline."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lab.inspector import Inspector
from lab.layers import LAYERS

pytestmark = pytest.mark.slow

MIXED = {"rgb": 0.8, "flow": 0.7, "flow arrows": 0.9, "vectors": 0.5, "CAM ttn": 0.7}


@pytest.fixture
def inspector(results_folder):
    with Inspector(results_folder, layers=MIXED) as made:
        assert made.wait(120.0)
        yield made


@pytest.fixture
def offline(browser, inspector, tmp_path):
    """The page that the inspector writes. It must log no error and load nothing from another machine."""
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8>{inspector.as_html().data}", encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
    page, requests, complaints = context.new_page(), [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("canvas[data-drawn]").wait_for(timeout=30_000)
    yield page, frame
    assert complaints == []
    assert all(url.startswith(("file:", "data:", "about:", "blob:")) for url in requests)
    context.close()


def painted(frame) -> np.ndarray:
    """The pixels of the canvas."""
    data = frame.locator("canvas").evaluate("c => c.toDataURL('image/png')")
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_page_changes_frames_plays_and_switches_layers_offline(offline, inspector):
    page, frame = offline
    slider = frame.get_by_role("slider", name="Frame")
    slider.focus()
    seen = {painted(frame).tobytes()}
    for _ in range(10):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(100)
        seen.add(painted(frame).tobytes())
    assert len(seen) == 11
    assert frame.locator(".where").inner_text().startswith(f"frame 11 of {len(inspector.clip.kinds)}")
    before = painted(frame)
    page.keyboard.press("2")  # the flow, which is on
    assert (painted(frame) != before).any()
    page.keyboard.press("2")
    assert (painted(frame) == before).all()
    for key, enlarged in (("+", True), ("-", False)):
        page.keyboard.press(key)
        assert (painted(frame) != before).any() == enlarged
    frame.get_by_role("button", name="play").click()
    page.wait_for_timeout(700)
    assert slider.input_value() != "10"
    assert frame.get_by_role("button", name="PNG").count() == 0  # no control needs a kernel


def test_the_page_paints_the_same_picture_that_the_kernel_saves(offline, inspector):
    """For each layer and for all together, the pictures of kernel and page differ only by JPEG and scaling."""
    page, frame = offline
    frame.get_by_role("slider", name="Frame").focus()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    apart = np.abs(painted(frame).astype(int) - inspector.painter()(9))
    assert apart.mean() < 3
    for name in MIXED:
        label, inspector.state.layers = LAYERS[name].label, {**MIXED, name: 0.0}
        handle = frame.get_by_role("slider", name=f"opacity of {label}", exact=True)
        handle.evaluate("h => { h.value = 0; h.dispatchEvent(new Event('input')) }")
        assert np.abs(painted(frame).astype(int) - inspector.painter()(9)).mean() < 3, name
        value = MIXED[name]
        handle.evaluate(f"h => {{ h.value = {value}; h.dispatchEvent(new Event('input')) }}")
    inspector.state.layers = MIXED


def test_the_bars_and_the_curve_of_the_page_are_the_votes(offline, inspector):
    page, frame = offline
    reading = inspector.reading
    rows = frame.locator(".bars tbody tr").all()
    names = [row.locator("th").get_attribute("title") for row in rows]
    likeliest = [reading.actions[i] for i in np.argsort(-reading.fused.round(4), kind="stable")[:5]]
    assert names[:4] == likeliest[:4]
    assert inspector.clip.label in names
    assert frame.locator(".bars tr.true th").get_attribute("title") == inspector.clip.label
    cells = [[cell.inner_text() for cell in row.locator("td").all()] for row in rows]
    for name, shown in zip(names, cells, strict=True):
        action = reading.actions.index(name)
        expected = [*(reading.probabilities(head, 0)[action] for head in reading.votes), reading.fused[action]]
        assert [int(each) for each in shown] == pytest.approx([100 * each for each in expected], abs=0.51)
    assert frame.locator(".curve path").count() == len(reading.votes)
    curve = frame.locator(".curve").bounding_box()
    page.mouse.move(curve["x"] + 0.99 * curve["width"], curve["y"] + 20)
    best = int(reading.fused.argmax())
    legend = frame.locator(".left .legend").last.inner_text()
    assert reading.actions[best] in legend
    for head, votes in reading.votes.items():
        assert f"{head} {reading.probabilities(head, len(votes) - 1)[best]:.2f}" in legend
