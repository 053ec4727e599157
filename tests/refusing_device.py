"""GPUs for tests on a machine without one: two devices, "cuda:0" and "cuda:1", that refuse what real ones refuse.

Their tensors hold real values in the memory of the CPU, so whole trainings, drawings and panels run on them, and every
`.item()` and threshold sees what it would see on a GPU. Only the type of a tensor says where it is: `Card0` and
`Card1` are on a GPU, and all others are on the CPU. Every call of torch passes through `_call`, which

- raises torch's RuntimeError where tensors of two devices meet, but for the pairs that torch allows (a CPU tensor
  without dimensions, indices from the CPU, copies);
- gives the result the device of its arguments, or the one that was asked for;
- refuses numpy a tensor that is on a GPU, and a GPU the random generator of the CPU.

What it cannot see: work in other processes, and what CUDA would compute. `a_machine_with_gpus` puts numba's TV-L1 in
the place of CUDA's.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import safetensors
import torch
from torch import nn
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

from ifttn.data import augmentation, loading, tvl1_cpu, tvl1_cuda
from ifttn.data.batch import Decode
from ifttn.data.tvl1 import CoarseToFine

CPU = torch.device("cpu")


class Card0(torch.Tensor):
    """A tensor on "cuda:0"."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


class Card1(torch.Tensor):
    """A tensor on "cuda:1"."""

    __torch_function__ = Card0.__torch_function__


class Parameter0(Card0, nn.Parameter):
    """A parameter on "cuda:0"."""


class Parameter1(Card1, nn.Parameter):
    """A parameter on "cuda:1"."""


_CLASSES = {
    CPU: (torch.Tensor, nn.Parameter),
    torch.device("cuda", 0): (Card0, Parameter0),
    torch.device("cuda", 1): (Card1, Parameter1),
}
_COPIES = {"copy_", "_foreach_copy_", "view_as", "reshape_as", "expand_as", "_has_compatible_shallow_copy_type"}
"""Functions that take tensors of two devices: what they read of the second is its values or its shape."""
_LISTS = {"cat", "concat", "stack", "vstack", "hstack"}
"""Functions that refuse even a CPU tensor without dimensions."""


class Machine(TorchFunctionMode):
    """Inside, torch can make tensors on the two GPUs."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


def device_of(tensor: torch.Tensor) -> torch.device:
    """Where a tensor is."""
    if isinstance(tensor, (Card0, Card1)):
        return torch.device("cuda", int(isinstance(tensor, Card1)))
    return CPU


def _named(device: Any) -> torch.device:
    """A device with its number."""
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if device.type == "cuda":
        return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    return device


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))


def _put(value: Any, device: torch.device, old: tuple[torch.Tensor, ...] = ()) -> Any:
    """Say of a result where it is. Tensors that were there before stay where they are."""
    if isinstance(value, torch.Tensor):
        if device.type != "meta" and all(value is not each for each in old):
            value.__class__ = _CLASSES[device][isinstance(value, nn.Parameter)]
        return value
    if isinstance(value, (list, tuple)):
        return type(value)([_put(each, device, old) for each in value])
    if isinstance(value, Mapping):
        return {key: _put(each, device, old) for key, each in value.items()}
    return value


def _call(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    name = func.__name__
    attribute = getattr(getattr(func, "__self__", None), "__name__", "") if name in ("__get__", "__set__") else ""
    with torch._C.DisableTorchFunctionSubclass():
        if Cuda.refuses_waits:
            _refuse_wait(name, args, kwargs)
        special = _ATTRIBUTES.get((name, attribute)) or _SPECIAL.get(name)
        if special is not None:
            return special(func, args, kwargs)
        return _plain(func, args, kwargs)


def _plain(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """A function that computes on one device, or makes a tensor on the one that it is told."""
    asked, given = kwargs.get("device"), tuple(_tensors((args, kwargs)))
    if asked is not None:
        device = _named(asked)
        _refuse_generator(device, kwargs)
        if device.type == "meta":
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": "cpu"})
        if any(made is each for each in given):
            made = made if device_of(made) == device else made.clone()
        return _put(made, device, given)
    device = _meeting(func.__name__, given)
    _refuse_generator(device, kwargs)
    return _put(func(*args, **kwargs), device, given)


def _meeting(name: str, given: tuple[torch.Tensor, ...]) -> torch.device:
    """The device that a function computes on; RuntimeError where its tensors are not all there."""
    if name == "batch_norm":  # the engine hands the gradient to a backward of our own as a tensor of the CPU
        given = given[1:] or given
    devices = {device_of(each): each for each in given if device_of(each) != CPU}
    alone = next(iter(devices), CPU)
    if name in _COPIES:
        return device_of(given[0])
    strangers = [each for each in given if device_of(each) != alone and (each.dim() or name in _LISTS)]
    if len(devices) > 1 or (devices and strangers):
        found = " and ".join(sorted({str(device_of(each)) for each in (*strangers, *devices.values())}))
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {found}! ({name})"
        )
    return alone


def _refuse_wait(name: str, args: tuple, kwargs: dict[str, Any]) -> None:
    """RuntimeError where the host would wait for a GPU: it reads a value, or copies without `non_blocking`."""
    places = [_named(x) for x in (*args[1:], kwargs.get("device")) if isinstance(x, str | torch.device)]
    to_host = name == "cpu" or (name == "to" and CPU in places)
    reads = name in ("item", "tolist", "__bool__", "__int__", "__float__", "nonzero", "numpy")
    if (reads or (to_host and not kwargs.get("non_blocking"))) and device_of(args[0]) != CPU:
        raise RuntimeError(f"called a synchronizing CUDA operation ({name})")


def _refuse_generator(device: torch.device, kwargs: dict[str, Any]) -> None:
    generator = kwargs.get("generator")
    if device.type == "cuda" and generator is not None:
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found '{generator.device.type}'")


# What is not like the rest.


def _to(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """Tensor.to: to a device, to a type, to both, or to where another tensor is."""
    tensor, *rest = args
    like = next((each for each in (*rest, *kwargs.values()) if isinstance(each, torch.Tensor)), None)
    named = next((each for each in rest if type(each) in (str, int, torch.device)), None)  # and not a bool
    asked = device_of(like) if like is not None else kwargs.get("device", named)
    device = device_of(tensor) if asked is None else _named(asked)
    if device.type == "meta":
        return func(*args, **kwargs)
    if like is not None:
        rest, kwargs = [each for each in rest if each is not like], {**kwargs, "dtype": like.dtype}
        kwargs.pop("other", None)
    rest = [torch.device("cpu") if each is named and named is not None else each for each in rest]
    if "device" in kwargs:
        kwargs = {**kwargs, "device": CPU}
    moved = func(tensor, *rest, **kwargs)
    if moved is tensor:
        moved = tensor if device == device_of(tensor) else tensor.clone()
    return _put(moved, device, (tensor,))


def _to_gpu(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    asked = args[1] if len(args) > 1 else kwargs.get("device")
    return _to(torch.Tensor.to, (args[0], "cuda" if asked is None else asked), {})


def _to_numpy(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    if device_of(args[0]) != CPU:
        raise TypeError(
            f"can't convert {device_of(args[0])} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
            "host memory first."
        )
    return func(*args, **kwargs)


def _get_item(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    tensor, index = args
    _refuse_index(tensor, index)
    return _put(func(tensor, index), device_of(tensor), (tensor,))


def _set_item(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> None:
    tensor, index, value = args
    _refuse_index(tensor, index)
    if list(_tensors(index)) and isinstance(value, torch.Tensor) and value.dim():
        _meeting("index_put_", (tensor, value))
    func(tensor, index, value)


def _refuse_index(tensor: torch.Tensor, index: Any) -> None:
    home = device_of(tensor)
    if any(device_of(each) not in (CPU, home) for each in _tensors(index)):
        raise RuntimeError(f"indices should be either on cpu or on the same device as the indexed tensor ({home})")


def _set_data(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> None:
    tensor, value = args
    func(tensor, value)
    tensor.__class__ = _CLASSES[device_of(value)][isinstance(tensor, nn.Parameter)]


def _set_grad(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> None:
    tensor, value = args
    if value is not None and device_of(value) != device_of(tensor):
        raise RuntimeError("assigned grad has data located on a different device")
    func(tensor, value)


def _hook(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    tensor, hook = args

    def on_device(gradient: torch.Tensor) -> torch.Tensor | None:
        return hook(_put(gradient, device_of(tensor)))

    return func(tensor, on_device)


def _copied(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> torch.Tensor:
    tensor, memo = args
    if id(tensor) not in memo:
        new = _put(tensor.detach().clone(), CPU)
        new = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
        new.__dict__.update(tensor.__dict__)
        memo[id(tensor)] = _put(new.requires_grad_(tensor.requires_grad), device_of(tensor))
    return memo[id(tensor)]


def _pickled(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    return func(_put(args[0].detach(), CPU), *args[1:])


def _pinned(func: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> torch.Tensor:
    if device_of(args[0]) != CPU:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    return args[0].clone()


def _record_stream(tensor: torch.Tensor, stream: "Stream") -> None:
    if device_of(tensor) == CPU:
        raise RuntimeError("record_stream: a tensor of the CPU has no stream")


_SPECIAL: dict[str, Callable[..., Any]] = {
    "to": _to,
    "cpu": lambda func, args, kwargs: _to(torch.Tensor.to, (args[0], "cpu"), {}),
    "cuda": _to_gpu,
    "numpy": _to_numpy,
    "__array__": _to_numpy,
    "__getitem__": _get_item,
    "__setitem__": _set_item,
    "register_hook": _hook,
    "__deepcopy__": _copied,
    "__reduce_ex__": _pickled,
    "pin_memory": _pinned,
    "get_device": lambda func, args, kwargs: -1 if (index := device_of(args[0]).index) is None else index,
}
_ATTRIBUTES: dict[tuple[str, str], Callable[..., Any]] = {
    ("__get__", "device"): lambda func, args, kwargs: device_of(args[0]) if not args[0].is_meta else func(*args),
    ("__get__", "is_cuda"): lambda func, args, kwargs: device_of(args[0]).type == "cuda",
    ("__get__", "is_cpu"): lambda func, args, kwargs: device_of(args[0]) == CPU,
    ("__set__", "data"): _set_data,
    ("__set__", "grad"): _set_grad,
    ("__set__", "requires_grad"): lambda func, args, kwargs: func(*args),
}


def _solved(previous: torch.Tensor, following: torch.Tensor, pyramid: CoarseToFine, launch: object) -> torch.Tensor:
    """TV-L1 of pairs that lie on a GPU: numba's in the place of CUDA's, which sees the current device alone."""
    _meeting("solve", (previous, following))
    if previous.device != torch.device("cuda", torch.cuda.current_device()):
        raise RuntimeError("CUDA: CUDA_ERROR_INVALID_VALUE")
    solver = tvl1_cpu.Solver(*previous.shape[1:], pyramid)
    pairs = zip(previous.cpu().float().numpy(), following.cpu().float().numpy(), strict=True)
    return torch.from_numpy(np.stack([solver(*pair) for pair in pairs])).to(previous.device)


class Stream:
    """Stands for torch.cuda.Stream: what is asked of it is done at once."""

    def __init__(self, device: object = None, priority: int = 0) -> None:
        """Of any device."""

    def nothing(self, *arguments: object) -> None:
        """There is nothing to wait for."""

    wait_event = wait_stream = synchronize = nothing


class Event(torch.cuda.Event):
    """A real event, so that it passes for one, which never asks a driver."""

    record = wait = synchronize = Stream.nothing


CAST, OPEN, BEGIN = torch.autocast, safetensors.safe_open, threading.Thread.run
BACKWARD = torch.autograd._engine_run_backward


class Autocast(CAST):
    """Casts to 16 bits what a GPU would, on the CPU."""

    def __init__(self, device_type: str, *arguments: Any, **options: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *arguments, **options)


class Variable:
    """torch.autograd.Variable, which would make a tensor of the CPU of any."""

    _execution_engine = torch.autograd.Variable._execution_engine

    def __new__(cls, data: torch.Tensor, requires_grad: bool = False) -> torch.Tensor:
        return data.detach().requires_grad_(requires_grad)


@contextmanager
def _opened(path: object, framework: str, device: object = "cpu") -> Iterator[SimpleNamespace]:
    with OPEN(path, framework) as file:
        yield SimpleNamespace(
            metadata=file.metadata, keys=file.keys, get_tensor=lambda name: file.get_tensor(name).to(device)
        )


def _decoder(device: torch.device) -> Decode:
    """OpenCV in the place of nvJPEG."""

    def decode(files: list[torch.Tensor]) -> list[torch.Tensor]:
        images = [cv2.imdecode(file.numpy(), cv2.IMREAD_GRAYSCALE) for file in files]
        return [torch.from_numpy(image)[None].to(device) for image in images]

    return decode


def _grouped(lists: list[list[torch.Tensor]]) -> dict[tuple[torch.device, torch.dtype], tuple[object, None]]:
    """All gradients in one group. torch's own function, in C++, would see them on the CPU."""
    first = lists[0][0]
    return {(device_of(first), first.dtype): (lists, None)}


def _run_thread(thread: threading.Thread) -> None:
    with Machine():
        BEGIN(thread)


def _run_backward(*arguments: object, **options: object) -> object:
    with Machine():  # hooks, and what is computed again, are Python, too
        return BACKWARD(*arguments, **options)


class Cuda:
    """What stands in torch.cuda for the functions of its names."""

    def __init__(self) -> None:
        self.current, self.states = 0, dict[torch.device, torch.Tensor]()

    @contextmanager
    def device(self, device: object) -> Iterator[None]:
        """The current device, for a while."""
        before, self.current = self.current, _named(device).index or 0
        try:
            yield
        finally:
            self.current = before

    def set_device(self, device: object) -> None:
        """The current device, from here on."""
        self.current = _named(device).index or 0

    def get_rng_state(self, device: object = "cuda") -> torch.Tensor:
        """Of a generator that nobody draws from: drawings are the CPU's."""
        return self.states.get(_named(device), torch.get_rng_state())

    def set_rng_state(self, state: torch.Tensor, device: object = "cuda") -> None:
        """Kept for the next `get_rng_state`."""
        self.states[_named(device)] = state

    refuses_waits = False

    def set_sync_debug_mode(self, mode: str) -> None:
        """With "error", the host must not wait for a GPU."""
        Cuda.refuses_waits = mode == "error"

    def functions(self) -> dict[str, object]:
        """By name."""
        names = ("device", "set_device", "get_rng_state", "set_rng_state", "set_sync_debug_mode")
        own = {name: getattr(self, name) for name in names}
        answers = {
            "is_available": True,
            "device_count": 2,
            "get_device_name": "a GPU that refuses",
            "get_device_properties": SimpleNamespace(total_memory=2**36, name="a GPU that refuses"),
            "get_device_capability": (9, 0),
            "mem_get_info": (2**36, 2**36),
            "is_bf16_supported": True,
            "max_memory_allocated": 0,
            "memory_allocated": 0,
            "current_stream": Stream(),
            **dict.fromkeys(("synchronize", "empty_cache", "reset_peak_memory_stats", "manual_seed_all")),
        }
        simple = {name: lambda *_, answer=answer, **__: answer for name, answer in answers.items()}
        classes = {"Stream": Stream, "Event": Event, "stream": nullcontext}
        return {**own, **simple, **classes, "current_device": lambda: self.current}


@contextmanager
def a_machine_with_gpus() -> Iterator[None]:
    """Inside, torch.cuda says that there are two GPUs, in this thread and in all that begin in it."""
    with pytest.MonkeyPatch.context() as patch, Machine():
        for owner, name, stand_in in (
            *((torch.cuda, name, function) for name, function in Cuda().functions().items()),
            (torch.accelerator, "is_available", lambda: True),
            (torch.accelerator, "current_accelerator", lambda check_available=False: None),
            (torch.accelerator, "current_device_index", lambda: torch.cuda.current_device()),
            (torch.accelerator, "set_device_index", lambda device: None),
            (torch, "autocast", Autocast),
            (torch.autograd, "Variable", Variable),
            (torch.autograd, "_engine_run_backward", _run_backward),
            (torch.Tensor, "record_stream", _record_stream),  # the real one looks at its stream before it asks `_call`
            (safetensors, "safe_open", _opened),
            (clip_grad, "_group_tensors_by_device_and_dtype", _grouped),
            (threading.Thread, "run", _run_thread),
            (loading, "nvjpeg", _decoder),
            (tvl1_cuda, "_solve_chunk", _solved),
            (tvl1_cuda, "on_gpu", lambda device: None),
            (augmentation, "crop_kernel", lambda device: None),
        ):
            patch.setattr(owner, name, stand_in)
        # What is computed again is compared with what was kept, of which only the shape has a true copy here.
        patch.setitem(checkpoint._allowed_determinism_checks_to_fns, "default", lambda x: (x.shape, x.dtype))
        yield
