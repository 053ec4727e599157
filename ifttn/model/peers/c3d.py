"""C3D (Tran et al., ICCV 2015, Figure 3): eight 3 x 3 x 3 convolutions on sixteen frames, then two hidden layers.

Shapes: S snippets of T = 16 RGB frames, H x W pixels (112), A actions.
"""

from jaxtyping import Float
from torch import Tensor, nn

from ifttn.model.peers.streams import Streams, output_size, volume

C3D_FRAMES = 16


class C3D(nn.Module):
    """The network.

    Args:
        actions: number of outputs of the classifier.
        size: side of the images in pixels.
        width: channels of the first convolution; below 64, all layers are narrower in proportion.
    """

    def __init__(self, actions: int, size: int = 112, width: int = 64) -> None:
        super().__init__()
        layers, inputs = [], 3
        for group, (outputs, convolutions) in enumerate([(1, 1), (2, 1), (4, 2), (8, 2), (8, 2)]):
            for _ in range(convolutions):
                layers += [nn.Conv3d(inputs, outputs * width, 3, padding=1), nn.ReLU()]
                inputs = outputs * width
            # The first pooling does not pool time. The last pads 7 x 7 cells and leaves 4 x 4, as in the release.
            first, last = group == 0, group == 4
            layers.append(nn.MaxPool3d((1 if first else 2, 2, 2), padding=(0, 1, 1) if last else 0))
        self.features = nn.Sequential(*layers, nn.Flatten())
        hidden = 64 * width
        self.classifier = nn.Sequential(
            nn.Linear(output_size(self.features, (3, C3D_FRAMES, size, size)), hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, actions),
        )

    def forward(self, planes: Float[Tensor, "S planes H W"]) -> Float[Tensor, "S A"]:
        """Sixteen normalised frames, stacked along the channels -> votes."""
        return self.classifier(self.features(volume(planes, channels=3)))


def c3d(actions: int, size: int = 112, width: int = 64) -> Streams:
    """C3D on RGB."""
    return Streams({"rgb": C3D(actions, size, width)})
