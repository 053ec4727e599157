"""The settings of training that depend on the machine and not on the recipe: memory, precision, processes.

One process trains on one device. `torchrun` starts several, and each process trains on its share of every batch.
"""

import datetime
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import distributed

from ifttn.vocabulary import PRECISIONS, IfttnError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Type of numbers in convolutions and matrix products. The loss and the weights are always fp32."""

PATIENCE = datetime.timedelta(minutes=30)
"""How long processes wait for one another, for example while one of them computes frozen pyramids or tests."""


@dataclass(frozen=True)
class Machine:
    """How one process trains. These settings change results only by rounding and batch statistics."""

    micro_batch: int | None = None
    """Videos at once on one device; None: the whole share of a process. The gradient is always that of the batch."""
    workers: int | None = None
    """Processes that load batches; None: the number of the preset."""
    precision: str = "auto"
    """A name of PRECISIONS. "auto" is fp32 on a CPU, bf16 on a GPU, and fp16 with a scaler on a GPU without bf16."""
    compile: bool = False
    """Use torch.compile, which takes a minute or more at the start of a stage."""
    recompute: bool = False
    """Activation checkpointing: a residual block keeps only its input and is computed again in the backward pass."""
    tensorboard: bool = False
    """Write <run>/tensorboard as well."""
    checkpoint_steps: int = 200
    """Steps between checkpoints within an epoch; every epoch ends with one."""
    imagenet: Path | None = None
    """A local file of ImageNet weights; None: torchvision's, downloaded once."""

    def __post_init__(self) -> None:
        """Raise IfttnError for an unknown precision, a number below one, or options that exclude each other."""
        if self.precision not in (*PRECISIONS, "auto"):
            raise IfttnError(f"unknown precision {self.precision!r}: choose from auto, {', '.join(PRECISIONS)}")
        if self.compile and self.recompute:
            raise IfttnError("--compile and --recompute exclude each other: compiled code decides what is recomputed")
        if self.checkpoint_steps < 1 or (self.micro_batch is not None and self.micro_batch < 1):
            raise IfttnError("a micro-batch and the steps between checkpoints must be at least 1")

    def dtype(self, device: str) -> torch.dtype:
        """Type of numbers in convolutions on a device."""
        if self.precision != "auto":
            return _DTYPES[self.precision]
        if torch.device(device).type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16

    def autocast(self, device: str) -> AbstractContextManager[Any]:
        """A context in which convolutions compute in that type."""
        dtype = self.dtype(device)
        enabled = dtype != torch.float32
        return torch.autocast(torch.device(device).type, dtype if enabled else None, enabled=enabled)


@dataclass(frozen=True)
class Processes:
    """The processes that train one network together, and the place of this process among them."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Number of this process on its machine."""

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder, the metrics and the checkpoints."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes call this."""
        if self.world > 1:
            distributed.barrier()

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """The first process of each machine runs the block; then the others run it and find its files."""
        if self.local_rank:
            self.wait()
        yield
        if not self.local_rank:
            self.wait()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        distributed.all_gather_object(values, value)
        return values


@dataclass(frozen=True)
class Share:
    """A micro-batch: the videos of a batch that one process computes at once."""

    rows: Integer[np.ndarray, " n"]
    """Indices of videos."""
    weight: float
    """Factor of the mean loss of these videos. With it, the mean gradient of all processes is that of the batch."""


def shares(
    order: Integer[np.ndarray, " n"], batch: int, processes: Processes, micro_batch: int | None
) -> list[list[Share]]:
    """Per step, the micro-batches of one process: every `world`-th video of the batch, in nearly equal parts.

    A process without a video computes the first video of the batch with weight 0: every process must take part.
    """
    steps = []
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        own = rows[processes.rank :: processes.world]
        if not len(own):
            steps.append([Share(rows[:1], 0.0)])
            continue
        parts = np.array_split(own, -(-len(own) // (micro_batch or len(own))))
        steps.append([Share(part, len(part) / len(rows) * processes.world) for part in parts])
    return steps


def largest_share(batch: int, processes: Processes, micro_batch: int | None) -> int:
    """The largest number of videos of a batch that one process computes at once."""
    return max(len(part.rows) for part in shares(np.arange(batch), batch, processes, micro_batch)[0])


def deterministic() -> None:
    """From here on, results on a GPU are bit for bit repeatable. An operation that cannot do so raises RuntimeError."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that torchrun started, and the device of this process. Without torchrun there is one process.

    Raises:
        IfttnError: another process was lost during training, or this process received SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, _told_to_end)
    environment = os.environ
    try:
        if int(environment.get("WORLD_SIZE", 1)) == 1:
            yield Processes(), device
            return
        local = int(environment.get("LOCAL_RANK", 0))
        if device == "cuda":
            device = f"cuda:{local}"
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
        processes = Processes(distributed.get_rank(), distributed.get_world_size(), local)
        try:
            yield processes, device
        except RuntimeError as error:
            if not lost(error):
                raise
            raise IfttnError(
                f"process {processes.rank} of {processes.world}: another process was lost or failed "
                f"({str(error).strip().splitlines()[0][:120]}); the last checkpoint is complete, and the same command "
                "continues from it"
            ) from error
        finally:
            distributed.destroy_process_group()
    finally:
        signal.signal(signal.SIGTERM, before)


def lost(error: RuntimeError) -> bool:
    """Whether the connection between processes failed."""
    text = str(error)
    return isinstance(error, distributed.DistError) or any(word in text for word in ("gloo", "NCCL", "Connection"))


def _told_to_end(number: int, frame: FrameType | None) -> None:
    raise IfttnError("stopped by SIGTERM: the last checkpoint is complete, and the same command continues from it")
