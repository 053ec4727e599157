"""No video on both sides: a video that was trained on is not tested on."""

from collections.abc import Iterable

from ifttn.vocabulary import IfttnError, Video


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
