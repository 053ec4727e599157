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
    assert any("**Predict.**" in cell.source for cell in notebook.cells)
    assert "## Change one thing" in [cell.source.splitlines()[0] for cell in notebook.cells]


SHOWS = {
    "0_start_here": (
        ("complete IF-TTN", "<iframe srcdoc", "<table class=cams>", "B: motion", "in order (3,"),
        1,
        4,
    ),
    "1_clips_and_motion": (("<iframe srcdoc", "correlation along x"), 0, 1),
    "2_network_step_by_step": (
        ("Eq. 2 holds", "Eq. 5 by hand is", "million parameters"),
        0,
        0,
    ),
    "3_staged_training": (
        ("stage ttn trains heads.ttn temporal.ttn\n", "flow  the same twice", "ttn   another one", "gradient norm"),
        1,
        1,
    ),
    "4_ablation_tables": (("complete IF-TTN", "preset weights", "ifttn train if-ttn-additive"), 0, 2),
    "5_speed_and_state_of_the_art": (("MV-IF-TTN takes", "if-ttn: ", "they differ by"), 2, 0),
    "6_cam_maps": (("<table class=cams>", "|mean + bias - vote|", "<- the change", "correlation of the maps"), 0, 1),
    "7_deepdraw": (("p(B,A)", "logit", "the most likely action is", "witnesses"), 1, 1),
}
"""Per notebook, what it must show, how many pictures, and how many panels."""
FIGURES = {"0_start_here": 3}
"""Pictures more, where there is a study."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where a small study is trained."""
    return tmp_path_factory.mktemp("study") / "results"


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    """Where no study is: the notebooks open the published run beside it, which the first of them writes."""
    return tmp_path_factory.mktemp("published") / "results"


def read(path, train_here=False):
    """A notebook, which trains a study or takes what is there."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("TRAIN_HERE = False", f"TRAIN_HERE = {train_here}")
    return notebook


def run(notebook, results, monkeypatch):
    """Run a notebook from top to bottom."""
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


def outputs(cells):
    """Of all cells."""
    return [output for cell in cells for output in cell.get("outputs", [])]


def said(shown):
    """The text of outputs."""
    return "".join(str(each.get("text", "")) + str(each.get("data", {}).get("text/html", "")) for each in shown)


def assert_shows(cells, name, more=0):
    shown = outputs(cells)
    wanted, pictures, panels = SHOWS[name]
    assert [words for words in wanted if words not in said(shown)] == []
    for kind, count in (("image/png", pictures + more), ("application/vnd.jupyter.widget-view+json", panels)):
        assert sum(kind in output.get("data", {}) for output in shown) == count
    assert not any("widget-view" in str(o) and "children=" in str(o) for o in shown)  # a panel's repr is long
    assert "Empty (no tested run of if-ttn on" not in said(shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_the_published_run(path, nothing, monkeypatch):
    notebook = read(path)
    run(notebook, nothing, monkeypatch)
    assert_shows(notebook.cells, path.stem)
    assert "lab.open()" not in str(notebook) or "Published run" in said(outputs(notebook.cells))
    assert not nothing.exists()


def test_all_notebooks_run_on_a_study_that_the_first_one_trains(results, monkeypatch):
    notebooks = [read(path, train_here=True) for path in NOTEBOOKS]
    cells = [cell for notebook in notebooks for cell in notebook.cells]  # in one kernel, which imports torch once
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    together = nbformat.v4.new_notebook(cells=cells)
    run(together, results, monkeypatch)
    for path, notebook in zip(NOTEBOOKS, notebooks, strict=True):
        assert_shows(notebook.cells, path.stem, FIGURES.get(path.stem, 0))
    assert "Published run" not in said(outputs(cells))
    assert (results / "report.html").exists()


@pytest.mark.slow
def test_a_step_that_fails_is_named_and_a_notebook_goes_on_with_what_is_there(results, monkeypatch):
    notebook = read(FOLDER / "0_start_here.ipynb", train_here=True)
    needed = ("TRAIN_HERE", "lab.open()", "results.tables()[3]", "figure_1_7")  # the others take long
    notebook.cells = [cell for cell in notebook.cells if any(words in cell.source for words in needed)]
    figures, before = results / "figures", results / "before"
    if figures.exists():
        figures.rename(before)
    figures.write_text("in the place of a folder")
    try:
        run(notebook, results, monkeypatch)
    finally:
        figures.unlink()
        if before.exists():
            before.rename(figures)
    text = str(outputs(notebook.cells))
    assert "split 1: figures failed" in text
    assert "figure_6.png is not there" in text
    assert "complete IF-TTN" in text  # Table 3 stands all the same


def test_the_notebooks_are_those_and_in_that_order():
    assert [path.stem for path in NOTEBOOKS] == list(SHOWS)
