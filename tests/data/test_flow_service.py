import threading
import time
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


def test_a_failure_is_told_to_who_asked_and_the_others_are_served(pan, monkeypatch):
    real, begun = flow_service.stored_flow, threading.Event()

    def fail(name, images, *others):
        begun.wait(10)  # until all have asked
        if any((frame == 7).all() for frame in images):
            raise RuntimeError("out of\nmemory")
        return real(name, images, *others)

    monkeypatch.setattr(flow_service, "stored_flow", fail)
    images, spoilt = luminance(pan(3, 64, 48)), np.full((2, 48, 64), 7, np.uint8)
    with serve("dis", "cpu") as service, ThreadPoolExecutor(4) as askers:
        answers = [askers.submit(service, each, 5.0, NONE) for each in (images, spoilt, images[:2])]
        time.sleep(0.2)
        begun.set()
        with pytest.raises(IfttnError, match="dis on cpu failed: out of memory"):
            answers[1].result()
        assert [len(answers[i].result().levels) for i in (0, 2)] == [2, 1]


def test_small_videos_that_wait_are_computed_together(pan, monkeypatch):
    real, lengths, begun = flow_service.stored_flow, [], threading.Event()

    def counted(name, images, *others):
        lengths.append(len(images))
        begun.wait(10)
        return real(name, images, *others)

    monkeypatch.setattr(flow_service, "stored_flow", counted)
    videos = [*(luminance(pan(count, 64, 48)) for count in (3, 4, 5)), luminance(pan(2, 32, 24))]
    with serve("dis", "cpu") as service, ThreadPoolExecutor(4) as askers:
        answers = [askers.submit(service, images, 5.0, np.array([0])) for images in videos]
        time.sleep(0.5)
        begun.set()
        found = [answer.result() for answer in answers]
    assert sum(lengths) == 14
    assert len(lengths) <= 3, "what was asked for first, the rest of its size, another size"
    for images, answer in zip(videos, found, strict=True):
        np.testing.assert_equal(answer, FlowHere("dis", "cpu")(images, 5.0, np.array([0])))


def test_who_hangs_up_lacks_the_key_or_says_nothing_disturbs_nobody(pan, capfd):
    images = luminance(pan(2, 64, 48))
    with serve("dis", "cpu") as service:
        with pytest.raises(AuthenticationError):
            FlowService(service.address, bytes(32), service.folder)(images, 5.0, NONE)
        Client(service.address).close()
        with Client(service.address):
            assert service(images, 5.0, NONE).levels.shape == (1, 2, 48, 64)
    with pytest.raises(ConnectionError):
        service(images, 5.0, NONE)
    assert capfd.readouterr().err == ""
