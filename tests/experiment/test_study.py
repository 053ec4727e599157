from argparse import Namespace
from dataclasses import replace

import numpy as np

from ifttn.experiment import results, study
from ifttn.experiment.claims import load_claims
from ifttn.experiment.recipes import RECIPES
from ifttn.experiment.runs import Run
from ifttn.experiment.scores import Scores
from ifttn.experiment.study import Places, StudySettings
from ifttn.experiment.table_texts import heading, table_text
from ifttn.experiment.tables import load, stand_ins
from ifttn.verbs.reproduce import about_study


def test_the_report_names_the_seeds_of_its_tables(tmp_path):
    (tmp_path / "runs" / "seed3").mkdir(parents=True)
    options = Namespace(preset="tiny", device="cpu", videos=None)
    assert about_study(options, Places(tmp_path), [], StudySettings("tiny", seeds=2)).seeds == (0, 1, 3)


def test_every_step_comes_after_what_it_needs(tmp_path):
    steps = study.steps_of(Places(tmp_path), StudySettings("tiny", jobs=2), quick=False)
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for index, step in enumerate(steps):
        assert set(step.needs) <= set(names[:index]), step.name


def test_a_quick_study_is_table_3_on_one_split(tmp_path):
    names = [step.name for step in study.steps_of(Places(tmp_path), StudySettings("tiny", jobs=2), quick=True)]
    assert names[2:] == [f"embedded-ucf split 1: {recipe}" for recipe in ("spatial", "temporal", "if-ttn")]


def test_a_full_study_runs_every_recipe_of_the_tables(tmp_path):
    names = [step.name for step in study.steps_of(Places(tmp_path), StudySettings("tiny", jobs=2), quick=False)]
    run = {name.split(": ")[1] for name in names if "split" in name}
    assert run == set(RECIPES) - {"trn", "ifm-average"}


def test_what_came_after_the_paper_is_trained_after_everything_else(tmp_path):
    steps = study.steps_of(Places(tmp_path), StudySettings("tiny"), quick=False)
    assert [step.name for step in steps[-2:]] == [f"embedded-ucf split 1: {recipe}" for recipe in ("tsm", "tdn")]


def test_further_seeds_train_the_rows_that_close_claims_compare(tmp_path):
    places, settings = Places(tmp_path), StudySettings("tiny", seed=5, seeds=3, jobs=2)
    steps = study.steps_of(places, settings, quick=False)
    found = {step.name.split(": ")[1]: step for step in steps if "split 1, seed 7" in step.name}
    assert set(found) == {*study.EVERY_SPLIT, *study.CLOSE}
    usual = [step.name for step in study.steps_of(places, replace(settings, seeds=None), quick=False)]
    for row, trainings in study.CLOSE.items():
        assert sum(name.endswith(f": {row}") and "split 1" in name and "ucf" in name for name in usual) == trainings
    last = {name.split(": ")[1] for name in usual if "seed 9" in name}
    assert last == {"spatial", "temporal", "if-ttn", "if-ttn-multiplicative"}
    assert {step.name.partition(":")[0] for step in steps if "seed" in step.name} == {
        "embedded-ucf split 1, seed 6",
        "embedded-ucf split 1, seed 7",
    }
    assert found["if-ttn-further"].needs == ("embedded-ucf split 1, seed 7: if-ttn",)
    there, dataset, _, how, *_ = found["if-ttn"].arguments
    assert (there.runs, there.data(dataset), how.seed) == (
        tmp_path / "runs" / "seed7",
        places.data("embedded-ucf"),
        7,
    )
    names = [step.name for step in steps]
    for index, step in enumerate(steps):
        assert set(step.needs) <= set(names[:index]), step.name


def test_peers_are_trained_where_there_is_a_size_of_them(tmp_path):
    names = [step.name for step in study.steps_of(Places(tmp_path), StudySettings("small"), quick=False)]
    assert not any(
        name.endswith(tuple(f": {peer}" for peer in (*study.SYSTEMS, *study.SYSTEMS_LATER))) for name in names
    )


def test_data_sets_of_ones_own_take_the_place_of_the_embedded_ones(tmp_path):
    own = {"UCF101": tmp_path / "UCF101", "HMDB51": tmp_path / "videos" / "HMDB51"}
    for folder in own.values():
        write_videos(folder, run=3, walk=4)
    places = Places(tmp_path, own)
    steps = study.steps_of(places, StudySettings("paper"), quick=False)
    names = [step.name for step in steps]
    assert not any("embedded" in name or name.endswith("videos") for name in names)
    assert [places.data(name) for name in places.datasets] == list(own.values())
    assert {"UCF101: store", "HMDB51: store", "UCF101 split 1: ttn-separate", "HMDB51 split 3: mv-if-ttn"} <= {*names}
    assert "UCF101 split 2: ttn-separate" not in names
    for index, step in enumerate(steps):
        assert set(step.needs) <= set(names[:index]), step.name


def write_videos(folder, **classes: int):
    for action, videos in classes.items():
        (folder / action).mkdir(parents=True)
        for number in range(videos):
            (folder / action / f"v{number}.mp4").touch()


def test_a_small_data_set_is_studied_on_the_splits_that_it_has(tmp_path):
    write_videos(tmp_path / "mine", run=2, walk=2)
    write_videos(tmp_path / "other", run=3, walk=2)
    places = Places(tmp_path, {name: tmp_path / name for name in ("mine", "other")})
    assert [places.splits(name) for name in places.datasets] == [(1, 2), (1, 2, 3)]
    names = {step.name for step in study.steps_of(places, StudySettings("tiny"), quick=False)}
    assert {"mine split 2: mv-if-ttn", "other split 3: mv-if-ttn"} <= names
    assert not any(name.startswith("mine split 3") for name in names)


HEADS = {"spatial": ["rgb"], "temporal": ["flow"], "if-ttn": ["rgb", "flow", "ttn"], "ifm-average": ["rgb", "ttn"]}


def save_scores(runs, dataset: str, *recipes: str, split: int = 1):
    """Saved scores of twelve videos of three actions, all right."""
    labels = np.arange(12) % 3
    for recipe in recipes:
        run = Run.of(runs, dataset, split, recipe)
        run.folder.mkdir(parents=True)
        heads = {head: np.eye(3, dtype=np.float32)[labels] for head in HEADS[recipe]}
        Scores(tuple(f"{dataset}{i}" for i in range(12)), labels, ("a", "b", "c"), heads).save(
            run.folder / "scores.npz"
        )


def filled(tables) -> dict[int, set[str]]:
    """Table -> names of the data sets that fill its cells."""
    found = {t.number: {cell.accuracy.dataset for cell in t.measured} for t in tables}
    return {number: names for number, names in found.items() if names}


def test_whatever_was_tested_fills_cells_under_its_own_name(tmp_path):
    save_scores(tmp_path, "holiday clips", "spatial", "temporal", "if-ttn")
    found = results.Results(tmp_path, tmp_path).tables()
    assert filled(found) == {number: {"holiday clips"} for number in range(1, 8)}
    assert "Measured: holiday clips in place of UCF-101." in heading(found[2])
    findings = results.Results(tmp_path, tmp_path).findings()
    assert all(finding.evidence.startswith("holiday clips: ") for finding in findings)
    assert any("points [" in finding.evidence for finding in findings)
    assert results.not_shown(tmp_path, found) == ""


def test_seeds_of_a_study_and_of_another_one_are_read_alike(tmp_path):
    runs, other = tmp_path / "runs", tmp_path / "other"
    for folder in (runs, runs / "seed1", runs / "seed2", other, other / "seed4"):
        save_scores(folder, "mine", "spatial")

    def seeds(*further) -> int:
        accuracy = results.Results(runs, tmp_path, further).tables()[2].cells[0].accuracy
        assert accuracy
        return accuracy.seeds

    assert (seeds(), seeds(other), seeds(other, runs / "seed1")) == (3, 5, 5)
    assert results.tested(runs) == {"mine": ["split1/spatial"]}


def test_hmdb51_alone_fills_the_tables(tmp_path):
    save_scores(tmp_path, "HMDB51", "spatial", "temporal", "if-ttn")
    found = results.Results(tmp_path, tmp_path).tables()
    assert filled(found) == {number: {"HMDB51"} for number in range(1, 8)}
    assert {cell.column.dataset for cell in found[5].measured} == {"HMDB-51"}


def test_data_sets_of_ones_own_stand_before_the_embedded_ones_and_the_rest_is_named(tmp_path):
    for name, recipes in (("embedded-ucf", 3), ("b", 2), ("a", 1), ("c", 1), ("d", 1)):
        save_scores(tmp_path, name, *("spatial", "temporal", "if-ttn")[:recipes])
    found = results.Results(tmp_path, tmp_path).tables()
    assert [column.ours for column in found[5].columns] == ["b", "a"]
    assert [column.ours for column in found[6].columns] == ["b", "a", "c"]
    assert filled(found)[3] == {"b"}
    assert results.not_shown(tmp_path, found) == (
        "tested, but not in these tables: d, embedded-ucf; `ifttn tables --on NAME` shows one"
    )
    chosen = results.Results(tmp_path, tmp_path, on=["embedded-ucf"]).tables()
    assert filled(chosen)[3] == {"embedded-ucf"}
    assert {each.evidence.split(":")[0] for each in results.Results(tmp_path, tmp_path, on=["c"]).findings()} == {"c"}


def test_tested_runs_that_fill_no_cell_are_not_said_to_be_missing(tmp_path):
    assert "no tested run in" in results.not_shown(tmp_path, results.Results(tmp_path, tmp_path).tables())
    save_scores(tmp_path, "mine", "ifm-average")
    save_scores(tmp_path, "mine", "if-ttn", split=2)
    found = results.Results(tmp_path, tmp_path).tables()
    assert not filled(found)
    line = results.not_shown(tmp_path, found)
    assert "(mine/split1/ifm-average, mine/split2/if-ttn) fill no cell" in line
    assert "no tested run in" not in line
    assert "no tested run of if-ttn on mine, split 1" in table_text(found[2]).replace("\n  ", " ")


def test_a_study_runs_whatever_a_claim_or_a_cell_needs_on_some_split(tmp_path):
    names = {step.name for step in study.steps_of(Places(tmp_path), StudySettings("tiny", jobs=2), quick=False)}
    content = load_claims()
    for claim in content.claims:
        for each in claim.comparisons:
            for recipe in content.late_fusions[each.first] | content.late_fusions[each.second or each.first]:
                assert f"embedded-ucf split 1: {recipe}" in names
    theirs = stand_ins(["UCF-101", "HMDB-51"], ["embedded-ucf", "embedded-hmdb"])
    for table in load().values():
        # Of what came after the paper, the first data set is enough.
        for cell in table.cells if table.number < 7 else (row[0] for row in table.rows):
            for recipe in table.late_fusions.get(cell.source, ()):  # the source of a speed is no late fusion
                assert f"{theirs[cell.column.dataset]} split 1: {recipe}" in names
