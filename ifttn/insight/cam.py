"""Class activation maps (Zhou et al. 2016): where a head finds its evidence for an action (paper, Figure 6).

Shapes: N videos of K snippets, V votes (K of snippets, or K - 1 of pairs), B actions to map, C channels, H x W pixels,
h x w cells of level 5.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import grid_sample
from torchvision.models.resnet import BasicBlock, Bottleneck

from ifttn.model.network import Head, Network, undisturbed
from ifttn.vocabulary import MODALITIES, IfttnError

STRIDE = 32
"""Pixels from one cell of level 5 to the next."""

Finer = Literal[1, 2, 4]
"""How many times closer the cells of a map lie than those of the network."""


def dilated(network: Network, finer: Finer = 2) -> Network:
    """A network whose streams and TTN have stride 1 and dilated kernels in their last levels.

    It shares every weight with `network`, which stays unchanged because another thread may use it. Every finer-th cell
    of level 5, counted from the first, has exactly the same value, because zero padding falls on the same places. The
    cells between have the values that the network would give for the image moved by a part of its stride.
    """
    finer_network = _with_shared_weights(network)
    for body in (*finer_network.streams.values(), *finer_network.temporal.values()):
        for conv, rate in list(_dilations(body, finer)) if hasattr(body, "layer4") else ():
            reach = rate * (conv.kernel_size[0] // 2)
            conv.stride, conv.padding, conv.dilation = (1, 1), (reach, reach), (rate, rate)
    return finer_network


AnyModule = TypeVar("AnyModule", bound=nn.Module)


def _with_shared_weights(module: AnyModule) -> AnyModule:
    """New modules with the same weights and hooks."""
    twin = copy(module)
    twin._modules = {name: child and _with_shared_weights(child) for name, child in module._modules.items()}
    return twin


def _dilations(body: nn.Module, finer: Finer) -> Iterator[tuple[nn.Conv2d, int]]:
    """The convolutions of the levels that now keep their size, each with its dilation."""
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

    A map is a head's level 5, weighted by its classifier and summed over channels, so that map.mean() + bias is the
    vote. A stream has a map for each snippet. A temporal head has one for each pair, which stands for both snippets
    because the head sees only their difference (the caption of Figure 6: "the CAMs of two snippets are the same").

    Args:
        network: frozen or not; its mode, gradients and hooks stay as they are.
        inputs: the frames of each modality, in 0..255.
        actions: the actions to map, for each video.
        method: "cam" is exact and signed, and takes one forward pass. "gradcam" uses the package grad-cam, which works
            for any classifier; its maps are cut at 0 and scaled to 0..1, at the size of the input (h = H, w = W).
        finer: how many times closer the cells lie (`dilated`). The mean of a finer map plus the bias is the vote of the
            dilated network; every finer-th cell belongs to the map of the network itself.
    """
    network = dilated(network, finer).eval()
    return (_exact_maps if method == "cam" else _maps_by_package)(network, inputs, actions)


def _exact_maps(network: Network, inputs: Mapping[str, Tensor], actions: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        taps = network(inputs).taps
    maps = {}
    for name, head in network.heads.items():
        votes = taps[f"{name}.5"].unflatten(0, (len(actions), -1))  # (N, V, C, h, w)
        weights = cast(Head, head).weight.detach()[actions]  # (N, B, C)
        maps[name] = torch.einsum("nbc,nvchw->nvbhw", weights, votes)
    return maps


def _maps_by_package(network: Network, inputs: Mapping[str, Tensor], actions: Tensor) -> dict[str, Tensor]:
    stacked = stack(network, inputs)
    maps: dict[str, Tensor] = {}
    for head in network.heads:
        adapter = OneTensor(network, head, segments=next(iter(inputs.values())).shape[1])
        by_action = np.stack([adapter.maps(stacked, column) for column in actions.T], 1)  # (N*V, B, H, W)
        maps[head] = torch.from_numpy(by_action).to(actions.device).unflatten(0, (len(actions), -1))
    return maps


def stack(network: Network, inputs: Mapping[str, Float[Tensor, "N K _ H W"]]) -> Float[Tensor, "N _ H W"]:
    """The inputs as the tensor that `OneTensor` takes: snippet after snippet, each with its modalities in order."""
    return torch.cat([inputs[m].float() for m in network.settings.modalities], 2).flatten(1, 2)


class OneTensor(nn.Module):
    """A network in the form that the package grad-cam needs: it takes one tensor and returns the votes of one head as
    rows (N*V, A).

    `probe` is the target layer: it passes on the head's level 5, once in each forward pass. With one vote per video
    (K = 2 for a temporal head, K = 1 for a stream), the rows in and out correspond, which ROAD needs.
    """

    def __init__(self, network: Network, head: str, segments: int = 2) -> None:
        super().__init__()
        if head not in network.heads:
            raise IfttnError(f"no head {head!r} in this network: choose from {', '.join(network.heads)}")
        self.network, self.head, self.segments = network, head, segments
        self.channels = [MODALITIES[modality].channels for modality in network.settings.modalities]
        self.probe = nn.Identity()

    def forward(self, stacked: Float[Tensor, "N _ H W"]) -> Float[Tensor, "NV A"]:
        """Stacked inputs in 0..255 -> votes."""
        parts = stacked.unflatten(1, (self.segments, -1)).split(self.channels, 2)
        taps = self.network(dict(zip(self.network.settings.modalities, parts, strict=True))).taps
        return self.network.heads[self.head](self.probe(taps[f"{self.head}.5"]))

    @property
    def votes(self) -> int:
        """The number of votes per video: one for each pair, or one for each snippet."""
        of_pairs = self.head in self.network.temporal_heads and self.network.settings.temporal != "average"
        return self.segments - of_pairs

    def maps(self, stacked: Float[Tensor, "N _ H W"], actions: Int[Tensor, " N"]) -> Float[np.ndarray, "NV H W"]:
        """Grad-CAM for one action of each video. Each map is cut at 0 and scaled to 0..1 by itself."""
        from pytorch_grad_cam import GradCAM  # only here: the exact maps need no package
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets = [ClassifierOutputTarget(action) for action in actions.repeat_interleave(self.votes).tolist()]
        with undisturbed(self), _frozen(self), torch.enable_grad():
            cam = GradCAM(self, [self.probe])
            cam.compute_input_gradient = True
            try:  # not in a `with cam`, which would swallow an IndexError
                return cam(stacked, cast(list[nn.Module], targets))
            finally:
                cam.activations_and_grads.release()


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Inside, no weight requires a gradient. Afterwards, each weight has its gradient again.

    Without this, the package would overwrite the gradients of all weights, which harms a training loop around it.
    """
    trained = [(weight, weight.grad) for weight in network.parameters() if weight.requires_grad]
    try:
        for weight, _ in trained:
            weight.requires_grad_(False)
            weight.grad = None
        yield
    finally:
        for weight, gradient in trained:
            weight.requires_grad_()
            weight.grad = gradient


def on_pixels(
    maps: Float[Tensor, "*_ h w"], size: tuple[int, int], stride: float = float(STRIDE)
) -> Float[Tensor, "*_ H W"]:
    """Interpolate maps to pixels: linear between the centres of cells, constant beyond the last cell.

    Padding centres cell i of every level on pixel i * stride, not in the middle of the i-th tile. Resizing the map like
    a picture would move it down and right by half a cell (16 px).

    Args:
        maps: a value per cell.
        size: height and width of the image that the network saw.
        stride: pixels from one cell to the next; at level 5 `STRIDE` / finer.
    """
    height, width = maps.shape[-2:]
    rows, columns = (
        2 * torch.arange(pixels, device=maps.device) / (stride * max(cells - 1, 1)) - 1
        for pixels, cells in zip(size, (height, width), strict=True)
    )
    grid = torch.stack([columns[None].expand(size), rows[:, None].expand(size)], -1)[None]
    planes = maps.reshape(1, -1, height, width)
    return grid_sample(planes, grid, padding_mode="border", align_corners=True).view(*maps.shape[:-2], *size)


Scaling = Literal["signed", "relu", "min-max"]


def scaled(
    maps: Float[np.ndarray, "*_ h w"], scaling: Scaling = "signed", *, shared: bool = True
) -> tuple[Float[np.ndarray, "*_ h w"], list[str]]:
    """Scale maps for a picture. Returns them with a note for each map (or ""), which must be shown with the map.

    Args:
        maps: signed.
        scaling: "signed" divides by the largest absolute value and gives -1..1; "relu" gives 0..1 without negative
            evidence; "min-max" gives 0..1 from the lowest to the highest value, so that 0 has no meaning.
        shared: use one scale for all maps, so that they can be compared; otherwise each map has its own.
    """
    axes = tuple(range(maps.ndim)) if shared else (-2, -1)
    notes = ["" if high > 0 else "no positive evidence for this class" for high in maps.max((-2, -1)).ravel()]
    low = maps.min(axes, keepdims=True) if scaling == "min-max" else 0.0
    cut = np.maximum(maps, 0) if scaling == "relu" else maps - low
    largest = np.abs(cut).max(axes, keepdims=True)
    return (cut / np.maximum(largest, 1e-12)).astype(np.float32), notes
