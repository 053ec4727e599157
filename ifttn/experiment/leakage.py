"""No video on both sides: what was trained on is not tested on, and is not held out."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ifttn.vocabulary import IfttnError, Split, Video


def refuse_leak(trained_on: Iterable[str], videos: Iterable[Video], of: str) -> None:
    """Raise IfttnError where a video to be scored is one that the weights were trained on.

    Args:
        trained_on: names of videos.
        videos: to be scored.
        of: whose weights they are.
    """
    seen = frozenset(trained_on)
    leaked = [video.name for video in videos if video.name in seen]
    if leaked:
        raise IfttnError(
            f"{of} was trained on {len(leaked)} of the videos that it is to be tested on (the first is {leaked[0]}): "
            "test it on the split that it was trained for"
        )


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, tuple[Video, ...]]:
    """The split with fewer videos to train on, and those that were taken from it: whole groups, of every action.

    Args:
        split: an official one; its test videos stay as they are.
        share: of each action's training videos, about, in 0..1; an action keeps at least one group.
        seed: of the choice.

    Raises:
        IfttnError: the share is outside 0..1, or nothing can be taken.
    """
    if not 0 < share < 1:
        raise IfttnError(f"a hold-out of {share}: choose more than 0 and less than 1")
    rng = np.random.default_rng((seed, 3))
    held: set[str] = set()
    for label in range(len(split.actions)):
        videos = [video for video in split.train if video.label == label]
        groups = [str(group) for group in rng.permutation(sorted({video.group for video in videos}))]
        taken: set[str] = set()
        for group in groups[:-1]:
            if sum(video.group in taken for video in videos) < round(share * len(videos)):
                taken.add(group)
        held |= {video.name for video in videos if video.group in taken}
    rest = tuple(video for video in split.train if video.name not in held)
    if not held:
        raise IfttnError(f"a hold-out of {share} takes no group of any action: choose a larger share")
    return replace(split, train=rest), tuple(video for video in split.train if video.name in held)
