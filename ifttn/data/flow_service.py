"""Optical flow on one device for many processes of one machine.

Processes on the CPU decode and write; each hands its frames to the process that owns the GPU, and waits for the motion.
None holds more than the one video that it is at, so that the memory is bounded by the number of processes.
"""

import hmac
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import BaseRequestHandler, ThreadingTCPServer

import numpy as np
from jaxtyping import Float32, UInt8

from ifttn.data.flow import flow_of
from ifttn.vocabulary import IfttnError

_SHAPE = struct.Struct("!QQQ")
_LENGTH = struct.Struct("!?Q")


@dataclass(frozen=True)
class FlowService:
    """Where the motion is computed. Can be sent to other processes."""

    port: int
    key: bytes
    """Of 32 bytes; whoever lacks it is not served."""

    def __call__(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float32[np.ndarray, "T-1 2 H W"]:
        """What `flow_of` returns there; IfttnError where it failed there."""
        with socket.create_connection(("localhost", self.port)) as line:
            line.sendall(self.key + _SHAPE.pack(*frames.shape[:3]))
            line.sendall(np.ascontiguousarray(frames).data.cast("B"))
            failed, length = _LENGTH.unpack(_receive(line, _LENGTH.size).data)
            answer = _receive(line, length)
        if failed:
            raise IfttnError(bytes(answer).decode())
        count, height, width = frames.shape[:3]
        return answer.view(np.float32).reshape(count - 1, 2, height, width)


@contextmanager
def serve(name: str, device: str) -> Iterator[FlowService]:
    """The flow `name` on `device`, one video at a time, for as long as the context lasts."""
    key, turn = secrets.token_bytes(32), threading.Lock()

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            if not hmac.compare_digest(bytes(_receive(self.request, len(key))), key):
                return
            shape = (*_SHAPE.unpack(_receive(self.request, _SHAPE.size).data), 3)
            frames = _receive(self.request, int(np.prod(shape))).reshape(shape)
            try:
                with turn:
                    answer = np.ascontiguousarray(flow_of(name, frames, device)).data.cast("B")
                failed = False
            except Exception as error:  # it is the asking process that must know
                answer, failed = f"{name} on {device} failed: {' '.join(str(error).split())}".encode(), True
            self.request.sendall(_LENGTH.pack(failed, len(answer)))
            self.request.sendall(answer)

    with _Server(("localhost", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield FlowService(server.server_address[1], key)
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """A process that died while it was served is told of where it was started."""


def _receive(line: socket.socket, count: int) -> UInt8[np.ndarray, " count"]:
    buffer = np.empty(count, np.uint8)
    rest = buffer.data
    while rest:
        received = line.recv_into(rest)
        if not received:
            raise ConnectionError("the other side hung up")
        rest = rest[received:]
    return buffer
