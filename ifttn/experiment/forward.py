"""The forward pass of a training step: frozen streams at the precision of inference, compiled where it is asked for."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from ifttn.experiment.processes import Machine
from ifttn.model.folding import folded
from ifttn.model.network import Output, Scorer, pyramids_of


class Forward(nn.Module):
    """One forward for images and for the pyramids of frozen streams, as DistributedDataParallel needs.

    Streams of which nothing trains are folded copies in `dtype`, unless that is fp32: autocast would cast their weights
    anew in every step, and a normalisation would pass over every feature. They must not change afterwards.
    """

    def __init__(self, network: Scorer, segments: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.segments = network, segments
        frozen = dtype != torch.float32 and not any(p.requires_grad for p in network.streams.parameters())
        self.streams = folded(network.streams, dtype) if frozen else None

    def forward(self, inputs: Mapping[str, Any], frozen: bool = False) -> Output:
        """Per modality, images or, where they are `frozen`, pyramids -> the logits alone, which is all that is kept."""
        if not frozen:
            inputs = pyramids_of(self.streams, inputs) if self.streams else self.network.pyramids(inputs)
        return Output(self.network.read(inputs, self.segments).logits, votes={}, taps={})


def compiled_forward(module: nn.Module, machine: Machine) -> Callable[..., Output]:
    """The module compiled for batches of one shape, where the machine says so; else itself."""
    if not machine.compile:
        return module
    torch.compiler.reset()  # a process that trains many stages would reach torch's limit of compilations
    return cast(Callable[..., Output], torch.compile(module, dynamic=False))
