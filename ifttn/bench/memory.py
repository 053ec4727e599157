"""The peak memory of a device, or of this process on a CPU."""

import re
from contextlib import suppress
from pathlib import Path

import torch

_RESET = Path("/proc/self/clear_refs")
"""When "5" is written to this file, Linux resets the peak memory of the process."""


def reset_peak(device: str) -> None:
    """Reset the peak memory."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif _RESET.exists():
        with suppress(OSError):  # some systems do not allow this
            _RESET.write_text("5")


def peak_bytes(device: str) -> float:
    """The peak memory since `reset_peak`. NaN if the system does not measure it."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if _RESET.exists() else None
    return 1024.0 * int(found[1]) if found else float("nan")
