"""Handles out-of-memory errors of a device or of this machine: smaller pieces, or a message with options that help."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from ifttn.vocabulary import IfttnError

Result = TypeVar("Result")

LACKS = "the device has too little memory"
SIGNS = ("out of memory", "STATUS_ALLOC_FAILED", "DefaultCPUAllocator")
"""Parts of the error messages of CUDA, its libraries and the CPU. These errors have no type of their own."""
HELPS: Sequence[tuple[str, str, Callable[[Any], bool]]] = (
    ("micro_batch", "--micro-batch with fewer videos at once", lambda videos: videos != 1),
    ("batch", "--batch with fewer videos", lambda videos: videos != 1),
    ("precision", "--precision bf16", lambda precision: precision == "fp32"),
    ("recompute", "--recompute", lambda on: not on),
    ("crops", "--crops 1", lambda crops: crops != 1),
    ("jobs", "--jobs 1", lambda jobs: (jobs or 1) > 1),
    ("device", "--device cpu", lambda device: device != "cpu"),
)
"""Name of an option, its choice that needs less memory, and whether this choice is still open for a value. The choice
with the smallest effect on the result comes first."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine is out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


class Pieces:
    """Calls a function on many items, a piece at a time. After an out-of-memory error the pieces are half as large.

    Args:
        most: number of items in the first piece.
        item: name of an item in a message.
    """

    def __init__(self, most: int, item: str) -> None:
        self.most, self.item = max(1, most), item

    def __call__(self, function: Callable[[slice], Result], count: int) -> Iterator[Result]:
        """Yield function(first : last) for each piece of `count` items, in order.

        Raises IfttnError if a single item does not fit into memory, and every other error of the function.
        """
        first = 0
        while first < count:
            piece = slice(first, min(first + self.most, count))
            try:
                result = function(piece)
            except Exception as error:
                if not lacks_memory(error):
                    raise
                if piece.stop - first == 1:
                    raise IfttnError(
                        f"a single {self.item} does not fit into the memory of the device ({_asked(error)}): end the "
                        "other programs that use it, or use another device (--device cpu)"
                    ) from error
                self.most = (piece.stop - first) // 2
            else:
                yield result
                first = piece.stop
                continue
            import torch  # only here, because the command line imports this module and must not wait for torch

            if torch.cuda.is_available():  # only here, because the error kept the tensors of the function
                torch.cuda.empty_cache()


@contextmanager
def explained(options: Mapping[str, Any]) -> Iterator[None]:
    """Inside, an out-of-memory error becomes an IfttnError whose message, one line, has the options that help.

    Args:
        options: name -> value of the options of the verb that runs.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if lacks_memory(error):
            raise IfttnError(f"{LACKS} ({_asked(error)}){advice(options)}") from error
        if loader_was_killed(error):
            raise loader_killed() from error
        raise


def loader_was_killed(error: BaseException) -> bool:
    """Whether torch says that a process that loads was killed. It raises this in the main thread, anywhere."""
    return "DataLoader worker (pid" in str(error)


def loader_killed() -> IfttnError:
    """The error for a killed process that loaded batches."""
    return IfttnError(
        "a process that loads batches was killed, most likely because this machine ran out of memory: use fewer "
        "--workers (0 loads in the main process); the same command continues"
    )


def advice(options: Mapping[str, Any]) -> str:
    """The end of a message: the options of a verb that can still reduce its memory."""
    left = [how for name, how, is_open in HELPS if name in options and is_open(options[name])]
    return f"; what helps: {', '.join(left)}" if left else ""


def _asked(error: BaseException) -> str:
    """The requested memory in torch's message. The rest of the message describes the settings of the allocator."""
    text = " ".join(str(error).split())
    found = re.search(r"Tried to allocate [\d.]+ \w+", text)
    return found[0] if found else text[:120] or type(error).__name__
