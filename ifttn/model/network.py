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
    """What a network is made of. Every row of the paper's ablations is one of these.

    Raises:
        IfttnError: a name that is not in its table.
    """

    actions: int
    modalities: tuple[str, ...] = ("rgb", "flow")
    """One stream and one head each. A fusion takes the first as appearance, the second as motion."""
    fusion: str | None = "attention"
    """A name of FUSIONS; "separate" gives every stream a temporal part of its own (Table 1); None has neither."""
    temporal: str = "ttn"
    """A name of TEMPORALS."""
    backbone: str = "resnet50"
    dropout: Mapping[str, float] = field(default_factory=lambda: {"rgb": 0.8, "motion": 0.7, "ttn": 0.8})
    """Before the classifier of the spatial stream, of a temporal stream, and of what follows the fusion."""

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
    """What a network says, and every intermediate that one may want to look at."""

    logits: dict[str, Float[Tensor, "N A"]]
    """Per head: the consensus, the mean of the votes."""
    votes: dict[str, Float[Tensor, "N V A"]]
    """Per head: V = K votes of snippets or V = K - 1 votes of pairs, in temporal order."""
    taps: dict[str, Float[Tensor, "_ C H W"]]
    """"<modality>.<level>" and "fused.<level>" of S snippets; "<temporal head>.<level>" of P pairs (S for average)."""


class Head(nn.Linear):
    """Global average pooling, dropout, linear: so that a class activation map is exact."""

    def __init__(self, channels: int, actions: int, dropout: float) -> None:
        super().__init__(channels, actions)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.weight, std=0.001)
        nn.init.zeros_(self.bias)

    def forward(self, input: Float[Tensor, "_ C H W"]) -> Float[Tensor, "_ A"]:
        """Level 5 of snippets or pairs -> a vote each."""
        return super().forward(self.dropout(input.mean((2, 3))))


class Scorer(nn.Module, ABC):
    """What can be trained and tested: our network, or a peer of Table 5."""

    settings: NetworkSettings
    streams: nn.ModuleDict
    """What looks at snippets one by one, a part a modality."""

    @property
    @abstractmethod
    def scoring(self) -> tuple[str, ...]:
        """Heads that score."""

    @abstractmethod
    def pyramids(self, inputs: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """Per modality, (N, K, C, H, W) in 0..255 -> the pyramid of its stream, of S snippets."""

    @abstractmethod
    def read(self, pyramids: Mapping[str, Pyramid], segments: int) -> Output:
        """Everything after the streams."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Per modality, (N, K, C, H, W) in 0..255, bytes or floats."""
        return self.read(self.pyramids(inputs), segments=next(iter(inputs.values())).shape[1])


class Network(Scorer):
    """Two streams, IFM and TTN; or any part of it (`NetworkSettings`). `network.heads[h].weight` is (A, C)."""

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
        """Heads after a temporal part: none, "ttn", or one a stream."""
        if self.settings.fusion == "separate":
            return tuple(f"ttn-{modality}" for modality in self.settings.modalities)
        return ("ttn",) if self.settings.fusion else ()

    @property
    def scoring(self) -> tuple[str, ...]:
        """Heads that score."""
        return (*self.settings.modalities, *self.temporal_heads)

    def pyramids(self, inputs: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """Per modality, (N, K, C, H, W) in 0..255 -> the pyramid of its stream, of S snippets."""
        return pyramids_of(self.streams, inputs)

    def read(self, pyramids: Mapping[str, Pyramid], segments: int) -> Output:
        """Everything after the streams: fusion, temporal part, heads, consensus."""
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
    """Per modality, (N, K, C, H, W) in 0..255 -> the pyramid of its stream, of S snippets."""
    return {m: stream(normalise(inputs[m].flatten(0, 1), m)) for m, stream in streams.items()}


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode; afterwards every module is in the mode that it was in before."""
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
    """Bytes 0..255 of one modality -> zero mean, unit deviation, in the memory layout that 2D convolutions prefer."""
    placed = images.contiguous(memory_format=layout)  # now, as bytes move faster than floats
    return (placed - _column(MODALITIES[modality].mean, images)).div_(_column(MODALITIES[modality].std, images))


def _column(values: tuple[float, ...], images: Tensor) -> Float[Tensor, "C 1 1"]:
    # Made on the device: a GPU would have to end its work before it takes a tensor from the host.
    made = torch.stack([torch.full((), value, device=images.device) for value in values])
    return made.repeat(images.shape[1] // len(values)).view(-1, 1, 1)
