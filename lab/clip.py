"""A video in memory, with the votes and the maps of a network.

Memory does not grow with the length of the video: a clip has at most 300 frames to show and the frames that networks
sample.

Shapes: T frames shown, F frames of the file, K snippets, V votes (K, or K - 1 of pairs), A actions, H x W pixels,
s x s pixels of the crop that a network takes, h x w cells of a map.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Integer, UInt8
from scipy.special import softmax
from torch import Tensor

from ifttn.data.augmentation import apply, test_crops
from ifttn.data.flow import from_bytes
from ifttn.data.frame_source import FrameSource, StoreSettings
from ifttn.data.planes import Snippets
from ifttn.data.sampling import centre_starts, snippet_indices
from ifttn.data.store import Store
from ifttn.data.video import Reader, spread
from ifttn.data.video_source import FrameBuffer, ReadRecorder
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.scores import scaled_fusion
from ifttn.insight.cam import STRIDE, Finer, class_activation_maps, on_pixels
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import IfttnError
from lab import video_file
from lab.pictures import Rectangle

Method = Literal["cam", "gradcam"]

MOST_FRAMES = 300
"""Largest number of frames. A longer file is shown with every second, third, ... frame."""
LONGEST_SIDE = 480
"""Longest side of a frame in memory (px): about the width of the inspector's picture."""


@dataclass(frozen=True)
class Clip:
    """A video in memory, at the size for the page and at the size for networks."""

    name: str
    path: Path
    label: str | None
    """The action of the video; None: unknown."""
    fps: float
    kinds: str
    """The type of each of the F frames in the file: I, P or B."""
    step: int
    """Every `step`-th frame of the file is shown."""
    frames: UInt8[np.ndarray, "T H W 3"]
    vectors: Float32[np.ndarray, "T 2 rows columns"]
    """Motion vectors to the next frame, in pixels of `frames`, at every fourth pixel."""
    levels: UInt8[np.ndarray, "T 2 h w"]
    """Optical flow to the next frame in the bytes of a store. The last frame has the flow of the frame before."""
    changes: Float[np.ndarray, " M"]
    """Mean absolute difference between each frame of the file and the frame before (grey levels)."""
    seconds: Float[np.ndarray, " F"]
    """The time of each frame, from the start of the file."""
    source: FrameSource
    """The frames and motion fields for networks, as a store has them."""
    settings: StoreSettings

    @property
    def flow(self) -> Float32[np.ndarray, "T 2 h w"]:
        """Optical flow to the next frame, in pixels of `frames`."""
        height, width = self.levels.shape[2:]
        scale = np.array([self.frames.shape[2] / width, self.frames.shape[1] / height], np.float32)
        return from_bytes(self.levels, self.settings.bound) * scale[:, None, None]

    @property
    def cuts(self) -> list[int]:
        """Estimated first frames of new shots: they differ unusually much from the frame before."""
        usual = float(np.median(self.changes))
        deviation = float(np.median(np.abs(self.changes - usual)))
        return [int(t) + 1 for t in np.flatnonzero(self.changes > usual + 8 * deviation + 0.5)]


def load_clip(
    path: Path,
    name: str,
    label: str | None,
    settings: StoreSettings,
    store: Store | None = None,
    *,
    span: video_file.Span = (),
    segments: int = 0,
) -> Generator[float, None, Clip]:
    """Load a clip in steps: `clip = yield from load_clip(...)`. Each step yields the share done.

    If the store has the video, the clip gives networks the data of the store, on which they are tested. Else the clip
    computes the same data from the file.

    Args:
        path: a video, or a folder with its frames.
        name: of the clip.
        label: the action of the video; None: unknown.
        settings: of the frames and the motion for networks.
        store: a store with these settings, or None. A part of a video is not read from a store.
        span: first and last second of a part of the video. The clip has this part only.
        segments: the number of segments of a network, if no preset has this number.

    Raises:
        IfttnError: the file is missing, is no video, or has fewer than two frames.
    """
    path = Path(path)
    kinds, width, height = yield from video_file.probe(path, span)
    count = len(kinds)
    if count < 2:
        part = f"shows {count} of its frames from {span[0]:g} to {span[1]:g} s" if span else "has a single frame"
        raise IfttnError(f"{path.name} {part}: motion and snippets need two or more")
    step = -(-count // MOST_FRAMES)
    fields = np.minimum(np.arange(0, count, step), count - 2)  # the motion field of each shown frame
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    reader = video_file.reader(path, span, (round(width * scale), round(height * scale)))
    frames, vectors, changes = yield from _decode_shown(reader, count, step, fields)
    if store is not None and name in store and not span:
        source = _Stored(store, name)
    else:
        small = video_file.reader(path, span, (settings.width, settings.height))
        source = yield from _decode_source(small, settings, count, fields, segments)
    levels = source.read("flow", fields)
    seconds = np.array(reader.seconds) + getattr(reader, "began", 0.0)
    return Clip(name, path, label, reader.fps, kinds, step, frames, vectors, levels, changes, seconds, source, settings)


def _decode_shown(
    reader: Reader, count: int, step: int, fields: Integer[np.ndarray, " T"]
) -> Generator[
    float, None, tuple[UInt8[np.ndarray, "T H W 3"], Float32[np.ndarray, "T 2 rows columns"], Float[np.ndarray, " M"]]
]:
    """Decode the frames to show, the motion vectors of these fields, and the `changes` of a clip."""
    frames, vectors, changes, at = [], dict[int, np.ndarray](), list[np.ndarray](), 0
    grey, wanted = np.empty((0, 0, 0), np.float32), set(fields.tolist())
    for chunk in reader.chunks():
        frames.append(chunk.frames[-at % step :: step])
        before, grey = grey[-1:], chunk.frames[:, ::4, ::4].astype(np.float32).mean(-1)
        changes.append(np.abs(np.diff(grey, axis=0, prepend=before if at else grey[:0])).mean((1, 2)))
        for field, blocks in enumerate(chunk.blocks, max(0, at - 1)):
            if field in wanted:
                vectors[field] = spread(blocks, *reader.grid())[:, ::4, ::4]
        at += len(chunk.kinds)
        yield 0.1 + 0.4 * at / count
    return np.concatenate(frames), np.stack([vectors[field] for field in fields.tolist()]), np.concatenate(changes)


@dataclass
class _Stored(FrameSource):
    """A video in a store. The store's file is open only while it is read."""

    store: Store
    name: str

    def __post_init__(self) -> None:
        self.frames, self.settings = self.store.num_frames(self.name), self.store.settings

    def images(self, modality: str, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "C H W"]]:
        """As `FrameSource.images`."""
        with self.store.open(self.name) as entry:
            yield from entry.images(modality, indices)


def _decode_source(
    reader: Reader, settings: StoreSettings, count: int, fields: Integer[np.ndarray, " T"], more: int
) -> Generator[float, None, FrameBuffer]:
    """Decode the frames and compute the motion that networks of any preset or of `more` segments sample.

    Optical flow takes most of the time. It is computed for these samples and for `fields` only.
    """
    recorder, buffer = ReadRecorder(count, settings), FrameBuffer(reader, settings)
    recorder.read("flow", fields)
    for segments in {preset.segments for preset in PRESETS.values() if preset.store == settings} | {more} - {0}:
        snippets = Snippets(recorder, *snippet_indices(centre_starts(count, segments), count))
        for modality in ("rgb", "flow", "mv", "rgbdiff"):
            snippets.planes(modality)
    waiting = np.array(sorted(recorder.wanted["flow"]))
    for chunk in reader.chunks(length=8, keep=recorder.frames_in_rgb().__contains__):
        buffer.add(chunk, recorder.wanted["mv"])
        ready, waiting = np.split(waiting, [np.searchsorted(waiting, buffer.frames - 1)])
        buffer.read("flow", ready)
        yield 0.5 + 0.5 * buffer.frames / count
    return buffer


@dataclass(frozen=True)
class Reading:
    """The votes of a network for a clip, from one central crop."""

    actions: tuple[str, ...]
    sampled: Int[np.ndarray, " K"]
    """The frames of the snippets, as ascending indices into the file."""
    order: tuple[int, ...]
    """The indices of the snippets in the order in which the network got them."""
    votes: Mapping[str, Float[np.ndarray, "V A"]]
    """Head -> logits."""
    crop: Rectangle

    def probabilities(self, head: str, vote: int | None = None) -> Float[np.ndarray, " A"]:
        """The probabilities of a head's consensus, or of one of its votes."""
        logits = self.votes[head]
        return softmax(logits.mean(0) if vote is None else logits[vote])

    @property
    def fused(self) -> Float[np.ndarray, " A"]:
        """The probabilities of the late fusion: the softmax of its scores divided by the total weight."""
        return softmax(scaled_fusion({head: votes.mean(0) for head, votes in self.votes.items()}))

    def action(self, name: str) -> int:
        """The index of an action. For an unknown name, the index of the predicted action."""
        return self.actions.index(name) if name in self.actions else int(self.fused.argmax())

    def snippet(self, frame: int) -> int:
        """The snippet nearest to a frame of the file."""
        return int(np.abs(self.sampled - frame).argmin())

    def pair(self, frame: int) -> int:
        """The pair around a frame of the file."""
        return int(np.clip(np.searchsorted(self.sampled, frame, "right") - 1, 0, max(0, len(self.sampled) - 2)))

    def vote(self, head: str, frame: int) -> int:
        """The vote of a head at a frame of the file."""
        return self.snippet(frame) if len(self.votes[head]) == len(self.sampled) else self.pair(frame)


def read_clip(recognizer: Recognizer, clip: Clip, order: Sequence[int] | None = None) -> Reading:
    """Run a network on the snippets of a clip.

    Args:
        recognizer: a trained run.
        clip: prepared with the settings of the run.
        order: the indices of the K snippets in the order for the network; None: temporal order.
    """
    order = tuple(range(recognizer.preset.segments)) if order is None else tuple(order)
    frames, inputs = snippet_inputs(recognizer, clip)
    with torch.inference_mode():
        votes = recognizer.network({modality: x[:, list(order)] for modality, x in inputs.items()}).votes
    width, height = clip.settings.width, clip.settings.height
    view = test_crops(height, width, recognizer.preset.size, 1)[0]
    return Reading(
        actions=recognizer.actions,
        sampled=frames,
        order=order,
        votes={head: vote[0].float().cpu().numpy() for head, vote in votes.items()},
        crop=(view.left / width, view.top / height, view.width / width, view.height / height),
    )


def cell_maps(
    recognizer: Recognizer, clip: Clip, action: int, *, method: Method = "cam", finer: Finer = 1
) -> dict[str, Float[np.ndarray, "V h w"]]:
    """The class activation maps of every head for one action (`ifttn.insight.cam`).

    With method "cam" and finer = 1, the mean of a map is the logit of the vote without the bias of the head.
    """
    _, inputs = snippet_inputs(recognizer, clip)
    actions = torch.tensor([[action]], device=recognizer.device)
    found = class_activation_maps(recognizer.network, inputs, actions, method=method, finer=finer)
    return {head: each[0, :, 0].float().cpu().numpy() for head, each in found.items()}


def pixel_maps(
    recognizer: Recognizer, clip: Clip, action: int, *, method: Method = "cam", finer: Finer = 1
) -> dict[str, Float[np.ndarray, "V s s"]]:
    """The maps of `cell_maps`, interpolated to the pixels of the network's crop."""
    maps = cell_maps(recognizer, clip, action, method=method, finer=finer)
    if method == "gradcam":  # these maps are in pixels already
        return maps
    size = recognizer.preset.size, recognizer.preset.size
    return {head: on_pixels(torch.from_numpy(each), size, STRIDE / finer).numpy() for head, each in maps.items()}


def snippet_inputs(
    recognizer: Recognizer, clip: Clip
) -> tuple[Int[np.ndarray, " K"], dict[str, Float[Tensor, "1 K C s s"]]]:
    """The frames of a clip that a network samples, and the network's inputs of each modality.

    Raises:
        IfttnError: the clip has other settings than the run.
    """
    preset, settings = recognizer.preset, clip.settings
    if settings != preset.store:
        raise IfttnError(
            f"{clip.name} was prepared at {settings.width} x {settings.height} px with {settings.flow} flow, but this "
            f"run was trained on {preset.store.width} x {preset.store.height} px with {preset.store.flow}: choose a "
            "run of the same preset, or open the video by its path"
        )
    count = clip.source.frames
    frames, fields = snippet_indices(centre_starts(count, preset.segments), count)
    sampled, modalities = Snippets(clip.source, frames, fields), recognizer.network.settings.modalities
    view = test_crops(settings.height, settings.width, preset.size, 1)[0]
    cropped = {m: apply(view, sampled.planes(m), preset.size, m) for m in modalities}
    return frames, {m: torch.from_numpy(x)[None].float().to(recognizer.device) for m, x in cropped.items()}
