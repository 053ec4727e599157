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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_nothing(path, tmp_path, monkeypatch):
    monkeypatch.setenv("IFTTN_RESULTS", str(tmp_path))
    monkeypatch.setenv("IFTTN_PRESET", "smallest")
    monkeypatch.setenv("IFTTN_VIDEOS", "32")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    assert (tmp_path / "report.html").exists()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("complete IF-TTN" in output.get("data", {}).get("text/html", "") for output in shown)
    assert sum("image/png" in output.get("data", {}) for output in shown) == 4
