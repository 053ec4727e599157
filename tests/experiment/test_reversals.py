"""What networks call actions that are played backwards, from scores that are made up."""

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ifttn.data.list_formats import parse_lists
from ifttn.experiment import results
from ifttn.experiment.claims import load_claims
from ifttn.experiment.reversal_frames import ALL, order_gains, reversal_frame, reversal_table, reversal_text
from ifttn.experiment.reversals import (
    NONE,
    PAIRS,
    backwards,
    reversal_finding,
    reversals_of_factors,
    reversals_of_names,
)
from ifttn.experiment.scores import READINGS, Scores
from ifttn.vocabulary import IfttnError

ACTIONS = ("Opening something", "Closing something", "Holding something", "Tearing something into two pieces")
LABELS = np.repeat(np.arange(4), 10)
TURNED = np.array([1, 0, 2, 0])  # what is torn looks like something that is opened, backwards


def says(labels: np.ndarray) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[labels]


def study():
    """The TTN is always right, and turns actions; the streams know whether something moves in the hand, and no more."""
    names, streams = tuple(f"v{i}" for i in range(40)), np.where(LABELS < 2, 0, LABELS)

    def scores(dataset: str, split: int, recipe: str) -> Scores | None:
        if recipe not in ("spatial", "temporal", "if-ttn"):
            return None
        heads = {"rgb": says(streams), "flow": says(streams), "ttn": 9 * says(LABELS)}
        back = {**heads, "ttn": 9 * says(TURNED[LABELS])}
        readings = dict(zip(map(str, READINGS), (heads, back, back), strict=True))
        return Scores(names, LABELS, ACTIONS, heads, readings)

    return scores


def frame_of(scores, splits=(1,)) -> pd.DataFrame:
    return reversal_frame(
        backwards(load_claims(), [scores], "SSV2", splits), ACTIONS, reversals_of_names(ACTIONS), "SSV2"
    )


def shares(frame: pd.DataFrame, system: str, action: str) -> list[float]:
    row = frame[(frame.system == system) & (frame.action == action)].iloc[0]
    return row[["in order", "turns", "its reverse", "itself", "neither"]].tolist()


def test_the_frame_says_what_each_action_is_called_backwards():
    frame = frame_of(study())
    assert set(frame.system) == {"IF-TTN", "the TTN branch", "two-stream TSN"}
    assert shares(frame, "IF-TTN", ACTIONS[0]) == [1, 1, 1, 0, 0]
    assert shares(frame, "two-stream TSN", ACTIONS[0]) == [1, 0, 0, 1, 0]
    assert shares(frame, "two-stream TSN", ACTIONS[1]) == [0, 0, 1, 0, 0]  # a slip in both orders turns nothing
    assert shares(frame, "the TTN branch", ACTIONS[2]) == [1, 1, 1, 1, 0]  # an action that must not change
    assert shares(frame, "the TTN branch", ACTIONS[3])[3:] == [0, 1]
    kinds = frame[frame.system == "IF-TTN"].set_index("action").kind
    assert kinds[list(ACTIONS)].to_list() == ["reverse", "reverse", "same", "other"]
    torn = frame[(frame.system == "IF-TTN") & (frame.action == ACTIONS[3])].iloc[0]
    assert (torn.called, torn.reverse, torn.videos) == (ACTIONS[0], "", 10)
    together = frame[(frame.action == ALL) & (frame.kind == "reverse")].set_index("system")
    assert together.turns.tolist() == [1, 1, 0]


def test_a_video_that_two_splits_test_counts_once_in_the_interval():
    one, two = (frame_of(study(), splits).set_index(["system", "action"]) for splits in ((1,), (1, 2)))
    row = ("two-stream TSN", ALL)
    columns = ["turns low", "itself low", "itself high"]
    np.testing.assert_allclose(two.loc[row].iloc[0][columns].astype(float), one.loc[row].iloc[0][columns].astype(float))


def test_the_claim_compares_the_systems_on_actions_with_a_reverse():
    found, reverse = backwards(load_claims(), [study()], "SSV2", (1,)), reversals_of_names(ACTIONS)
    finding = reversal_finding(found, reverse, "SSV2")
    assert finding
    assert finding.verdict == "supported"
    assert "its reverse backwards: 100.0 % of IF-TTN, 0.0 % of two-stream TSN: +100.0 points" in finding.evidence
    assert "(20 : 0 of 20 videos of one training); called" in finding.evidence
    assert reversal_finding(found, np.full(4, NONE), "SSV2") is None
    assert reversal_finding([], reverse, "SSV2") is None
    alike = reversal_finding(found[2:], reverse, "SSV2")
    assert alike
    assert alike.verdict == "not measured"


def test_the_text_names_the_broken_actions_last_and_cuts_long_lists():
    text = reversal_text(frame_of(study()))
    heads = [line for line in text.splitlines() if line.endswith(", in %")]
    assert [head.split(" (")[0] for head in heads] == [
        "Actions with a reverse",
        "Actions that must not change",
        "Actions without a named reverse, the most broken first",
    ]
    assert "... and 1 more" in reversal_text(frame_of(study()), most=1)


def test_the_reverse_of_an_embedded_action_differs_in_order_alone():
    factors = {"speed": np.array([0, 0, 1, 1, 1]), "order": np.array([0, 1, 1, 0, 2])}
    assert reversals_of_factors(factors).tolist() == [1, 0, 3, 2, NONE]


def test_rows_of_the_package_count_where_the_data_set_has_their_actions():
    jester = ("swiping left", "No gesture", "Swiping Right", "Swiping Up")
    assert reversals_of_names(jester).tolist() == [2, 1, 0, NONE]


def test_the_pairs_of_hmdb51_are_named_as_its_lists_name_them(shared_data: Path):
    actions = parse_lists(shared_data / "hmdb51_splits", 1).actions
    reverse = reversals_of_names(actions)
    assert actions[reverse[actions.index("sit")]] == "stand"
    assert (reverse == np.arange(len(actions))).sum() == 10


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[a]\npairs = [["Opening something", "Shutting something"]]', "'Shutting something', which the data set does"),
        ('[a]\npairs = [["Opening something", "Closing something"]]\nsame = ["Opening something"]', "twice"),
        ('[a]\npairs = ["Opening something"]', "is no pair of actions"),
        ("[a]\npair = []", r"\[a\] needs `pairs` and `same`"),
        ("[a", "cannot be read"),
    ],
)
def test_a_mistake_in_a_file_of_ones_own_is_named(tmp_path: Path, text: str, error: str):
    (tmp_path / "reversals.toml").write_text(text)
    with pytest.raises(IfttnError, match=error):
        reversals_of_names(ACTIONS, tmp_path / "reversals.toml")


def test_no_action_of_the_package_stands_in_two_rows():
    assert reversals_of_names(("sit", "stand"), PAIRS).tolist() == [1, 0]
    for part in tomllib.loads(PAIRS.read_text()).values():
        names = [action for pair in part["pairs"] for action in pair] + part["same"]
        assert len(names) == len({name.casefold() for name in names})


def test_a_file_in_the_data_sets_folder_names_its_pairs(tmp_path: Path):
    for recipe in ("spatial", "temporal", "if-ttn"):
        scores = study()("mine", 1, recipe)
        assert scores
        folder = tmp_path / "results" / "runs" / "mine" / "split1" / recipe
        folder.mkdir(parents=True)
        scores.save(folder / "scores.npz")
    runs, data = tmp_path / "results" / "runs", tmp_path / "results" / "data"
    usual = reversal_table(results.Results(runs, data))
    assert usual[usual.kind == "other"].action.unique().tolist() == [ACTIONS[3], ALL]
    mine, store = tmp_path / "mine", tmp_path / "results" / "stores" / "mine-tiny"
    for folder in (mine, store):
        folder.mkdir(parents=True)
    (store / "manifest.json").write_text('{"data": "mine"}')  # where it was prepared from
    (mine / "reversals.toml").write_text(f'[mine]\npairs = [["{ACTIONS[3]}", "{ACTIONS[2]}"]]')
    own = reversal_table(results.Results(runs, data))
    assert own[own.kind == "reverse"].action.unique().tolist() == [ACTIONS[2], ACTIONS[3], ALL]
    assert [each.text for each in results.Results(runs, data).findings()][-1].startswith("Played backwards")


def test_the_gain_of_order_is_paired_and_sorted():
    order, shuffled = (
        backwards(load_claims(), [study()], "SSV2", (1,))[0].order,
        backwards(load_claims(), [study()], "SSV2", (1,))[0].reversed,
    )
    gains = order_gains(order, shuffled, ACTIONS)
    assert gains.gain.to_list() == [1, 1, 1, 0]
    assert gains.action.to_list()[-1] == ACTIONS[2]
    assert (gains.videos == 10).all()
    assert gains.low[0] > 0.5
    assert gains.low[3] < 0 < gains.high[3]
