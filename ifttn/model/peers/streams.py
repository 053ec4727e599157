"""Streams that meet in nothing but their scores: what all peers but OFF are made of, whose snippets meet in pairs.

Shapes: N videos, K segments, V snippets of a video, S = N*V, C channels of an image, T images that a snippet stacks
(its planes are ordered image by image: r1, g1, b1, r2, ...), H x W pixels, A actions.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ifttn.model.network import Output
from ifttn.vocabulary import MODALITIES

STATISTICS = {**MODALITIES, "accumulated": MODALITIES["mv"], "residual": MODALITIES["rgbdiff"]}
"""Where the mean and the deviation of an input come from; the last two are CoViAR's. No peer's weights are loaded, so
all share one normalisation."""


def standardise(images: Tensor, modality: str) -> Float[Tensor, "S C H W"]:
    """Bytes 0..255 of a snippet of any number of planes -> zero mean, unit deviation."""
    of = STATISTICS[modality]

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

    def forward(self, inputs: Mapping[str, Tensor]) -> Output:
        """Per modality, (N, V, planes, H, W) in 0..255, bytes or floats. V may differ between modalities."""
        return consensus(
            {
                modality: stream(standardise(inputs[modality].flatten(0, 1), modality)).unflatten(
                    0, inputs[modality].shape[:2]
                )
                for modality, stream in self.streams.items()
            }
        )
