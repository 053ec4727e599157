"""Decides whether a study supports the paper's claims, and says so in sentences with intervals and p-values.

A comparison takes two late fusions on the same test videos, pooled over the trainings (seeds and splits) that both
have. It has an interval of the difference over videos and trainings, and McNemar's exact test for these trainings.
Nothing corrects for the number of comparisons.
"""

import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from ifttn.experiment.recipes import find
from ifttn.experiment.scores import READINGS
from ifttn.experiment.significance import Paired, compare
from ifttn.experiment.table_texts import p_text
from ifttn.experiment.tables import TABLES, Factors, LateFusion, ScoresOf, fused_by_training, right_by_training

MARGIN = 0.03
"""Two accuracies are near, and a loss is little, if the difference is less than this. The margin was set before any
result was seen. It is about the smallest difference that the test videos of three splits can show."""
SPLITS = (1, 2, 3)

Relation = Literal["above", "near", "not below"]
Verdict = Literal["supported", "undecided", "not supported", "not measured"]


@dataclass(frozen=True)
class Comparison:
    """A comparison of two late fusions, or of one with itself on snippets in another order."""

    first: str
    second: str = ""
    """"" is the first."""
    on: str = ""
    """A factor whose accuracy is compared; "" is top-1."""
    reading: str = ""
    """One of READINGS: the order of the second's snippets. The first has its snippets in order, on the same view. With
    "", both have them in order, on all views."""
    relation: Relation = "above"


@dataclass(frozen=True)
class Claim:
    """A sentence, which holds if all its comparisons do."""

    text: str
    table: int
    """The paper's table that it belongs to."""
    comparisons: tuple[Comparison, ...]


class Contrast(NamedTuple):
    """The result of one comparison."""

    what: str
    """ "top-1 accuracy", or a factor's."""
    first: str
    """The name of the first late fusion in a sentence."""
    second: str
    pair: Paired | None
    needs: str
    """The runs that are missing; empty where `pair` exists."""
    margin: bool
    """Whether the difference must be within MARGIN."""

    @property
    def sentence(self) -> str:
        """The comparison as a sentence without a full stop."""
        if not self.pair:
            return self.needs
        return (
            f"{self.what} {100 * self.pair.first:.1f} % of {self.first}, {100 * self.pair.second:.1f} % of "
            f"{self.second}: {self.difference}{f' (must be within {100 * MARGIN:g})' if self.margin else ''}, "
            f"p {'' if self.pair.p < 0.001 else '= '}{p_text(self.pair.p)} ({self.counts})"
        ).replace("of with them", "with them")

    @property
    def difference(self) -> str:
        """The difference in points, with its interval."""
        assert self.pair
        low, high = self.pair.interval
        return f"{100 * self.pair.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"

    @property
    def counts(self) -> str:
        """The numbers of answers that only the first and only the second have right, and the trainings and videos
        that the interval covers."""
        assert self.pair
        answers, videos, trainings = self.pair.answers, self.pair.videos, self.pair.trainings
        over = f"{answers} videos of one training"
        if trainings > 1:
            times = " x " if answers == trainings * videos else ", "
            over = f"{answers} answers: {trainings} trainings{times}{videos} videos"
        return f"{self.pair.only_first} : {self.pair.only_second} of {over}"


class Finding(NamedTuple):
    """The verdict on a claim on one data set."""

    text: str
    dataset: str
    verdict: Verdict
    table: int
    compared: tuple[Contrast, ...]

    @property
    def evidence(self) -> str:
        """The data set, and a sentence for each comparison."""
        return f"{self.dataset}: {'; '.join(dict.fromkeys(each.sentence for each in self.compared))}."


@dataclass(frozen=True)
class Claims:
    """The claims of `tables.toml`, with the late fusions that they compare."""

    claims: tuple[Claim, ...]
    late_fusions: Mapping[str, LateFusion]
    names: Mapping[str, str]
    """Late fusion -> its name in a sentence."""


@cache
def load_claims(path: Path = TABLES) -> Claims:
    """The claims of a file with the layout of `tables.toml`.

    Raises:
        IfttnError: a late fusion, a reading or a relation does not exist, or a late fusion has no name.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    known: dict[str, LateFusion] = content["late_fusions"]
    for name in known:
        find(name, content["names"], f"late fusion in [names] of {path.name}:")
    claims = tuple(_claim(row, known) for row in content["claims"])
    return Claims(claims, known, content["names"])


def _claim(row: dict[str, Any], known: Mapping[str, LateFusion]) -> Claim:
    where = f"of claim {row['text']!r}:"
    choices = (("first", known), ("second", known), ("reading", READINGS), ("relation", get_args(Relation)))
    for comparison in row["comparisons"]:
        for what, table in choices:
            if what in comparison:
                find(comparison[what], dict.fromkeys(table), f"{what} {where}")
    return Claim(row["text"], row["table"], tuple(Comparison(**comparison) for comparison in row["comparisons"]))


def decide(
    content: Claims,
    seeds: Sequence[ScoresOf],
    datasets: Sequence[str],
    factors: Mapping[str, Factors] | None = None,
) -> list[Finding]:
    """The verdict on every claim on every data set. A claim without its runs says which it needs.

    On a data set after the first, claims without runs are left out.

    Args:
        content: from `load_claims`.
        seeds: for each seed, a function that finds the scores of a run.
        datasets: our data sets, the most important first.
        factors: our data set -> the factors of its actions, if they are known.
    """
    found: list[Finding] = []
    for claim in content.claims:
        for number, dataset in enumerate(datasets):
            known = (factors or {}).get(dataset, {})
            # Real videos have no known factors.
            asked = [each for each in claim.comparisons if not each.on or each.on in known]
            compared = tuple(_compare(each, content, seeds, dataset, known) for each in asked)
            measured = any(each.pair for each in compared)
            if compared and (measured or not number):
                verdicts: list[Verdict] = [
                    verdict(each.relation, contrast.pair) if contrast.pair else "not measured"
                    for each, contrast in zip(asked, compared, strict=True)
                ]
                found.append(Finding(claim.text, dataset, all_of(verdicts), claim.table, compared))
    return found


def _compare(each: Comparison, content: Claims, seeds: Sequence[ScoresOf], dataset: str, factors: Factors) -> Contrast:
    """Compare two late fusions on the videos of the trainings that both have."""
    known, of_action = content.late_fusions, factors[each.on] if each.on else None
    sides = ((each.first, "one view" if each.reading else ""), (each.second or each.first, each.reading))
    fused = (fused_by_training(known[name], dataset, SPLITS, seeds, reading) for name, reading in sides)
    pair = compare(*(right_by_training(side, of_action) for side in fused))
    first, second = (content.names[name] for name, _ in sides)
    if each.reading:
        first, second = (
            f"{first} with its snippets in order",
            f"{second if each.second else 'with them'} {each.reading}",
        )
    needs = "" if pair else _needs(each, known, seeds, dataset)
    return Contrast(f"{each.on or 'top-1'} accuracy", first, second, pair, needs, each.relation != "above")


def verdict(relation: Relation, pair: Paired) -> Verdict:
    """Whether a relation holds over the interval, does not hold, or is undecided."""
    low, high = pair.interval
    if relation == "above":
        holds, fails = low > 0, high < 0
    elif relation == "near":
        holds, fails = low > -MARGIN and high < MARGIN, low > MARGIN or high < -MARGIN
    else:
        holds, fails = low > -MARGIN, high < -MARGIN
    return "supported" if holds else "not supported" if fails else "undecided"


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim. A claim is supported if each of its comparisons is."""
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return "not supported" if "not supported" in verdicts else "undecided"


def _needs(each: Comparison, known: Mapping[str, LateFusion], seeds: Sequence[ScoresOf], dataset: str) -> str:
    recipes = dict.fromkeys((*known[each.first], *known[each.second or each.first]))
    every = [*product(seeds, SPLITS)]
    missing = [name for name in recipes if all(scores(dataset, split, name) is None for scores, split in every)]
    if missing:
        return f"needs a tested run of {', '.join(missing)}"
    what = (
        "read-outs of the order of snippets: `ifttn test` makes them for" if each.reading else "one split with all of"
    )
    return f"needs {what} {', '.join(recipes)}"


def claims_text(findings: Sequence[Finding]) -> str:
    """The claims for a terminal, with their verdicts and the evidence."""
    head = f"What the paper claims, and what this study shows. {EXPLAINED}"
    lines = [head, *(f"[{each.verdict}] {each.text}. {each.evidence}" for each in findings)]
    return "\n".join(textwrap.fill(line, 110, subsequent_indent="  ", break_on_hyphens=False) for line in lines)


EXPLAINED = (
    "Points are differences in accuracy on the same test videos, pooled over all trainings that both systems have. A "
    "training is one seed on one split. The 95 % interval covers other videos and other trainings, with Student's t, "
    "because a few trainings tell little about their spread. For one training it is Newcombe's interval, which does "
    "not cover other seeds. A video that several trainings answer is one cluster. The interval decides a claim. p is "
    "McNemar's exact test by video, for these trainings alone. Beside p are the numbers of answers that only the first "
    f"and only the second has right. Equal and little mean within {100 * MARGIN:g} points; this was set beforehand."
)
"""How to read the findings."""
