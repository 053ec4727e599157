"""Makes networks faster: stores convolutions channels last, folds batch normalisation into them, and compiles.

In evaluation mode, y = g (Wx + b - m) / s + c is itself a convolution, with W' = g W / s and b' = g (b - m) / s + c.
This saves the pass over memory of each normalisation. The results differ only by rounding.
"""

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)

_LAYOUTS = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}


def channels_last(network: nn.Module) -> None:
    """Store the weights of 2D and 3D convolutions channels last."""
    for part in network.modules():
        if type(part) in _LAYOUTS:
            part.to(memory_format=_LAYOUTS[type(part)])


def folded(network: Module, dtype: torch.dtype = torch.float32) -> Module:
    """A copy in evaluation mode, in which each convolution includes the batch normalisation that directly follows it.

    The parts of every module must run in the order of their definition, as in torchvision's networks, `nn.Sequential`,
    and ours. Weights are stored channels last.

    Args:
        network: it is not changed.
        dtype: type of the weights of convolutions and linear layers. Autocast to the same type then casts no weights.
    """
    copy = deepcopy(network).eval().requires_grad_(False)
    for module in list(copy.modules()):
        vars(module).pop("forward", None)  # activation checkpointing replaced it; inference has no backward pass
        _fold(module)
    for part in copy.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d | nn.Linear):
            part.to(dtype)
    channels_last(copy)
    return copy


def compiled_network(network: nn.Module) -> Any:
    """The network, compiled for inference. On a GPU it becomes CUDA graphs: the next call overwrites the output."""
    on_gpu = next(network.parameters()).device.type == "cuda"
    return torch.compile(network, mode="reduce-overhead" if on_gpu else None)


def _fold(module: nn.Module) -> None:
    before, name_before = None, ""
    for name, part in list(module.named_children()):
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d) and isinstance(before, nn.Conv2d | nn.Conv3d):
            setattr(module, name_before, fuse_conv_bn_eval(before, part))
            setattr(module, name, nn.Identity())
        before, name_before = part, name
