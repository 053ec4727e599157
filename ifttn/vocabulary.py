"""Types and constants that all packages share.

Shape letters in all files: N videos, K segments, S = N*K snippets, P = N*(K-1) pairs, C channels, H x W pixels or
cells, A actions, L motion fields of a snippet, T frames of a video.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STACK = 5
"""L, the number of motion fields in a snippet (TSN's stack, paper section 4.2: "about 0.2 second")."""

FLOW_NAMES = ("tvl1", "tvl1-fast", "dis")
"""The names of the flows in `ifttn.data.flow.FLOWS`."""
PRECISIONS = ("fp32", "bf16", "fp16")
"""Types of numbers for convolutions and matrix products. The loss and the weights are always fp32."""


class IfttnError(Exception):
    """An error that the user can fix. The command line prints its message, one line, and ends with exit code 1."""


@dataclass(frozen=True)
class Modality:
    """One kind of input to a stream, as bytes 0..255.

    A motion modality has L fields as planes x1, y1, x2, y2, ... Byte 128 is no motion. 127 levels more or less are the
    bound of the data set in pixels. Field t is the motion from frame t to frame t + 1: optical flow at the pixels of
    frame t, a codec's motion vectors at the pixels of frame t + 1.
    """

    name: str
    channels: int
    """Channels of one snippet (C)."""
    mean: tuple[float, ...] = (128.0,)
    """Mean of each channel in bytes, repeated over the channels."""
    std: tuple[float, ...] = (57.63,)
    """Standard deviation of each channel in bytes, repeated over the channels."""
    is_motion: bool = False
    """Whether planes alternate between x and y displacement. Then mirroring a frame negates every x plane."""
    run_of: str | None = None
    """If set, a snippet is a run of consecutive frames ("rgb") or fields ("flow", "mv") around its middle. `channels`
    decides their number. If None, a snippet is one frame, or L fields."""


# ImageNet's statistics for RGB. The others have 255 times ImageNet's mean deviation, 0.226 (TSN's ResNet recipe).
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
        # For CoViAR, of one P-frame: its motion since the I-frame of its group of pictures, and the residual.
        Modality("accumulated", 2, is_motion=True),
        Modality("residual", 3),
    )
}


@dataclass(frozen=True)
class Video:
    """One file, or one folder of images: one row of an official list."""

    name: str
    """Unique name in the data set: "<folder of the class>/<file name without suffix>" (after "<side>/" if the data set
    has a folder for each side), or the path in a list. The name is always valid UTF-8, but `path` may not be."""
    path: Path
    action: str
    label: int
    """Index of the action in its split's list of actions, from 0."""
    group: str
    """The recording that the video was cut from. All videos of a group are on the same side of a split."""


@dataclass(frozen=True)
class Split:
    """One official division of a data set into training videos and test videos."""

    dataset: str
    number: int
    """1, 2 or 3."""
    actions: tuple[str, ...]
    train: tuple[Video, ...]
    test: tuple[Video, ...]
    missing: tuple[str, ...] = ()
    """Names in a list without a video in the folder."""
    extra: tuple[str, ...] = ()
    """Names of videos in the folder that are in no list."""
    notes: tuple[str, ...] = ()
    """A line for everything else in the folder that is not used: "<name>: <reason>"."""

    def side(self, name: str) -> tuple[Video, ...]:
        """The videos of a side, "train" or "test". Raises IfttnError if it has no videos."""
        if videos := getattr(self, name):
            return videos
        raise IfttnError(
            f"split {self.number} of {self.dataset} has no video to {name} on; listed but not in the folder: "
            f"{len(self.missing)}, not used for other reasons: {len(self.notes)}"
        )


def duration(seconds: float) -> str:
    """Seconds in words: 0.4 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
