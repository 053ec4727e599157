"""A torchvision ResNet that returns its pyramid: the features of levels 2..5 (conv2_x..conv5_x).

Shapes: S snippets, C channels, H x W cells.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.models import WeightsEnum, get_model_weights, list_models
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from ifttn.vocabulary import IfttnError

LEVELS = (2, 3, 4, 5)

Pyramid = dict[int, Float[Tensor, "_ _ _ _"]]
"""Level -> features, (S, C, H, W). From one level to the next, C doubles and H and W halve."""


class BatchNorm(nn.BatchNorm2d):
    """torch's batch normalisation, with a faster gradient where statistics and weights are frozen.

    This gradient takes one pass over memory. torch's own takes two, in an order that does not suit channels last: on an
    H100, it took half of the time of a training step of ResNet-50.
    """

    def forward(self, input: Float[Tensor, "S C H W"]) -> Float[Tensor, "S C H W"]:
        """Normalised features."""
        frozen = not self.training and not self.weight.requires_grad and input.requires_grad
        # A compiler fuses torch's passes with neighbouring operations.
        if frozen and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _Frozen.apply(input, self.running_mean, self.running_var, self.weight, self.bias, self.eps)
        return super().forward(input)


class _Frozen(torch.autograd.Function):
    """Batch norm with constant statistics and weights. The gradient is multiplied by the same factors as the input."""

    @staticmethod
    def forward(ctx, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(variance, weight)
        ctx.eps = eps
        return functional.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        variance, weight = ctx.saved_tensors
        zero = torch.zeros_like(weight)
        return functional.batch_norm(gradient, zero, variance, weight, zero, eps=ctx.eps), None, None, None, None, None


class _Narrowed(ResNet):
    """torchvision's ResNet with the channels of every level in proportion to those of the first convolution."""

    def __init__(self, block: type[BasicBlock | Bottleneck], depths: list[int], width: int) -> None:
        self.width = width
        super().__init__(block, depths, num_classes=1, norm_layer=BatchNorm)

    def _make_layer(self, block, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> nn.Sequential:
        if planes == 64:  # torchvision has just set 64, but the first convolution has `width` channels
            self.inplanes = self.width
        return super()._make_layer(block, planes * self.width // 64, blocks, stride, dilate)


class Backbone(nn.Module):
    """torchvision's ResNet without its classifier, for any number of input channels. Weights have torchvision's names.

    Args:
        channels: channels of the input.
        block: torchvision's BasicBlock or Bottleneck.
        depths: blocks in each of the four levels.
        width: channels of the first convolution, in torchvision 64. Below 64, every level is narrower in proportion.
    """

    def __init__(self, channels: int, block: type[BasicBlock | Bottleneck], depths: list[int], width: int = 64) -> None:
        super().__init__()
        resnet = _Narrowed(block, depths, width)
        self.conv1 = nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = BatchNorm(width)
        self.relu, self.maxpool = resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        self.channels = {level: 2 ** (level - 2) * width * block.expansion for level in LEVELS}

    def stem(self, images: Float[Tensor, "S C H W"]) -> Float[Tensor, "S _ _ _"]:
        """Normalised images -> the input of level 2."""
        return self.maxpool(self.relu(self.bn1(self.conv1(images))))

    def forward(self, images: Float[Tensor, "S C H W"]) -> Pyramid:
        """Normalised images -> the outputs of levels 2..5, each after its last ReLU."""
        x = self.stem(images)
        pyramid = {}
        for level, layer in zip(LEVELS, (self.layer1, self.layer2, self.layer3, self.layer4), strict=True):
            x = pyramid[level] = layer(x)
        return pyramid

    def blocks(self, first: int = 2) -> Iterator[BasicBlock | Bottleneck]:
        """The residual blocks of level `first` and of all levels after it, in order."""
        for level in LEVELS[first - 2 :]:
            yield from getattr(self, f"layer{level - 1}")


_Step = Callable[[Float[Tensor, "S _ _ _"]], Float[Tensor, "S _ _ _"]]


def residual_block(
    block: BasicBlock | Bottleneck, x: Float[Tensor, "S _ _ _"], entry: _Step | None = None, inner: _Step | None = None
) -> Float[Tensor, "S _ _ _"]:
    """A residual block with an extra step at the entry of its residual path, or after its first convolution."""
    identity = x if block.downsample is None else block.downsample(x)
    x = block.relu(block.bn1(block.conv1(entry(x) if entry else x)))
    x = block.bn2(block.conv2(inner(x) if inner else x))
    if isinstance(block, Bottleneck):
        x = block.bn3(block.conv3(block.relu(x)))
    return block.relu(x + identity)


BACKBONES = {
    "resnet50": (Bottleneck, [3, 4, 6, 3], 64),
    "resnet18": (BasicBlock, [2, 2, 2, 2], 64),
    "tiny": (BasicBlock, [1, 1, 1, 1], 32),
    "smallest": (BasicBlock, [1, 1, 1, 1], 8),
}
"""Name -> block, depths, width. `tiny` trains on two CPU cores in minutes; `smallest` is for tests."""


def build_backbone(name: str, channels: int) -> Backbone:
    """A backbone of BACKBONES with random weights."""
    block, depths, width = BACKBONES[name]
    return Backbone(channels, block, depths, width)


def adapt_stem(weights: Mapping[str, Tensor], channels: int, by_axis: bool = False) -> dict[str, Tensor]:
    """The weights of a backbone, with the first convolution adapted to another number of input channels.

    Cross-modality initialisation (TSN; paper section 3.4): every new channel starts as the mean of the old ones. On
    the planes x, y, x, y, ... of motion, all filters then see x + y, and no later layer can tell x from y. With
    `by_axis`, the even filters see only x and the odd filters only y. A factor of the square root of two keeps the
    strength of their response where x and y are independent.
    """
    stem = weights["conv1.weight"]
    if stem.shape[1] == channels:
        return {**weights, "conv1.weight": stem.clone()}
    adapted = stem.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1)
    if by_axis:
        for axis in (0, 1):
            adapted[axis::2, axis::2] *= 2**0.5
            adapted[axis::2, 1 - axis :: 2] = 0
    return {**weights, "conv1.weight": adapted}


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """torchvision's first ImageNet weights, from the time of the paper. torchvision downloads and checks them once.

    Raises:
        IfttnError: torchvision has no weights for this backbone, or they cannot be downloaded.
    """
    weights = _torchvisions(name)
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:  # no network, or a download with another hash
        raise IfttnError(
            f"{weights} cannot be downloaded ({error}): get {weights.url} on another machine and pass it as --imagenet"
        ) from error


def local_weights(path: Path, name: str) -> tuple[dict[str, Tensor], str]:
    """Weights of a backbone from a local file (.pth or .safetensors), and a description of them.

    A file with the name of torchvision's file must have the hash in that name.

    Raises:
        IfttnError: the file does not exist, is damaged, or holds no weights.
    """
    wanted = f"it must hold a state_dict of torchvision's {name}, as .pth or .safetensors"
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise IfttnError(f"{path}: {error.strerror}") from error
    weights = _torchvisions(name)
    theirs = Path(weights.url).name
    if path.name == theirs and f"-{digest[:8]}." not in theirs:
        raise IfttnError(f"{path} is damaged: its sha256 begins with {digest[:8]}, unlike the hash in its name")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # torch reads any other file as a pickle, which can raise any error
        raise IfttnError(f"{path} holds no readable weights: {wanted}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise IfttnError(f"{path} holds no table of weights: {wanted}")
    same = f"-{digest[:8]}." in theirs
    return dict(state), f"{path.name} (sha256 {digest[:8]}, {'' if same else 'not '}torchvision's {weights})"


def _torchvisions(name: str) -> WeightsEnum:
    if name not in list_models(module=models):
        raise IfttnError(f"torchvision has no ImageNet weights for the backbone {name!r}")
    return get_model_weights(name)["IMAGENET1K_V1"]
