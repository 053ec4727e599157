"""The temporal part of the network: TTN (paper section 3.2) and its alternatives.

Each maps the fused pyramid of snippets to feature maps. A head votes on the last map, level 5.
Shapes: N videos, K segments, S = N*K snippets, P = N*(K-1) pairs of neighbouring segments, C channels, H x W cells.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ifttn.model.backbone import Pyramid, build_backbone


def pairs(
    snippets: Float[Tensor, "S C H W"], segments: int
) -> tuple[Float[Tensor, "P C H W"], Float[Tensor, "P C H W"]]:
    """The earlier and the later snippet of every pair of neighbouring segments: f_i and f_j, j = i + 1."""
    ordered = snippets.unflatten(0, (-1, segments))  # (N, K, C, H, W)
    return ordered[:, :-1].flatten(0, 1), ordered[:, 1:].flatten(0, 1)


def change(snippets: Float[Tensor, "S C H W"], segments: int) -> Float[Tensor, "P C H W"]:
    """The temporal transformation operator of section 3.2: later minus earlier, f_j - f_i."""
    # Channels are last while pairs are taken, so that the change and its gradient have the memory layout of features.
    ordered = snippets.movedim(1, -1).unflatten(0, (-1, segments))
    return (ordered[:, 1:] - ordered[:, :-1]).flatten(0, 1).movedim(-1, 1)


class TemporalTransformation(nn.Module):
    """TTN: levels 3, 4 and 5 of a ResNet whose input is the change from one snippet to the next (Eq. 5).

    The input of level 3 is the change of level 2. Only then do the levels fit the pre-trained weights that the paper
    loads. Nothing is added after level 5, so that a linear head reads one map.
    """

    def __init__(self, backbone: str) -> None:
        super().__init__()
        body = build_backbone(backbone, channels=1)
        self.layer2, self.layer3, self.layer4 = body.layer2, body.layer3, body.layer4
        self.channels = body.channels[5]

    def forward(self, fused: Pyramid, segments: int) -> Pyramid:
        """Fused pyramid of S snippets -> r_out at levels 3..5 of P pairs."""
        r: Pyramid = {3: self.layer2(change(fused[2], segments))}
        r[4] = self.layer3(change(fused[3], segments) + r[3])  # Eq. 5
        r[5] = self.layer4(change(fused[4], segments) + r[4])  # Eq. 5
        return r


class Average(nn.Module):
    """TSN's consensus: each snippet votes from its own level 5, and the order has no effect."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.channels = build_backbone(backbone, channels=1).channels[5]

    def forward(self, fused: Pyramid, segments: int) -> Pyramid:
        """Level 5 of S snippets, unchanged."""
        return {5: fused[5]}


class TemporalRelation(nn.Module):
    """TRN of two frames (Zhou et al. 2018; Figure 4): a multilayer perceptron on features pooled over space."""

    channels = 256

    def __init__(self, backbone: str) -> None:
        super().__init__()
        width = build_backbone(backbone, channels=1).channels[5]
        self.relation = nn.Sequential(nn.ReLU(), nn.Linear(2 * width, self.channels), nn.ReLU())

    def forward(self, fused: Pyramid, segments: int) -> Pyramid:
        """The relation of P pairs, as maps of one cell."""
        pooled = torch.cat([side.mean((2, 3)) for side in pairs(fused[5], segments)], dim=1)
        return {5: self.relation(pooled)[:, :, None, None]}


TEMPORALS = {"ttn": TemporalTransformation, "average": Average, "trn": TemporalRelation}
