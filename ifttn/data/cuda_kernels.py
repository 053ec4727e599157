"""CUDA C++ kernels: NVRTC compiles a source for the current GPU, and kernels run in torch's current stream."""

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

Launch = Callable[[str, Sequence[int], int, int, ctypes.Array], None]
"""(kernel, blocks along x, y and z, threads per block, bytes of shared memory, addresses of the arguments)."""


def arguments(*values: Tensor | int | float) -> ctypes.Array:
    """The addresses of the values, for a launch. The array keeps the values alive."""
    kinds = {int: ctypes.c_int, float: ctypes.c_double}
    kept = [kinds[type(v)](v) if not isinstance(v, Tensor) else ctypes.c_void_p(v.data_ptr()) for v in values]
    array = (ctypes.c_void_p * len(kept))(*(ctypes.addressof(value) for value in kept))
    array._kept = kept  # type: ignore[attr-defined]
    return array


def launcher(code: Callable[[str], bytes], shared: Mapping[str, int]) -> Launch:
    """A function that launches kernels on the current GPU. Compilation takes a second or two.

    Args:
        code: returns the machine code for an architecture, as `machine_code` does.
        shared: name of each kernel -> largest number of bytes of shared memory that it may request.

    Raises:
        RuntimeError: NVRTC or the driver failed; the message has the reason.
        ImportError: bindings of CUDA do not exist for this platform.
    """
    driver = import_module("cuda.bindings.driver")

    major, minor = torch.cuda.get_device_capability()
    torch.cuda.current_stream().synchronize()  # makes the driver's context
    module = _checked(driver.cuModuleLoadData(code(f"sm_{major}{minor}")))
    most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    kernels = {}
    for name, size in shared.items():
        kernels[name] = _checked(driver.cuModuleGetFunction(module, name.encode()))
        if size:
            _checked(driver.cuFuncSetAttribute(kernels[name], most, size))

    def launch(name: str, blocks: Sequence[int], threads: int, shared: int, arguments: ctypes.Array) -> None:
        stream, addresses = torch.cuda.current_stream().cuda_stream, ctypes.addressof(arguments)
        _checked(driver.cuLaunchKernel(kernels[name], *blocks, threads, 1, 1, shared, stream, addresses, 0))

    return launch


@contextmanager
def page_locked(memory: UInt8[np.ndarray, " bytes"], device: torch.device) -> Iterator[None]:
    """Inside, a GPU copies directly from this memory and the host does not wait. Without bindings of CUDA, or if the
    driver refuses, nothing happens, and `Tensor.pin_memory` has to copy."""
    address, unlock = memory.ctypes.data, None
    with suppress(ImportError, RuntimeError), torch.cuda.device(device):
        driver = import_module("cuda.bindings.driver")
        torch.cuda.current_stream().synchronize()  # makes the driver's context
        _checked(driver.cuMemHostRegister(address, memory.nbytes, 0))
        unlock = driver.cuMemHostUnregister
    try:
        yield
    finally:
        if unlock:
            with torch.cuda.device(device):
                torch.cuda.synchronize()
                _checked(unlock(address))


def machine_code(source: Path, architecture: str, defined: Mapping[str, object], flags: Sequence[str] = ()) -> bytes:
    """The machine code for an architecture such as "sm_90". This works without a GPU.

    Raises:
        RuntimeError: NVRTC failed; the message has its log.
    """
    nvrtc = import_module("cuda.bindings.nvrtc")

    flags = [f"--gpu-architecture={architecture}", "--std=c++17", *flags, *(f"-D{k}={v}" for k, v in defined.items())]
    program = _checked(nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], []))
    result = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
    if result[0]:
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(log.decode())
    code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    return code


def _checked(result: tuple[Any, ...]) -> Any:
    """The value that the driver or NVRTC returned after the error code. Raises RuntimeError for an error."""
    if result[0]:
        raise RuntimeError(f"CUDA: {result[0].name}")
    return result[1] if len(result) > 1 else None
