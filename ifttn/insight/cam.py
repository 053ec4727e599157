"""Class activation maps (Zhou et al. 2016): where a head finds its evidence for an action (paper, Figure 6).

Shapes: N videos of K snippets, V votes (K of snippets, or K - 1 of pairs), B actions asked about, C channels,
H x W pixels, h x w cells of level 5.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn.functional import grid_sample
from torchvision.models.resnet import BasicBlock, Bottleneck

from ifttn.model.network import Head, Network, undisturbed
from ifttn.vocabulary import MODALITIES, IfttnError

STRIDE = 32
"""Pixels from one cell of level 5 to the next."""

Finer = Literal[1, 2, 4]
"""How many times closer the cells lie."""


def dilated(network: Network, finer: Finer = 2) -> Network:
    """A network whose streams and TTN step by one cell in their last levels; their kernels reach as far as before.

    It shares every weight with `network`, which stays as it is: another thread may be asking it. Every finer-th cell
    of level 5, from the first on, is what it was (exactly: zero padding falls on the same places); the cells between
    are what the network would say of the image moved by a part of its stride.
    """
    finer_network = _twin(network)
    for body in _bodies(finer_network):
        for conv, rate in list(_dilations(body, finer)):
            reach = rate * (conv.kernel_size[0] // 2)
            conv.stride, conv.padding, conv.dilation = (1, 1), (reach, reach), (rate, rate)
    return finer_network


Part = TypeVar("Part", bound=nn.Module)


def _twin(module: Part) -> Part:
    """Other modules, the same weights and hooks."""
    twin = copy(module)
    twin._modules = {name: child and _twin(child) for name, child in module._modules.items()}
    return twin


def _bodies(network: Network) -> list[nn.Module]:
    """The parts with levels 4 and 5."""
    return [part for part in (*network.streams.values(), *network.temporal.values()) if hasattr(part, "layer4")]


def _dilations(body: nn.Module, finer: Finer) -> Iterator[tuple[nn.Conv2d, int]]:
    """The convolutions of the levels that no longer halve, and how far apart the cells are that each one reads."""
    rate = 1
    for layer in {1: (), 2: ("layer4",), 4: ("layer3", "layer4")}[finer]:
        for block in cast(nn.Sequential, getattr(body, layer)):
            before, rate = rate, rate * cast(int, block.stride)
            if isinstance(block, BasicBlock):
                yield from ((block.conv1, before), (block.conv2, rate))
            else:
                yield cast(Bottleneck, block).conv2, before
            if block.downsample is not None:
                yield cast(nn.Conv2d, cast(nn.Sequential, block.downsample)[0]), 1


def class_activation_maps(
    network: Network,
    inputs: Mapping[str, Float[Tensor, "N K _ H W"]],
    actions: Int[Tensor, "N B"],
    *,
    method: Literal["cam", "gradcam"] = "cam",
    finer: Finer = 1,
) -> dict[str, Float[Tensor, "N V B h w"]]:
    """The maps of every head of the network.

    A map holds a head's classifier weights times its level 5, summed over channels, so that map.mean() + bias is the
    vote. A stream gives a map a snippet; a temporal head gives one a pair, which stands for both snippets because the
    head reads them only after the subtraction (the caption of Figure 6: "the CAMs of two snippets are the same").

    Args:
        network: frozen or not; its mode, gradients and hooks stay as they are.
        inputs: per modality, in 0..255.
        actions: of each video, the actions to map.
        method: "cam" is exact, signed, and takes one forward pass. "gradcam" asks the package grad-cam, which can do it
            for any classifier; its maps are cut at 0 and brought to 0..1, of the size of the input (h = H, w = W).
        finer: cells so many times closer (`dilated`). The sum over a finer map is the vote of the dilated network; its
            every finer-th cell is the map of the network as it is.
    """
    network = dilated(network, finer).eval()
    return (_weighted if method == "cam" else _by_package)(network, inputs, actions)


def _weighted(network: Network, inputs: Mapping[str, Tensor], actions: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        taps = network(inputs).taps
    maps = {}
    for name, head in network.heads.items():
        votes = taps[f"{name}.5"].unflatten(0, (len(actions), -1))  # (N, V, C, h, w)
        weights = cast(Head, head).weight.detach()[actions]  # (N, B, C)
        maps[name] = torch.einsum("nbc,nvchw->nvbhw", weights, votes)
    return maps


def _by_package(network: Network, inputs: Mapping[str, Tensor], actions: Tensor) -> dict[str, Tensor]:
    stacked = stack(network, inputs)
    maps: dict[str, Tensor] = {}
    for head in network.heads:  # the package answers on the CPU
        adapter = OneTensor(network, head, segments=next(iter(inputs.values())).shape[1])
        columns = [adapter.maps(stacked, column) for column in actions.T]
        found = torch.from_numpy(np.stack(columns, 1)).to(actions.device)  # (N*V, B, H, W)
        maps[head] = found.unflatten(0, (len(actions), -1))
    return maps


def stack(network: Network, inputs: Mapping[str, Float[Tensor, "N K _ H W"]]) -> Float[Tensor, "N _ H W"]:
    """The inputs as the one tensor of `OneTensor`: snippet after snippet, in each the modalities in their order."""
    return torch.cat([inputs[m].float() for m in network.settings.modalities], 2).flatten(1, 2)


class OneTensor(nn.Module):
    """A network as the tools for images want it: one tensor in, the votes of one head out, a row each (N*V, A).

    `probe` sees the head's level 5, each time exactly once, and is the layer to name as target. With one vote a video
    (K = 2 for a temporal head, K = 1 for a stream) rows in and out correspond, as ROAD needs it.
    """

    def __init__(self, network: Network, head: str, segments: int = 2) -> None:
        super().__init__()
        if head not in network.heads:
            raise IfttnError(f"no head {head!r} in this network: choose from {', '.join(network.heads)}")
        self.network, self.head, self.segments = network, head, segments
        self.channels = [MODALITIES[modality].channels for modality in network.settings.modalities]
        self.probe = nn.Identity()

    def forward(self, stacked: Float[Tensor, "N _ H W"]) -> Float[Tensor, "NV A"]:
        """The stacked inputs in 0..255 -> votes."""
        parts = stacked.unflatten(1, (self.segments, -1)).split(self.channels, 2)
        taps = self.network(dict(zip(self.network.settings.modalities, parts, strict=True))).taps
        return self.network.heads[self.head](self.probe(taps[f"{self.head}.5"]))

    @property
    def votes(self) -> int:
        """Of a video: one a pair, or one a snippet."""
        of_pairs = self.head in self.network.temporal_heads and self.network.settings.temporal != "average"
        return self.segments - of_pairs

    def maps(self, stacked: Float[Tensor, "N _ H W"], actions: Int[Tensor, " N"]) -> Float[np.ndarray, "NV H W"]:
        """Grad-CAM of the package for one action a video: cut at 0, each brought to 0..1 by itself."""
        targets = [ClassifierOutputTarget(action) for action in actions.repeat_interleave(self.votes).tolist()]
        with undisturbed(self), _frozen(self), torch.enable_grad():
            cam = GradCAM(self, [self.probe])
            cam.compute_input_gradient = True
            try:
                return cam(
                    stacked, cast(list[nn.Module], targets)
                )  # not in a `with cam`: that would swallow an IndexError
            finally:
                cam.activations_and_grads.release()


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Inside, no weight asks for a gradient; afterwards those that did do, with the gradients that they had.

    The package clears the gradients of all weights, and would fill them: poison inside a training loop.
    """
    asking = [(weight, weight.grad) for weight in network.parameters() if weight.requires_grad]
    try:
        for weight, _ in asking:
            weight.requires_grad_(False)
            weight.grad = None
        yield
    finally:
        for weight, gradient in asking:
            weight.requires_grad_()
            weight.grad = gradient


def snippet_maps(
    network: Network, inputs: Mapping[str, Float[Tensor, "N K _ H W"]], actions: Int[Tensor, " N"], head: str = "ttn"
) -> Float[Tensor, "N K h w"]:
    """What each snippet's fused features of level 4 do for the votes of their pairs, place by place, before Eq. 5.

    Features times gradient, summed over channels: signed, and of first order only (Draelos and Carin 2020, HiResCAM).
    At a pair's subtraction the two gradients are exact opposites, so a place whose features stay speaks for neither.
    """
    with undisturbed(network), torch.enable_grad():
        output = network({m: x.detach().float().requires_grad_() for m, x in inputs.items()})
        fused = output.taps["fused.4"]
        said = output.votes[head].sum(1)[torch.arange(len(actions)), actions].sum()
        (gradient,) = torch.autograd.grad(said, fused)
    return (fused.detach() * gradient).sum(1).unflatten(0, (len(actions), -1))


def on_pixels(
    maps: Float[Tensor, "*_ h w"], size: tuple[int, int], stride: float = float(STRIDE)
) -> Float[Tensor, "*_ H W"]:
    """Maps on the pixels that they speak of, linear between the cells' centres and level beyond the last of them.

    Padding centres cell i of every level on pixel i * stride, not in the middle of the i-th tile: resizing the map as a
    picture would move it by half a cell, 16 px, down and right.

    Args:
        maps: cells.
        size: height and width of the image that the network saw.
        stride: from cell to cell (px): `STRIDE` / finer at level 5.
    """
    height, width = maps.shape[-2:]
    rows, columns = (
        2 * torch.arange(pixels, device=maps.device) / (stride * max(cells - 1, 1)) - 1
        for pixels, cells in zip(size, (height, width), strict=True)
    )
    grid = torch.stack([columns[None].expand(size), rows[:, None].expand(size)], -1)[None]
    planes = maps.reshape(1, -1, height, width)
    return grid_sample(planes, grid, padding_mode="border", align_corners=True).view(*maps.shape[:-2], *size)


Display = Literal["signed", "relu", "min-max"]


def shown(
    maps: Float[np.ndarray, "*_ h w"], display: Display = "signed", *, shared: bool = True
) -> tuple[Float[np.ndarray, "*_ h w"], list[str]]:
    """Maps as a display shows them, and what must be said with each map (or "").

    "signed": -1..1, in parts of the largest absolute value. "relu": 0..1, evidence against is cut off. "min-max": 0..1
    from the least to the most, so that 0 means nothing.

    Args:
        maps: signed.
        display: one of the three.
        shared: one scale for all maps, so that they compare; else one for each.
    """
    axes = tuple(range(maps.ndim)) if shared else (-2, -1)
    said = ["" if positive else "no positive evidence for this class" for positive in (maps.max((-2, -1)) > 0).ravel()]
    low = maps.min(axes, keepdims=True) if display == "min-max" else 0.0
    cut = np.maximum(maps, 0) if display == "relu" else maps - low
    largest = np.abs(cut).max(axes, keepdims=True)
    return (cut / np.maximum(largest, 1e-12)).astype(np.float32), said
