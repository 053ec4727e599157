"""What a video's descriptors say in their order: TTN (paper section 3.2) and its siblings.

Each sibling maps a pyramid of snippets to the feature maps that a head votes on; the last of them is level 5.
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
    # Channels stand last while pairs are cut out, so that the change and its gradient lie in memory as features do.
    ordered = snippets.movedim(1, -1).unflatten(0, (-1, segments))
    return (ordered[:, 1:] - ordered[:, :-1]).flatten(0, 1).movedim(-1, 1)


class TemporalTransformation(nn.Module):
    """TTN: levels 3, 4 and 5 of a ResNet whose trunk carries the change from one snippet to the next (Eq. 5).

    Level 3 starts from the change of level 2 alone: only so do the levels fit the pre-trained weights that the paper
    loads. After level 5 nothing is added, so that a linear head reads one map.
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
    """TSN's consensus: each snippet votes from its own level 5, in any order."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.channels = build_backbone(backbone, channels=1).channels[5]

    def forward(self, fused: Pyramid, segments: int) -> Pyramid:
        """The level 5 of S snippets, as it is."""
        return {5: fused[5]}


class TemporalRelation(nn.Module):
    """TRN of two frames (Zhou et al. 2018; Figure 4): a multilayer perceptron on pooled features, places lost."""

    channels = 256

    def __init__(self, backbone: str) -> None:
        super().__init__()
        width = build_backbone(backbone, channels=1).channels[5]
        self.relation = nn.Sequential(nn.ReLU(), nn.Linear(2 * width, self.channels), nn.ReLU())

    def forward(self, fused: Pyramid, segments: int) -> Pyramid:
        """The relation of P pairs, as a map of one cell."""
        pooled = torch.cat([side.mean((2, 3)) for side in pairs(fused[5], segments)], dim=1)
        return {5: self.relation(pooled)[:, :, None, None]}


TEMPORALS = {"ttn": TemporalTransformation, "average": Average, "trn": TemporalRelation}
