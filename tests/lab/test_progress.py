from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import progress
from lab.progress import StudyBar


@pytest.fixture
def page(monkeypatch):
    """The output of a notebook's cell with all its earlier states."""
    shown = []
    handle = SimpleNamespace(update=lambda html: shown.append(html.data))
    monkeypatch.setattr(progress, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(progress, "display", lambda html, display_id: (shown.append(html.data), handle)[1])
    return shown


def test_a_notebook_shows_a_bar_and_in_its_place_a_sentence_at_the_end(page, capsys):
    bar = StudyBar(brief=True)
    bar.update(0.25, {"the <second>", "the first"}, 90.0)
    bar.print("for a terminal only")
    assert "<progress max=1 value=0.250" in page[-1]
    assert "25 % done, about 1 min 30 s to go. Now: the &lt;second&gt;, the first" in page[-1]
    bar.end("All is done.", {"report": Path("results/report.html"), "runs": Path("results/runs")})
    assert page[-1].startswith("<p>All is done.<br>report: <a href='results/report.html'>")
    assert page[-1].endswith("runs: <code>results/runs</code></p>")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_bar_and_then_lines(capsys):
    bar = StudyBar(brief=True)
    bar.update(0.5, {"the first"}, 30.0)
    bar.end("All is done.", {"report": Path("results/report.html")})
    out, err = capsys.readouterr()
    assert out == "All is done.\nreport: results/report.html\n"
    assert "about 30 s to go, the first" in err
    assert err.endswith("\r")  # the bar is gone


def test_a_bar_that_remains_prints_nothing_at_its_end(capsys):
    bar = StudyBar()
    bar.print("1 of 2 steps done")
    bar.update(1.0, ())
    bar.end()
    out, err = capsys.readouterr()
    assert out == "1 of 2 steps done\n"
    assert "100%" in err
