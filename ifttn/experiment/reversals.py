"""What networks call actions that are played backwards, and which actions need the order of snippets.

Played backwards means that the snippets of a video come from last to first (READINGS). The motion inside a snippet
stays as it was, so that only what a network knows of the order of snippets can change its answer.

Shapes: N videos, A actions.
"""

import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from ifttn.experiment.claims import Claims, Contrast, Finding, Verdict, all_of, verdict
from ifttn.experiment.scores import Fused
from ifttn.experiment.significance import mcnemar
from ifttn.experiment.table_frames import aligned
from ifttn.experiment.tables import Factors, ScoresOf, SeedAndSplit, compare, fused_by_training, share_interval
from ifttn.vocabulary import IfttnError

COMPARED = ("complete", "ttn-branch", "two-stream")
"""Late fusions whose answers are compared: IF-TTN, its TTN branch, and TSN."""
PAIRS = Path(__file__).with_name("reversals.toml")
"""The pairs of Something-Something, Jester and HMDB51."""
NONE = -1
ALL = "all"
SORTS = {
    "reverse": "Actions with a reverse",
    "same": "Actions that must not change",
    "other": "Actions without a named reverse, the most broken first",
}
SHARES = ("in order", "turns", "its reverse", "itself", "neither")
"""Shares of the videos of an action: called by its name in order; the same, and called its reverse backwards; and
backwards, called its reverse, called itself, and called neither of the two."""


def reversals_of_factors(factors: Factors) -> Int[np.ndarray, " A"]:
    """The label of each action's reverse: the action that differs in the factor "order" alone; NONE where there is
    none."""
    values = np.stack([factors[name] for name in factors], 1)
    wanted = values.copy()
    order = list(factors).index("order")
    wanted[:, order] = 1 - wanted[:, order]
    same = (values[None] == wanted[:, None]).all(-1)
    return np.where(same.any(1), same.argmax(1), NONE)


def reversals_of_names(actions: Sequence[str], path: Path = PAIRS) -> Int[np.ndarray, " A"]:
    """The label of each action's reverse, which is its own label where the action must not change; NONE where the file
    does not say.

    Args:
        actions: of the data set, in the order of the labels.
        path: a file laid out as `reversals.toml`. Of PAIRS, rows with other actions are left out.

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


@dataclass(frozen=True)
class Backwards:
    """The answers of one late fusion to the videos in order and backwards, training by training."""

    system: str
    order: Mapping[SeedAndSplit, Fused]
    reversed: Mapping[SeedAndSplit, Fused]

    @property
    def answers(self) -> pd.DataFrame:
        """By seed, split and video: label, in order, and backwards (labels of actions)."""
        parts = [
            pd.DataFrame(
                {"label": each.labels, "in order": each.scores.argmax(1), "backwards": other.scores.argmax(1)},
                pd.MultiIndex.from_product([[seed], [split], each.videos], names=["seed", "split", "video"]),
            )
            for ((seed, split), each), other in zip(self.order.items(), self.reversed.values(), strict=True)
        ]
        return pd.concat(parts)


def backwards(content: Claims, seeds: Sequence[ScoresOf], dataset: str, splits: Sequence[int]) -> list[Backwards]:
    """The answers of each of COMPARED that is tested in both orders, from every seed."""
    found = []
    for name in COMPARED:
        order, turned = (
            fused_by_training(content.late_fusions[name], dataset, splits, seeds, reading)
            for reading in ("one view", "reversed")
        )
        if order:
            found.append(Backwards(content.names[name], order, turned))
    return found


def reversal_frame(
    found: Sequence[Backwards], actions: Sequence[str], reverse: Int[np.ndarray, " A"], dataset: str = ""
) -> pd.DataFrame:
    """One row for each system and action, and for all actions of a kind together.

    Columns: data set, system, kind (of SORTS), action (ALL for the sum), reverse (its name), videos; each of SHARES
    with its interval "<share> low" and "<share> high" (in 0..1, at 95 %, over videos and trainings); and
    called: what most of the videos are called backwards. An action without videos has no row.
    """
    rows = []
    for each, kind in product(found, SORTS):
        answers = each.answers
        labels = [
            label
            for label in np.unique(answers["label"])
            if kind == ("other" if reverse[label] == NONE else "same" if reverse[label] == label else "reverse")
        ]
        own = [_row(answers.loc[answers["label"] == label], reverse, actions, actions[int(label)]) for label in labels]
        if kind == "other":
            own.sort(key=lambda row: -row["neither"])
        if own:
            own.append(_row(answers.loc[answers["label"].isin(labels)], reverse, actions, ALL))
        rows += [{"data set": dataset, "system": each.system, "kind": kind, **row} for row in own]
    return pd.DataFrame(rows)


def _row(answers: pd.DataFrame, reverse: Int[np.ndarray, " A"], actions: Sequence[str], action: str) -> dict[str, Any]:
    (label, before, after), index = answers.to_numpy().T, answers.index
    wanted, order = reverse[label], before == label
    right = {
        "in order": order,
        "turns": order & (after == wanted),
        "its reverse": after == wanted,
        "itself": after == label,
        "neither": (after != wanted) & (after != label),
    }
    row: dict[str, Any] = {"action": action, "reverse": "", "videos": index.unique("video").size}
    if action != ALL and wanted[0] != NONE:
        row["reverse"] = actions[wanted[0]]
    for share, values in right.items():
        low, high = share_interval(pd.Series(values, index))
        row |= {share: values.mean(), f"{share} low": low, f"{share} high": high}
    return row | {"called": "" if action == ALL else actions[int(np.bincount(after).argmax())]}


def reversal_finding(found: Sequence[Backwards], reverse: Int[np.ndarray, " A"], dataset: str) -> Finding | None:
    """Whether the actions with a reverse are called their reverse backwards, more often than TSN does; None where no
    system was tested, or no action has a reverse."""
    called = dict[str, pd.Series]()
    for each in found:
        answers = each.answers
        label, before, after = answers.to_numpy().T
        wanted = reverse[label]
        paired = (wanted != NONE) & (wanted != label)
        if not paired.any():
            return None
        called[each.system] = pd.Series((before == label) & (after == wanted), answers.index).loc[paired]
    if not called:
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


def sums_of(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each kind of actions and each system, as short texts in %, with the intervals in brackets."""
    rows = frame.loc[frame["action"] == ALL]
    texts = rows[["data set", "kind", "system"]].replace({"kind": SORTS}).rename(columns={"kind": "actions"})
    texts["videos"] = rows["videos"].astype(str)
    for share in SHARES:
        texts[share] = _percent(rows, share)
    texts.loc[rows["kind"] == "other", ["turns", "its reverse"]] = ""
    return texts


def actions_of(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """A row for each action of a kind, as short texts in %.

    Columns: action, reverse, videos, in order (of the first system), the most telling share of each system with its
    interval (turns; of the actions without a named reverse, neither), and what the first system calls most of the
    videos backwards.
    """
    telling = "neither" if kind == "other" else "turns"
    rows = frame[(frame["kind"] == kind) & (frame["action"] != ALL)]
    by_system = {system: own.set_index("action") for system, own in rows.groupby("system", sort=False)}
    if not by_system:
        return pd.DataFrame(columns=["action"])
    first = next(iter(by_system.values()))
    texts = pd.DataFrame({"reverse": first["reverse"], "videos": first["videos"].astype(str)})
    texts["in order"] = (100 * first["in order"]).map("{:.1f}".format)
    for system, own in by_system.items():
        texts[f"{telling}: {system}"] = _percent(own, telling)
    texts["called"] = first["called"]
    return texts.reset_index().drop(columns=[] if kind == "reverse" else "reverse")


def blocks_of(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Each data set and kind, with `actions_of` it."""
    for dataset, kind in frame[["data set", "kind"]].drop_duplicates().itertuples(index=False, name=None):
        yield dataset, kind, actions_of(frame.loc[frame["data set"] == dataset], kind)


def _percent(rows: pd.DataFrame, share: str) -> pd.Series:
    columns = (100 * rows[[share, f"{share} low", f"{share} high"]]).itertuples(index=False, name=None)
    return pd.Series([f"{value:.1f} [{low:.0f}, {high:.0f}]" for value, low, high in columns], rows.index, dtype=object)


def reversal_text(frame: pd.DataFrame, most: int = 40) -> str:
    """The table for a terminal: all actions together, then a block a kind, with at most so many actions."""
    lines = [textwrap.fill(EXPLAINED_REVERSALS, 110, break_on_hyphens=False), "", *aligned(sums_of(frame))]
    for dataset, kind, texts in blocks_of(frame):
        lines += ["", f"{SORTS[kind]} ({dataset}, {len(texts)} actions), in %"]
        shortened = {name: texts[name].str.slice(0, 44) for name in ("action", "reverse", "called") if name in texts}
        lines += aligned(texts.assign(**shortened).head(most))
        if len(texts) > most:
            lines.append(f"... and {len(texts) - most} more: `ifttn tables order --csv all.csv` writes all")
    return "\n".join(lines)


EXPLAINED_REVERSALS = (
    "Played backwards: what a system calls a video whose snippets come from last to first. The motion inside a snippet "
    "stays as it was. Turns: called by its name in order, and its reverse backwards (an action that must not change: "
    "called by its name both times). Its reverse, itself, neither: what it is called backwards, whatever it was called "
    "in order. All are shares of the videos in %, of one view. Brackets hold the 95 % interval, over trainings as "
    "well where there are several. A system that does not know order says the same backwards, and turns nothing."
)
"""How to read the reversal table."""


def order_gains(
    order: Mapping[SeedAndSplit, Fused], shuffled: Mapping[SeedAndSplit, Fused], actions: Sequence[str]
) -> pd.DataFrame:
    """How much accuracy each action owes to the order of snippets, the largest first.

    Args:
        order: late-fused scores of each training, of snippets in order.
        shuffled: the same of snippets in a wrong order.
        actions: names of the labels.

    Returns:
        action, videos, in order, shuffled (accuracies in 0..1), gain (in order less shuffled), and its low and high
        (95 % interval of paired answers, over videos and trainings).
    """
    parts = [
        pd.DataFrame(
            {"label": each.labels, "in order": each.right(), "shuffled": shuffled[training].right(), "of": number},
            each.videos,
        )
        for number, (training, each) in enumerate(order.items())
    ]
    rows = []
    for label, own in pd.concat(parts).groupby("label"):
        first, second = (own[name].to_numpy(bool) for name in ("in order", "shuffled"))
        pair = mcnemar(first, second, own.index.to_list(), pd.factorize(own["of"])[0])
        rows.append((actions[int(str(label))], pair.videos, pair.first, pair.second, pair.difference, *pair.interval))
    columns = ["action", "videos", "in order", "shuffled", "gain", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values("gain", kind="stable", ascending=False, ignore_index=True)
