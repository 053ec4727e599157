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


def test_a_table_in_a_notebook_has_a_row_for_each_cell_and_nothing_for_missing_numbers(frame):
    html = style(frame).to_html()
    assert html.count("<tr>") == 1 + len(frame)
    assert "nan" not in html
    assert "sd seeds" not in html  # of one seed there is no spread
    assert "Measured: x in place of UCF-101" in html


def test_commands_in_a_caption_are_code():
    html = style(to_frame(fill(load()[5], lambda *_: None, ()))).to_html()
    assert "<code>ifttn bench speed --csv results/speed.csv</code>" in html
    assert "`" not in html


def test_special_characters_of_latex_are_escaped(frame):
    latex = to_latex(frame)
    assert r"TSN (RGB) [27] & x (\%) & 85.7 & UCF-101 & 100.0 &" in latex
    assert r"C3D [20] & HMDB-51 (\%) &  & HMDB-51 &" in latex
    assert latex.replace(r"\%", "").count("%") == 0
    assert r"\toprule" in latex


def test_a_csv_file_has_every_column(frame):
    read = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    assert list(read) == list(frame)
    assert read.measured.notna().sum() == frame.measured.notna().sum() == 1
    assert read.why.notna().sum() == len(frame) - 1


def test_a_small_p_value_is_escaped_in_html_and_latex():
    labels = np.arange(40) % 2
    names = tuple(f"v{i}" for i in range(40))
    predictions = {"spatial": ("rgb", 1 - labels), "temporal": ("flow", labels)}

    def of(dataset: str, split: int, recipe: str) -> Scores | None:
        if recipe not in predictions:
            return None
        head, actions = predictions[recipe]
        return Scores(names, labels, ("run", "walk"), {head: np.eye(2, dtype=np.float32)[actions]})

    frame = to_frame(fill(load()[3], of, ["x"]))
    assert "& $<$0.001 &" in to_latex(frame)
    assert ">&lt;0.001<" in style(frame).to_html()
