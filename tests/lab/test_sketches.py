import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from lab import sketches


def test_the_time_line_has_segments_snippets_and_frame_types_at_the_right_places():
    html = sketches.timeline(100, [12, 37, 62, 87], "I" + "P" * 98 + "B", [50], 25.0)
    assert "4 segments; snippets at frames 13, 38, 63, 88; 1 cuts; frame types: 1 I, 98 P, 1 B" in html
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%'>\d", html)]
    assert sum(widths) == pytest.approx(100, abs=0.1)
    assert f"left:{100 * 37 / 99:.2f}%" in html
    assert html.count("<u style") == 4
    assert html.count("<s style") == 1


def test_a_chart_can_have_no_points_one_point_or_negative_values():
    assert "nothing yet" in sketches.chart([], "loss")
    for values in ([0.0], [-3.0, -1.0], [2.0, 2.0], [1e-9, 5.0]):
        html = sketches.chart([sketches.Curve("run", list(range(len(values))), values, "#000")], "loss")
        places = re.search(r"points='([^']*)'", html)
        assert places
        for place in places[1].split():
            x, y = map(float, place.split(","))
            assert 0 <= x <= 440
            assert 0 <= y <= 190


@pytest.mark.parametrize("values", [[0.03, 0.5, 7.0], [1.0, 1.0], [0.0, 2.0, -1.0, 90.0], [1e-9, 3e-9]])
def test_on_a_logarithmic_axis_equal_ratios_are_equal_steps_and_values_up_to_zero_are_left_out(values):
    html = sketches.chart([sketches.Curve("run", range(len(values)), values, "#000")], "loss", log=True)
    places = [tuple(map(float, each.split(","))) for each in re.search(r"points='([^']*)'", html)[1].split()]
    levels = re.findall(r"y1=([\d.]+) y2=[\d.]+ class=grid /><text[^>]*>([^<]*)", html)
    assert len(places) == sum(value > 0 for value in values)
    heights = {float(text): float(y) for y, text in levels}
    step = (max(heights.values()) - min(heights.values())) / np.log(max(heights) / min(heights))
    for (_, y), value in zip(places, (value for value in values if value > 0), strict=True):
        assert y == pytest.approx(min(heights.values()) + step * np.log(max(heights) / value), abs=0.2)
    assert "nothing yet" in sketches.chart([sketches.Curve("run", [0], [0.0], "#000")], "loss", log=True)


def test_the_name_of_a_stage_is_above_the_curves_and_inside_the_chart():
    curve = sketches.Curve("run", [1, 2, 3], [3.0, 2.0, 1.0], "#000")
    html = sketches.chart([curve], "loss over epochs", marks=[(1.0, "ttn"), (3.0, "joint")])
    first, last = re.findall(r"<text x=([\d.]+) y=(\d+) text-anchor=(\w+)>(?:ttn|joint)<", html)
    assert (first[2], last[2]) == ("start", "end")
    top = min(float(y) for y in re.findall(r"[\d.]+,([\d.]+)", re.search(r"points='([^']+)'", html)[1]))
    assert float(first[1]) < top > float(last[1])


def test_a_dashed_line_has_its_dashes_in_html():
    html = sketches.chart([sketches.Curve("swapped", [0, 1], [0.0, 1.0], "#000", dashed=True)], "probability")
    tags = {}
    parser = HTMLParser()
    parser.handle_startendtag = lambda tag, attributes: tags.update({tag: dict(attributes)})
    parser.feed(html)
    assert tags["polyline"]["stroke-dasharray"] == "4,3"


def test_a_cell_of_the_confusion_matrix_has_its_counts():
    html = sketches.confusion_svg(np.array([0, 1, 1]), np.array([0, 0, 1]), ["run", "sit & wait"])
    svg = ElementTree.fromstring(re.sub(r"([\w-]+)=([^'\s>/]+)(?=[\s>/])", r"\1='\2'", html))
    titles = [title.text for title in svg.iter("title")]
    assert "run predicted as sit & wait: 1 of 2" in titles
    assert "sit & wait predicted as sit & wait: 1 of 1" in titles


def test_prose_is_escaped_and_backticks_become_code():
    assert sketches.prose("a < b: `ifttn test` it") == "a &lt; b: <code>ifttn test</code> it"
    assert sketches.prose("a ` alone") == "a ` alone"


def test_an_interval_is_drawn_between_its_ends():
    html = sketches.interval(0.5, 0.4, 0.6, paper=0.95)
    assert "x1=40.0 x2=60.0" in html
    assert "cx=95.0" in html
