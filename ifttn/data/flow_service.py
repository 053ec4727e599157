"""Optical flow on one device for many processes of one machine.

Processes on the CPU decode and write; each sends its luminance to the process that owns the GPU, and receives motion as
bytes. None holds more than a piece of one video, so that the memory is bounded by the number of processes.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from ifttn.data.flow import flow_of, to_bytes
from ifttn.vocabulary import IfttnError


class StoredFlow(NamedTuple):
    """The motion of some frames as a store keeps it."""

    levels: UInt8[np.ndarray, "M 2 H W"]
    """All fields as bytes of `flow.to_bytes`."""
    sampled: Float32[np.ndarray, "n 2 H W"]
    """Some of them in pixels, to measure what is lost."""


@dataclass(frozen=True)
class FlowHere:
    """Computes the flow `name` on `device`."""

    name: str
    device: str

    def __call__(
        self, images: UInt8[np.ndarray, "T H W"], bound: float, sampled: Integer[np.ndarray, " n"]
    ) -> StoredFlow:
        """The motion between neighbouring images, which are luminance.

        Args:
            images: in 0..255.
            bound: displacement in pixels that byte 255 stands for.
            sampled: which fields are wanted in pixels as well.

        Raises:
            IfttnError: the flow cannot be computed.
        """
        return _stored(flow_of(self.name, images, self.device), bound, sampled)


@dataclass(frozen=True)
class FlowService:
    """Has the flow computed by the process that serves it. Can be sent to other processes."""

    address: str | tuple[str, int]
    key: bytes
    """Of 32 bytes; a process that lacks it is not served."""

    def __call__(
        self, images: UInt8[np.ndarray, "T H W"], bound: float, sampled: Integer[np.ndarray, " n"]
    ) -> StoredFlow:
        """As `FlowHere`."""
        with Client(self.address, authkey=self.key) as connection:
            connection.send((images, bound, sampled))
            answer = connection.recv()
        if isinstance(answer, IfttnError):
            raise answer
        return answer


@contextmanager
def serve(name: str, device: str) -> Iterator[FlowService]:
    """Serve the flow `name` on `device` for as long as the context lasts, one request at a time on the device."""
    key, turn, ended = secrets.token_bytes(32), threading.Lock(), threading.Event()

    def answer(connection: Connection) -> None:
        # A process that died, or that lacks the key, concerns nobody here.
        with connection, suppress(AuthenticationError, EOFError, OSError):
            deliver_challenge(connection, key)
            answer_challenge(connection, key)
            images, bound, sampled = connection.recv()
            try:
                with turn:
                    flow = flow_of(name, images, device)
                connection.send(_stored(flow, bound, sampled))
            except Exception as error:  # the process that asked must know
                connection.send(IfttnError(f"{name} on {device} failed: {' '.join(str(error).split())}"))

    def accept() -> None:
        while not ended.is_set():
            with suppress(OSError):  # the caller is gone already, or this process has too many open files
                threading.Thread(target=answer, args=(listener.accept(),), daemon=True).start()

    with Listener(("localhost", 0), backlog=256) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield FlowService(listener.address, key)
        finally:
            ended.set()
            Client(listener.address).close()  # wakes the thread
            thread.join()


def _stored(flow: Float32[np.ndarray, "M 2 H W"], bound: float, sampled: Integer[np.ndarray, " n"]) -> StoredFlow:
    return StoredFlow(to_bytes(flow, bound), flow[sampled])
