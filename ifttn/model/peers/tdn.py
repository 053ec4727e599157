"""TDN (Wang et al., CVPR 2021): a ResNet on differences of frames within a snippet, and of features between snippets.

Short-term: the differences of a snippet's five frames pass through a separate stem and level 2, and the features are
added to those of the middle frame. Long-term: in every block of levels 3..5, the differences of features to the next
and the previous snippet excite channels and positions. A convolution over three snippets follows, which starts as TSM's
shift. Layers follow the release (ops/base_module.py, ops/tdn_net.py), but convolutions before a batch normalisation
have no bias.

Shapes: N videos, K segments, S = N*K snippets in temporal order, C channels, H x W pixels or cells, A actions.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from ifttn.model.backbone import BatchNorm, build_backbone, residual_block
from ifttn.model.network import Head
from ifttn.model.peers.streams import VideoStreams
from ifttn.model.peers.tsm import from_next, from_previous

TDN_FRAMES = 5
"""Frames of a snippet (section 3.2)."""
REDUCTION = 16
"""Channels of a block divided by channels of the long-term differences."""


def conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution and batch normalisation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), BatchNorm(outputs))


class LongTerm(nn.Module):
    """Excitation of features by differences between snippets, then a convolution over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few, eighth = channels // REDUCTION, channels // 8
        self.reduce, self.expand = conv_norm(channels, few, 1), conv_norm(few, channels, 1)
        self.smooth = nn.Conv2d(few, few, 3, padding=1, groups=few, bias=False)
        self.fine, self.coarse = conv_norm(few, few, 3), conv_norm(few, few, 3)
        kernel = torch.zeros(3, channels, 1, 1)  # weights of the previous snippet, this snippet, the next snippet
        kernel[2, :eighth] = kernel[0, eighth : 2 * eighth] = kernel[1, 2 * eighth :] = 1
        self.kernel = nn.Parameter(kernel)

    def forward(self, x: Float[Tensor, "S C H W"], segments: int) -> Float[Tensor, "S C H W"]:
        """Features -> features of the same shape."""
        reduced = self.reduce(x)
        smooth, ones = self.smooth(reduced), torch.ones_like(reduced)
        # The difference of the first snippet to the previous one, and of the last snippet to the next one, is zero.
        ahead = from_next(smooth, segments) - reduced * from_next(ones, segments)
        back = from_previous(smooth, segments) - reduced * from_previous(ones, segments)
        x = x * (1 + (self.excitation(ahead) + self.excitation(back)) / 2)
        before, own, after = self.kernel
        return before * from_previous(x, segments) + own * x + after * from_next(x, segments)

    def excitation(self, change: Float[Tensor, "S _ H W"]) -> Float[Tensor, "S C H W"]:
        """Differences -> the relative gain of each feature in -0.5..0.5, computed at two scales."""
        coarse = interpolate(self.coarse(avg_pool2d(change, 2)), change.shape[2:])
        return self.expand((change + coarse + self.fine(change)) / 3).sigmoid() - 0.5


class TDNStream(nn.Module):
    """A backbone (a name of BACKBONES) with both kinds of differences, and its linear classifier."""

    def __init__(self, actions: int, backbone: str) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, channels=3)
        self.short = build_backbone(backbone, channels=3 * (TDN_FRAMES - 1))
        del self.short.layer2, self.short.layer3, self.short.layer4
        self.long = nn.ModuleList(LongTerm(block.conv1.out_channels) for block in self.backbone.blocks(first=3))
        self.head = Head(self.backbone.channels[5], actions, dropout=0.5)

    def forward(self, planes: Float[Tensor, "S planes H W"], segments: int) -> Float[Tensor, "S A"]:
        """Five normalised frames, stacked along the channels -> votes."""
        frames = planes.unflatten(1, (TDN_FRAMES, 3))
        changes = avg_pool2d((frames[:, 1:] - frames[:, :-1]).flatten(1, 2), 2)
        short = self.short.stem(changes.contiguous(memory_format=torch.channels_last))
        middle = frames[:, TDN_FRAMES // 2].contiguous(memory_format=torch.channels_last)
        x = self.backbone.layer1(_mean(self.backbone.stem(middle), short))
        x = _mean(x, self.short.layer1(short))
        for block, long in zip(self.backbone.blocks(first=3), self.long, strict=True):
            x = residual_block(block, x, inner=lambda x, long=long: long(x, segments))
        return self.head(x)


def _mean(x: Float[Tensor, "S C H W"], differences: Float[Tensor, "S C h w"]) -> Float[Tensor, "S C H W"]:
    """The mean of features and of features of differences, which have half of the resolution."""
    return (x + interpolate(differences, x.shape[2:])) / 2


def tdn(actions: int, backbone: str = "resnet50") -> VideoStreams:
    """TDN on RGB."""
    return VideoStreams({"rgb": TDNStream(actions, backbone)}, pretrained=("streams.rgb.backbone", "streams.rgb.short"))
