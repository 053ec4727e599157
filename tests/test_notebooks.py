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


SHOWS = {
    "0_start_here": ("complete IF-TTN", 4),
    "1_clips_and_motion": ("<iframe srcdoc", 0),
    "2_network_step_by_step": ("million parameters", 0),
    "3_staged_training": ("stage ttn trains", 1),
    "4_ablation_tables": ("complete IF-TTN", 0),
    "5_speed_and_state_of_the_art": ("MV-IF-TTN", 1),
    "6_cam_maps": ("<table class=cams>", 0),
    "7_deepdraw": ("p(B,A)", 1),
}
"""Per notebook, what it must show, and how many pictures."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Where all notebooks work: each makes what it needs, or finds it made by one before."""
    return tmp_path_factory.mktemp("results")


LONG = ("3_staged_training", "5_speed_and_state_of_the_art", "6_cam_maps", "7_deepdraw")
RUNS = [pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in LONG else ()) for path in NOTEBOOKS]


@pytest.mark.parametrize("path", RUNS)
def test_a_notebook_runs_from_nothing(path, results, monkeypatch):
    monkeypatch.setenv("IFTTN_RESULTS", str(results))
    monkeypatch.setenv("IFTTN_PRESET", "smallest")
    monkeypatch.setenv("IFTTN_VIDEOS", "32")
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        store_widget_state=False,
    )
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    wanted, pictures = SHOWS[path.stem]
    assert wanted in "".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/html", "")) for output in shown
    )
    assert sum("image/png" in output.get("data", {}) for output in shown) == pictures
    if path.stem.startswith("0"):
        assert (results / "report.html").exists()


def test_the_notebooks_are_those_and_in_that_order():
    assert [path.stem for path in NOTEBOOKS] == list(SHOWS)
