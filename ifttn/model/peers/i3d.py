"""Two-stream I3D (Carreira & Zisserman, CVPR 2017): Inception-v1, inflated in time, on RGB and on flow.

We inflate torchvision's GoogLeNet. Its modules are those of I3D's Inception-v1, with the same batch normalisation and
3 x 3 in place of 5 x 5 convolutions. Our padding is centred. The release uses TensorFlow's "same", one pixel further to
the right; shapes, parameters and cost are equal.

Shapes: S snippets of T images (64, or another multiple of 8), C channels of an image, H x W pixels, A actions.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import GoogLeNet

from ifttn.model.network import Head
from ifttn.model.peers.streams import Streams, volume

I3D_FRAMES = 64
"""Images of a snippet in training (section 2.5)."""


def inflate(module: nn.Module) -> nn.Module:
    """Make a module's 2D layers 3D, in place: every kernel and stride N x N becomes N x N x N.

    Section 2.4, "bootstrapping": weights are repeated along time and divided by N. A video that repeats one image then
    gives the output of that image.
    """
    for name, child in module.named_children():
        setattr(module, name, _layer(child) or inflate(child))
    return module


def _layer(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, nn.Conv2d):
        n = layer.kernel_size[0]
        conv = nn.Conv3d(
            layer.in_channels,
            layer.out_channels,
            n,
            layer.stride[0],
            int(layer.padding[0]),
            bias=layer.bias is not None,
        )
        weight = layer.weight[:, :, None].repeat(1, 1, n, 1, 1) / n
        conv.load_state_dict({**layer.state_dict(), "weight": weight}, assign=True)
        return conv.train(layer.training)
    if isinstance(layer, nn.BatchNorm2d):
        norm = nn.BatchNorm3d(layer.num_features, layer.eps)
        norm.load_state_dict(layer.state_dict(), assign=True)
        return norm.train(layer.training)
    if isinstance(layer, nn.MaxPool2d):
        return nn.MaxPool3d(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
    return None


def narrow(module: nn.Module, by: int) -> nn.Module:
    """Divide the channels of every 2D convolution and batch normalisation by `by`, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            inputs = max(1, child.in_channels // by)  # 1 for the first convolution, which I3D replaces
            shape = inputs, child.out_channels // by, int(child.kernel_size[0])
            setattr(module, name, nn.Conv2d(*shape, int(child.stride[0]), int(child.padding[0]), bias=False))
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.BatchNorm2d(child.num_features // by, child.eps))
        else:
            narrow(child, by)
    return module


class I3D(nn.Module):
    """One stream of I3D.

    Args:
        channels: channels of one image: 3 for RGB, 2 for flow.
        actions: number of outputs of the classifier.
        width: channels of the first convolution, 64, 32 or 16; below 64, all layers are narrower in proportion.
    """

    def __init__(self, channels: int, actions: int, width: int = 64) -> None:
        super().__init__()
        net = GoogLeNet(num_classes=1, aux_logits=False, init_weights=False)
        if width < 64:
            narrow(net, 64 // width)
        net.conv1.conv = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        parts = [part for name, part in net.named_children() if name not in ("avgpool", "dropout", "fc")]
        self.trunk = nn.Sequential(*parts)
        inflate(self.trunk)
        # The first two poolings do not pool time: it would shrink faster than space (section 2.4).
        self.trunk[1] = nn.MaxPool3d((1, 3, 3), (1, 2, 2), ceil_mode=True)
        self.trunk[4] = nn.MaxPool3d((1, 3, 3), (1, 2, 2), ceil_mode=True)
        self.channels = channels
        self.head = Head(16 * width, actions, dropout=0.5)

    def forward(self, planes: Float[Tensor, "S planes H W"]) -> Float[Tensor, "S A"]:
        """Stacked normalised images -> votes: the mean over time of a linear layer on averages of 2 x 7 x 7 cells."""
        x = self.trunk(volume(planes, self.channels))
        if x.shape[2] > 1:
            x = (x[:, :, 1:] + x[:, :, :-1]) / 2
        return self.head(x.mean(2))


def two_stream_i3d(actions: int, width: int = 64) -> Streams:
    """A stream on RGB and a stream on flow."""
    return Streams({"rgb": I3D(3, actions, width), "flow": I3D(2, actions, width)})
