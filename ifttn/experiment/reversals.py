"""What networks call actions that are played backwards. This module needs no pandas.

Played backwards means that the snippets of a video come from last to first (READINGS). The motion inside a snippet
stays the same, so an answer can change only if the network knows the order of snippets.

Shapes: N videos, A actions.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ifttn.experiment.claims import Claims, Contrast, Finding, Verdict, all_of, verdict
from ifttn.experiment.scores import Fused
from ifttn.experiment.significance import Right, SeedAndSplit, compare
from ifttn.experiment.tables import Factors, ScoresOf, fused_by_training
from ifttn.vocabulary import IfttnError

COMPARED = ("complete", "ttn-branch", "two-stream")
"""Late fusions whose answers are compared: IF-TTN, its TTN branch, and TSN."""
PAIRS = Path(__file__).with_name("reversals.toml")
"""The pairs of Something-Something, Jester and HMDB51."""
NONE = -1


def reversals_of_factors(factors: Factors) -> Int[np.ndarray, " A"]:
    """The label of each action's reverse, which is the action that differs only in the factor "order". NONE if there is
    no such action."""
    values = np.stack([factors[name] for name in factors], 1)
    wanted = values.copy()
    order = list(factors).index("order")
    wanted[:, order] = 1 - wanted[:, order]
    same = (values[None] == wanted[:, None]).all(-1)
    return np.where(same.any(1), same.argmax(1), NONE)


def reversals_of_names(actions: Sequence[str], path: Path = PAIRS) -> Int[np.ndarray, " A"]:
    """The label of each action's reverse. It is the action's own label if the action must not change, and NONE if the
    file does not name the action.

    Args:
        actions: the actions of the data set, in the order of the labels.
        path: a file with the layout of `reversals.toml`. From PAIRS, only rows with actions of the data set count.

    Raises:
        IfttnError: the file cannot be read, names an action that the data set does not have, or names one twice.
    """
    labels = {action.casefold(): label for label, action in enumerate(actions)}
    reverse = np.full(len(actions), NONE)
    for row in _rows(path):
        unknown = [action for action in row if action.casefold() not in labels]
        if unknown and path == PAIRS:
            continue
        if unknown:
            raise IfttnError(f"{path} names the action {unknown[0]!r}, which the data set does not have")
        first, second = (labels[action.casefold()] for action in row)
        if reverse[first] != NONE or reverse[second] != NONE:
            raise IfttnError(f"{path} names {actions[first if reverse[first] != NONE else second]!r} twice")
        reverse[first], reverse[second] = second, first
    return reverse


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """The pairs of a file, and the actions that must not change as pairs of themselves."""
    try:
        parts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise IfttnError(f"{path} cannot be read: {error}") from error
    for name, part in parts.items():
        if not isinstance(part, dict) or not set(part) <= {"pairs", "same"}:
            raise IfttnError(f"{path}: [{name}] needs `pairs` and `same`, and nothing else")
        for row in [*part.get("pairs", ()), *([action, action] for action in part.get("same", ()))]:
            if not (isinstance(row, list) and len(row) == 2 and all(isinstance(action, str) for action in row)):
                raise IfttnError(f"{path}: {row!r} in [{name}] is no pair of actions")
            yield row[0], row[1]


class OrderAnswers(NamedTuple):
    """The answers of one training, as labels of actions."""

    videos: tuple[str, ...]
    labels: Int[np.ndarray, " N"]
    in_order: Int[np.ndarray, " N"]
    backwards: Int[np.ndarray, " N"]

    def to(self, labels: Sequence[int]) -> "OrderAnswers":
        """The answers to videos with these labels."""
        chosen = np.isin(self.labels, labels)
        return OrderAnswers(tuple(compress(self.videos, chosen)), *(each[chosen] for each in self[1:]))


@dataclass(frozen=True)
class Backwards:
    """The late-fused scores of one system for the videos in order and backwards, training by training."""

    system: str
    order: Mapping[SeedAndSplit, Fused]
    reversed: Mapping[SeedAndSplit, Fused]

    @property
    def answers(self) -> dict[SeedAndSplit, OrderAnswers]:
        """Training -> the action with the highest score for each video."""
        return {
            training: OrderAnswers(
                each.videos, each.labels, each.scores.argmax(1), self.reversed[training].scores.argmax(1)
            )
            for training, each in self.order.items()
        }


def backwards(content: Claims, seeds: Sequence[ScoresOf], dataset: str, splits: Sequence[int]) -> list[Backwards]:
    """The answers of the systems COMPARED that are tested in both orders, from every seed."""
    found = []
    for name in COMPARED:
        order, turned = (
            fused_by_training(content.late_fusions[name], dataset, splits, seeds, reading)
            for reading in ("one view", "reversed")
        )
        if order:
            found.append(Backwards(content.names[name], order, turned))
    return found


def reversal_finding(found: Sequence[Backwards], reverse: Int[np.ndarray, " A"], dataset: str) -> Finding | None:
    """Whether a system calls actions with a reverse by their reverse backwards, more often than TSN does. None if no
    system was tested, or no action has a reverse."""
    paired = [label for label, other in enumerate(reverse.tolist()) if other not in (NONE, label)]

    def turned(answers: OrderAnswers) -> Right:
        right = (answers.in_order == answers.labels) & (answers.backwards == reverse[answers.labels])
        return Right(answers.videos, right)

    called = {
        each.system: {training: turned(answers.to(paired)) for training, answers in each.answers.items()}
        for each in found
    }
    if not (paired and called):
        return None
    *systems, last = called
    pairs = {name: pair for name in systems if (pair := compare(called[name], called[last]))}
    what = "called by its name in order and its reverse backwards:"
    needs = "" if len(called) == len(COMPARED) else "needs tested runs of spatial, temporal and if-ttn"
    compared = [Contrast(what, name, last, pair, "", False) for name, pair in pairs.items()]
    compared += [Contrast(what, "", "", None, needs, False)] if needs else []
    verdicts: list[Verdict] = ["not measured" if needs else verdict("above", pair) for pair in pairs.values()]
    text = "Played backwards, an action is called its reverse by the TTN, and not by TSN"
    return Finding(text, dataset, all_of(verdicts or ["not measured"]), 3, tuple(compared))
