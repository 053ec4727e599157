"""The network: streams -> fusion -> temporal -> consensus (paper Figure 2).

Shapes: N videos, K segments, S = N*K snippets, P = N*(K-1) pairs, C channels, H x W pixels or cells, A actions.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ifttn.model.backbone import BACKBONES, Pyramid, build_backbone
from ifttn.model.fusion import FUSIONS
from ifttn.model.temporal import TEMPORALS
from ifttn.vocabulary import MODALITIES, IfttnError


@dataclass(frozen=True)
class NetworkSettings:
    """The parts of a network. Every row of the paper's ablations is one such setting.

    Raises:
        IfttnError: the name of a part is unknown.
    """

    actions: int
    modalities: tuple[str, ...] = ("rgb", "flow")
    """Each has a stream and a head. A fusion takes the first as appearance and the second as motion."""
    fusion: str | None = "attention"
    """A name of FUSIONS; "separate": one temporal part per stream (Table 1); None: no fusion and no temporal part."""
    temporal: str = "ttn"
    """A name of TEMPORALS."""
    backbone: str = "resnet50"
    dropout: Mapping[str, float] = field(default_factory=lambda: {"rgb": 0.8, "motion": 0.7, "ttn": 0.8})
    """Dropout before the classifier of the spatial stream, of a temporal stream, and of the temporal part."""

    def __post_init__(self) -> None:
        for name, table in [
            *((modality, MODALITIES) for modality in self.modalities),
            (self.fusion, {None: None, "separate": None, **FUSIONS}),
            (self.temporal, TEMPORALS),
            (self.backbone, BACKBONES),
        ]:
            if name not in table:
                raise IfttnError(f"unknown part {name!r} of a network: choose from {', '.join(map(str, table))}")


class Output(NamedTuple):
    """The output of a network, with its intermediate features."""

    logits: dict[str, Float[Tensor, "N A"]]
    """Per head, the consensus: the mean of the votes."""
    votes: dict[str, Float[Tensor, "N V A"]]
    """Per head, V = K votes of snippets or V = K - 1 votes of pairs, in temporal order."""
    taps: dict[str, Float[Tensor, "_ C H W"]]
    """Features: "<modality>.<level>" and "fused.<level>" of S snippets, "<temporal head>.<level>" of P pairs (of S
    snippets for "average")."""


class Head(nn.Linear):
    """Global average pooling, dropout and a linear layer. With this head, a class activation map is exact."""

    def __init__(self, channels: int, actions: int, dropout: float) -> None:
        super().__init__(channels, actions)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.weight, std=0.001)
        nn.init.zeros_(self.bias)

    def forward(self, input: Float[Tensor, "_ C H W"]) -> Float[Tensor, "_ A"]:
        """Level 5 of snippets or pairs -> one vote for each."""
        return super().forward(self.dropout(input.mean((2, 3))))


class Scorer(nn.Module, ABC):
    """A network that can be trained and tested: ours, or a peer of Table 5."""

    settings: NetworkSettings
    streams: nn.ModuleDict
    """Per modality, the part that computes features of single snippets."""
    pretrained: tuple[str, ...] = ()
    """Names of the parts that can start from ImageNet's weights."""
    foldable = True
    """Whether parts compute in the order of their definition (`ifttn.model.folding`)."""

    @property
    @abstractmethod
    def scoring(self) -> tuple[str, ...]:
        """Heads whose scores count."""

    @abstractmethod
    def pyramids(self, inputs: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """Per modality, (N, K, C, H, W) in 0..255 -> the pyramid of S snippets."""

    @abstractmethod
    def read(self, pyramids: Mapping[str, Pyramid], segments: int) -> Output:
        """The forward pass of everything after the streams."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Per modality, (N, K, C, H, W) in 0..255, as bytes or floats -> the output."""
        return self.read(self.pyramids(inputs), segments=next(iter(inputs.values())).shape[1])


class Network(Scorer):
    """Two streams, IFM and TTN, or some of these parts (`NetworkSettings`). `network.heads[h].weight` is (A, C)."""

    pretrained = ("streams.rgb",)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        streams = {name: build_backbone(settings.backbone, MODALITIES[name].channels) for name in settings.modalities}
        temporal = {head: TEMPORALS[settings.temporal](settings.backbone) for head in self.temporal_heads}
        drop, actions = settings.dropout, settings.actions
        heads = {
            modality: Head(stream.channels[5], actions, drop["motion" if MODALITIES[modality].is_motion else "rgb"])
            for modality, stream in streams.items()
        }
        heads.update({head: Head(part.channels, actions, drop["ttn"]) for head, part in temporal.items()})
        self.streams, self.temporal, self.heads = nn.ModuleDict(streams), nn.ModuleDict(temporal), nn.ModuleDict(heads)
        self.fusion = FUSIONS[settings.fusion]() if settings.fusion in FUSIONS else None
        self.to(memory_format=torch.channels_last)

    @property
    def temporal_heads(self) -> tuple[str, ...]:
        """Heads after a temporal part: none, "ttn", or one for each stream."""
        if self.settings.fusion == "separate":
            return tuple(f"ttn-{modality}" for modality in self.settings.modalities)
        return ("ttn",) if self.settings.fusion else ()

    @property
    def scoring(self) -> tuple[str, ...]:
        """Heads whose scores count."""
        return (*self.settings.modalities, *self.temporal_heads)

    def pyramids(self, inputs: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """Per modality, (N, K, C, H, W) in 0..255 -> the pyramid of S snippets."""
        return pyramids_of(self.streams, inputs)

    def read(self, pyramids: Mapping[str, Pyramid], segments: int) -> Output:
        """The forward pass after the streams: fusion, temporal part, heads, consensus."""
        fused = self.fusion(*pyramids.values()) if self.fusion else {}
        sources = pyramids.values() if self.settings.fusion == "separate" else (fused,)
        maps = {
            **pyramids,
            **{
                head: temporal(source, segments)
                for (head, temporal), source in zip(
                    self.temporal.items(), sources if self.temporal else (), strict=True
                )
            },
        }
        videos = next(iter(pyramids.values()))[5].shape[0] // segments
        votes = {head: cast(Head, self.heads[head])(maps[head][5]).unflatten(0, (videos, -1)) for head in self.heads}
        taps = {
            f"{name}.{level}": x for name, levels in {**maps, "fused": fused}.items() for level, x in levels.items()
        }
        return Output({head: vote.mean(1) for head, vote in votes.items()}, votes, taps)


def pyramids_of(streams: nn.ModuleDict, inputs: Mapping[str, Tensor]) -> dict[str, Pyramid]:
    """Per modality, (N, K, C, H, W) in 0..255 -> the pyramid of S snippets."""
    return {m: stream(normalise(inputs[m].flatten(0, 1), m)) for m, stream in streams.items()}


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode. Afterwards every module has its earlier mode again."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def normalise(
    images: Tensor, modality: str, layout: torch.memory_format = torch.channels_last
) -> Float[Tensor, "S C H W"]:
    """Bytes 0..255 of one modality -> values of zero mean and unit deviation, in the memory layout `layout`."""
    placed = images.contiguous(memory_format=layout)  # before the conversion, because bytes move faster than floats
    return (placed - _column(MODALITIES[modality].mean, images)).div_(_column(MODALITIES[modality].std, images))


def _column(values: tuple[float, ...], images: Tensor) -> Float[Tensor, "C 1 1"]:
    # The tensor is made on the device: to copy one from the host, a GPU would first have to finish its work.
    made = torch.stack([torch.full((), value, device=images.device) for value in values])
    return made.repeat(images.shape[1] // len(values)).view(-1, 1, 1)
