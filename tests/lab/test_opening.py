import pytest

import lab
from ifttn.experiment import published
from lab.inspector import Inspector
from lab.monitor import Monitor
from lab.shelf import Shelf
from lab.table_desk import TableDesk

DATASET = published.DATASET


@pytest.fixture(scope="module")
def nothing(tmp_path_factory) -> Shelf:
    """The published run, with the few videos that its network gets wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "TAKES", ())
        return lab.open(tmp_path_factory.mktemp("nothing") / "results")


def test_a_study_is_opened_where_one_is_trained(results, capsys):
    shelf = lab.open(results)
    assert shelf.places.root == results
    assert not shelf.published
    assert "Study: 1 complete networks" in capsys.readouterr().out


def test_the_published_run_is_opened_where_none_is(nothing, capsys):
    assert nothing.published
    assert nothing.usual_run(DATASET, 1) == "if-ttn"
    assert [*nothing.networks(DATASET, 2)] == [*nothing.networks(DATASET, 3)] == ["if-ttn"]
    again = lab.open(nothing.places.root.parent / "results")
    assert again.places.root == nothing.places.root
    assert "Published run: split1/if-ttn of embedded-ucf, preset tiny" in capsys.readouterr().out


def test_panels_say_which_run_they_show(nothing, shelf, opened):
    for of, said in ((nothing, True), (shelf, False)):
        panel = opened(Monitor, of)
        heading = panel.children[1].children[0].children[0].value
        assert ("published run, not trained here" in heading) == said


def test_its_tables_say_so_and_decide_no_claim(nothing, shelf, opened):
    desk = opened(TableDesk, nothing)
    assert desk.wait(60)
    assert desk.tables[3].measured
    assert "Published run" in desk._caption.value
    assert desk.findings == []
    assert "Published run" not in shelf.tables()[3].caption


def test_runs_of_which_the_scores_alone_are_kept_are_tested_ones(nothing, opened):
    panel = opened(Monitor, nothing, runs=(f"{DATASET}/split1/spatial",))
    assert "<td>tested</td>" in panel._table.value


def test_a_video_that_is_not_there_is_written_when_somebody_opens_it(nothing, opened):
    missing = nothing.split(DATASET, 1).missing[0]
    inspector = opened(Inspector, nothing)
    assert inspector.wait(60)
    inspector.show(DATASET, 1, missing)
    assert inspector.wait(60)
    assert inspector.worker.error == ""
    assert inspector.clip is not None
    assert inspector.clip.name == missing
    assert inspector.reading is not None
