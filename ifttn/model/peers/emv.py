"""RGB + EMV-CNN (Zhang et al., CVPR 2016): one network on RGB and one on motion vectors, both CNN-M-2048.

In the paper, the network on vectors is "enhanced": it starts from a network trained on flow and learns to imitate it.
Layers, PReLU and dropout follow the release (MV-release, spatial_cls and temporal_cls.prototxt).
Shapes: S snippets of one RGB frame and L motion-vector fields (10; planes x1, y1, x2, ...), H x W pixels, A actions.
"""

from torch import nn

from ifttn.model.peers.plain import CNN_M_2048, Fit, plain
from ifttn.model.peers.streams import Streams

EMV_FIELDS = 10


def emv_cnn(actions: int, size: int = 224, width: int = 96) -> Streams:
    """The network on RGB and the network on motion vectors."""
    return Streams(
        {
            "rgb": plain(CNN_M_2048, Fit(3, actions, size, width)),
            "mv": plain(CNN_M_2048, Fit(2 * EMV_FIELDS, actions, size, width), (0.9, 0.8), activation=nn.PReLU),
        }
    )
