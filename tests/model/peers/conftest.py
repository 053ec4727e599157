"""What a network costs, without computing it."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(scope="session")
def cost() -> Callable[..., tuple[int, int]]:
    """cost(build, *shapes or mapping of shapes): parameters, and multiply-adds of one forward pass."""

    def count(build: Callable[[], nn.Module], inputs) -> tuple[int, int]:
        with torch.device("meta"):
            network = build().eval()
            x = torch.empty(inputs) if isinstance(inputs, tuple) else {m: torch.empty(s) for m, s in inputs.items()}
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(x)
        return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2

    return count
