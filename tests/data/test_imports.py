"""A process imports no decoder that it does not use: decord alone takes 0.4 GB."""

import subprocess
import sys

import pytest


def imported_by(statement: str) -> set[str]:
    """The packages that a fresh process has imported after a statement."""
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("module", ["data.loading", "data.catalogue", "experiment.training"])
def test_training_from_a_store_imports_no_decoder(module):
    assert not {"av", "decord", "numba"} & imported_by(f"import ifttn.{module}")


def test_preparation_imports_only_the_decoder_that_it_uses(embedded):
    video = next(embedded.data.rglob("*.avi"))
    modules = imported_by(f"import ifttn.data.preparation; from ifttn.data.video import decode; decode({str(video)!r})")
    assert "av" in modules
    assert "decord" not in modules


def test_frames_by_number_are_read_with_decord(embedded):
    video = next(embedded.data.rglob("*.avi"))
    assert "decord" in imported_by(f"from ifttn.data.video import read_frames; read_frames({str(video)!r}, [0])")
