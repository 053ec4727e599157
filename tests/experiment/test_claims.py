from pathlib import Path

import numpy as np
import pytest

from ifttn.experiment.claims import MARGIN, Claims, claims_text, decide, load_claims, verdict
from ifttn.experiment.scores import READINGS, Scores
from ifttn.experiment.significance import mcnemar
from ifttn.experiment.tables import TABLES
from ifttn.vocabulary import IfttnError

OURS = ("ours", "other")
TRUTH = np.arange(400) % 4
FACTORS = {"ours": {"order": np.array([0, 1, 0, 1]), "binding": np.array([0, 0, 1, 1])}}


def says(wrong: int, of: np.ndarray = TRUTH, start: int = 0) -> np.ndarray:
    """Scores that are wrong of so many videos, from the one with number `start` on."""
    said = of.copy()
    said[start : start + wrong] = (said[start : start + wrong] + 1) % 4
    return np.eye(4, dtype=np.float32)[said]


def scores(videos: int = 400, turned: bool = False, **heads: np.ndarray) -> Scores:
    """Of one split; `turned`: the TTN takes what is reversed for the other order."""
    names = tuple(f"v{i}" for i in range(videos))
    heads = {head.replace("_", "-"): rows[:videos] for head, rows in heads.items()}
    other = {head: rows[:, [1, 0, 3, 2]] if head == "ttn" and turned else rows for head, rows in heads.items()}
    readings = dict(zip(READINGS, (heads, other, other), strict=True))
    return Scores(names, TRUTH[:videos], tuple("abcd"), heads, readings)


def study(**runs: Scores):
    """Split 1 of "ours"; runs by recipe, with _ for -."""
    known = {name.replace("_", "-"): run for name, run in runs.items()}
    return lambda dataset, split, recipe: known.get(recipe) if (dataset, split) == ("ours", 1) else None


@pytest.fixture(scope="module")
def content() -> Claims:
    return load_claims()


def finding(content: Claims, of, part: str):
    return next(each for each in decide(content, [of], OURS, FACTORS) if part in each.text)


BLIND = says(400, start=0)  # always the next action
SEES_NO_ORDER = says(0, TRUTH // 2 * 2)


def streams(ttn: np.ndarray, turned: bool = False) -> Scores:
    nothing = np.zeros_like(ttn)
    return scores(rgb=nothing, flow=nothing, ttn=ttn, turned=turned)


def test_the_claims_that_the_study_is_about_come_first(content):
    texts = [claim.text for claim in content.claims]
    for place, part in enumerate(("beats fusing", "equally", "additive", "multiplicative", "order", "cost little")):
        assert part in texts[place]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(10, 60, "supported"), (60, 10, "not supported"), (10, 12, "undecided")],
)
def test_fusion_beats_none_where_the_paired_test_says_so(content, ours, theirs, expected):
    nothing = np.zeros((400, 4), np.float32)
    separate = scores(rgb=nothing, flow=nothing, ttn_rgb=says(theirs, start=100), ttn_flow=says(theirs, start=100))
    found = finding(content, study(if_ttn=streams(says(ours)), ttn_separate=separate), "beats fusing")
    pair = mcnemar(says(ours).argmax(1) == TRUTH, says(theirs, start=100).argmax(1) == TRUTH)
    assert (pair.only_first, pair.only_second) == (theirs, ours)
    assert found.verdict == expected
    low, high = (100 * limit for limit in pair.interval)
    assert f"{100 * pair.difference:+.1f} points [{low:+.1f}, {high:+.1f}]" in found.evidence
    assert f"({theirs} : {ours} of 400 videos of one training)" in found.evidence


@pytest.mark.parametrize(
    ("relation", "first", "second", "expected"),
    [
        ("near", 4, 4, "supported"),
        ("near", 20, 20, "undecided"),
        ("near", 60, 2, "not supported"),
        ("near", 2, 60, "not supported"),
        ("not below", 4, 4, "supported"),
        ("not below", 60, 2, "supported"),
        ("not below", 2, 60, "not supported"),
        ("not below", 20, 20, "undecided"),
        ("above", 20, 4, "supported"),
        ("above", 4, 4, "undecided"),
        ("above", 4, 20, "not supported"),
    ],
)
def test_to_be_equal_takes_an_interval_within_the_margin(relation, first, second, expected):
    only = [True] * first + [False] * second + [True] * (400 - first - second)
    other = [False] * first + [True] * second + [True] * (400 - first - second)
    pair = mcnemar(np.array(only), np.array(other))
    if (relation, expected) == ("near", "supported"):
        assert max(map(abs, pair.interval)) < MARGIN
    assert verdict(relation, pair) == expected


def test_a_network_that_knows_order_and_one_that_does_not_are_told_apart(content):
    two = {"spatial": scores(rgb=SEES_NO_ORDER), "temporal": scores(flow=SEES_NO_ORDER)}
    knows = finding(content, study(if_ttn=streams(says(4), turned=True), **two), "knows the order")
    assert knows.verdict == "supported"
    assert "order accuracy 99.0 % of the TTN branch, 50.0 % of two-stream TSN" in knows.evidence
    assert "50.0 % of two-stream TSN with its snippets in order, 50.0 % with them reversed: +0.0" in knows.evidence
    does_not = finding(content, study(if_ttn=streams(SEES_NO_ORDER), **two), "knows the order")
    assert does_not.verdict == "undecided"


def test_a_claim_without_its_runs_says_which_it_needs(content):
    found = decide(content, [study()], OURS, FACTORS)
    assert [each.verdict for each in found] == ["not measured"] * len(content.claims)
    assert all(each.evidence.startswith("ours: needs a tested run of ") for each in found)
    half = finding(content, study(if_ttn=streams(says(4), turned=True)), "knows the order")
    assert half.verdict == "undecided"  # what the TTN is to be compared with is not there
    assert "needs a tested run of spatial, temporal" in half.evidence
    only = finding(content, study(if_ttn=streams(says(4))), "equally")
    assert (only.verdict, only.evidence) == ("not measured", "ours: needs a tested run of if-ttn-adaptive.")


def test_scores_of_an_older_version_need_read_outs(content):
    old = streams(says(4))
    of = study(if_ttn=Scores(old.videos, old.labels, old.actions, old.heads))
    assert "`ifttn test` makes them for if-ttn" in finding(content, of, "knows the order").evidence


def test_splits_are_pooled_where_both_runs_are_there(content):
    runs = {"if-ttn": streams(says(10)), "if-ttn-adaptive": streams(says(10, start=100))}
    every = lambda dataset, _, recipe: runs.get(recipe) if dataset == "ours" else None  # noqa: E731
    evidence = finding(content, every, "equally").evidence
    assert "(30 : 30 of 1200 answers: 3 trainings x 400 videos)" in evidence

    def of(dataset: str, split: int, recipe: str) -> Scores | None:
        return runs.get(recipe) if dataset == "ours" and (recipe == "if-ttn" or split == 2) else None

    assert "(10 : 10 of 400 videos of one training)" in finding(content, of, "equally").evidence


def test_a_second_data_set_speaks_where_it_has_runs_and_no_factor_is_asked_of_real_videos(content):
    runs = {"if-ttn": streams(says(10)), "mv-if-ttn": scores(rgb=BLIND * 0, mv=BLIND * 0, ttn=says(10))}
    found = decide(content, [lambda dataset, split, recipe: runs.get(recipe) if split == 1 else None], OURS)
    both = [each for each in found if "does better than" in each.text or "add to the TTN" in each.text]
    assert [(each.verdict, each.dataset) for each in both] == [
        ("undecided", "ours"),
        ("undecided", "other"),
        ("not measured", "ours"),
    ]
    assert not any("binding" in each.evidence for each in found)
    assert sum("equally" in each.text for each in found) == 1


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('second = "adaptive"', 'second = "adaptiv"', "of claim 'Attention and .*: 'adaptiv': choose from spatial,"),
        ('reading = "reversed" }', 'reading = "inverse" }', "'inverse': choose from one view, reversed, shuffled"),
        ('relation = "near" }]', 'relation = "far" }]', "'far': choose from above, near, not below"),
        ('full          = "Full IF-TTN"\n', "", "'full': choose from spatial,"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, old, new, complaint):
    text = TABLES.read_text()
    assert old in text
    (tmp_path / "tables.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(IfttnError, match=complaint):
        load_claims(tmp_path / "tables.toml")


def test_a_difference_that_another_seed_turns_round_is_undecided(content):
    """Each of four seeds alone says "supported" or "not supported", and all together do not know."""

    def seed(first: int, second: int):
        return study(if_ttn=streams(says(first)), if_ttn_additive=streams(says(second, start=100)))

    seeds = [seed(10, 60), seed(60, 10), seed(10, 50), seed(50, 10)]
    said = [decide(content, [each], OURS, FACTORS) for each in (seeds[0], seeds[1])]
    verdicts = [next(each.verdict for each in found if "additive" in each.text) for found in said]
    assert verdicts == ["supported", "not supported"]
    together = next(each for each in decide(content, seeds, OURS, FACTORS) if "additive" in each.text)
    assert together.verdict == "undecided"
    assert "of 1600 answers: 4 trainings x 400 videos)" in together.evidence
    agreed = [seed(10, 60), seed(12, 55), seed(9, 58), seed(11, 61)]
    assert next(e for e in decide(content, agreed, OURS, FACTORS) if "additive" in e.text).verdict == "supported"


def test_the_text_tells_what_its_figures_are(content):
    text = claims_text(decide(content, [study(if_ttn=streams(says(4)))], OURS, FACTORS))
    for part in (
        "The 95 % interval covers other videos and other trainings",
        "McNemar's exact test",
        "within 3 points",
        "[not measured] ",
    ):
        assert part in text.replace("\n  ", " ")
    assert max(map(len, text.splitlines())) <= 110
