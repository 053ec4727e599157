"""Fixtures that several rooms share."""

from pathlib import Path

import pytest
import torch

# Two OpenMP threads on a busy two-core machine can be ten times slower than one.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The official split lists and a few real videos, where the checkout has them beside it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the official lists and real videos are not at {folder}")
    return folder
