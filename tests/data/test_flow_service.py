import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ifttn.data import flow_service
from ifttn.data.flow import FLOWS
from ifttn.data.flow_service import FlowService, serve
from ifttn.vocabulary import IfttnError


def test_many_ask_and_each_gets_its_own_flow(pan):
    videos = [pan(count, 64, 48, (count - 4, 1)) for count in range(2, 8)]
    with serve("dis", "cpu") as service, ThreadPoolExecutor(6) as askers:
        for frames, fields in zip(videos, askers.map(service, videos), strict=True):
            np.testing.assert_array_equal(fields, FLOWS["dis"](frames))


def test_a_failure_is_told_to_who_asked_and_the_next_is_served(pan, monkeypatch):
    real = flow_service.flow_of

    def fail(name, frames, device):
        if len(frames) == 3:
            raise RuntimeError("out of\nmemory")
        return real(name, frames, device)

    monkeypatch.setattr(flow_service, "flow_of", fail)
    with serve("dis", "cpu") as service:
        with pytest.raises(IfttnError, match="dis on cpu failed: out of memory"):
            service(pan(3, 64, 48))
        assert service(pan(2, 64, 48)).shape == (1, 2, 48, 64)


def test_who_hangs_up_or_lacks_the_key_disturbs_nobody(pan, capfd):
    with serve("dis", "cpu") as service:
        with pytest.raises(ConnectionError):
            FlowService(service.port, bytes(32))(pan(2, 64, 48))
        socket.create_connection(("localhost", service.port)).close()
        assert service(pan(2, 64, 48)).shape == (1, 2, 48, 64)
    with pytest.raises(ConnectionError):
        service(pan(2, 64, 48))
    assert capfd.readouterr().err == ""
