"""The words that every room shares.

Shape letters, one alphabet everywhere: N videos, K segments, S = N*K snippets, P = N*(K-1) pairs, C channels,
H x W pixels or cells, A actions, L motion fields of a snippet, T frames of a video.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STACK = 5
"""L: the motion fields of one snippet (TSN's stack, paper section 4.2: "about 0.2 second")."""

FLOW_NAMES = ("tvl1", "tvl1-fast", "dis")
"""The names of the flows in `ifttn.data.flow.FLOWS`."""
PRECISIONS = ("fp32", "bf16", "fp16")
"""What convolutions and matrix products may compute in; the loss and the weights are fp32 in any case."""


class IfttnError(Exception):
    """A mistake that a person can mend. The command line prints its one line and ends with exit code 1."""


@dataclass(frozen=True)
class Modality:
    """One kind of input to a stream, as bytes 0..255.

    A motion modality holds L fields as planes x1, y1, x2, y2, ...; byte 128 is no motion, and the data set's bound
    (in pixels) is +-127 levels away from it. Field t is the motion from frame t to frame t + 1: optical flow at the
    pixels of frame t, a codec's motion vectors at those of frame t + 1.
    """

    name: str
    channels: int
    """Channels of one snippet (C)."""
    mean: tuple[float, ...] = (128.0,)
    """Mean of a channel in bytes; repeated over the channels."""
    std: tuple[float, ...] = (57.63,)
    """Standard deviation of a channel in bytes; repeated over the channels."""
    is_motion: bool = False
    """Planes alternate between x and y displacement, so that mirroring a frame negates every x plane."""
    run_of: str | None = None
    """If set, a snippet is a run of consecutive frames ("rgb") or fields ("flow", "mv") around its middle, as many as
    its channels hold. If None, it is one frame, or L fields."""


# ImageNet's statistics for RGB; 255 times their mean deviation, 0.226, for the rest (TSN's ResNet recipe).
RGB = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
MODALITIES: Mapping[str, Modality] = {
    modality.name: modality
    for modality in (
        Modality("rgb", 3, *RGB),
        Modality("flow", 2 * STACK, is_motion=True),
        Modality("mv", 2 * STACK, is_motion=True),
        Modality("rgbdiff", 3 * STACK),
        # Snippets of other systems.
        Modality("rgb5", 3 * 5, *RGB, run_of="rgb"),
        Modality("rgb8", 3 * 8, *RGB, run_of="rgb"),
        Modality("rgb10", 3 * 10, *RGB, run_of="rgb"),
        Modality("rgb16", 3 * 16, *RGB, run_of="rgb"),
        Modality("flow8", 2 * 8, is_motion=True, run_of="flow"),
        Modality("mv10", 2 * 10, is_motion=True, run_of="mv"),
        # CoViAR's, of one P-frame: its motion since the I-frame of its group of pictures, and the residual.
        Modality("accumulated", 2, is_motion=True),
        Modality("residual", 3),
    )
}


@dataclass(frozen=True)
class Video:
    """One file, or folder of images: one row of an official list."""

    name: str
    """Unique in its data set: "<folder of the class>/<file name without suffix>", after "<side>/" where the data set
    has a folder for each side, or the path in a list. It can always be written; `path` may hold bytes that are not
    UTF-8."""
    path: Path
    action: str
    label: int
    """Index of the action in its split's list of actions, from 0."""
    group: str
    """Videos of one group were cut from one recording and never stand on both sides of a split."""


@dataclass(frozen=True)
class Split:
    """One official division of a data set into videos to train on and videos to test on."""

    dataset: str
    number: int
    """1, 2 or 3."""
    actions: tuple[str, ...]
    train: tuple[Video, ...]
    test: tuple[Video, ...]
    missing: tuple[str, ...] = ()
    """Names that a list holds and the folder does not."""
    extra: tuple[str, ...] = ()
    """Names that the folder holds and no list does."""
    notes: tuple[str, ...] = ()
    """A line for each other thing in the folder that is left out: "<name>: <reason>"."""

    def side(self, name: str) -> tuple[Video, ...]:
        """The videos of a side, "train" or "test". Raises IfttnError where it has none."""
        if videos := getattr(self, name):
            return videos
        raise IfttnError(
            f"split {self.number} of {self.dataset} has no video to {name} on; listed and not in the folder: "
            f"{len(self.missing)}, left out for other reasons: {len(self.notes)}"
        )


def duration(seconds: float) -> str:
    """Seconds in words: 0.4 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
