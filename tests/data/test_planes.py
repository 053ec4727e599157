"""The planes of a snippet are the same wherever the video comes from."""

import numpy as np
import pytest

from ifttn.data.flow import flow_of, to_bytes
from ifttn.data.frame_source import FrameSource, StoreSettings
from ifttn.data.live import LiveReader
from ifttn.data.planes import Snippets
from ifttn.data.sampling import centre_starts, snippet_indices
from ifttn.data.store import Store
from ifttn.data.video import Reader, decode, read_frames
from ifttn.data.video_source import ReadRecorder, as_they_come, from_file
from ifttn.vocabulary import MODALITIES, STACK

SETTINGS = StoreSettings(width=96, height=72, bound=5.0, flow="dis")


class Whole(FrameSource):
    """All frames and fields of a video in memory."""

    def __init__(self, path, settings=SETTINGS):
        decoded = decode(path, (settings.width, settings.height))
        self.frames, self.settings, self.seconds = len(decoded.frames), settings, decoded.seconds
        flow = to_bytes(flow_of(settings.flow, decoded.frames), settings.bound)
        self.all = {
            "rgb": decoded.frames.transpose(0, 3, 1, 2),
            "flow": flow,
            "mv": to_bytes(decoded.vectors, settings.bound),
        }

    def images(self, modality, indices):
        yield from self.all[modality][list(indices)]


@pytest.fixture(scope="module")
def film(tmp_path_factory, pan, encode):
    frames = pan(41, 160, 120, (3, 1))
    frames[20:] = frames[20:, ::-1]  # a cut, so that no two snippets are alike
    return encode(tmp_path_factory.mktemp("planes") / "pan.avi", frames, b_frames=2)


@pytest.fixture(scope="module")
def whole(film):
    return Whole(film)


def sampled(source, segments=4):
    return Snippets(source, *snippet_indices(centre_starts(source.frames, segments), source.frames))


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_file_gives_the_planes_of_all_its_frames_in_memory(film, whole, modality):
    planes, read = from_file(film, SETTINGS, lambda source: sampled(source).planes(modality))
    assert planes.shape == (4, MODALITIES[modality].channels, 72, 96)
    np.testing.assert_array_equal(planes, sampled(whole).planes(modality))
    assert read.frames == 41
    np.testing.assert_array_equal(read.seconds, whole.seconds)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_stream_gives_them_as_well(film, whole, modality):
    came = [*as_they_come(Reader(film, (96, 72)), SETTINGS, 9 / 25, [modality])]
    starts = np.array([4, 13, 22, 31])
    expected = Snippets(whole, starts + STACK // 2, starts[:, None] + np.arange(STACK)).planes(modality)
    np.testing.assert_array_equal(np.concatenate([planes[modality] for _, planes in came]), expected)
    np.testing.assert_array_equal([second for second, _ in came], whole.seconds[starts + STACK // 2])


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_store_gives_them_but_for_its_jpegs(film, whole, modality, tmp_path):
    store = Store.create(tmp_path / "store", SETTINGS)
    store.write("a/film", decode(film, (96, 72)).frames, whole.all["flow"], whole.all["mv"], 25.0)
    with store.open("a/film") as entry:
        planes = sampled(entry).planes(modality)
    apart = np.abs(planes.astype(int) - sampled(whole).planes(modality))
    assert apart.mean() < (12 if modality == "accumulated" else 4)


@pytest.mark.parametrize("motion", ["dis", "tvl1-fast"])
def test_another_flow_may_stand_for_vectors_and_flow_of_live_frames(film, motion):
    frames = read_frames(film)
    mine, theirs = (
        [*as_they_come(LiveReader(frames, 25.0, (96, 72)), SETTINGS, 9 / 25, [modality], motion=motion)]
        for modality in ("mv", "flow")
    )
    for (_, mv), (_, flow) in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(mv["mv"], flow["flow"])


def test_no_more_is_asked_for_than_the_snippets_hold():
    asked = ReadRecorder(1000, SETTINGS)
    sampled(asked, 7).planes("rgb")
    assert (len(asked.wanted["rgb"]), len(asked.frames_in_rgb())) == (7, 7)
    sampled(asked, 7).planes("flow")
    assert (len(asked.wanted["flow"]), len(asked.frames_in_rgb()), len(asked.wanted["mv"])) == (35, 42, 0)
    assert len(asked.frames_in_rgb(flow_for_vectors=True)) == 42


def test_flow_of_some_fields_is_that_of_all():
    frames = np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3), dtype=np.uint8)
    starts = np.array([5, 0, 3])
    for name in ("dis", "tvl1-fast"):
        np.testing.assert_array_equal(flow_of(name, frames, starts=starts), flow_of(name, frames)[starts])
