"""OFF (Sun et al., CVPR 2018): optical-flow-guided features on BN-Inception, on RGB and on RGB differences.

Optical flow assumes constant brightness: dF/dx vx + dF/dy vy + dF/dt = 0. On features F, (dF/dx, dF/dy, dF/dt) is
orthogonal to (vx, vy, 1) and can be computed without flow. The layers follow the release
(rgb_off/1/deploy_tpl.prototxt): one kernel sums the central differences of x and y. The paper has two Sobel kernels.
Shapes: N videos, K segments, S = N*K snippets, P = N*(K-1) pairs, C channels, H x W pixels (multiples of 32), A
actions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ifttn.model.backbone import Pyramid
from ifttn.model.network import Head
from ifttn.model.peers.off_heads import heads_of
from ifttn.model.peers.streams import Streams
from ifttn.model.peers.tsn import MODULES, BNInception
from ifttn.model.temporal import change, pairs
from ifttn.vocabulary import MODALITIES

OFF_LEVELS = {"28": ("3a", "3b"), "14": ("3c", "4a", "4b", "4c", "4d"), "7": ("5a", "5b")}
"""Cells per side of a level (for 224 pixels) -> the modules of BN-Inception whose features enter at that level."""


class OFFLayer(nn.Module):
    """Features of snippets -> spatial gradient and temporal difference of pairs."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.temporal = nn.Sequential(nn.Conv2d(channels, 2 * width, 1), nn.ReLU())
        self.spatial = nn.Conv2d(channels, width // 2, 1)
        self.kernel: Tensor
        kernel = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
        self.register_buffer("kernel", kernel.repeat(width // 2, 1, 1, 1), persistent=False)
        self.dropout = nn.Dropout(0.8)
        self.channels = 2 * width + width // 2

    def forward(self, features: Float[Tensor, "S C H W"], segments: int) -> Float[Tensor, "P _ H W"]:
        """The gradient of the earlier snippet, then the difference: later minus earlier."""
        reduced = self.spatial(pairs(features, segments)[0])
        gradient = F.conv2d(reduced, self.kernel, padding=1, groups=reduced.shape[1])
        return torch.cat([self.dropout(gradient), change(self.temporal(features), segments)], dim=1)


class Residual(nn.Module):
    """A bottleneck without batch normalisation. No ReLU follows the sum."""

    def __init__(self, inputs: int, middle: int, kernel: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, middle, 1),
            nn.ReLU(),
            nn.Conv2d(middle, middle, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(middle, 4 * middle, kernel, padding=kernel // 2),
        )
        self.shortcut = nn.Conv2d(inputs, 4 * middle, 1) if inputs != 4 * middle else nn.Identity()

    def forward(self, x: Float[Tensor, "P C H W"]) -> Float[Tensor, "P _ H W"]:
        """Features -> features with four times `middle` channels."""
        return self.body(x) + self.shortcut(x)


class OFFStream(nn.Module):
    """BN-Inception votes on snippets, and the OFF sub-network votes on pairs at each of its levels.

    Args:
        channels: planes of a snippet.
        actions: number of outputs of each classifier.
        width: channels of BN-Inception's first convolution; below 64, all layers are narrower in proportion.
    """

    def __init__(self, channels: int, actions: int, width: int = 64) -> None:
        super().__init__()
        self.base = BNInception(channels, actions, width=width)
        layers = {name: OFFLayer(self.base.channels[name], width) for names in OFF_LEVELS.values() for name in names}
        self.layers = nn.ModuleDict(layers)
        entry = {level: sum(layers[name].channels for name in names) for level, names in OFF_LEVELS.items()}
        self.levels = nn.ModuleDict(
            {
                "28": nn.Sequential(
                    nn.Conv2d(entry["28"], width, 7, stride=2, padding=3),
                    nn.ReLU(),
                    Residual(width, width),
                    nn.ReLU(),
                    Residual(4 * width, width),
                    nn.ReLU(),
                    Residual(4 * width, width),
                    nn.ReLU(),
                ),
                "14": nn.Sequential(
                    nn.Conv2d(entry["14"] + 4 * width, 2 * width, 5, stride=2, padding=2),
                    nn.ReLU(),
                    Residual(2 * width, 2 * width),
                    nn.ReLU(),
                    Residual(8 * width, 2 * width, kernel=3),
                    nn.ReLU(),
                ),
                "7": nn.Sequential(
                    nn.Conv2d(entry["7"] + 8 * width, 4 * width, 3, padding=1),
                    nn.ReLU(),
                    Residual(4 * width, 4 * width),
                ),
            }
        )
        widths = {"28": 4 * width, "14": 8 * width, "7": 16 * width}
        self.heads = nn.ModuleDict({level: Head(n, actions, 0.8) for level, n in widths.items()})

    def votes(self, features: Mapping[str, Float[Tensor, "S _ _ _"]], segments: int) -> dict[str, Float[Tensor, "_ A"]]:
        """Features of BN-Inception's modules -> votes "base" of snippets and votes "28", "14", "7" of pairs."""
        votes, carried = {"base": self.base.head(features["5b"])}, []
        for level, names in OFF_LEVELS.items():
            entering = [self.layers[name](features[name], segments) for name in names]
            x = self.levels[level](torch.cat([*entering, *carried], dim=1))
            votes[level], carried = self.heads[level](x), [x]
        return votes


class OFF(Streams):
    """A stream for each modality, with the heads of `heads_of`. Pairs need two snippets or more."""

    def __init__(self, actions: int, modalities: Sequence[str] = ("rgb", "rgbdiff"), width: int = 64) -> None:
        super().__init__({m: OFFStream(MODALITIES[m].channels, actions, width) for m in modalities})
        self.head_names = tuple(head for modality in modalities for head in heads_of(modality).values())

    @staticmethod
    def features_of(stream: Any, images: Float[Tensor, "S C H W"]) -> Pyramid:
        """The output of each module of the base, by its index in MODULES."""
        return dict(enumerate(stream.base.features(images).values()))

    @staticmethod
    def votes_of(name: str, stream: Any, features: Pyramid, segments: int) -> dict[str, Float[Tensor, "_ A"]]:
        """The votes of the snippets and of their pairs."""
        votes = stream.votes(dict(zip(MODULES, features.values(), strict=True)), segments)
        return {heads_of(name)[source]: vote for source, vote in votes.items()}
