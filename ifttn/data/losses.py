"""Losses of a video file: packets that cannot be decoded, a missing end, gaps between frames."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ifttn.vocabulary import IfttnError

LARGEST_LOSS = 0.1
"""Share of a video that may be lost. A packed stream of MPEG-4 may hold a few frames fewer than its header says."""
MISSING_SECONDS = 0.25
"""Seconds by which the pictures may be shorter than the stated duration, which may be that of the sound."""


def count_shown(stream: VideoStream) -> int:
    """The number of packets with a visible picture in the index of a file.

    An AVI lists dropped frames as empty packets, and an edit list hides frames that were trimmed off.
    """
    return sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)


class Losses:
    """Counts losses while a file is read. Afterwards `notes` describes them."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        """Read the stated duration and number of frames."""
        self.stream, self.notes = stream, list[str]()
        self._entries, self._listed = len(stream.index_entries), count_shown(stream)
        self._arrived = self._early = self._failed = self._frames = self._damaged = 0
        self._unit, self._end = float(stream.time_base or 1), 0.0
        promised = stream.duration * self._unit if stream.duration else (container.duration or 0) / 1e6
        # FFmpeg guesses the duration of an AVI without an index. The header still has it: one frame per unit of time.
        self._promised = max(promised, stream.frames * self._unit)

    def packet(self, packet: Packet) -> None:
        """Record a packet."""
        self._arrived += packet.size > 0 and not packet.is_discard
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None:
            after = (stamp + (packet.duration or 0) - (self.stream.start_time or 0)) * self._unit
            self._end = max(self._end, after)

    def failure(self) -> None:
        """Record a packet that cannot be decoded. This is normal for the first packets before the first key frame."""
        self._failed += 1
        self._early += not self._frames

    def frame(self, frame: VideoFrame) -> None:
        """Record a decoded frame."""
        self._frames += 1
        self._damaged += frame.is_corrupt

    def close(self, path: Path, seconds: Sequence[float]) -> None:
        """Finish at the end of the file, with the times of its frames. Raises IfttnError if too much is lost."""
        # An index that did not grow while the file was read is complete: it lists every packet of the original file.
        is_indexed = self.stream.frames > 0 and len(self.stream.index_entries) == self._entries
        missing = max(0, self._listed - self._arrived) if is_indexed else 0
        cut = 0.0 if is_indexed else max(0.0, self._promised - self._end)
        lost, count = self._failed + missing, self._arrived + missing
        if not self._frames:
            raise IfttnError(f"{path}: truncated or damaged, none of its frames can be decoded")
        if lost - self._early > LARGEST_LOSS * count:
            raise IfttnError(f"{path}: truncated or damaged, {lost} of its {count} frames cannot be decoded")
        if self.stream.frames and cut > LARGEST_LOSS * self._promised:
            raise IfttnError(f"{path}: truncated or damaged, its pictures end at {self._until()}")
        if lost:
            self.notes.append(f"lost frames ({lost} of {count} cannot be decoded)")
        if self._damaged:
            self.notes.append(f"damaged frames ({self._damaged} of {self._frames} are incomplete)")
        if cut > max(MISSING_SECONDS, 0.02 * self._promised):
            self.notes.append(f"cut short (its pictures end at {self._until()})")
        if not self.stream.frames:
            self.notes += _gap(np.diff(seconds), seconds)

    def _until(self) -> str:
        return f"{self._end:.1f} of {self._promised:.1f} s"


def _gap(steps: np.ndarray, seconds: Sequence[float]) -> list[str]:
    """A note on gaps between frames, if all other frames have equal distances."""
    if len(steps) < 5:
        return []
    usual = float(np.median(steps))
    holes = steps > 2.5 * usual
    is_even = (np.abs(steps[~holes] - usual) < 0.5 * usual).mean() > 0.98
    if not (is_even and 0 < holes.sum() <= 1 + 0.02 * len(steps)):
        return []
    widest = int(steps.argmax())
    return [f"gaps ({holes.sum()}; the widest is {steps[widest]:.1f} s without a frame, at {seconds[widest]:.1f} s)"]
