from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ifttn.experiment.networks import network_settings
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import RECIPES
from ifttn.experiment.scores import LATE_FUSION, READINGS, Scores
from ifttn.experiment.significance import mcnemar, wilson
from ifttn.experiment.table_frames import to_frame
from ifttn.experiment.table_texts import columns_of, heading, p_text, reasons, table_text
from ifttn.experiment.tables import TABLES, Table, fill, load, speeds
from ifttn.model.peers.table5 import PEERS
from ifttn.model.peers.trained import build_network
from ifttn.vocabulary import IfttnError

ACTIONS = ("slow, a first", "slow, b first", "fast, a first", "fast, b first")
FACTORS = {"speed": np.array([0, 0, 1, 1]), "order": np.array([0, 1, 0, 1])}
TRUTH = (0, 1, 2, 3) * 5
OURS = ("embedded-ucf",)


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
        4: (4, 2, (1,)),
        5: (10, 2, (1, 2, 3)),
        6: (19, 2, (1, 2, 3)),
        7: (4, 3, (1, 2, 3)),
    }


def test_what_came_after_the_paper_is_said_not_to_be_in_it_and_repeats_its_numbers(tables):
    assert tables[7].caption.startswith("Not in the paper")
    for method in ("TSN (RGB) [27]", "Full IF-TTN"):
        assert paper(tables[7], method)[:2] == paper(tables[6], method)
    own = {cell.source: cell.paper for cell in tables[7].cells[3:9:3]}
    assert own == {"tsm": 95.9, "tdn": 97.4}


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


def test_every_late_fusion_is_of_heads_that_its_recipes_train(tables):
    for recipe, heads in ((r, h) for parts in tables[1].late_fusions.values() for r, h in parts.items()):
        settings = network_settings(RECIPES[recipe], PRESETS["smallest"], actions=1)
        with torch.device("meta"):
            assert set(heads) <= {*build_network(settings).scoring}


def test_every_speed_is_of_a_row_of_the_benchmark(tables):
    assert {cell.source for table in tables.values() for cell in table.cells if cell.column.unit == "fps"} <= {*PEERS}


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('measured = ["ttn-branch"]', 'measured = ["ttn"]', "row 'TTN branch' in Table 3: 'ttn': choose from spatial,"),
        ('measured = ["ttn-branch"]', "measured = []", "Table 3, row 'TTN branch': one entry for each of 1 columns"),
        (
            'measured = ["ttn-branch"]',
            'measured = [""]',
            "why row 'TTN branch' in Table 3 is empty: '': choose from none",
        ),
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
        frame = to_frame(fill(table, lambda *_: None, OURS))
        assert frame.paper.notna().any()
        assert frame[["measured", "low", "high", "mean class", "1:1:1", "videos"]].isna().to_numpy().all()


def test_a_data_set_that_nothing_stands_for_is_left_empty(tables):
    frame = to_frame(fill(tables[6], of_study, OURS))
    assert frame[frame.column == "embedded-ucf (%)"].measured.notna().any()
    assert frame[frame.column == "HMDB-51 (%)"].measured.isna().all()


@pytest.mark.parametrize(
    ("ours", "alone", "both"),
    [
        (["mine"], "mine", ("mine", "")),
        (["HMDB51"], "HMDB51", ("", "HMDB51")),
        (["mine", "other", "third"], "mine", ("mine", "other")),
        (["mine", "HMDB51"], "mine", ("mine", "HMDB51")),
        (["hmdb-small", "mine"], "hmdb-small", ("mine", "hmdb-small")),
        (["HMDB51", "UCF101"], "HMDB51", ("UCF101", "HMDB51")),
        (["embedded-ucf", "embedded-hmdb"], "embedded-ucf", ("embedded-ucf", "embedded-hmdb")),
        ([], "", ("", "")),
    ],
)
def test_the_first_data_set_stands_in_the_first_column_and_what_is_like_hmdb_in_the_second(tables, ours, alone, both):
    spatial = scores({"rgb": says(TRUTH)})

    def of(dataset: str, split: int, recipe: str) -> Scores | None:
        return spatial if recipe == "spatial" and dataset in ours else None

    for number, standing in ((3, (alone,)), (6, both)):
        table = fill(tables[number], of, ours)
        assert tuple(column.ours for column in table.columns) == standing
        for cell in table.cells:
            if cell.source == "spatial" and cell.column.ours:
                assert cell.accuracy
                assert cell.accuracy.dataset == cell.column.ours
            elif cell.source:
                assert cell.why


def test_a_column_has_the_name_of_its_data_set_and_the_papers_numbers_that_of_theirs(tables):
    def of(dataset: str, split: int, recipe: str) -> Scores | None:
        return scores({"rgb": says(TRUTH)}) if recipe == "spatial" else None

    text = " ".join(table_text(fill(tables[6], of, ["mine", "HMDB51"])).split())
    assert "Paper: UCF-101 and HMDB-51, splits 1, 2, 3. Measured: mine in place of UCF-101, HMDB51." in text
    assert "TSN (RGB) [27] mine (%) 85.7 UCF-101 100.0" in text
    assert "TSN (RGB) [27] HMDB51 (%) 51.0 HMDB-51 100.0" in text
    assert "Measured: UCF101." in table_text(fill(tables[3], of, ["UCF101"]))
    lines = table_text(fill(tables[3], of, ["mine"])).splitlines()
    head = next(line for line in lines if line.startswith("method"))
    assert head.split()[:4] == ["method", "paper", "(UCF-101)", "measured"]


def test_five_highest_of_four_actions_are_no_measure(tables):
    assert np.isnan(row(fill(tables[3], of_study, OURS), "TTN branch")["top-5"])


def test_a_speed_is_not_filled_with_an_accuracy(tables):
    frame = to_frame(fill(tables[5], of_study, OURS))
    assert frame[frame.column == "speed (fps)"].measured.isna().all()


def test_each_row_reads_the_heads_that_it_names(tables):
    table = fill(tables[3], of_study, OURS, {"embedded-ucf": FACTORS})
    assert {
        cell.method: (cell.accuracy.percent["measured"], dict(cell.accuracy.factors)) for cell in table.measured
    } == {
        "Spatial stream CNN": (25, {"speed": 0.5, "order": 0.5}),
        "Temporal stream CNN": (50, {"speed": 1.0, "order": 0.5}),
        "Two-stream CNN": (50, {"speed": 1.0, "order": 0.5}),
        "TTN branch": (100, {"speed": 1.0, "order": 1.0}),
        "complete IF-TTN": (100, {"speed": 1.0, "order": 1.0}),
    }


def test_equal_weights_are_reported_beside_the_chosen_ones(tables):
    wrong = tuple((label + 1) % 4 for label in TRUTH)
    # Motion is right and appearance wrong, and appearance a little surer: only 1 : 1.5 gets it right.
    runs = {"spatial": scores({"rgb": says(wrong, sure=1.2)}), "temporal": scores({"flow": says(TRUTH)})}
    table = fill(tables[3], lambda dataset, split, recipe: runs.get(recipe), OURS)
    two_stream, alone = row(table, "Two-stream CNN"), row(table, "Temporal stream CNN")
    assert (two_stream.measured, two_stream["1:1:1"]) == (100, 0)
    assert np.isnan(alone["1:1:1"])


def test_accuracy_is_the_mean_over_splits_and_its_interval_that_of_all_videos(tables):
    right = {1: 20, 2: 10, 3: 15}

    def spatial(dataset: str, split: int, recipe: str) -> Scores | None:
        said = tuple(label if i < right[split] else (label + 1) % 4 for i, label in enumerate(TRUTH))
        found = scores({"rgb": says(said)})
        own = replace(found, videos=tuple(f"{video} of split {split}" for video in found.videos))
        return own if recipe == "spatial" else None

    line = row(fill(tables[5], spatial, OURS), "TSN (RGB) [27]")
    assert line.measured == pytest.approx(75)
    low, high = (100 * x for x in wilson(45, 60))  # of one training; the three differ by far more than by chance
    assert line.low < low - 20
    assert line.high > high + 10
    assert (line.videos, line.splits, line["measured on"]) == (60, "3 of 3", "embedded-ucf")


@pytest.mark.parametrize(
    ("recipe", "method", "heads"),
    [
        ("din", "DIN [1]", ("rgb",)),
        ("c3d", "C3D [20]", ("rgb",)),
        ("emv-cnn", "RGB + EMV-CNN [32]", ("rgb", "mv")),
        ("coviar", "CoViAR [29]", ("accumulated", "residual", "rgb")),
        ("tsm", "TSM (Lin et al., ICCV 2019)", ("rgb",)),
        ("tdn", "TDN (Wang et al., CVPR 2021)", ("rgb",)),
    ],
)
def test_the_run_of_a_peer_fills_its_row(tables, recipe, method, heads):
    said = scores({**{head: says((0,) * 20) for head in heads}, heads[-1]: says(TRUTH, sure=1.5)})
    table = fill(
        tables[7 if recipe in ("tsm", "tdn") else 5],
        lambda _, split, name: said if (name, split) == (recipe, 1) else None,
        OURS,
    )
    filled = to_frame(table).dropna(subset="measured")
    assert filled.method.tolist() == [method]
    assert filled[["measured", "splits"]].to_numpy().tolist() == [[100, "1 of 3"]]


def test_full_off_is_the_run_of_off_and_that_of_its_stream_on_flow(tables):
    wrong = tuple((label + 1) % 4 for label in TRUTH)
    runs = {"off": dict.fromkeys(("rgb", "off-rgb", "rgbdiff", "off-rgbdiff"), says(wrong))}
    both = {**runs, "off-flow": {"flow": says(TRUTH, sure=2.0), "off-flow": says(TRUTH, sure=1.4)}}
    for study, expected in ((runs, [0]), (both, [100, 0])):  # 5.1 for what is right, 5.0 for what is wrong
        frame = to_frame(fill(tables[6], lambda _, split, name, s=study: scores(s[name]) if name in s else None, OURS))
        filled = frame.dropna(subset="measured")
        assert filled.method.tolist() == ["Full OFF [19]", "real-time OFF [19]"][-len(expected) :]
        assert filled.measured.tolist() == expected


def test_splits_that_are_not_there_yet_are_admitted(tables):
    def temporal_lags_behind(dataset: str, split: int, recipe: str) -> Scores | None:
        return of_study(dataset, split, recipe) if recipe == "spatial" or split == 2 else None

    table = fill(tables[5], temporal_lags_behind, OURS)
    assert row(table, "TSN (RGB) [27]").splits == "3 of 3"
    assert row(table, "TSN (RGB + Optical flow) [27]").splits == "1 of 3"
    assert {cell.accuracy.splits for cell in table.measured} == {(1, 2, 3), (2,)}


COLUMNS = [
    "method",
    "column",
    "paper",
    "paper on",
    "measured",
    "low",
    "high",
    "top-5",
    "mean class",
    "1:1:1",
    "sd splits",
]
COLUMNS += ["sd seeds", "p", *READINGS, "p reversed", "p shuffled"]
REST = ["videos", "splits", "seeds", "short", "measured on", "why"]


def test_a_frame_has_a_column_for_each_factor_that_the_data_have(tables):
    assert list(to_frame(fill(tables[3], of_study, OURS))) == [*COLUMNS, *REST]
    with_factors = to_frame(fill(tables[3], of_study, OURS, {"embedded-ucf": FACTORS}))
    assert list(with_factors) == [*COLUMNS, "speed", "order", *REST]


def test_rows_are_compared_video_by_video(tables):
    table = fill(tables[3], of_study, OURS)
    truth = np.array(TRUTH)
    two_stream, ttn = np.array(SEES_SPEED) == truth, truth == truth
    assert row(table, "Two-stream CNN").p == pytest.approx(mcnemar(two_stream, ttn).p)
    assert row(table, "Two-stream CNN").p == pytest.approx(2 / 2**10)
    assert np.isnan(row(table, "complete IF-TTN").p)  # the last one: nothing to compare it with


def test_the_spread_is_that_of_splits_and_that_of_seeds(tables):
    def reaches(*right: int):
        def spatial(dataset: str, split: int, recipe: str) -> Scores | None:
            said = tuple(label if i < right[split - 1] else (label + 1) % 4 for i, label in enumerate(TRUTH))
            return scores({"rgb": says(said)}) if recipe == "spatial" else None

        return spatial

    line = row(fill(tables[5], reaches(20, 10, 15), OURS, seeds=[reaches(20, 20, 20)]), "TSN (RGB) [27]")
    assert line["sd splits"] == pytest.approx(12.5)  # of the means over both seeds
    assert line["sd seeds"] == pytest.approx(np.std([75, 100], ddof=1))
    assert (line.measured, line.seeds, line.videos) == (pytest.approx(87.5), 2, 60)
    alone = row(fill(tables[3], reaches(20), OURS), "Spatial stream CNN")
    assert np.isnan([alone["sd splits"], alone["sd seeds"]]).all()


def test_the_spread_over_seeds_is_of_the_splits_that_all_seeds_have(tables):
    def reaches(right: Mapping[int, int]):
        def spatial(dataset: str, split: int, recipe: str) -> Scores | None:
            if recipe != "spatial" or split not in right:
                return None
            return scores({"rgb": says(tuple(a if i < right[split] else (a + 1) % 4 for i, a in enumerate(TRUTH)))})

        return spatial

    def spread(*seeds: Mapping[int, int]) -> float:
        first, *others = map(reaches, seeds)
        return row(fill(tables[5], first, OURS, seeds=others), "TSN (RGB) [27]")["sd seeds"]

    assert spread({1: 20, 2: 10, 3: 15}, {1: 20}) == 0  # of split 1 alone, where both are all right
    assert spread({1: 20, 2: 10}, {2: 0, 3: 20}) == pytest.approx(100 * np.std([0.5, 0], ddof=1))
    assert spread({1: 20, 2: 10}, {1: 10, 2: 10}, {}) == pytest.approx(100 * np.std([0.75, 0.5], ddof=1))
    assert np.isnan(spread({1: 20}, {2: 20}))


def test_a_number_is_the_mean_over_the_seeds_that_have_all_its_splits(tables):
    def reaches(right: int, *splits: int):
        said = tuple(label if i < right else (label + 1) % 4 for i, label in enumerate(TRUTH))
        found = scores({"rgb": says(said)})
        return lambda dataset, split, recipe: found if recipe == "spatial" and split in splits else None

    seeds = [reaches(20, 1, 2, 3), reaches(10, 1), reaches(0, 1)]
    line = row(fill(tables[5], seeds[0], OURS, seeds=seeds[1:]), "TSN (RGB) [27]")
    assert (line.measured, line.seeds) == (100, 1)
    assert line["sd seeds"] == pytest.approx(50)  # of split 1
    line = row(fill(tables[3], seeds[0], OURS, seeds=seeds[1:]), "Spatial stream CNN")
    assert (line.measured, line.seeds, line.splits) == (pytest.approx(50), 3, "1 of 1")
    # Accuracies of 1, 0.5 and 0: Student's t with two degrees of freedom, less than 0 and more than 1.
    assert (line.low, line.high) == (0, 100)


def test_a_video_that_several_splits_test_is_one_cluster(tables):
    found = {"spatial": scores({"rgb": says(SEES_SPEED)}), "temporal": scores({"flow": says(TRUTH)})}

    def over(*splits: int) -> Table:
        return fill(tables[5], lambda _, split, recipe: found.get(recipe) if split in splits else None, OURS)

    once, thrice = (row(over(*splits), "TSN (RGB) [27]") for splits in ((1,), (1, 2, 3)))
    assert once.videos * 3 == thrice.videos == 60
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert (once.low, once.high) == pytest.approx(tuple(100 * x for x in wilson(10, 20)))
    both = [row(over(*splits), "TSN (RGB + Optical flow) [27]").p for splits in ((1,), (1, 2, 3))]
    assert both == pytest.approx([2 / 2**10] * 2)


def with_orders(dataset: str, split: int, recipe: str) -> Scores | None:
    """Reversed, the TTN takes each order for the other one; the streams say what they say in order."""
    if recipe not in STUDY:
        return None
    turned = tuple(label ^ 1 for label in TRUTH)
    in_order = STUDY[recipe]
    wrong = {head: says(turned, sure=3.0) if head == "ttn" else rows for head, rows in in_order.items()}
    found = scores({**in_order})
    return Scores(
        found.videos, found.labels, ACTIONS, found.heads, dict(zip(READINGS, (in_order, wrong, wrong), strict=True))
    )


def test_order_read_outs_stand_beside_the_rows(tables):
    table = fill(tables[3], with_orders, OURS)
    assert row(table, "TTN branch")[list(READINGS)].tolist() == [100, 0, 0]
    assert row(table, "complete IF-TTN")[list(READINGS)].tolist() == [100, 0, 0]
    assert row(table, "Two-stream CNN")[list(READINGS)].tolist() == [50, 50, 50]
    assert row(table, "Two-stream CNN")["p reversed"] == 1
    assert row(table, "TTN branch")["p shuffled"] == pytest.approx(2 / 2**20)
    text = table_text(table)
    assert "TTN branch 100.0 0.0 0.0 <0.001 <0.001" in " ".join(text.split())
    assert to_frame(fill(tables[3], of_study, OURS))["p reversed"].isna().all()  # scores of an older version
    assert "centre view" not in table_text(fill(tables[3], of_study, OURS))


def test_every_empty_cell_says_why(tables):
    for table in tables.values():
        for filled in (table, fill(table, of_study, OURS)):
            assert all(bool(cell.why) != bool(cell.accuracy) for cell in filled.cells)
    said = reasons(columns_of(fill(tables[6], of_study, OURS)))
    assert "iDT [24]" in said["a system of another paper that is not rebuilt here"]
    assert said["no tested run of mv-temporal on embedded-ucf, splits 1, 2, 3"] == ["RGB + EMV-CNN: embedded-ucf (%)"]
    assert "Two stream TSN [27]: HMDB-51 (%)" in said["no data set here stands for HMDB-51"]
    assert "empty: no tested run of if-ttn-adaptive" in table_text(fill(tables[1], of_study, OURS)).replace("\n  ", " ")


def test_a_probability_is_as_short_as_it_deserves():
    assert [p_text(p) for p in (0.0004, 0.0421, 0.314, 1.0, np.nan)] == ["<0.001", "0.042", "0.31", "1.00", ""]


def test_the_text_is_aligned_and_says_on_what_it_was_measured(tables):
    text = table_text(fill(tables[3], of_study, OURS, {"embedded-ucf": FACTORS}))
    head, *body = [line for line in text.splitlines() if line.startswith(("method", "Spatial", "TTN", "complete"))][:4]
    for name in ("paper (UCF-101)", "measured", "mean class", "speed", "order", "splits"):
        end = head.index(name) + len(name)
        assert all(line[end - 1] != " " and line[end : end + 2] in ("  ", "") for line in body), name
    assert "Measured: embedded-ucf in place of UCF-101." in text
    assert "None of the runs that it needs is tested yet." in heading(tables[3])
    assert "Paper: UCF-101 and HMDB-51, splits 1, 2, 3; Something-Something V2. " in heading(tables[7])


def test_the_speeds_of_table_5_come_from_the_file_of_a_benchmark(tmp_path):
    head = "row,definition,round,seconds,count,size,segments,batch,device,precision,compiled,frames"
    of = "paper,7,1,A Device,float32,False,186"
    lines = [f"din,snippets,{i},{seconds},7,{of}" for i, seconds in enumerate((1.0, 2.0, 7.0))]
    lines += [f"din,videos,0,100,7,{of}", f"decoding alone,,0,1,1,{of}"]
    (tmp_path / "speed.csv").write_text("\n".join([head, *lines]))
    assert speeds(tmp_path / "nothing.csv") == {}
    timed = speeds(tmp_path / "speed.csv")
    assert set(timed) == {"din"}
    assert timed["din"].median == 3.5
    assert timed["din"].quartiles == (2.25, 5.25)
    table = fill(load()[5], lambda *_: None, (), timed=timed)
    filled = [cell for cell in table.cells if cell.speed]
    assert [cell.method for cell in filled] == ["DIN [1]"]
    assert filled[0].paper == 131
    text = table_text(table)
    assert "3.5" in next(line for line in text.splitlines() if line.startswith("DIN [1]"))
    assert "A Device" in text
    assert "bench speed" in text  # the other nine rows say what would fill them
    (tmp_path / "speed.csv").write_text("a,b\n1,2\n")
    with pytest.raises(IfttnError, match=r"speed\.csv"):
        speeds(tmp_path / "speed.csv")
