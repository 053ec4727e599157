"""Optical flow on one device for many processes of one machine.

Processes on the CPU decode and write videos. Each sends its luminance to the process that owns the GPU, and receives
motion as bytes. A process holds only a part of one video at a time, so the number of processes limits the memory. Parts
that wait at the same time are computed together, because a few small images do not fill a GPU.

Images and motion are exchanged through files in memory, and a connection only carries messages: a process that
unpickles arrays holds Python's lock, and the thread that computes needs this lock to launch the next kernel.
"""

import math
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from ifttn.data.flow import StoredFlow, concatenated, stored_flow
from ifttn.vocabulary import IfttnError

PIXELS_AT_ONCE = 24_000_000
"""Pixels that are computed together. More pixels do not fill a GPU better, and make all processes wait longer."""
IN_MEMORY, ROOM = Path("/dev/shm"), 2**30
"""Linux's folder of files in memory, and the bytes that must be free in it: a Docker container has only 64 MB."""


@dataclass(frozen=True)
class FlowHere:
    """Computes the flow `name` on `device`."""

    name: str
    device: str

    def __call__(
        self, images: UInt8[np.ndarray, "T H W"], bound: float, sampled: Integer[np.ndarray, " n"]
    ) -> StoredFlow:
        """The motion between neighbouring images.

        Args:
            images: luminance in 0..255.
            bound: displacement in pixels of byte 255.
            sampled: numbers of the fields that are also returned in pixels, in rising order.

        Raises:
            IfttnError: the flow cannot be computed.
        """
        return stored_flow(self.name, images, bound, sampled, self.device).on_host()


@dataclass(frozen=True)
class FlowService:
    """Asks the process of `serve` to compute the flow. This object can be sent to other processes."""

    address: str | tuple[str, int]
    key: bytes
    """A secret of 32 bytes. A process without it is not served."""
    folder: Path
    """Folder of the files for images and motion."""

    def __call__(
        self, images: UInt8[np.ndarray, "T H W"], bound: float, sampled: Integer[np.ndarray, " n"]
    ) -> StoredFlow:
        """See `FlowHere`."""
        with (
            Client(self.address, authkey=self.key) as connection,
            tempfile.NamedTemporaryFile(dir=self.folder) as file,
        ):
            images.tofile(file.name)
            connection.send((Path(file.name).name, images.shape, bound, sampled))
            answer = connection.recv()
            if isinstance(answer, IfttnError):
                raise answer
            shape = max(0, len(images) - 1), 2, *images.shape[1:]
            return StoredFlow(np.fromfile(file.name, np.uint8).reshape(shape), answer)


@contextmanager
def serve(name: str, device: str) -> Iterator[FlowService]:
    """Serve the flow `name` on `device` until the context ends."""
    key, ended, requests = secrets.token_bytes(32), threading.Event(), SimpleQueue[_Request | None]()

    def answer(connection: Connection) -> None:
        # A process that died or has no key is ignored.
        with connection, suppress(AuthenticationError, EOFError, OSError):
            deliver_challenge(connection, key)
            answer_challenge(connection, key)
            file, shape, bound, sampled = connection.recv()
            path = Path(folder) / Path(file).name
            try:
                # Each connection has its own stream, so that it copies while the device computes for others.
                with _stream(device):
                    images = np.fromfile(path, np.uint8).reshape(shape)
                    request = _Request(_moved(images, device), bound, sampled)
                    requests.put(request)
                    flow = request.answer.result().on_host()
                flow.levels.tofile(path)
                connection.send(flow.sampled)
            except Exception as error:  # goes to the process that asked
                connection.send(IfttnError(f"{name} on {device} failed: {' '.join(str(error).split())}"))

    def accept() -> None:
        while not ended.is_set():
            with suppress(OSError):  # the caller has ended, or this process has too many open files
                threading.Thread(target=answer, args=(listener.accept(),), daemon=True).start()

    with (
        tempfile.TemporaryDirectory(prefix="ifttn-flow-", dir=_memory()) as folder,
        Listener(("localhost", 0), backlog=256) as listener,
    ):
        threads = [
            threading.Thread(target=accept),
            threading.Thread(target=_compute_all, args=(name, device, requests)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield FlowService(listener.address, key, Path(folder))
        finally:
            ended.set()
            Client(listener.address).close()  # wakes the thread that accepts
            requests.put(None)
            for thread in threads:
                thread.join()


def _memory() -> str | None:
    """Linux's folder of files in memory if it has room. None: the usual temporary folder."""
    with suppress(OSError):
        if shutil.disk_usage(IN_MEMORY).free > ROOM:
            return str(IN_MEMORY)
    return None


# torch is imported only for a GPU. The processes that ask do not need it.


def _stream(device: str) -> AbstractContextManager[Any]:
    if not device.startswith("cuda"):
        return nullcontext()
    import torch

    return torch.cuda.stream(torch.cuda.Stream(device))


def _moved(images: UInt8[np.ndarray, "T H W"], device: str) -> Any:
    if not device.startswith("cuda"):
        return images
    import torch

    return torch.from_numpy(images).to(device)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.current_stream(device).synchronize()


@dataclass(frozen=True, eq=False)
class _Request:
    """A part of a video, and the future of its motion."""

    images: Any
    """Luminance (T, H, W) on the device."""
    bound: float
    sampled: Integer[np.ndarray, " n"]
    answer: Future[StoredFlow] = field(default_factory=Future)


def _compute_all(name: str, device: str, requests: "SimpleQueue[_Request | None]") -> None:
    """Compute the motion of all requests until one is None."""
    waiting: list[_Request] = []
    while True:
        if not (waiting and requests.empty()):
            request = requests.get()
            if request is None:
                break
            waiting.append(request)
            continue
        first = waiting[0].images
        alike = [each for each in waiting if (each.images.shape[1:], each.bound) == (first.shape[1:], waiting[0].bound)]
        group = alike[: max(1, PIXELS_AT_ONCE // math.prod(first.shape))]
        waiting = [each for each in waiting if each not in group]
        _compute(name, device, group)
    for request in waiting:
        request.answer.cancel()


def _compute(name: str, device: str, group: Sequence[_Request]) -> None:
    """Compute the motion of requests with images of the same size together. If this fails, compute each alone."""
    frames, fields = (np.cumsum([0, *(len(each.images) - less for each in group)]) for less in (0, 1))
    starts = np.concatenate([np.arange(begin, end - 1) for begin, end in pairwise(frames)])
    sampled = [begin + each.sampled for begin, each in zip(fields, group, strict=False)]
    samples = np.cumsum([0, *map(len, sampled)])
    try:
        flow = stored_flow(
            name, concatenated([each.images for each in group]), group[0].bound, np.concatenate(sampled), device, starts
        )
        _wait(device)  # the copies are on other streams
    except Exception as error:
        if len(group) == 1:
            group[0].answer.set_exception(error)
            return
    else:
        for each, own, few in zip(group, pairwise(fields), pairwise(samples), strict=True):
            each.answer.set_result(StoredFlow(flow.levels[slice(*own)], flow.sampled[slice(*few)]))
        return
    for each in group:
        _compute(name, device, [each])
