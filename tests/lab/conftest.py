"""What the panels look at: an embedded data set, and runs trained on it in seconds."""

from pathlib import Path

import pytest
from ipywidgets.widgets.widget import _instances

from ifttn.experiment import training


@pytest.fixture(scope="session")
def results(embedded) -> Path:
    """A folder of results as `ifttn reproduce` lays it out: three runs of split 1."""
    root = embedded.data.parents[1]
    work = embedded.work(root / "runs")
    for recipe in ("spatial", "temporal", "if-ttn"):
        training.train(work, recipe)
        training.test(work, recipe)
    return root


@pytest.fixture(autouse=True)
def no_widget_is_left(request):
    """A panel that is closed leaves nothing; tests that make one close it."""
    before = set(_instances)
    yield
    assert set(_instances) == before
