"""The accuracy of a network against the number of training videos of each action."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool

from ifttn.experiment import testing, training
from ifttn.experiment.pyramids import drop_pyramids
from ifttn.experiment.recipes import with_its_sources
from ifttn.experiment.scores import Scores, late_fusion
from ifttn.experiment.significance import numbered, share_interval
from ifttn.experiment.work import Work
from ifttn.vocabulary import IfttnError, Split

ALL_HEADS = "together"
"""The late fusion of all heads."""


def fewer(split: Split, clips: int, seed: int) -> Split:
    """The split with at most so many training videos of each action. A smaller subset is part of each larger one.

    Raises:
        IfttnError: no action has more training videos than that.
    """
    by_action = [[video for video in split.train if video.label == label] for label in range(len(split.actions))]
    most = max(map(len, by_action))
    if clips > most:
        raise IfttnError(
            f"{clips} clips of an action: split {split.number} of {split.dataset} trains on {most} at most"
        )
    kept = set[str]()
    for label, videos in enumerate(by_action):
        order = np.random.default_rng((seed, label, 11)).permutation(len(videos))
        kept |= {videos[place].name for place in order[:clips]}
    return replace(split, train=tuple(video for video in split.train if video.name in kept))


def train_on_few(
    work: Work, recipe: str, clips: Sequence[int], seeds: Sequence[int]
) -> Iterator[dict[tuple[int, int], Scores]]:
    """Train and test a recipe, with what it starts from, on each number of clips and with each seed.

    Runs that are done are kept. Those of n clips and seed s are in the folder `<runs>/<n>-clips-seed-<s>`.

    Yields:
        (clips, seed) -> scores of the test videos, so far.

    Raises:
        IfttnError: as of `training.train` and `testing.test`; or a number of clips is too large.
    """
    few = {(count, seed): fewer(work.split, count, seed) for seed in seeds for count in sorted(set(clips))}
    found = dict[tuple[int, int], Scores]()
    for (count, seed), split in few.items():
        own = replace(work, split=split, seed=seed, runs=work.runs / f"{count}-clips-seed-{seed}")
        for name in with_its_sources(recipe):
            training.train(own, name)
        found[count, seed] = testing.test(own, recipe).scores()
        drop_pyramids(own.folder)
        yield found


def curve(found: Mapping[tuple[int, int], Scores]) -> pd.DataFrame:
    """One row for each number of clips and each head, and for all heads together.

    Columns: clips (of an action, to train on), head, seeds, videos (tested), accuracy (mean over the seeds, in 0..1),
    low and high (the interval at 95 % over the test videos, and over trainings if there are several seeds), lowest
    and highest (of one seed).
    """
    rows = []
    for clips in sorted({clips for clips, _ in found}):
        runs = {seed: scores for (count, seed), scores in found.items() if count == clips}
        heads = next(iter(runs.values())).heads
        videos, trainings = numbered(tuple(scores.videos for scores in runs.values()))
        for head in (*heads, *([ALL_HEADS] if len(heads) > 1 else [])):
            right = [_right(scores, head) for scores in runs.values()]
            every, each = np.concatenate(right), [float(own.mean()) for own in right]
            interval = share_interval(every, videos, trainings)
            row = (clips, head, len(runs), int(videos.max()) + 1, float(every.mean()), *interval, min(each), max(each))
            rows.append(row)
    columns = ["clips", "head", "seeds", "videos", "accuracy", "low", "high", "lowest", "highest"]
    return pd.DataFrame(rows, columns=columns)


def _right(scores: Scores, head: str) -> Bool[np.ndarray, " N"]:
    """Whether the answer to each video is right."""
    logits = late_fusion(scores.heads) if head == ALL_HEADS else scores.heads[head]
    return logits.argmax(1) == scores.labels
