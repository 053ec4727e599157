"""The largest use of memory by a device, or by this process on a CPU."""

import re
from contextlib import suppress
from pathlib import Path

import torch

_RESET = Path("/proc/self/clear_refs")
"""Linux counts the largest memory of a process anew when "5" is written here."""


def reset_peak(device: str) -> None:
    """Count the largest use from here on."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif _RESET.exists():
        with suppress(OSError):  # some systems do not let a process do that
            _RESET.write_text("5")


def peak_bytes(device: str) -> float:
    """The largest use since `reset_peak`; NaN where the system does not count it."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if _RESET.exists() else None
    return 1024.0 * int(found[1]) if found else float("nan")
