"""What tests of several files of this room share."""

from collections.abc import Iterator
from functools import partial

import jaxtyping
import pytest
import torch


@pytest.fixture
def compiled_eagerly(monkeypatch) -> Iterator[None]:
    """torch.compile refuses code that is not one graph, and computes without a compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    jaxtyping.config.update("jaxtyping_disable", True)  # else its checks were part of the graph
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
