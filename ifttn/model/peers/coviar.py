"""CoViAR (Wu et al., CVPR 2018): a network each for I-frames, accumulated motion vectors and residuals
(`ifttn.data.gop`).

The networks are our backbone: ResNet-152 on I-frames, and ResNet-18 on the rest after a batch normalisation of the
input. In training all three see one frame of a segment. In the release the first network sees the I-frame of that
frame's group; here it sees the frame itself, as a store keeps all frames as pictures.
Shapes: S snippets, C channels, H x W pixels, A actions.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from ifttn.model.backbone import BACKBONES, Backbone
from ifttn.model.network import Head
from ifttn.model.peers.streams import Streams

P_FRAMES = 11
"""In a group of twelve pictures, MPEG-4's default, with which the speed is measured."""
DEPTHS = {**BACKBONES, "resnet152": (Bottleneck, [3, 8, 36, 3], 64)}


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
    """The three networks. The backbones are names of DEPTHS."""
    return Streams(
        {
            "rgb": ResNetStream(3, actions, i_frames, is_image=True),
            "accumulated": ResNetStream(2, actions, p_frames, is_image=False),
            "residual": ResNetStream(3, actions, p_frames, is_image=False),
        }
    )
