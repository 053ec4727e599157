"""Batch normalisation folded into the convolution before it: what a network that only answers need not compute.

y = g (Wx + b - m) / s + c is a convolution itself, with W' = g W / s and b' = g (b - m) / s + c. Each pass over memory
that a normalisation takes is saved; answers stay the same but for rounding.
"""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)

_LAYOUTS = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}


def folded(network: Module, dtype: torch.dtype = torch.float32) -> Module:
    """A copy in evaluation mode, its convolutions taking over the batch normalisations that directly follow them.

    Of every module, the parts must compute in the order in which they are defined: so do torchvision's networks,
    `nn.Sequential`, and ours. Weights lie in memory as 2D and 3D convolutions like them (channels last).

    Args:
        network: stays as it is.
        dtype: of the weights of convolutions and linear layers. With the dtype of an autocast, it casts them no more.
    """
    copy = deepcopy(network).eval().requires_grad_(False)
    for module in list(copy.modules()):
        vars(module).pop("forward", None)  # of activations that are recomputed: there are none without a way back
        _fold(module)
    for part in copy.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d | nn.Linear):
            part.to(dtype).to(memory_format=_LAYOUTS.get(type(part), torch.preserve_format))
    return copy


def _fold(module: nn.Module) -> None:
    before, name_before = None, ""
    for name, part in list(module.named_children()):
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d) and isinstance(before, nn.Conv2d | nn.Conv3d):
            setattr(module, name_before, fuse_conv_bn_eval(before, part))
            setattr(module, name, nn.Identity())
        before, name_before = part, name
