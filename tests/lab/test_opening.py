import re

import pytest

import lab
from ifttn.experiment import published
from lab.grid import ClipGrid
from lab.inspector import Inspector
from lab.monitor import Monitor
from lab.shelf import Shelf
from lab.table_desk import TableDesk

DATASET = published.DATASET


@pytest.fixture(scope="module")
def nothing(tmp_path_factory) -> Shelf:
    """The published run with few videos: those that its network predicts wrongly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "TAKES", ())
        return lab.open(tmp_path_factory.mktemp("nothing") / "results")


def test_a_trained_study_is_opened(results, capsys):
    shelf = lab.open(results)
    assert shelf.places.root == results
    assert not shelf.published
    assert "Study: 1 complete networks" in capsys.readouterr().out


def test_without_a_trained_study_the_published_run_is_opened(nothing, capsys):
    assert nothing.published
    assert nothing.usual_run(DATASET, 1) == "if-ttn"
    assert [*nothing.networks(DATASET, 2)] == [*nothing.networks(DATASET, 3)] == ["if-ttn"]
    again = lab.open(nothing.places.root.parent / "results")
    assert again.places.root == nothing.places.root
    assert "Published run: split1/if-ttn of embedded-ucf, preset tiny" in capsys.readouterr().out


def test_panels_of_the_published_run_have_a_note(nothing, shelf, opened):
    for of, noted in ((nothing, True), (shelf, False)):
        panel = opened(Monitor, of)
        heading = panel.children[1].children[0].children[0].value
        assert ("published run, not trained here" in heading) == noted


def test_the_grid_of_the_published_run_says_which_videos_it_has(nothing, opened):
    grid = opened(ClipGrid, nothing)
    assert grid.wait(60)
    assert re.search(r"has \d+ of the 960 videos: three of each action, and the test videos", grid._absent.value)


def test_tables_of_the_published_run_have_a_note_and_no_findings(nothing, shelf, opened):
    desk = opened(TableDesk, nothing)
    assert desk.wait(60)
    assert desk.tables[3].measured
    assert "Published run" in desk._caption.value
    assert desk.findings == []
    assert "Published run" not in shelf.tables()[3].caption


def test_a_published_run_with_scores_but_no_weights_counts_as_tested(nothing, opened):
    panel = opened(Monitor, nothing, runs=(f"{DATASET}/split1/spatial",))
    assert "<td>tested</td>" in panel._table.value


def test_a_missing_video_of_the_published_run_is_written_when_it_is_opened(nothing, opened):
    missing = nothing.split(DATASET, 1).missing[0]
    inspector = opened(Inspector, nothing)
    assert inspector.wait(60)
    inspector.show(DATASET, 1, missing)
    assert inspector.wait(60)
    assert inspector.worker.error == ""
    assert inspector.clip is not None
    assert inspector.clip.name == missing
    assert inspector.reading is not None
