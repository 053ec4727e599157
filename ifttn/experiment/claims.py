"""The paper's claims, and whether this study supports them: plain sentences with intervals and p-values.

A comparison is of two late fusions on the same test videos, pooled over the splits that both are tested on: Newcombe's
interval of the difference and McNemar's exact test, without a correction for their number. A video that several splits
test is one cluster and does not count as several videos.
"""

import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from ifttn.experiment.recipes import find
from ifttn.experiment.scores import READINGS
from ifttn.experiment.significance import Paired
from ifttn.experiment.table_frames import p_text
from ifttn.experiment.tables import (
    TABLES,
    Factors,
    LateFusion,
    ScoresOf,
    compare,
    fused_by_split,
    right_by_video,
)

MARGIN = 0.03
"""Two accuracies are near if they differ by less than this, and a loss of less than this is little. It was set before
any result was seen, at about the smallest difference that the test videos of three splits can show."""
SPLITS = (1, 2, 3)

Relation = Literal["above", "near", "not below"]
Verdict = Literal["supported", "undecided", "not supported", "not measured"]


@dataclass(frozen=True)
class Comparison:
    """A comparison of two late fusions, or of one with itself on snippets in another order."""

    first: str
    second: str = ""
    """"": the first."""
    on: str = ""
    """A factor whose accuracy is compared; "": top-1."""
    reading: str = ""
    """One of READINGS: the second is read in it, the first in order on the same view. "": both in order, all views."""
    relation: Relation = "above"


@dataclass(frozen=True)
class Claim:
    """A sentence that holds where all its comparisons do."""

    text: str
    table: int
    """The paper's table that it belongs to."""
    comparisons: tuple[Comparison, ...]


class Finding(NamedTuple):
    """The verdict on a claim on one data set."""

    text: str
    evidence: str
    verdict: Verdict
    table: int


@dataclass(frozen=True)
class Claims:
    """The claims of `tables.toml`, with the late fusions that they compare."""

    claims: tuple[Claim, ...]
    late_fusions: Mapping[str, LateFusion]
    names: Mapping[str, str]
    """Late fusion -> its name in a sentence."""


def load_claims(path: Path = TABLES) -> Claims:
    """The claims of a file laid out as `tables.toml`.

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
    content: Claims, scores: ScoresOf, datasets: Sequence[str], factors: Mapping[str, Factors] | None = None
) -> list[Finding]:
    """The verdict on every claim on every data set. A claim without its runs says which it needs.

    On a data set after the first, claims without runs are left out.

    Args:
        content: from `load_claims`.
        scores: finds the scores of a run.
        datasets: ours, the first studied first.
        factors: our data set -> the factors of its actions, where they have any.
    """
    found: list[Finding] = []
    for claim in content.claims:
        for number, dataset in enumerate(datasets):
            finding = _finding(claim, content, scores, dataset, (factors or {}).get(dataset, {}))
            if finding and (finding.verdict != "not measured" or not number):
                found.append(finding)
    return found


def _finding(claim: Claim, content: Claims, scores: ScoresOf, dataset: str, factors: Factors) -> Finding | None:
    verdicts: list[Verdict] = []
    sentences: list[str] = []
    for each in claim.comparisons:
        if each.on and each.on not in factors:  # real videos have no known factors
            continue
        pair = _pair(each, content.late_fusions, scores, dataset, factors)
        verdicts.append(verdict(each.relation, pair) if pair else "not measured")
        needs = _needs(each, content.late_fusions, scores, dataset)
        sentences.append(_sentence(each, content.names, pair) if pair else needs)
    if not verdicts:
        return None
    evidence = f"{dataset}: {'; '.join(dict.fromkeys(sentences))}."
    return Finding(claim.text, evidence, _together(verdicts), claim.table)


def _pair(
    each: Comparison, known: Mapping[str, LateFusion], scores: ScoresOf, dataset: str, factors: Factors
) -> Paired | None:
    """Compare on the videos of the splits that both are tested on."""
    of_action = factors[each.on] if each.on else None
    sides = ((each.first, "one view" if each.reading else ""), (each.second or each.first, each.reading))
    fused = (fused_by_split(known[name], dataset, SPLITS, scores, reading) for name, reading in sides)
    return compare(*(right_by_video(side, of_action) for side in fused))


def verdict(relation: Relation, pair: Paired) -> Verdict:
    """Whether a relation holds at 95 % confidence, does not hold, or is undecided."""
    low, high = pair.interval
    if relation == "above":
        holds, fails = pair.p < 0.05 and pair.difference > 0, pair.p < 0.05 and pair.difference < 0
    elif relation == "near":
        holds, fails = low > -MARGIN and high < MARGIN, low > MARGIN or high < -MARGIN
    else:
        holds, fails = low > -MARGIN, high < -MARGIN
    return "supported" if holds else "not supported" if fails else "undecided"


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """A claim is supported where each of its comparisons is."""
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return "not supported" if "not supported" in verdicts else "undecided"


def _sentence(each: Comparison, names: Mapping[str, str], pair: Paired) -> str:
    first, second = names[each.first], names[each.second or each.first]
    if each.reading:
        first, second = (
            f"{first} with its snippets in order",
            f"{second if each.second else 'with them'} {each.reading}",
        )
    margin = f" (to be within {100 * MARGIN:g})" if each.relation != "above" else ""
    low, high = pair.interval
    return (
        f"{each.on or 'top-1'} accuracy {100 * pair.first:.1f} % of {first}, {100 * pair.second:.1f} % of {second}: "
        f"{100 * pair.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]{margin}, "
        f"p {'' if pair.p < 0.001 else '= '}{p_text(pair.p)} ({pair.only_first} : {pair.only_second} of "
        f"{'' if pair.answers == pair.videos else f'{pair.answers} answers to '}{pair.videos} videos)"
    ).replace("of with them", "with them")


def _needs(each: Comparison, known: Mapping[str, LateFusion], scores: ScoresOf, dataset: str) -> str:
    recipes = dict.fromkeys((*known[each.first], *known[each.second or each.first]))
    missing = [name for name in recipes if all(scores(dataset, split, name) is None for split in SPLITS)]
    if missing:
        return f"needs a tested run of {', '.join(missing)}"
    what = (
        "read-outs of the order of snippets: `ifttn test` makes them for" if each.reading else "one split with all of"
    )
    return f"needs {what} {', '.join(recipes)}"


def claims_text(findings: Sequence[Finding], width: int = 110) -> str:
    """The claims for a terminal, with their verdicts and the evidence."""
    head = f"What the paper claims, and what this study shows. {EXPLAINED}"
    lines = [head, *(f"[{each.verdict}] {each.text}. {each.evidence}" for each in findings)]
    return "\n".join(textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in lines)


EXPLAINED = (
    "Points are differences between answers to the same test videos, pooled over the tested splits, with Newcombe's "
    "95% interval. p is McNemar's exact test of one comparison; beside it stand the numbers of videos that only the "
    "first and only the second has right. A video that several splits test, as in HMDB51, is one cluster. Each network "
    "was trained once, so the intervals do not cover other seeds. Equal and little mean within "
    f"{100 * MARGIN:g} points, set beforehand."
)
"""How to read the findings."""
