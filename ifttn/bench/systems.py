"""The systems of Table 5 in `ifttn bench speed`: their inputs, and the work that is timed.

Shapes: K segments of a video, V of them for a system, T frames of a video, C planes of a snippet, H x W pixels.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ifttn.bench.clock import Workload
from ifttn.bench.options import SPEED_ROWS
from ifttn.data.augmentation import test_crops
from ifttn.data.frame_source import FrameSource, StoreSettings
from ifttn.data.gop import GOP
from ifttn.data.planes import Snippets
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.processes import Machine
from ifttn.experiment.scores import late_fusion
from ifttn.model.folding import compiled_network, folded
from ifttn.model.peers.table5 import ON_FLOW, PEERS, Peer, Variant
from ifttn.vocabulary import MODALITIES

ROWS: Mapping[str, Peer] = {name: {**PEERS, "if-ttn": ON_FLOW}[name] for name in SPEED_ROWS}
SNIPPETS, VIDEOS, END_TO_END = "snippets", "videos", "end to end"
DEFINITIONS: Mapping[str, str] = {
    SNIPPETS: "snippets per second of the network: bytes on the device -> votes on the device, in batches",
    VIDEOS: "videos per second: bytes of one video's snippets in the host's memory -> class scores in that memory",
    END_TO_END: "videos per second from a file on disk to class scores: decoding, motion, crop, network, late fusion",
}
DECODE, VECTORS, PRODUCT = "decoding alone", "decoding, vectors and frames", "a large product"
"""Workloads that set bounds for the speed of the rows."""
ACTIONS = 101
TVL1_GMACS = 1e-4
"""Approximate cost of TV-L1 per pixel, as multiply-adds of a convolution, to estimate the time of a measurement."""


@dataclass(frozen=True)
class Conditions:
    """The measured rows, the video, and the machine."""

    video: Path | None
    """None: nothing that reads a file is measured."""
    size: str = "paper"
    """A size of `Peer.at`."""
    rows: tuple[str, ...] = tuple(ROWS)
    segments: int = 7
    batch: int = 1
    """Videos at once in the first definition."""
    device: str = "cpu"
    machine: Machine = field(default_factory=Machine)
    """The precision, and whether networks are compiled."""

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return torch.device(self.device).type == "cuda"

    @property
    def dtype(self) -> str:
        """The number format of the computation."""
        return str(self.machine.dtype(self.device)).removeprefix("torch.")


def frames_and_rate(video: Path) -> tuple[int, float]:
    """The number of frames of a video, and its frames per second. Raises IfttnError if it cannot be decoded."""
    from ifttn.data.video import decode  # only here and below, because networks are measured without a decoder

    decoded = decode(video, choose=lambda count: [])
    return len(decoded.kinds), decoded.fps


# The inputs of a system


def span(variant: Variant) -> int:
    """Frames of the video that one segment needs."""

    def needed(modality: str, snippets: int, planes: int) -> int:
        if modality == "accumulated":
            return snippets + 1
        return {"flow": planes // 2 + 1, "mv": planes // 2 + 1, "rgbdiff": planes // 3 + 1}.get(modality, planes // 3)

    return max(needed(modality, *sizes) for modality, sizes in variant.segment.items())


def segments_taken(variant: Variant, num_frames: int, segments: int) -> int:
    """V: K, or for a system with long segments, the number that fits into the video without overlap, at least two."""
    if variant.segment["rgb"][1] == 3 and "accumulated" not in variant.segment:
        return segments
    return int(np.clip(num_frames // span(variant), 2, segments))


def starts_of(variant: Variant, num_frames: int, segments: int) -> Integer[np.ndarray, " V"]:
    """The first frame of each segment, in the middle of V equal spans."""
    taken, valid = segments_taken(variant, num_frames, segments), max(1, num_frames - span(variant) + 1)
    return (2 * np.arange(taken) + 1) * valid // (2 * taken)


def stored_size(variant: Variant) -> tuple[int, int]:
    """Width and height of decoded frames: 340 x 256 for a crop of 224, as in TSN."""
    return round(340 * variant.size / 224), round(256 * variant.size / 224)


def read_inputs(
    video: Path, variant: Variant, segments: int, device: str = "cpu"
) -> dict[str, UInt8[Tensor, "1 _ _ H W"]]:
    """A file -> the inputs of a network, with a centre crop, in the same way as `ifttn predict`.

    The file is decoded once. TV-L1 runs on the device, in one batch, only for the fields of the snippets.
    """
    from ifttn.data.video_source import from_file

    width, height = stored_size(variant)
    part = test_crops(height, width, variant.size, 1)[0].region

    def read(source: FrameSource) -> dict[str, UInt8[np.ndarray, "V C h w"]]:
        snippets = snippets_of(source, variant, segments)
        return {m: snippets[m].planes(m, part, channels=planes) for m, (_, planes) in variant.segment.items()}

    planes, _ = from_file(video, StoreSettings(width, height, PRESETS["paper"].store.bound), read, device)
    return {modality: torch.from_numpy(x)[None] for modality, x in planes.items()}


def snippets_of(source: FrameSource, variant: Variant, segments: int) -> dict[str, Snippets]:
    """Per modality, the snippets of a video for a system."""
    last, starts = source.frames - 1, starts_of(variant, source.frames, segments)
    frames = (starts + (span(variant) - 1) // 2).clip(0, last)
    p_frames, _ = variant.segment.get("accumulated", (0, 0))
    if p_frames:  # complete groups of pictures: an I-frame and the P-frames after it
        starts = starts - starts % GOP if p_frames > 1 else starts
        frames = starts
    later = (starts[:, None] + 1 + np.arange(p_frames)).clip(0, last).ravel()
    groups = Snippets(source, later, np.empty((len(later), 0), int))
    found = {"accumulated": groups, "residual": groups}
    for modality in variant.segment.keys() - found.keys():
        count = variant.segment[modality][1] // (2 if MODALITIES[modality].is_motion else 3)
        fields = (starts[:, None] + np.arange(count)).clip(0, last - 1)
        is_run = modality == "rgb" and count > 1
        found[modality] = Snippets(source, starts + count // 2 if is_run else frames, fields)
    return found


# The systems


def macs(network: nn.Module, inputs: Mapping[str, tuple[int, ...]]) -> float:
    """Multiply-adds of one forward pass, counted without computing values."""
    nowhere = network.to("meta")
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        nowhere({m: torch.empty(shape, dtype=torch.uint8) for m, shape in inputs.items()})
    return counter.get_total_flops() / 2


class System:
    """A row of ROWS on the device: folded batch normalisation, channels last, compiled if the conditions say so.

    Its weights are random, because the speed does not depend on them.
    """

    def __init__(self, name: str, conditions: Conditions, num_frames: int) -> None:
        self.name, self.conditions = name, conditions
        self.variant = ROWS[name].at(conditions.size)
        self.taken = segments_taken(self.variant, num_frames, conditions.segments)
        with torch.device("meta"):
            self.gmacs = macs(self.variant.network(ACTIONS).eval(), self.variant.inputs(1, self.taken)) / 1e9
        network = folded(self.variant.network(ACTIONS), conditions.machine.dtype(conditions.device))
        network = network.to(conditions.device)
        self.network: Callable[[Mapping[str, Tensor]], Any] = (
            compiled_network(network) if conditions.machine.compile else network
        )

    @torch.inference_mode()
    def logits(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Bytes on the device -> the logits of each head on the device."""
        with self.conditions.machine.autocast(self.conditions.device):
            return self.network(inputs).logits

    @torch.inference_mode()
    def scores(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "N A"]:
        """Bytes on any device -> late-fused scores in the host's memory."""
        there = {m: x.to(self.conditions.device, non_blocking=True) for m, x in inputs.items()}
        return late_fusion({head: x.float() for head, x in self.logits(there).items()}).cpu()

    def scores_of_file(self, video: Path) -> Float[Tensor, "N A"]:
        """The file on disk -> late-fused scores."""
        return self.scores(read_inputs(video, self.variant, self.conditions.segments, self.conditions.device))

    def workloads(self) -> Iterator[Workload]:
        """The workloads to time, one per definition, after a warm-up."""
        on, generator = self.conditions, torch.Generator().manual_seed(0)
        shapes = self.variant.inputs(1, self.taken)
        inputs = {m: torch.randint(0, 256, s, generator=generator, dtype=torch.uint8) for m, s in shapes.items()}
        if on.on_gpu:
            inputs = {m: x.pin_memory() for m, x in inputs.items()}
        there = {m: x.to(on.device).repeat(on.batch, 1, 1, 1, 1) for m, x in inputs.items()}
        warm = 1 if ROWS[self.name].frames > 1 else 2  # number of segments; pairs need two
        self.scores({m: x[:, : x.shape[1] * warm // self.taken] for m, x in inputs.items()})
        if on.on_gpu:
            self.logits(there)
        count, cost = float(on.batch * self.taken), self.gmacs
        yield Workload(self.name, SNIPPETS, count, lambda: self.logits(there), on.batch * cost)
        yield Workload(self.name, VIDEOS, 1.0, lambda: self.scores(inputs), cost)
        if on.video is None:
            return
        width, height = stored_size(self.variant)
        fields = self.taken * self.variant.segment.get("flow", (0, 0))[1] / 2
        flow = width * height * TVL1_GMACS * fields
        yield Workload(self.name, END_TO_END, 1.0, partial(self.scores_of_file, on.video), cost + flow)


def workloads(conditions: Conditions, num_frames: int) -> Iterator[Workload]:
    """All workloads of one round. Each is built and warmed up when the iterator reaches it."""
    yield from bounds(conditions, num_frames)
    for name in conditions.rows:
        yield from System(name, conditions, num_frames).workloads()


def bounds(conditions: Conditions, num_frames: int) -> Iterator[Workload]:
    """The workloads that bound every system: decoding, and the rate of multiply-adds of the device."""
    variant, side = ROWS["mv-if-ttn"].at(conditions.size), 8192 if conditions.on_gpu else 1024
    a = torch.ones(side, side, device=conditions.device, dtype=conditions.machine.dtype(conditions.device))
    if conditions.video:
        yield Workload(DECODE, "", 1.0, partial(_decoded, conditions.video), num_frames / 100)
        read = partial(read_inputs, conditions.video, variant, conditions.segments)
        yield Workload(VECTORS, "", 1.0, read, num_frames / 50)
    yield Workload(PRODUCT, "", side**3 / 1e9, lambda: a @ a, side**3 / 1e9)


def _decoded(video: Path) -> int:
    import av

    with av.open(video, metadata_errors="replace") as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))
