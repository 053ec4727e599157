"""TSM (Lin et al., ICCV 2019): a ResNet in which every residual block sees some channels of neighbouring snippets.

Before the first convolution of a block, an eighth of the channels comes from the next snippet and an eighth from the
previous snippet. This "residual shift" does not change the identity path and has no weights. A snippet is one frame.

Shapes: N videos, K segments, S = N*K snippets in temporal order, C channels, H x W pixels or cells, A actions.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from ifttn.model.backbone import build_backbone, residual_block
from ifttn.model.network import Head
from ifttn.model.peers.streams import VideoStreams


def from_next(x: Float[Tensor, "S C H W"], segments: int) -> Float[Tensor, "S C H W"]:
    """For each snippet, the features of the next snippet; zero for the last snippet of a video."""
    return _joined(pad(_ordered(x, segments)[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1)))


def from_previous(x: Float[Tensor, "S C H W"], segments: int) -> Float[Tensor, "S C H W"]:
    """For each snippet, the features of the previous snippet; zero for the first snippet of a video."""
    return _joined(pad(_ordered(x, segments)[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0)))


def shift(x: Float[Tensor, "S C H W"], segments: int) -> Float[Tensor, "S C H W"]:
    """Take the first eighth of the channels from the next snippet, and the second eighth from the previous snippet."""
    eighth = x.shape[1] // 8
    ahead, back, rest = x.split([eighth, eighth, x.shape[1] - 2 * eighth], dim=1)
    return torch.cat([from_next(ahead, segments), from_previous(back, segments), rest], dim=1)


def _ordered(x: Float[Tensor, "S C H W"], segments: int) -> Float[Tensor, "N K H W C"]:
    # Channels are last, as in memory.
    return x.movedim(1, -1).unflatten(0, (-1, segments))


def _joined(ordered: Float[Tensor, "N K H W C"]) -> Float[Tensor, "S C H W"]:
    return ordered.flatten(0, 1).movedim(-1, 1)


class TSMStream(nn.Module):
    """A backbone (a name of BACKBONES) whose blocks see shifted channels, and its linear classifier."""

    def __init__(self, actions: int, backbone: str) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, channels=3)
        self.head = Head(self.backbone.channels[5], actions, dropout=0.8)

    def forward(self, images: Float[Tensor, "S 3 H W"], segments: int) -> Float[Tensor, "S A"]:
        """Normalised frames -> votes."""
        x = self.backbone.stem(images.contiguous(memory_format=torch.channels_last))
        for block in self.backbone.blocks():
            x = residual_block(block, x, entry=lambda x: shift(x, segments))
        return self.head(x)


def tsm(actions: int, backbone: str = "resnet50") -> VideoStreams:
    """TSM on RGB."""
    return VideoStreams({"rgb": TSMStream(actions, backbone)}, pretrained=("streams.rgb.backbone",))
