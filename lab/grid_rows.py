"""The rows of the grid of clips: filters, order, quantities and tags of videos.

Shapes: N videos, M visible videos, A actions.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.special import softmax
from traitlets import Bool as Switch
from traitlets import Enum, HasTraits, Tuple, Unicode
from traitlets import Int as Integer

from ifttn.experiment.scores import READINGS, Scores, scaled_fusion
from ifttn.files import held, write_whole
from ifttn.vocabulary import IfttnError, Video

QUANTITIES = {
    "confidence": "the probability of the predicted action",
    "margin": "the probability of the true action minus the highest other one; below 0 the prediction is wrong",
    **{
        f"order, {reading}": f"the probability of the predicted action in one view, minus that with snippets {reading}"
        for reading in READINGS[1:]
    },
    "length (s)": "the length of the video",
}
"""Quantity by which clips can be sorted -> its meaning."""


class GridState(HasTraits):
    """All that a person chooses; a notebook can set it as well."""

    dataset = Unicode()
    split = Integer(1)
    side = Enum(("test", "train", "both"), "test")
    run = Unicode(help="name of a tested run; empty: no scores")
    head = Unicode(help="the head that predicts; empty: the late fusion")
    action = Unicode(help="a class, or a part of its name; empty: all")
    predicted = Unicode(help="the predicted class, or a part of its name; empty: all")
    outcome = Unicode(help='"right", "wrong", or one of these for a factor: "wrong: order"; empty: all')
    tag = Unicode(help="a tag; empty: all videos")
    only = Tuple(help="names of videos; empty: all")
    by = Enum(("", *QUANTITIES), "", help="the quantity that sorts the clips; empty: the class")
    descending = Switch(False)
    within = Tuple(help="lowest and highest value of `by`; empty: all")


@dataclass(frozen=True)
class ClipRows:
    """The videos of a split, sorted by class and name, with the predictions of a run."""

    videos: tuple[Video, ...]
    actions: tuple[str, ...]
    predicted: Int[np.ndarray, " N"]
    """Index of the predicted action; -1: the run has no scores of the video."""
    numbers: Mapping[str, Float[np.ndarray, " N"]] = field(default_factory=dict)
    """One of QUANTITIES -> its values, NaN for a video without a value. A quantity without values is absent."""
    factors: Mapping[str, Int[np.ndarray, " A"]] = field(default_factory=dict)
    """Factor -> its value for each action; empty if the data set has no factors."""

    @property
    def names(self) -> list[str]:
        """The names of the videos."""
        return [video.name for video in self.videos]

    @property
    def labels(self) -> Int[np.ndarray, " N"]:
        """The indices of the true actions."""
        return np.array([video.label for video in self.videos], int)

    def arranged(self, choice: GridState, tags: Mapping[str, Sequence[str]]) -> Int[np.ndarray, " M"]:
        """The rows that pass every filter, sorted. Rows without a value come last.

        Args:
            choice: filters and order.
            tags: video -> its tags.
        """
        labels = self.labels
        fits = self._like(choice.action)[labels] & self._outcome(choice.outcome, labels)
        if choice.predicted:
            fits &= (self.predicted >= 0) & self._like(choice.predicted)[self.predicted]
        if choice.tag or choice.only:
            only = set(choice.only)
            fits &= [
                (not only or name in only) and (not choice.tag or choice.tag in tags.get(name, ()))
                for name in self.names
            ]
        values = self.numbers.get(choice.by)
        if values is None:
            return np.flatnonzero(fits)[:: -1 if choice.descending else 1]
        if choice.within:
            low, high = choice.within
            fits &= (values >= low) & (values <= high)
        key = np.where(np.isnan(values), np.inf, -values if choice.descending else values)
        order = np.argsort(key, kind="stable")
        return order[fits[order]]

    def _like(self, text: str) -> Bool[np.ndarray, " A"]:
        """Which actions have this name; if none has it, which names contain it."""
        part = text.strip().lower()
        return np.array([name == text if text in self.actions else part in name.lower() for name in self.actions], bool)

    def _outcome(self, outcome: str, labels: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        wanted, _, factor = outcome.partition(": ")
        if not wanted:
            return np.ones(len(labels), bool)
        if wanted not in ("right", "wrong") or (factor and factor not in self.factors):
            choices = ["right", "wrong", *(f"wrong: {name}" for name in self.factors)]
            raise IfttnError(f"no outcome {outcome!r}: choose from {', '.join(choices)}")
        value = self.factors[factor] if factor else np.arange(len(self.actions))
        right = value[self.predicted] == value[labels]
        return (self.predicted >= 0) & (right if wanted == "right" else ~right)


def clip_rows(
    videos: Sequence[Video],
    actions: Sequence[str],
    scores: Scores | None = None,
    head: str = "",
    seconds: Mapping[str, float] | None = None,
    factors: Mapping[str, Int[np.ndarray, " A"]] | None = None,
) -> ClipRows:
    """The rows of videos of a split.

    Args:
        videos: in any order.
        actions: all actions of the split.
        scores: of a run. A video without scores has no prediction.
        head: the head that predicts; empty: the late fusion.
        seconds: video -> its length (s).
        factors: factor -> its value for each action.
    """
    ordered = tuple(sorted(videos, key=lambda video: (video.label, video.name)))
    predicted, numbers = np.full(len(ordered), -1), dict[str, Float[np.ndarray, " N"]]()
    if scores is not None:
        place = pd.Index(scores.videos).get_indexer(pd.Index([video.name for video in ordered]))
        found = _predictions(scores, head)
        predicted[place >= 0] = found.pop("predicted")[place[place >= 0]].astype(int)
        numbers = {name: np.where(place >= 0, values[place], np.nan) for name, values in found.items()}
    if seconds:
        numbers["length (s)"] = np.array([seconds.get(video.name, np.nan) for video in ordered])
    numbers = {name: values for name, values in numbers.items() if not np.isnan(values).all()}
    return ClipRows(ordered, tuple(actions), predicted, numbers, factors or {})


def _predictions(scores: Scores, head: str) -> dict[str, Float[np.ndarray, " N"]]:
    """The index of the predicted action as "predicted", and the QUANTITIES that follow from scores."""

    def probabilities(heads: Mapping[str, Float[np.ndarray, "N A"]]) -> Float[np.ndarray, "N A"]:
        return softmax(np.asarray(heads[head] if head else scaled_fusion(heads), float), axis=1)

    every, each = probabilities(scores.heads), np.arange(len(scores.videos))
    others = every.copy()
    others[each, scores.labels] = -np.inf
    found = {"predicted": every.argmax(1).astype(float), "confidence": every.max(1)}
    found["margin"] = every[each, scores.labels] - others.max(1)
    if READINGS[0] in scores.readings:
        in_order = probabilities(scores.readings[READINGS[0]])
        for reading in scores.readings.keys() & set(READINGS[1:]):
            changed = probabilities(scores.readings[reading])[each, in_order.argmax(1)]
            found[f"order, {reading}"] = in_order.max(1) - changed
    return found


class Tags:
    """The tags of a data set in a JSON file: video -> its tags, both sorted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, list[str]]:
        """All tags; empty if there is no file.

        Raises:
            IfttnError: the file is damaged.
        """
        try:
            content: Any = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(video): [str(tag) for tag in tags] for video, tags in content.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, TypeError) as error:
            raise IfttnError(f"{self.path} holds no tags ({error}): mend it, or move it away") from error

    def toggle(self, video: str, tag: str) -> dict[str, list[str]]:
        """Add a tag to a video, or remove it if the video has it. The changes of other panels are kept.

        Returns:
            All tags.
        """
        with held(self.path.parent):
            tags = self.read()
            tags[video] = sorted(set(tags.get(video, ())) ^ {tag})
            tags = {name: tags[name] for name in sorted(tags) if tags[name]}
            write_whole(self.path, json.dumps(tags, indent=1, ensure_ascii=False).encode())
        return tags
