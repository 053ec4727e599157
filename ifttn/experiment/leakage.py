"""Refuses to test a network on a video that it was trained on."""

from collections.abc import Iterable

from ifttn.vocabulary import IfttnError, Video


def refuse_leak(trained_on: Iterable[str], videos: Iterable[Video], of: str) -> None:
    """Raise IfttnError if one of the videos is a training video.

    Args:
        trained_on: names of the videos that the weights were trained on.
        videos: the videos to score.
        of: the network with these weights, for the message.
    """
    seen = frozenset(trained_on)
    leaked = [video.name for video in videos if video.name in seen]
    if leaked:
        raise IfttnError(
            f"{of} was trained on {len(leaked)} of the videos that it is to be tested on (the first is {leaked[0]}): "
            "test it on the split that it was trained for"
        )
