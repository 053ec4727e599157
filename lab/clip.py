"""A whole video and what a network says of it, ready to be looked at frame by frame.

Shapes: T frames shown, F frames of the file, K snippets, V votes (K, or K - 1 of pairs), A actions, H x W pixels,
s x s pixels of the crop that a network takes, h x w cells of a map.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.frame import PictureType
from jaxtyping import Float, Float32, Int, Integer, UInt8

from ifttn.data.augmentation import apply, test_crops
from ifttn.data.flow import FLOWS, from_bytes, to_bytes
from ifttn.data.planes import differences
from ifttn.data.reencoding import turn_of
from ifttn.data.sampling import centre_starts, snippet_indices
from ifttn.data.store import Store, StoreSettings
from ifttn.data.video import decode
from ifttn.experiment.recipes import LATE_FUSION
from ifttn.insight.cam import STRIDE, Finer, class_activation_maps, on_pixels
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import IfttnError
from lab.pictures import Rectangle

Method = Literal["cam", "gradcam"]

LONGEST = 1200
"""Frames of a file that is looked at whole."""
SHOWN = 300
"""Most frames shown of one; of a longer file every second, third, ... is."""
SIDE = 480
"""Longest side (px) at which a frame is kept: about the width of the inspector's picture."""


@dataclass(frozen=True)
class Clip:
    """A video in memory, at the size it is shown and at the size a network takes."""

    name: str
    path: Path
    label: str | None
    """Its action, where it is known."""
    fps: float
    kinds: str
    """Type of each of the F frames in the file: I, P or B."""
    step: int
    """Of how many frames one is shown."""
    frames: UInt8[np.ndarray, "T H W 3"]
    vectors: Float32[np.ndarray, "T 2 rows columns"]
    """Motion vectors into the next frame, in pixels of `frames`, at every fourth."""
    planes: Mapping[str, UInt8[np.ndarray, "_ _ h w"]]
    """Per modality all F frames or F - 1 fields, as a store keeps them."""
    settings: StoreSettings

    @property
    def flow(self) -> Float32[np.ndarray, "T 2 h w"]:
        """Optical flow into the next frame, in pixels of `frames`."""
        levels = self.planes["flow"][self.fields]
        scale = np.array([self.frames.shape[2] / levels.shape[3], self.frames.shape[1] / levels.shape[2]], np.float32)
        return from_bytes(levels, self.settings.bound) * scale[:, None, None]

    @property
    def fields(self) -> Integer[np.ndarray, " T"]:
        """The motion field that starts at each shown frame; the last frame repeats the one before."""
        return np.minimum(np.arange(len(self.frames)) * self.step, len(self.planes["flow"]) - 1)

    @property
    def cuts(self) -> list[int]:
        """Frames of the file that seem to begin a new shot: they differ from the one before as few do."""
        small = self.planes["rgb"][..., ::4, ::4].astype(np.float32).mean(1)
        change = np.abs(np.diff(small, axis=0)).mean((1, 2))
        usual = float(np.median(change))
        spread = float(np.median(np.abs(change - usual)))
        return [int(t) + 1 for t in np.flatnonzero(change > usual + 8 * spread + 0.5)]


def load(path: Path, name: str, label: str | None, settings: StoreSettings, store: Store | None = None) -> Iterator:
    """Steps that end with the Clip (`clip = yield from load(...)`); each yields the share done.

    What a store holds is read from it, so that the network sees what it was tested on; else it is computed alike.

    Raises:
        IfttnError: the file is missing, is no video, or is too long.
    """
    kinds, width, height = probe(path)
    yield 0.1
    scale = min(1.0, SIDE / max(width, height))
    decoded = decode(path, size=(round(width * scale), round(height * scale)))
    if len(decoded.frames) < 2:
        raise IfttnError(f"{path.name} has a single frame: motion, and a network's snippets, take two or more")
    yield 0.4
    step = -(-len(decoded.frames) // SHOWN)
    frames = decoded.frames[::step]
    vectors = decoded.vectors[np.minimum(np.arange(len(frames)) * step, len(decoded.vectors) - 1), :, ::4, ::4]
    if store is not None and name in store:
        count = store.num_frames(name)
        planes = {
            modality: store.read(name, modality, np.arange(count - (modality != "rgb")))
            for modality in ("rgb", "flow", "mv")
        }
        yield 0.9
    else:
        planes = yield from _prepared(path, settings)
    return Clip(name, path, label, decoded.fps, kinds, step, frames, vectors, planes, settings)


def probe(path: Path) -> tuple[str, int, int]:
    """Type of every frame; width and height as a player shows them: turned, and with square pixels.

    Raises:
        IfttnError: the file is missing, is no video, or is longer than LONGEST frames.
    """
    if not path.is_file():
        raise IfttnError(f"{path} is not there: was the data set moved, or the name misspelt?")
    kinds = ""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            width, height = stream.width, stream.height
            for frame in container.decode(stream):
                if not kinds:
                    width, height = round(frame.width * (stream.sample_aspect_ratio or 1)), frame.height
                    if turn_of(frame).transposed:
                        width, height = height, width
                kinds += PictureType(frame.pict_type).name
                if len(kinds) > LONGEST:
                    raise IfttnError(
                        f"{path.name} has more than {LONGEST} frames: cut a piece out of it first, "
                        "for example `ffmpeg -ss 10 -i IN -t 20 OUT.mp4`"
                    )
            return kinds, width, height
    except (FFmpegError, IndexError) as error:
        raise IfttnError(f"{path} cannot be read as a video ({error})") from error


def _prepared(path: Path, settings: StoreSettings) -> Iterator:
    """As preparation does it; the flow a few frames at a time, for it takes longest."""
    decoded = decode(path, size=(settings.width, settings.height))
    flow, count = FLOWS[settings.flow], len(decoded.frames)
    fields = []
    for first in range(0, count - 1, 8):
        fields.append(flow(decoded.frames[first : first + 9]))
        yield 0.4 + 0.5 * first / count
    return {
        "rgb": np.ascontiguousarray(decoded.frames.transpose(0, 3, 1, 2)),
        "flow": to_bytes(np.concatenate(fields), settings.bound),
        "mv": to_bytes(decoded.vectors, settings.bound),
    }


@dataclass(frozen=True)
class Reading:
    """What a network says of a clip, seen through one central crop."""

    actions: tuple[str, ...]
    sampled: Int[np.ndarray, " K"]
    """The snippets' frames, in the file, ascending."""
    order: tuple[int, ...]
    """Which of them the network was shown first, second, ..."""
    votes: Mapping[str, Float[np.ndarray, "V A"]]
    crop: Rectangle

    def probabilities(self, head: str, vote: int | None = None) -> Float[np.ndarray, " A"]:
        """Of a head's consensus, or of one of its votes."""
        logits = self.votes[head]
        return softmax(logits.mean(0) if vote is None else logits[vote])

    @property
    def fused(self) -> Float[np.ndarray, " A"]:
        """Probabilities of the late fusion: a softmax of the scores divided by their total weight."""
        total = sum(LATE_FUSION[head] * votes.mean(0) for head, votes in self.votes.items())
        return softmax(np.asarray(total) / sum(LATE_FUSION[head] for head in self.votes))

    def snippet(self, frame: int) -> int:
        """The snippet nearest to a frame of the file."""
        return int(np.abs(self.sampled - frame).argmin())

    def pair(self, frame: int) -> int:
        """The pair around a frame of the file."""
        return int(np.clip(np.searchsorted(self.sampled, frame, "right") - 1, 0, max(0, len(self.sampled) - 2)))

    def vote(self, head: str, frame: int) -> int:
        """The vote of a head that speaks of a frame of the file."""
        return self.snippet(frame) if len(self.votes[head]) == len(self.sampled) else self.pair(frame)


def read(recognizer: Recognizer, clip: Clip, order: Sequence[int] | None = None) -> Reading:
    """Let a network look at the snippets of a clip, in order of time or in another.

    Args:
        recognizer: a trained run.
        clip: prepared with the same settings as the run's.
        order: which of the K snippets comes first, second, ...
    """
    preset, settings = recognizer.preset, clip.settings
    frames, inputs = snippets(recognizer, clip)
    order = tuple(range(preset.segments)) if order is None else tuple(order)
    asked = {m: torch.from_numpy(x[list(order)])[None].float().to(recognizer.device) for m, x in inputs.items()}
    with torch.inference_mode():
        votes = recognizer.network(asked).votes
    view = test_crops(settings.height, settings.width, preset.size, 1)[0]
    size = settings.width, settings.height
    return Reading(
        actions=recognizer.actions,
        sampled=frames,
        order=order,
        votes={head: vote[0].float().cpu().numpy() for head, vote in votes.items()},
        crop=(view.left / size[0], view.top / size[1], view.width / size[0], view.height / size[1]),
    )


def maps(
    recognizer: Recognizer, clip: Clip, action: int, *, method: Method = "cam", finer: Finer = 1
) -> dict[str, Float[np.ndarray, "V h w"]]:
    """The class activation maps of every head for one action, in cells (`ifttn.insight.cam`).

    Of "cam" and finer = 1, a map's mean is the vote less the bias of the head.
    """
    _, inputs = snippets(recognizer, clip)
    asked = {m: torch.from_numpy(x)[None].float().to(recognizer.device) for m, x in inputs.items()}
    actions = torch.tensor([[action]], device=recognizer.device)
    found = class_activation_maps(recognizer.network, asked, actions, method=method, finer=finer)
    return {head: each[0, :, 0].float().cpu().numpy() for head, each in found.items()}


def pixel_maps(
    recognizer: Recognizer, clip: Clip, action: int, *, method: Method = "cam", finer: Finer = 1
) -> dict[str, Float[np.ndarray, "V s s"]]:
    """The same on the pixels of the crop that the cells speak of."""
    cells = maps(recognizer, clip, action, method=method, finer=finer)
    side = recognizer.preset.size
    if method == "gradcam":  # comes in pixels already
        return cells
    return {
        head: on_pixels(torch.from_numpy(each), (side, side), STRIDE / finer).numpy() for head, each in cells.items()
    }


def snippets(
    recognizer: Recognizer, clip: Clip
) -> tuple[Int[np.ndarray, " K"], dict[str, UInt8[np.ndarray, "K C h w"]]]:
    """The frames that a network is shown of a clip, and what it takes of each modality.

    Raises:
        IfttnError: the clip was prepared at another size than the run's.
    """
    preset, settings = recognizer.preset, clip.settings
    if settings != preset.store:
        raise IfttnError(
            f"{clip.name} was prepared at {settings.width} x {settings.height} px with {settings.flow} flow, this run "
            f"was trained on {preset.store.width} x {preset.store.height} px with {preset.store.flow}: choose a run of "
            "the same preset, or open the video by its path"
        )
    count = len(clip.planes["rgb"])
    frames, fields = snippet_indices(centre_starts(count, preset.segments), count)
    view = test_crops(settings.height, settings.width, preset.size, 1)[0]
    inputs = {}
    for modality in recognizer.network.settings.modalities:
        planes = _planes(clip, modality, frames, fields)
        planes = planes.reshape(len(frames), -1, *planes.shape[-2:])
        inputs[modality] = apply(view, planes, preset.size, modality)
    return frames, inputs


def _planes(
    clip: Clip, modality: str, frames: Integer[np.ndarray, " K"], fields: Integer[np.ndarray, "K L"]
) -> UInt8[np.ndarray, "..."]:
    """Of each snippet, what a modality is made of."""
    if modality == "rgbdiff":  # nobody stores it
        return differences(clip.planes["rgb"][fields], clip.planes["rgb"][fields + 1])
    return clip.planes[modality][frames if modality == "rgb" else fields]


def softmax(logits: Float[np.ndarray, " A"]) -> Float[np.ndarray, " A"]:
    """Probabilities."""
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
