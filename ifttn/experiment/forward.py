"""The forward pass of a training step. Frozen streams are folded, and the pass may be compiled."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from ifttn.experiment.processes import Machine
from ifttn.model.folding import folded
from ifttn.model.network import Output, Scorer, pyramids_of


class Forward(nn.Module):
    """One forward method for images and for pyramids of frozen streams, because DistributedDataParallel needs one.

    Frozen streams are replaced by folded copies in `dtype`, unless `dtype` is fp32. Without the copies, autocast would
    cast their weights in every step, and batch norm would pass over every feature. The streams must not change later.
    """

    def __init__(self, network: Scorer, segments: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.segments = network, segments
        frozen = dtype != torch.float32 and not any(p.requires_grad for p in network.streams.parameters())
        self.streams = folded(network.streams, dtype) if frozen else None

    def forward(self, inputs: Mapping[str, Any], frozen: bool = False) -> Output:
        """Modality -> images, or pyramids if `frozen`. Returns only logits, so that nothing else stays in memory."""
        if not frozen:
            inputs = pyramids_of(self.streams, inputs) if self.streams else self.network.pyramids(inputs)
        return Output(self.network.read(inputs, self.segments).logits, votes={}, taps={})


def compiled_forward(module: nn.Module, machine: Machine) -> Callable[..., Output]:
    """The module, compiled for batches of one shape if the machine says so."""
    if not machine.compile:
        return module
    torch.compiler.reset()  # a process that trains many stages would reach torch's limit of compilations
    return cast(Callable[..., Output], torch.compile(module, dynamic=False))
