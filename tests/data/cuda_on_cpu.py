"""Kernels of a CUDA source, compiled for this CPU: a thread is a fiber (`cuda_on_cpu.h`)."""

import ctypes
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEADER = Path(__file__).with_suffix(".h")
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-fPIC", "-shared"]


class OnCpu:
    """Launches kernels, and counts them."""

    def __init__(self, folder: Path, source: Path, defined: Mapping[str, object], kernels: Sequence[str]) -> None:
        library = folder / "kernels.so"
        cases = [f'if (!std::strcmp(name, "{k}")) on_grid({k}, {{x, y, z}}, threads, arguments);' for k in kernels]
        launch = "void launch(const char *name, unsigned x, unsigned y, unsigned z, int threads, void **arguments)"
        lines = [f'#include "{HEADER}"', f'#include "{source}"', f'extern "C" {launch} {{', *cases, "}", ""]
        command = ["g++", *FLAGS, *(f"-D{k}={v}" for k, v in defined.items()), "-x", "c++", "-", "-o", str(library)]
        subprocess.run(command, input="\n".join(lines), text=True, check=True)
        self.library, self.launches = ctypes.CDLL(str(library)), Counter[str]()

    def __call__(self, name: str, blocks: Any, threads: int, shared: int, arguments: ctypes.Array) -> None:
        assert shared <= 16 * 16_384
        self.launches[name] += 1
        self.library.launch(name.encode(), *map(ctypes.c_uint, blocks), threads, arguments)
