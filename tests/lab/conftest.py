"""Fixtures for the panels: an embedded data set, and runs that train on it in seconds."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ipywidgets.widgets.widget import _instances

from ifttn.experiment import testing, training
from lab.panel import Panel
from lab.shelf import Shelf


@pytest.fixture(scope="session")
def results(embedded) -> Path:
    """A folder of results as `ifttn reproduce` writes it, with three runs of split 1."""
    root = embedded.data.parents[1]
    work = embedded.work(root / "runs")
    for recipe in ("spatial", "temporal", "if-ttn"):
        training.train(work, recipe)
        testing.test(work, recipe)
    return root


@pytest.fixture(scope="session")
def shelf(results) -> Shelf:
    return Shelf(results)


@pytest.fixture(scope="session")
def wider(results, embedded, tmp_path_factory) -> Shelf:
    """The same, with a run on RGB differences (no store has them) and a run of a peer (it has no network)."""
    root = tmp_path_factory.mktemp("wider") / "results"
    shutil.copytree(results, root)
    work = embedded.work(root / "runs")
    for recipe in ("rgbdiff", "c3d"):
        training.train(work, recipe)
        testing.test(work, recipe)
    return Shelf(root)


@pytest.fixture
def opened() -> Iterator[Callable[..., Panel]]:
    """opened(kind, ...): a panel that is closed at the end of the test."""
    made = []

    def make(kind, *arguments, **chosen):
        made.append(kind(*arguments, **chosen))
        return made[-1]

    yield make
    for panel in made:
        panel.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """wait_for(condition, seconds): wait until it is true."""

    def wait(condition: Callable[[], object], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    return wait


@pytest.fixture(autouse=True)
def no_widget_is_left(request):
    """A closed panel leaves no widget. Each test closes its panels."""
    before = set(_instances)
    yield
    assert set(_instances) == before
