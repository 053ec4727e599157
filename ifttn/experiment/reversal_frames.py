"""What networks call actions that are played backwards, and which actions need the order of snippets, as DataFrames.

Shapes: N videos, A actions.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from ifttn.experiment.claims import SPLITS, load_claims
from ifttn.experiment.results import Results
from ifttn.experiment.reversals import NONE, Backwards, OrderAnswers
from ifttn.experiment.scores import Fused
from ifttn.experiment.significance import SeedAndSplit, mcnemar, numbered, share_interval
from ifttn.experiment.table_texts import aligned
from ifttn.experiment.tables import fused_by_training
from ifttn.vocabulary import IfttnError

ALL = "all"
SORTS = {
    "reverse": "Actions with a reverse",
    "same": "Actions that must not change",
    "other": "Actions without a named reverse, the most broken first",
}
SHARES = ("in order", "turns", "its reverse", "itself", "neither")
"""Shares of the videos of an action. "in order": called by its name in order. "turns": also called its reverse
backwards. The others are answers backwards: its reverse, itself, and neither of the two."""


def reversal_table(results: Results) -> pd.DataFrame:
    """A `reversal_frame` of all data sets; empty where no action has a reverse."""
    frames = [pd.DataFrame()]
    for dataset in results.datasets:
        reverse = results.reversals(dataset)
        if (reverse != NONE).any():
            frames.append(reversal_frame(results.backwards(dataset), results.actions(dataset), reverse, dataset))
    return pd.concat(frames, ignore_index=True)


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
            int(label)
            for label in np.unique([label for of in answers.values() for label in of.labels])
            if kind == ("other" if reverse[label] == NONE else "same" if reverse[label] == label else "reverse")
        ]
        own = [_row(answers, [label], reverse, actions) for label in labels]
        if kind == "other":
            own.sort(key=lambda row: -row["neither"])
        if own:
            own.append(_row(answers, labels, reverse, actions) | {"action": ALL, "reverse": "", "called": ""})
        rows += [{"data set": dataset, "system": each.system, "kind": kind, **row} for row in own]
    return pd.DataFrame(rows)


def _row(
    answers: Mapping[SeedAndSplit, OrderAnswers],
    labels: Sequence[int],
    reverse: Int[np.ndarray, " A"],
    actions: Sequence[str],
) -> dict[str, Any]:
    """Compute a row from the answers to videos with these labels. The row names the action of the first label."""
    own = [each.to(labels) for each in answers.values()]
    label, before, after = np.concatenate([each[1:] for each in own], axis=1)
    videos, trainings = numbered(tuple(each.videos for each in own))
    wanted, order = reverse[label], before == label
    right = {
        "in order": order,
        "turns": order & (after == wanted),
        "its reverse": after == wanted,
        "itself": after == label,
        "neither": (after != wanted) & (after != label),
    }
    other = reverse[labels[0]]
    row: dict[str, Any] = {"action": actions[labels[0]], "reverse": "" if other == NONE else actions[other]}
    row["videos"] = int(videos.max()) + 1
    for share, values in right.items():
        low, high = share_interval(values, videos, trainings)
        row |= {share: values.mean(), f"{share} low": low, f"{share} high": high}
    return row | {"called": actions[int(np.bincount(after).argmax())]}


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
    """The table for a terminal: all actions together, then a block for each kind, with at most `most` actions."""
    lines = [
        textwrap.fill(EXPLAINED_REVERSALS, 110, break_on_hyphens=False),
        "",
        *aligned(sums_of(frame).to_dict("list")),
    ]
    for dataset, kind, texts in blocks_of(frame):
        lines += ["", f"{SORTS[kind]} ({dataset}, {len(texts)} actions), in %"]
        shortened = {name: texts[name].str.slice(0, 44) for name in ("action", "reverse", "called") if name in texts}
        lines += aligned(texts.assign(**shortened).head(most).to_dict("list"))
        if len(texts) > most:
            lines.append(f"... and {len(texts) - most} more: `ifttn tables order --csv all.csv` writes all")
    return "\n".join(lines)


EXPLAINED_REVERSALS = (
    "A video is played backwards if its snippets come from last to first. The motion inside a snippet stays the same. "
    'The column "turns" counts videos that a system calls by their name in order, and by the reverse action backwards '
    '(or by their name both times, for an action that must not change). The columns "its reverse", "itself" and '
    '"neither" are about the answer backwards, whatever the answer in order was. All numbers are shares of the videos '
    "in %, on one view. Brackets hold the 95 % interval, also over trainings if there are several. A system that does "
    'not know order gives the same answer backwards, and turns nothing. In the tables of single actions, "in order" '
    'and "called" (what most of the videos are called backwards) are of the first system.'
)
"""How to read the reversal table."""


def gains_of_order(results: Results, dataset: str) -> pd.DataFrame:
    """How much accuracy each action of a data set owes to the order of snippets (`order_gains`), for IF-TTN, else for
    MV-IF-TTN.

    Raises:
        IfttnError: neither is tested in both orders.
    """
    for name in ("complete", "mv-complete"):
        parts = load_claims().late_fusions[name]
        order, shuffled = (
            fused_by_training(parts, dataset, SPLITS, results.scores, reading) for reading in ("one view", "shuffled")
        )
        if order:
            return order_gains(order, shuffled, results.actions(dataset))
    raise IfttnError(f"no run of if-ttn or mv-if-ttn on {dataset} in {results.runs} is tested in order and shuffled")


def order_gains(
    order: Mapping[SeedAndSplit, Fused], shuffled: Mapping[SeedAndSplit, Fused], actions: Sequence[str]
) -> pd.DataFrame:
    """How much accuracy each action owes to the order of snippets, the largest first.

    Args:
        order: late-fused scores of each training, with the snippets in order.
        shuffled: the scores with the snippets in a wrong order.
        actions: the names of the labels.

    Returns:
        action, videos, in order, shuffled (accuracies in 0..1), gain (in order minus shuffled), and its low and high
        (95 % interval of paired answers, over videos and trainings).
    """
    every = [*order.items()]
    labels = np.concatenate([each.labels for _, each in every])
    trainings = np.repeat(np.arange(len(every)), [len(each.labels) for _, each in every])
    videos = np.unique([video for _, each in every for video in each.videos], return_inverse=True)[1]
    first = np.concatenate([each.right() for _, each in every])
    second = np.concatenate([shuffled[training].right() for training, _ in every])
    rows = []
    for label in np.unique(labels).tolist():
        own = labels == label
        numbers = [np.unique(each[own], return_inverse=True)[1] for each in (videos, trainings)]
        pair = mcnemar(first[own], second[own], *numbers)
        rows.append((actions[label], pair.videos, pair.first, pair.second, pair.difference, *pair.interval))
    columns = ["action", "videos", "in order", "shuffled", "gain", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values("gain", kind="stable", ascending=False, ignore_index=True)
