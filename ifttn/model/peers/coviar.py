"""CoViAR (Wu et al., CVPR 2018): compressed video as it is, a network each for I-frames, accumulated motion vectors
and residuals.

The networks are our backbone: ResNet-152 on I-frames, ResNet-18 on the rest behind a batch normalisation of the input.
Shapes: G P-frames of a group of pictures (GOP; 11 after an I-frame), S snippets, H x W pixels, A actions.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from ifttn.model.backbone import BACKBONES, Backbone
from ifttn.model.network import Head
from ifttn.model.peers.streams import Streams

P_FRAMES = 11
"""Of a GOP of twelve, MPEG-4's default."""
DEPTHS = {**BACKBONES, "resnet152": (Bottleneck, [3, 8, 36, 3], 64)}


def accumulate(fields: Float[Tensor, "G 2 H W"]) -> Float[Tensor, "G 2 H W"]:
    """Motion vectors from one frame to the next -> from the I-frame to each.

    Field t, in pixels (x, y), moves a pixel of frame t - 1 to where it stands in frame t. A pixel is followed back to
    the nearest pixel, frame after frame; one that comes from outside is taken for that of the border.
    """
    grid = _grid(fields)
    source, accumulated = grid, []
    for field in fields:
        source = _at(source, grid - field)
        accumulated.append(grid - source)
    return torch.stack(accumulated)


def residuals(
    i_frame: Float[Tensor, "3 H W"], p_frames: Float[Tensor, "G 3 H W"], accumulated: Float[Tensor, "G 2 H W"]
) -> Float[Tensor, "G 3 H W"]:
    """What is left of each P-frame once the I-frame, moved along the accumulated vectors, is taken from it."""
    grid = _grid(accumulated)
    return torch.stack([p - _at(i_frame, grid - a) for p, a in zip(p_frames, accumulated, strict=True)])


def gop_inputs(
    frames: UInt8[Tensor, "frames 3 H W"], fields: Float[Tensor, "G 2 H W"], bound: float = 20.0
) -> dict[str, UInt8[Tensor, "_ _ H W"]]:
    """A GOP's frames (the I-frame first, then G more) and fields -> the inputs of the three networks, as bytes.

    128 is none; vectors reach +-127 at `bound` pixels, residuals stay levels of grey.
    """
    images = frames.float()
    accumulated = accumulate(fields)
    left = residuals(images[0], images[1:], accumulated)
    return {"rgb": frames[:1], "accumulated": _bytes(accumulated * 127.0 / bound), "residual": _bytes(left)}


def _grid(fields: Tensor) -> Float[Tensor, "2 H W"]:
    y, x = torch.meshgrid(*(torch.arange(n, device=fields.device) for n in fields.shape[-2:]), indexing="ij")
    return torch.stack([x, y]).float()


def _at(image: Float[Tensor, "C H W"], places: Float[Tensor, "2 H W"]) -> Float[Tensor, "C H W"]:
    height, width = image.shape[-2:]
    x, y = places.round().long()
    return image[:, y.clamp(0, height - 1), x.clamp(0, width - 1)]


def _bytes(values: Tensor) -> UInt8[Tensor, "_ _ H W"]:
    return (values + 128).round().clamp(0, 255).to(torch.uint8)


class ResNetStream(nn.Module):
    """Batch normalisation of the input, unless it is an image; a ResNet; its linear classifier, without dropout."""

    def __init__(self, channels: int, actions: int, backbone: str, is_image: bool) -> None:
        super().__init__()
        self.norm = nn.Identity() if is_image else nn.BatchNorm2d(channels)
        self.backbone = Backbone(channels, *DEPTHS[backbone])
        self.head = Head(self.backbone.channels[5], actions, dropout=0.0)

    def forward(self, images: Float[Tensor, "S C H W"]) -> Float[Tensor, "S A"]:
        """Normalised images -> votes."""
        return self.head(self.backbone(self.norm(images))[5])


def coviar(actions: int, i_frames: str = "resnet152", p_frames: str = "resnet18") -> Streams:
    """The three networks, late-fused (theirs 2 : 1 : 1). The backbones are names of DEPTHS."""
    return Streams(
        {
            "rgb": ResNetStream(3, actions, i_frames, is_image=True),
            "accumulated": ResNetStream(2, actions, p_frames, is_image=False),
            "residual": ResNetStream(3, actions, p_frames, is_image=False),
        }
    )
