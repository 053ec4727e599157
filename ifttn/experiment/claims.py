"""The paper's claims, and whether this study bears them out: plain sentences with intervals and p-values.

Arithmetic on saved scores, pooled over the test videos of every split that is there. A comparison is of two answers to
the same videos: Newcombe's interval of the difference, and McNemar's exact test, one by one, not corrected for there
being several. A video that several splits test is one cluster, so that its answers do not count as so many videos.
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
from ifttn.experiment.tables import TABLES, Factors, LateFusion, ScoresOf, answers, as_p, compared, right

MARGIN = 0.03
"""Accuracies less than this apart are near, and a loss of less than this is little; set before any result was seen. It
is about what the test videos of three splits can tell apart."""
SPLITS = (1, 2, 3)

Relation = Literal["above", "near", "not below"]
Verdict = Literal["supported", "undecided", "not supported", "not measured"]


@dataclass(frozen=True)
class Comparison:
    """Of two late fusions, or of one with itself on snippets in another order."""

    first: str
    second: str = ""
    """"": the first."""
    on: str = ""
    """A factor; "": top-1."""
    reading: str = ""
    """Of the second, one of READINGS, against the first in order on the same view; "": both in order, all views."""
    relation: Relation = "above"


@dataclass(frozen=True)
class Claim:
    """A sentence that holds where all its comparisons do."""

    text: str
    table: int
    """Of the paper, that it belongs to."""
    comparisons: tuple[Comparison, ...]


class Finding(NamedTuple):
    """What became of a claim on one data set."""

    text: str
    evidence: str
    verdict: Verdict
    table: int


@dataclass(frozen=True)
class Claims:
    """What `tables.toml` says of claims."""

    claims: tuple[Claim, ...]
    late_fusions: Mapping[str, LateFusion]
    names: Mapping[str, str]
    """What sentences call a late fusion."""


def load_claims(path: Path = TABLES) -> Claims:
    """The claims of a file laid out as `tables.toml`.

    Raises:
        IfttnError: a claim names a late fusion, a reading or a relation that there is none of, or a late fusion has no
            name.
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


def judge(
    content: Claims, scores: ScoresOf, datasets: Sequence[str], factors: Mapping[str, Factors] | None = None
) -> list[Finding]:
    """Every claim on every data set; a claim without its runs says what it needs.

    Claims that a second data set has no runs for are left out of it.

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
    said: list[str] = []
    for each in claim.comparisons:
        if each.on and each.on not in factors:  # of real videos nobody knows the factors
            continue
        pair = _pair(each, content.late_fusions, scores, dataset, factors)
        verdicts.append(verdict(each.relation, pair) if pair else "not measured")
        needs = _needs(each, content.late_fusions, scores, dataset)
        said.append(_sentence(each, content.names, pair) if pair else needs)
    if not verdicts:
        return None
    evidence = f"{dataset}: {'; '.join(dict.fromkeys(said))}."
    return Finding(claim.text, evidence, _together(verdicts), claim.table)


def _pair(
    each: Comparison, known: Mapping[str, LateFusion], scores: ScoresOf, dataset: str, factors: Factors
) -> Paired | None:
    """On the videos of the splits that both have been tested on."""
    of_action = factors[each.on] if each.on else None
    sides = ((each.first, "one view" if each.reading else ""), (each.second or each.first, each.reading))
    one, other = (right(answers(known[name], dataset, SPLITS, scores, reading), of_action) for name, reading in sides)
    return compared(one, other)


def verdict(relation: Relation, pair: Paired) -> Verdict:
    """What a comparison says of the relation that it is to show: 95 % sure, or undecided."""
    low, high = pair.interval
    if relation == "above":
        holds, fails = pair.p < 0.05 and pair.difference > 0, pair.p < 0.05 and pair.difference < 0
    elif relation == "near":
        holds, fails = low > -MARGIN and high < MARGIN, low > MARGIN or high < -MARGIN
    else:
        holds, fails = low > -MARGIN, high < -MARGIN
    return "supported" if holds else "not supported" if fails else "undecided"


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """Of all comparisons of a claim: it is supported where each is."""
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
        f"p {'' if pair.p < 0.001 else '= '}{as_p(pair.p)} ({pair.only_first} : {pair.only_second} of "
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


def as_text(findings: Sequence[Finding], width: int = 110) -> str:
    """For a terminal: the claims with their verdicts, and what these stand on."""
    head = f"What the paper claims, and what this study says of it. {EXPLAINED}"
    lines = [head, *(f"[{each.verdict}] {each.text}. {each.evidence}" for each in findings)]
    return "\n".join(textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in lines)


EXPLAINED = (
    "Points are differences between answers to the same test videos, pooled over the splits that are there, with "
    "Newcombe's 95% interval; p is McNemar's exact test, one by one, with how many videos the one alone and the other "
    "alone has right. A video that several splits test, as in HMDB51, is one cluster in both. Each network was trained "
    "once: what another seed would change is not in them. Equal and little mean within "
    f"{100 * MARGIN:g} points, set beforehand."
)
"""What a reader of findings must know."""
