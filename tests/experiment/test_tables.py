from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ifttn.experiment.evaluation import Scores, wilson
from ifttn.experiment.recipes import LATE_FUSION
from ifttn.experiment.tables import TABLES, Table, as_text, findings, load, measure, to_frame
from ifttn.vocabulary import IfttnError

ACTIONS = ("slow, a first", "slow, b first", "fast, a first", "fast, b first")
FACTORS = {"speed": np.array([0, 0, 1, 1]), "order": np.array([0, 1, 0, 1])}
TRUTH = (0, 1, 2, 3) * 5
OURS = {"UCF-101": "embedded-ucf"}


def says(actions: tuple[int, ...], sure: float = 1.0) -> np.ndarray:
    """Scores that put `sure` on one action of each video."""
    return np.eye(4)[list(actions)].astype(np.float32) * sure


def scores(heads: Mapping[str, np.ndarray], reverse: bool = False) -> Scores:
    order = slice(None, None, -1 if reverse else 1)
    names = tuple(f"video {i}" for i in range(len(TRUTH)))[order]
    return Scores(names, np.array(TRUTH)[order], ACTIONS, {head: rows[order] for head, rows in heads.items()})


SEES_SPEED = tuple(label // 2 * 2 for label in TRUTH)  # knows the speed and always says "a first"
STUDY = {
    "spatial": {"rgb": says((0,) * 20)},
    "temporal": {"flow": says(SEES_SPEED)},
    "if-ttn": {"rgb": says((0,) * 20), "flow": says(SEES_SPEED), "ttn": says(TRUTH, sure=3.0)},
}


def of_study(dataset: str, split: int, recipe: str) -> Scores | None:
    assert dataset == "embedded-ucf"
    return scores(STUDY[recipe], reverse=recipe == "temporal") if recipe in STUDY else None


@pytest.fixture(scope="module")
def tables() -> dict[int, Table]:
    return load()


def paper(table: Table, method: str) -> list[float]:
    return to_frame(table).set_index("method").paper.loc[[method]].to_list()


def row(table: Table, method: str) -> pd.Series:
    frame = to_frame(table)
    return frame[frame.method == method].iloc[-1]


def test_the_tables_hold_the_rows_and_splits_of_the_paper(tables):
    assert {number: (len(t.rows), len(t.columns), t.splits) for number, t in tables.items()} == {
        1: (3, 1, (1,)),
        2: (3, 1, (1,)),
        3: (5, 1, (1,)),
        4: (3, 2, (1,)),
        5: (10, 2, (1, 2, 3)),
        6: (19, 2, (1, 2, 3)),
    }


def test_the_numbers_agree_with_what_the_text_of_the_paper_says_of_them(tables):
    def difference(number: int, better: str, worse: str) -> float:
        return paper(tables[number], better)[-1] - paper(tables[number], worse)[-1]

    assert difference(3, "complete IF-TTN", "Two-stream CNN") == pytest.approx(1.9)
    assert np.diff(paper(tables[4], "IF-TTN")) == pytest.approx(-0.6)
    assert difference(1, "Attention IFM Two-Stream", "Adaptive IFM Two-Stream") == 0
    assert paper(tables[5], "MV-IF-TTN") == [142, 94.5]
    assert paper(tables[6], "Full IF-TTN") == [96.2, 74.8]
    assert paper(tables[6], "C3D [20]") == pytest.approx([82.3, np.nan], nan_ok=True)


def test_the_notes_tell_where_the_paper_contradicts_itself(tables):
    for number, method, other, other_method in (
        (3, "Temporal stream CNN", 4, "Temporal stream CNN"),
        (5, "TSN (RGB) [27]", 6, "TSN (RGB) [27]"),
    ):
        here, there = paper(tables[number], method)[-1], paper(tables[other], other_method)[0]
        assert here != there
        assert any(str(here) in note and str(there) in note for note in tables[number].notes)
    assert any("53.0" in note and "51.2" in note for note in tables[6].notes)


def test_late_fusion_uses_the_weights_that_were_set_beforehand(tables):
    several = [parts for parts in tables[1].late_fusions.values() if sum(map(len, parts.values())) > 1]
    assert several
    for parts in several:
        for heads in parts.values():
            assert heads == {head: LATE_FUSION[head] for head in heads}


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("{ if-ttn = { ttn = 1.0 } }", "{ if-tnt = { ttn = 1.0 } }", "unknown recipe 'if-tnt': choose from spatial,"),
        (
            "{ if-ttn = { ttn = 1.0 } }",
            "{ if-ttn = { tnt = 1.0 } }",
            "head of recipe 'if-ttn' in late fusion 'ttn-branch' of .*: 'tnt': choose from rgb, flow, ttn",
        ),
        ('measured = ["ttn-branch"]', 'measured = ["ttn"]', "row 'TTN branch' in Table 3: 'ttn': choose from spatial,"),
        ('measured = ["ttn-branch"]', "measured = []", "Table 3, row 'TTN branch': one entry for each of 1 columns"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, old: str, new: str, complaint: str):
    text = TABLES.read_text()
    assert old in text
    (tmp_path / "tables.toml").write_text(text.replace(old, new))
    with pytest.raises(IfttnError, match=complaint):
        load(tmp_path / "tables.toml")


def test_nothing_is_measured_where_there_is_no_run(tables):
    for table in tables.values():
        frame = to_frame(measure(table, lambda *_: None, OURS))
        assert frame.paper.notna().any()
        assert frame[["measured", "low", "high", "mean class", "1:1:1", "videos"]].isna().to_numpy().all()


def test_a_data_set_that_nothing_stands_for_is_left_empty(tables):
    frame = to_frame(measure(tables[6], of_study, OURS))
    assert frame[frame.column == "UCF-101 (%)"].measured.notna().any()
    assert frame[frame.column == "HMDB-51 (%)"].measured.isna().all()


def test_a_speed_is_not_filled_with_an_accuracy(tables):
    frame = to_frame(measure(tables[5], of_study, OURS))
    assert frame[frame.column == "speed (fps)"].measured.isna().all()


def test_each_row_reads_the_heads_that_it_names(tables):
    table = measure(tables[3], of_study, OURS, {"embedded-ucf": FACTORS})
    assert {
        cell.method: (cell.measured.top1, dict(cell.measured.factors)) for cell in table.cells if cell.measured
    } == {
        "Spatial stream CNN": (0.25, {"speed": 0.5, "order": 0.5}),
        "Temporal stream CNN": (0.5, {"speed": 1.0, "order": 0.5}),
        "Two-stream CNN": (0.5, {"speed": 1.0, "order": 0.5}),
        "TTN branch": (1.0, {"speed": 1.0, "order": 1.0}),
        "complete IF-TTN": (1.0, {"speed": 1.0, "order": 1.0}),
    }


def test_equal_weights_are_reported_beside_the_chosen_ones(tables):
    wrong = tuple((label + 1) % 4 for label in TRUTH)
    # Motion is right and appearance wrong, and appearance a little surer: only 1 : 1.5 gets it right.
    runs = {"spatial": scores({"rgb": says(wrong, sure=1.2)}), "temporal": scores({"flow": says(TRUTH)})}
    table = measure(tables[3], lambda dataset, split, recipe: runs.get(recipe), OURS)
    two_stream, alone = row(table, "Two-stream CNN"), row(table, "Temporal stream CNN")
    assert (two_stream.measured, two_stream["1:1:1"]) == (100, 0)
    assert np.isnan(alone["1:1:1"])


def test_accuracy_is_the_mean_over_splits_and_its_interval_that_of_all_videos(tables):
    right = {1: 20, 2: 10, 3: 15}

    def spatial(dataset: str, split: int, recipe: str) -> Scores | None:
        said = tuple(label if i < right[split] else (label + 1) % 4 for i, label in enumerate(TRUTH))
        return scores({"rgb": says(said)}) if recipe == "spatial" else None

    line = row(measure(tables[5], spatial, OURS), "TSN (RGB) [27]")
    assert line.measured == pytest.approx(75)
    assert (line.low, line.high) == pytest.approx(tuple(100 * x for x in wilson(45, 60)))
    assert (line.videos, line.splits, line["measured on"]) == (60, "3 of 3", "embedded-ucf")


def test_splits_that_are_not_there_yet_are_admitted(tables):
    def temporal_lags_behind(dataset: str, split: int, recipe: str) -> Scores | None:
        return of_study(dataset, split, recipe) if recipe == "spatial" or split == 2 else None

    table = measure(tables[5], temporal_lags_behind, OURS)
    assert row(table, "TSN (RGB) [27]").splits == "3 of 3"
    assert row(table, "TSN (RGB + Optical flow) [27]").splits == "1 of 3"
    assert {cell.measured.splits for cell in table.cells if cell.measured} == {(1, 2, 3), (2,)}


def test_a_frame_has_a_column_for_each_factor_that_the_data_have(tables):
    columns = ["method", "column", "paper", "measured", "low", "high", "mean class", "1:1:1"]
    rest = ["videos", "splits", "measured on"]
    assert list(to_frame(measure(tables[3], of_study, OURS))) == [*columns, *rest]
    with_factors = to_frame(measure(tables[3], of_study, OURS, {"embedded-ucf": FACTORS}))
    assert list(with_factors) == [*columns, "speed", "order", *rest]


def test_a_claim_gets_its_sentence_only_when_both_of_its_cells_are_measured(tables):
    measured = measure(tables[3], of_study, OURS, {"embedded-ucf": FACTORS})
    order = next(finding for finding in findings(measured) if "came first" in finding.text)
    assert order.verdict == "holds"
    assert order.evidence.startswith("order accuracy 1.000 [0.839, 1.000] of TTN branch, 0.500 [0.299, 0.701] of Two-")
    assert order.evidence.endswith("the 95% intervals do not overlap (embedded-ucf, split 1).")
    assert findings(measure(tables[1], of_study, OURS)) == []
    assert not any("came first" in finding.text for finding in findings(measure(tables[3], of_study, OURS)))


@pytest.mark.parametrize(
    ("relation", "first", "second", "verdict"),
    [
        ("above", 95, 80, "holds"),
        ("above", 90, 88, "open"),
        ("above", 80, 95, "fails"),
        ("near", 90, 88, "holds"),
        ("near", 95, 80, "fails"),
        ("near", 80, 95, "fails"),
    ],
)
def test_a_verdict_waits_for_intervals_that_do_not_overlap(tables, relation, first, second, verdict):
    table = measure(tables[3], of_study, OURS)
    claim = replace(table.claims[0], first="ttn-branch", second="spatial", relation=relation)
    reached = {"ttn-branch": first, "spatial": second}
    cells = tuple(
        replace(cell, measured=replace(cell.measured, top1=percent / 100, interval=wilson(percent * 4, 400)))
        for cell in table.cells
        if cell.measured and (percent := reached.get(cell.source))
    )
    assert [f.verdict for f in findings(replace(table, cells=cells, claims=(claim,)))] == [verdict]


def test_the_text_is_aligned_and_says_on_what_it_was_measured(tables):
    text = as_text(measure(tables[3], of_study, OURS, {"embedded-ucf": FACTORS}))
    head, *body = [line for line in text.splitlines() if line.startswith(("method", "Spatial", "TTN", "complete"))]
    assert len(body) == 3
    for name in ("paper", "measured", "mean class", "speed", "order", "splits"):
        end = head.index(name) + len(name)
        assert all(line[end - 1] != " " and line[end : end + 2] in ("  ", "") for line in body), name
    assert "embedded-ucf for UCF-101" in text
    assert "[holds] The TTN knows which came first" in text
    assert "Nothing measured yet" in as_text(tables[3])
