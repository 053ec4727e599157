"""CaffeNet and CNN-M-2048, the backbones of two peers: five convolutions and two hidden layers.

torchvision's AlexNet cannot serve as CaffeNet: it has no groups, no response normalisation, and other widths.
Shapes: S snippets, C channels, H x W pixels, A actions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from ifttn.model.peers.streams import output_size


@dataclass(frozen=True)
class PlainNetwork:
    """The layers of a network."""

    convolutions: tuple[tuple[int, int, int, int, int, str], ...]
    """Channels, kernel, stride, padding, groups, and the layers after the activation: p(ooling), n(ormalisation)."""
    hidden: tuple[int, int]
    norm: float
    """Strength (alpha) of the response normalisation."""


CAFFENET = PlainNetwork(  # Jia et al., 2014: AlexNet with pooling before normalisation
    convolutions=(
        (96, 11, 4, 0, 1, "pn"),
        (256, 5, 1, 2, 2, "pn"),
        (384, 3, 1, 1, 1, ""),
        (384, 3, 1, 1, 2, ""),
        (256, 3, 1, 1, 2, "p"),
    ),
    hidden=(4096, 4096),
    norm=1e-4,
)
CNN_M_2048 = PlainNetwork(  # Chatfield et al., BMVC 2014, Table 1; the two-stream network of Simonyan & Zisserman
    convolutions=(
        (96, 7, 2, 0, 1, "np"),
        (256, 5, 2, 1, 1, "np"),
        (512, 3, 1, 1, 1, ""),
        (512, 3, 1, 1, 1, ""),
        (512, 3, 1, 1, 1, "p"),
    ),
    hidden=(4096, 2048),
    norm=5e-4,
)


@dataclass(frozen=True)
class Fit:
    """The sizes of a network: planes of a snippet, actions, side of the images, and channels of the first convolution.
    Below 96 channels (`width`), all layers are narrower in proportion."""

    channels: int
    actions: int
    size: int = 224
    width: int = 96


def plain(
    layout: PlainNetwork,
    fit: Fit,
    dropout: Sequence[float] = (0.5, 0.5),
    activation: Callable[[int], nn.Module] = lambda channels: nn.ReLU(),
) -> nn.Sequential:
    """A network: normalised (S, C, H, W) -> votes (S, A). `activation` gets the number of channels of a layer."""
    layers, inputs = [], fit.channels
    for channels, kernel, stride, padding, groups, after in layout.convolutions:
        outputs = channels * fit.width // 96
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups), activation(outputs)]
        for letter in after:
            pool = letter == "p"
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True) if pool else nn.LocalResponseNorm(5, layout.norm))
        inputs = outputs
    features = nn.Sequential(*layers, nn.Flatten())
    inputs, classifier = output_size(features, (fit.channels, fit.size, fit.size)), []
    for width, share in zip(layout.hidden, dropout, strict=True):
        outputs = width * fit.width // 96
        classifier += [nn.Linear(inputs, outputs), activation(outputs), nn.Dropout(share)]
        inputs = outputs
    return nn.Sequential(features, *classifier, nn.Linear(inputs, fit.actions))
