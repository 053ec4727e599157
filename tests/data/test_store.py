import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ifttn.data.flow import dis, to_bytes
from ifttn.data.store import Store, StoreFullError, StoreSettings
from ifttn.vocabulary import IfttnError

SETTINGS = StoreSettings(96, 72, 5.0)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store", SETTINGS)


@pytest.fixture(scope="session")
def video(pan):
    frames = pan(12, 96, 72)
    flow = to_bytes(dis(frames), 5.0)
    return frames, flow, 255 - flow, 25.0


def test_what_is_read_is_what_was_written_but_for_the_jpegs(store, video):
    store.write("Class/one", *video)
    assert store.num_frames("Class/one") == 12
    frames = store.read("Class/one", "rgb", np.arange(12))
    assert np.abs(frames.transpose(0, 2, 3, 1).astype(int) - video[0]).mean() < 4
    for modality, expected in (("flow", video[1]), ("mv", video[2])):
        fields = store.read("Class/one", modality, np.arange(11))
        assert np.abs(fields.astype(int) - expected).mean() < 1


def test_colours_keep_their_places(store):
    red = np.zeros((2, 72, 96, 3), np.uint8)
    red[..., 0] = 200
    still = np.full((1, 2, 72, 96), 128, np.uint8)
    store.write("red", red, still, still, 25.0)
    np.testing.assert_allclose(store.read("red", "rgb", np.array([1])).mean(axis=(0, 2, 3)), (200, 0, 0), atol=3)


def test_no_motion_is_still_exactly_128_after_jpeg(store, video):
    still = np.full((11, 2, 72, 96), 128, np.uint8)
    store.write("still", video[0], still, still, 25.0)
    np.testing.assert_array_equal(store.read("still", "mv", np.arange(11)), still)


def test_indices_are_read_in_order_with_repeats(store, video):
    store.write("a", *video)
    every = store.read("a", "flow", np.arange(11))
    np.testing.assert_array_equal(store.read("a", "flow", np.array([5, 0, 5])), every[[5, 0, 5]])


def test_reading_touches_only_what_is_asked_for(store, video):
    store.write("a", *video)
    expected = store.read("a", "rgb", np.array([0]))
    path = store.folder / "videos" / "a.safetensors"
    content = bytearray(path.read_bytes())
    jpegs = [i for i in range(len(content)) if content[i : i + 3] == b"\xff\xd8\xff"]
    first = next(i for i in jpegs if content[i:].startswith(content[jpegs[-12] : jpegs[-12] + 200]))
    for start, end in zip(jpegs, [*jpegs[1:], len(content)], strict=True):
        if start != first:
            content[start:end] = bytes(end - start)
    path.write_bytes(content)
    np.testing.assert_array_equal(store.read("a", "rgb", np.array([0])), expected)


@pytest.mark.parametrize("name", ["wave/[x] (y)!#&;~.a.b_u_nm_np1", "ride bike/été", "flat"])
def test_odd_names_are_kept(store, video, name):
    assert name not in store
    store.write(name, *video)
    assert name in store
    assert store.index().video.tolist() == [name]


def test_the_index_lists_every_video(store, video):
    for name in ("B/2", "A/1", "B/1"):
        store.write(name, *video)
    store.tidy()
    index = pd.read_parquet(store.folder / "index.parquet")
    assert index.video.tolist() == ["A/1", "B/1", "B/2"]
    assert set(index.frames) == {12}
    assert set(index.fps) == {25.0}


def test_an_empty_store_has_an_empty_index(store):
    assert store.index().empty


def test_a_store_opens_again_and_refuses_other_settings(store, video):
    store.write("a", *video)
    assert Store.create(store.folder, SETTINGS).num_frames("a") == 12
    assert Store(store.folder).settings == SETTINGS
    with pytest.raises(IfttnError, match=r"bound=5\.0.*bound=20\.0"):
        Store.create(store.folder, StoreSettings(96, 72, 20.0))


@pytest.mark.parametrize("manifest", [None, "", "{}", '{"settings": {"width": 3}}'])
def test_a_folder_without_a_manifest_is_no_store(tmp_path, manifest):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(IfttnError, match=str(tmp_path)):
        Store(tmp_path)


def test_an_unknown_or_damaged_video_is_named(store, video):
    with pytest.raises(IfttnError, match="ghost"):
        store.num_frames("ghost")
    store.write("a", *video)
    path = store.folder / "videos" / "a.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(IfttnError, match=r"a: .*damaged"):
        store.read("a", "rgb", np.array([0]))


def test_a_full_disk_leaves_no_half_video_and_the_rest_readable(store, video, monkeypatch):
    store.write("before", *video)

    def fill(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", fill)
        with pytest.raises(StoreFullError, match="disk is full"):
            store.write("after", *video)
    assert store.index().video.tolist() == ["before"]
    assert not list(store.folder.rglob("*.partial"))
    store.write("after", *video)
    assert store.num_frames("after") == 12


def test_a_killed_writer_leaves_nothing_that_a_reader_sees(store, video, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as kill:
        kill.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            store.write("a", *video)
    assert list(store.folder.rglob("*.partial"))
    assert "a" not in store
    assert store.index().empty
    store.tidy()
    assert not list(store.folder.rglob("*.partial"))


def test_frames_of_another_size_are_refused(store, video):
    with pytest.raises(IfttnError, match="do not fit"):
        store.write("a", video[0][:, :48], video[1][:, :, :48], video[2][:, :, :48], 25.0)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(IfttnError, match=r"manifest\.json: cannot be written"):
        Store.create(tmp_path / "file" / "store", SETTINGS)
