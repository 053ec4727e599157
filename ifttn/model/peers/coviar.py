"""CoViAR (Wu et al., CVPR 2018): three networks for I-frames, accumulated motion vectors and residuals
(`ifttn.data.gop`).

The networks are our backbone: ResNet-152 on I-frames, and ResNet-18 on the other inputs after a batch normalisation. In
training, all three see the same frame of a segment. In the release, the first network sees the I-frame of that frame's
group of pictures. Here it sees the frame itself, because a store keeps all frames as pictures.
Shapes: S snippets, C channels, H x W pixels, A actions.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from ifttn.model.backbone import BACKBONES, Backbone
from ifttn.model.network import Head
from ifttn.model.peers.streams import Streams

P_FRAMES = 11
"""P-frames in a group of twelve pictures. This is MPEG-4's default; the speed is measured with it."""
DEPTHS = {**BACKBONES, "resnet152": (Bottleneck, [3, 8, 36, 3], 64)}


class ResNetStream(nn.Module):
    """A ResNet with a linear classifier without dropout. An input that is no image passes a batch normalisation."""

    def __init__(self, channels: int, actions: int, backbone: str, is_image: bool) -> None:
        super().__init__()
        self.norm = nn.Identity() if is_image else nn.BatchNorm2d(channels)
        self.backbone = Backbone(channels, *DEPTHS[backbone])
        self.head = Head(self.backbone.channels[5], actions, dropout=0.0)

    def forward(self, images: Float[Tensor, "S C H W"]) -> Float[Tensor, "S A"]:
        """Normalised images -> votes."""
        return self.head(self.backbone(self.norm(images))[5])


def coviar(actions: int, i_frames: str = "resnet152", p_frames: str = "resnet18") -> Streams:
    """The three networks, with backbones from DEPTHS."""
    return Streams(
        {
            "rgb": ResNetStream(3, actions, i_frames, is_image=True),
            "accumulated": ResNetStream(2, actions, p_frames, is_image=False),
            "residual": ResNetStream(3, actions, p_frames, is_image=False),
        }
    )
