"""The common form of all peers: streams that are combined only by late fusion of their logits.

Shapes: N videos, K segments, V snippets of a video, S = N*V, C channels of an image, T images in a snippet's planes
(in the order r1, g1, b1, r2, ...), H x W pixels.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ifttn.model.backbone import Pyramid
from ifttn.model.network import Output, Scorer, normalise

VOTE = 5
"""The level of a pyramid that holds only the vote of a snippet, as a map of one cell."""
IMAGES = 1
"""The level of a pyramid that holds the normalised images, for a stream that sees all snippets of a video at once."""


def volume(planes: Float[Tensor, "S planes H W"], channels: int) -> Float[Tensor, "S C T H W"]:
    """Stacked planes -> the input of a 3D convolution."""
    return planes.unflatten(1, (-1, channels)).transpose(1, 2)


def output_size(features: nn.Module, shape: tuple[int, ...]) -> int:
    """How many numbers `features` returns for one input of a shape. No value is computed."""
    return deepcopy(features).to("meta")(torch.empty(1, *shape, device="meta")).numel()


class Streams(Scorer):
    """One stream for each modality.

    Most streams map the images (S, C, H, W) of snippets to votes (S, A). OFF's streams vote on pairs as well.
    """

    def __init__(self, streams: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(dict(streams))
        self.head_names = tuple(streams)
        self.modalities = tuple(streams)
        """Names of the inputs, in the order of the streams."""
        self.size: int | None = None
        """Images are resized to this side in pixels. None: they are not resized."""

    @property
    def scoring(self) -> tuple[str, ...]:
        """Heads whose scores count. A head with a dot in its name only serves the loss."""
        return tuple(head for head in self.head_names if "." not in head)

    @staticmethod
    def features_of(stream: Any, images: Float[Tensor, "S C H W"]) -> Pyramid:
        """The features of single normalised snippets: here, the votes of the stream."""
        return {VOTE: stream(images)[:, :, None, None]}

    @staticmethod
    def votes_of(name: str, stream: Any, features: Pyramid, segments: int) -> dict[str, Float[Tensor, "_ A"]]:
        """Features of the snippets of videos -> the votes of each head of the stream."""
        return {name: features[VOTE][:, :, 0, 0]}

    def pyramids(self, inputs: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """Per modality, (N, V, planes, H, W) in 0..255 -> the features of each stream. Modalities may differ in V."""
        found: dict[str, Pyramid] = {}
        for (name, stream), modality in zip(self.streams.items(), self.modalities, strict=True):
            images = normalise(inputs[modality].flatten(0, 1), name, layout=torch.contiguous_format)
            if self.size and images.shape[-1] != self.size:  # C3D's images are half as large as those of other peers
                images = functional.interpolate(images, size=(self.size, self.size), mode="area")
            found[name] = self.features_of(stream, images)
        return found

    def read(self, pyramids: Mapping[str, Pyramid], segments: int) -> Output:
        """The mean of the votes of snippets or pairs. Heads that only serve the loss vote only in training."""
        snippets = next(iter(next(iter(pyramids.values())).values())).shape[0]
        votes = {}
        for (name, stream), features in zip(self.streams.items(), pyramids.values(), strict=True):
            for head, vote in self.votes_of(name, stream, features, segments).items():
                if self.training or head in self.scoring:
                    votes[head] = vote.unflatten(0, (snippets // segments, -1))
        return Output({head: vote.mean(1) for head, vote in votes.items()}, votes, taps={})


class VideoStreams(Streams):
    """Streams that compute all snippets of a video at once: `stream(images, segments)` -> votes of snippets or videos.

    Their pyramids are the images, and `read` computes the streams. So snippets can be in another order, as for ours.
    """

    def __init__(self, streams: Mapping[str, nn.Module], pretrained: tuple[str, ...] = ()) -> None:
        super().__init__(streams)
        self.pretrained = pretrained

    @staticmethod
    def features_of(stream: Any, images: Float[Tensor, "S C H W"]) -> Pyramid:
        """The images, unchanged."""
        return {IMAGES: images}

    @staticmethod
    def votes_of(name: str, stream: Any, features: Pyramid, segments: int) -> dict[str, Float[Tensor, "_ A"]]:
        """The votes of the snippets, or one vote of each video."""
        return {name: stream(features[IMAGES], segments)}
