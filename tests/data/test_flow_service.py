from concurrent.futures import ThreadPoolExecutor
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client

import numpy as np
import pytest

from ifttn.data import flow_service
from ifttn.data.flow import flow_of, luminance, to_bytes
from ifttn.data.flow_service import FlowHere, FlowService, serve
from ifttn.vocabulary import IfttnError

NONE = np.arange(0)


def test_many_ask_and_each_gets_its_own_flow(pan):
    videos = [luminance(pan(count, 64, 48, (count - 4, 1))) for count in range(2, 8)]
    with serve("dis", "cpu") as service, ThreadPoolExecutor(6) as askers:
        answers = askers.map(lambda images: service(images, 5.0, np.array([0])), videos)
        for images, answer in zip(videos, answers, strict=True):
            fields = flow_of("dis", images)
            np.testing.assert_array_equal(answer.levels, to_bytes(fields, 5.0))
            np.testing.assert_array_equal(answer.sampled, fields[:1])
            np.testing.assert_equal(answer, FlowHere("dis", "cpu")(images, 5.0, np.array([0])))


def test_a_failure_is_told_to_who_asked_and_the_next_is_served(pan, monkeypatch):
    real = flow_service.flow_of

    def fail(name, images, device):
        if len(images) == 3:
            raise RuntimeError("out of\nmemory")
        return real(name, images, device)

    monkeypatch.setattr(flow_service, "flow_of", fail)
    images = luminance(pan(3, 64, 48))
    with serve("dis", "cpu") as service:
        with pytest.raises(IfttnError, match="dis on cpu failed: out of memory"):
            service(images, 5.0, NONE)
        assert service(images[:2], 5.0, NONE).levels.shape == (1, 2, 48, 64)


def test_who_hangs_up_lacks_the_key_or_says_nothing_disturbs_nobody(pan, capfd):
    images = luminance(pan(2, 64, 48))
    with serve("dis", "cpu") as service:
        with pytest.raises(AuthenticationError):
            FlowService(service.address, bytes(32))(images, 5.0, NONE)
        Client(service.address).close()
        with Client(service.address):
            assert service(images, 5.0, NONE).levels.shape == (1, 2, 48, 64)
    with pytest.raises(ConnectionError):
        service(images, 5.0, NONE)
    assert capfd.readouterr().err == ""
