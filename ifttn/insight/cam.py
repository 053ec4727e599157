"""Class activation maps (Zhou et al. 2016): where a head finds its evidence for an action (paper, Figure 6).

Shapes: N videos of K snippets, V votes (K of snippets, or K - 1 of pairs), B actions asked about, C channels,
H x W pixels, h x w cells of level 5.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ifttn.model.network import Head, Network


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode; afterwards every module is in the mode that it was in before."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def class_activation_maps(
    network: Network, inputs: Mapping[str, Float[Tensor, "N K _ H W"]], actions: Int[Tensor, "N B"]
) -> dict[str, Float[Tensor, "N V B h w"]]:
    """The signed maps of every head of the network, exact and by one forward pass.

    A map holds a head's classifier weights times its level 5, summed over channels, so that map.mean() + bias is the
    vote. A stream gives a map a snippet; a temporal head gives one a pair, which stands for both snippets because the
    head reads them only after the subtraction (the caption of Figure 6: "the CAMs of two snippets are the same").

    Args:
        network: frozen or not; its mode, gradients and hooks stay as they are.
        inputs: per modality, in 0..255.
        actions: of each video, the actions to map.
    """
    with undisturbed(network), torch.no_grad():
        taps = network(inputs).taps
    maps = {}
    for name, head in network.heads.items():
        votes = taps[f"{name}.5"].unflatten(0, (len(actions), -1))  # (N, V, C, h, w)
        weights = cast(Head, head).weight.detach()[actions]  # (N, B, C)
        maps[name] = torch.einsum("nbc,nvchw->nvbhw", weights, votes)
    return maps
