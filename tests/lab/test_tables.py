import io

import numpy as np
import pandas as pd
import pytest

from ifttn.experiment.scores import Scores
from ifttn.experiment.table_frames import to_frame
from ifttn.experiment.tables import fill, load
from lab.tables import style, to_latex


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    labels = np.arange(8) % 2
    scores = Scores(tuple("abcdefgh"), labels, ("run", "walk"), {"rgb": np.eye(2, dtype=np.float32)[labels]})
    return to_frame(fill(load()[6], lambda d, s, recipe: scores if recipe == "spatial" else None, ["x"]))


def test_a_notebook_shows_one_line_a_cell_and_nothing_for_what_is_missing(frame):
    html = style(frame).to_html()
    assert html.count("<tr>") == 1 + len(frame)
    assert "nan" not in html
    assert "sd seeds" not in html  # of one seed there is no spread
    assert "Measured: x in place of UCF-101" in html


def test_the_caption_in_a_notebook_has_commands_as_code():
    html = style(to_frame(fill(load()[5], lambda *_: None, ()))).to_html()
    assert "<code>ifttn bench speed --csv results/speed.csv</code>" in html
    assert "`" not in html


def test_latex_escapes_what_would_break_it(frame):
    latex = to_latex(frame)
    assert r"TSN (RGB) [27] & x (\%) & 85.7 & UCF-101 & 100.0 &" in latex
    assert r"C3D [20] & HMDB-51 (\%) &  & HMDB-51 &" in latex
    assert latex.replace(r"\%", "").count("%") == 0
    assert r"\toprule" in latex


def test_a_spreadsheet_gets_every_column_back(frame):
    read = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    assert list(read) == list(frame)
    assert read.measured.notna().sum() == frame.measured.notna().sum() == 1
    assert read.why.notna().sum() == len(frame) - 1


def test_a_small_probability_is_written_as_html_and_latex_write_it():
    labels = np.arange(40) % 2
    names = tuple(f"v{i}" for i in range(40))
    said = {"spatial": ("rgb", 1 - labels), "temporal": ("flow", labels)}

    def of(dataset: str, split: int, recipe: str) -> Scores | None:
        if recipe not in said:
            return None
        head, actions = said[recipe]
        return Scores(names, labels, ("run", "walk"), {head: np.eye(2, dtype=np.float32)[actions]})

    frame = to_frame(fill(load()[3], of, ["x"]))
    assert "& $<$0.001 &" in to_latex(frame)
    assert ">&lt;0.001<" in style(frame).to_html()
