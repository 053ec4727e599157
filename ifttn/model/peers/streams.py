"""Streams that meet in nothing but their scores: what all peers are made of.

Shapes: N videos, K segments, V snippets of a video, S = N*V, C channels of an image, T images that a snippet stacks
(its planes are ordered image by image: r1, g1, b1, r2, ...), H x W pixels, A actions.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ifttn.model.backbone import Pyramid
from ifttn.model.network import Output
from ifttn.vocabulary import MODALITIES

VOTE = 5
"""The one level of a snippet's pyramid where all that is made of the snippet is its vote: a map of one cell."""


def standardise(images: Tensor, modality: str) -> Float[Tensor, "S C H W"]:
    """Bytes 0..255 of a snippet of any number of planes -> zero mean, unit deviation.

    No peer's weights are loaded, so all share one normalisation.
    """
    of = MODALITIES[modality]

    def column(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values * (images.shape[1] // len(values)), device=images.device).view(1, -1, 1, 1)

    return (images - column(of.mean)) / column(of.std)


def volume(planes: Float[Tensor, "S planes H W"], channels: int) -> Float[Tensor, "S C T H W"]:
    """Stacked planes -> what a 3D convolution takes."""
    return planes.unflatten(1, (-1, channels)).transpose(1, 2)


def cells(features: nn.Module, shape: tuple[int, ...]) -> int:
    """How many numbers `features` makes of one input of that shape; nothing is computed."""
    return deepcopy(features).to("meta")(torch.empty(1, *shape, device="meta")).numel()


def consensus(votes: Mapping[str, Float[Tensor, "N V A"]]) -> Output:
    """The mean of the votes, head by head."""
    return Output({head: vote.mean(1) for head, vote in votes.items()}, dict(votes), taps={})


class Streams(nn.Module):
    """One stream a modality, each with votes (S, A) of its own and a head named after its modality."""

    def __init__(self, streams: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(dict(streams))
        self.heads = tuple(streams)

    @staticmethod
    def look(stream: Any, images: Float[Tensor, "S C H W"]) -> Pyramid:
        """What a stream makes of normalised snippets one by one: its votes."""
        return {VOTE: stream(images)[:, :, None, None]}

    @staticmethod
    def votes(name: str, stream: Any, seen: Pyramid, segments: int) -> dict[str, Float[Tensor, "_ A"]]:
        """What `look` made of the snippets of videos -> the votes of each of the stream's heads."""
        return {name: seen[VOTE][:, :, 0, 0]}

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Per modality, (N, V, planes, H, W) in 0..255, bytes or floats. V may differ between modalities."""
        votes = {}
        for name, stream in self.streams.items():
            videos, segments = inputs[name].shape[:2]
            seen = self.look(stream, standardise(inputs[name].flatten(0, 1), name))
            for head, vote in self.votes(name, stream, seen, segments).items():
                votes[head] = vote.unflatten(0, (videos, -1))
        return consensus(votes)
