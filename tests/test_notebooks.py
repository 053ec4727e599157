from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_prose_and_calls_and_stores_nothing(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    for cell in cells:
        lines = cell.source.splitlines()
        assert len(lines) <= 12
        assert not any(line.startswith(("def ", "class ", "while ")) for line in lines)
        assert not cell.outputs
        assert "assert main(" not in cell.source  # a step that fails would stop all that does not need it
    first, last = notebook.cells[0].source, notebook.cells[-1].source
    assert all(word in first for word in ("**Question.**", "**Time.**", "ection", "CPU", "GPU"))
    assert last.startswith("## What to notice, what to try")


SHOWS = {
    "0_start_here": (("complete IF-TTN", "<iframe srcdoc", "<table class=cams>", "B: motion", "of the study"), 4, 4),
    "1_clips_and_motion": (("<iframe srcdoc", "correlation along x"), 0, 1),
    "2_network_step_by_step": (("Eq. 2 holds", "million parameters"), 0, 0),
    "3_staged_training": (
        ("stage ttn trains heads.ttn temporal.ttn\n", "flow  the same twice", "ttn   another one"),
        1,
        1,
    ),
    "4_ablation_tables": (("complete IF-TTN", "preset weights"), 0, 2),
    "5_speed_and_state_of_the_art": (("MV-IF-TTN takes", "optical flow"), 1, 0),
    "6_cam_maps": (("<table class=cams>", "|mean + bias - vote|", "pair 2-3"), 0, 1),
    "7_deepdraw": (("p(B,A)", "logit"), 1, 1),
}
"""Per notebook, what it must show, how many pictures, and how many panels."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where all notebooks work: each makes what it needs, or finds it made by one before."""
    return tmp_path_factory.mktemp("results")


def run(notebook, results, monkeypatch):
    """Run a notebook from top to bottom. Returns the outputs of all its cells."""
    monkeypatch.setenv("IFTTN_RESULTS", str(results))
    monkeypatch.setenv("IFTTN_PRESET", "smallest")
    monkeypatch.setenv("IFTTN_VIDEOS", "32")
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        store_widget_state=False,
    )
    client.execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_nothing(path, results, monkeypatch):
    shown = run(nbformat.read(path, as_version=4), results, monkeypatch)
    wanted, pictures, panels = SHOWS[path.stem]
    text = "".join(str(output.get("text", "")) + str(output.get("data", {}).get("text/html", "")) for output in shown)
    assert [words for words in wanted if words not in text] == []
    for kind, count in (("image/png", pictures), ("application/vnd.jupyter.widget-view+json", panels)):
        assert sum(kind in output.get("data", {}) for output in shown) == count
    assert not any("widget-view" in str(o) and "children=" in str(o) for o in shown)  # a panel's repr is long
    assert "Empty, no tested run of if-ttn on" not in text
    if path.stem.startswith("0"):
        assert (results / "report.html").exists()


@pytest.mark.slow
def test_a_step_that_fails_is_named_and_a_notebook_goes_on_with_what_is_there(results, monkeypatch):
    notebook = nbformat.read(FOLDER / "0_start_here.ipynb", as_version=4)
    needed = ("lab.open()", "quick_study(", "results.tables()[3]", "figure_1_7")  # the others take long
    notebook.cells = [cell for cell in notebook.cells if any(words in cell.source for words in needed)]
    figures, before = results / "figures", results / "before"
    if figures.exists():
        figures.rename(before)
    figures.write_text("in the place of a folder")
    try:
        shown = run(notebook, results, monkeypatch)
    finally:
        figures.unlink()
        if before.exists():
            before.rename(figures)
    text = "".join(str(output.get("text", "")) + str(output.get("data", "")) for output in shown)
    assert "split 1: figures failed" in text
    assert "figure_6.png is not there" in text
    assert "complete IF-TTN" in text  # Table 3 stands all the same


def test_the_notebooks_are_those_and_in_that_order():
    assert [path.stem for path in NOTEBOOKS] == list(SHOWS)
