"""TSN (Wang et al., ECCV 2016) on its own backbone, BN-Inception (Ioffe & Szegedy, ICML 2015, Figure 5).

This network is for measuring speed: the speeds in Table 5 were measured on BN-Inception, which costs half as much as
ResNet-50. The TSN rows of the study are our `Network` without fusion, on ResNet-50 as in the paper. torchvision's
GoogLeNet cannot serve here: it has fewer modules, and one 5 x 5 convolution in place of two 3 x 3. Convolutions keep
their bias before batch normalisation, as in TSN's release.

Shapes: S snippets, C channels, H x W pixels (multiples of 32), A actions.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ifttn.model.network import Head
from ifttn.model.peers.streams import Streams
from ifttn.vocabulary import MODALITIES

Branches = tuple[int, int, int, int, int, int, str]

# Channels of: 1x1; 3x3 reduce, 3x3; double 3x3 reduce, double 3x3; projection after pooling. Then the kind of pooling.
# A module without 1x1 has stride 2 and passes its pooled input on.
MODULES: dict[str, Branches] = {
    "3a": (64, 64, 64, 64, 96, 32, "avg"),
    "3b": (64, 64, 96, 64, 96, 64, "avg"),
    "3c": (0, 128, 160, 64, 96, 0, "max"),
    "4a": (224, 64, 96, 96, 128, 128, "avg"),
    "4b": (192, 96, 128, 96, 128, 128, "avg"),
    "4c": (160, 128, 160, 128, 160, 128, "avg"),
    "4d": (96, 128, 192, 160, 192, 128, "avg"),
    "4e": (0, 128, 192, 192, 256, 0, "max"),
    "5a": (352, 192, 320, 160, 224, 128, "avg"),
    "5b": (352, 192, 320, 192, 224, 128, "max"),
}


def unit(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Inception(nn.Module):
    """One row of MODULES: parallel branches whose outputs are concatenated."""

    def __init__(self, inputs: int, row: Branches, width: int) -> None:
        super().__init__()
        one, three_in, three, double_in, double, projection = (n * width // 64 for n in row[:6])
        stride = 1 if one else 2
        maximum = nn.MaxPool2d(3, stride, padding=2 - stride, ceil_mode=True)
        pool = nn.AvgPool2d(3, 1, padding=1) if row[6] == "avg" else maximum
        branches = [
            nn.Sequential(unit(inputs, three_in, 1), unit(three_in, three, 3, stride)),
            nn.Sequential(unit(inputs, double_in, 1), unit(double_in, double, 3), unit(double, double, 3, stride)),
            nn.Sequential(pool, unit(inputs, projection, 1)) if projection else pool,
        ]
        self.branches = nn.ModuleList([unit(inputs, one, 1), *branches] if one else branches)
        self.channels = one + three + double + (projection or inputs)

    def forward(self, x: Float[Tensor, "S C H W"]) -> Float[Tensor, "S _ _ _"]:
        """Features -> features with `channels` channels."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class BNInception(nn.Module):
    """The network, for any number of input channels.

    Args:
        channels: planes of a snippet.
        actions: number of outputs of the classifier.
        dropout: dropout before the classifier; TSN has 0.8 for RGB, 0.7 for motion.
        width: channels of the first convolution; below 64, all layers are narrower in proportion.
    """

    def __init__(self, channels: int, actions: int, dropout: float = 0.8, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            unit(channels, width, 7, stride=2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            unit(width, width, 1),
            unit(width, 3 * width, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        self.channels, inputs = {}, 3 * width
        modules = {}
        for name, row in MODULES.items():
            modules[name] = Inception(inputs, row, width)
            inputs = self.channels[name] = modules[name].channels
        self.inceptions = nn.ModuleDict(modules)
        self.head = Head(inputs, actions, dropout)

    def features(self, images: Float[Tensor, "S C H W"]) -> dict[str, Float[Tensor, "S _ _ _"]]:
        """Normalised images -> the output of each module, by name."""
        x, outputs = self.stem(images), {}
        for name, module in self.inceptions.items():
            x = outputs[name] = module(x)
        return outputs

    def forward(self, images: Float[Tensor, "S C H W"]) -> Float[Tensor, "S A"]:
        """Normalised images -> votes."""
        return self.head(self.features(images)["5b"])


def tsn(actions: int, modalities: Sequence[str], width: int = 64) -> Streams:
    """TSN on some modalities ("rgb", "flow", "rgbdiff")."""
    return Streams(
        {
            name: BNInception(MODALITIES[name].channels, actions, 0.8 if name == "rgb" else 0.7, width)
            for name in modalities
        }
    )
