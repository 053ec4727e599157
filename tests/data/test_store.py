import errno
import io
import json
import os
import struct
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save

from ifttn.data import store as module
from ifttn.data import writing
from ifttn.data.entry import Entry, flow_error
from ifttn.data.flow import flow_of, from_bytes, to_bytes
from ifttn.data.store import Store, StoreSettings
from ifttn.files import DiskFullError
from ifttn.vocabulary import IfttnError, Video

SETTINGS = StoreSettings(96, 72, 5.0, flow="dis")


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store", SETTINGS)


@pytest.fixture(scope="session")
def video(pan):
    frames = pan(12, 96, 72)
    flow = to_bytes(flow_of("dis", frames), 5.0)
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


def test_moving_fields_come_back_to_within_the_error_that_is_told(store, video):
    fields = flow_of("dis", video[0])
    told = flow_error(fields, SETTINGS)
    store.write("a", *video)
    errors = np.abs(from_bytes(store.read("a", "flow", np.arange(11)), 5.0) - fields)[np.abs(fields) <= 5]
    np.testing.assert_allclose(
        (told["stored_mean"], told["stored_p999"]), (errors.mean(), np.quantile(errors, 0.999)), 1e-3
    )
    half_a_level = 5 / 127 / 2
    assert told["quantised_mean"] < told["quantised_p999"] <= half_a_level * 1.001
    assert told["stored_mean"] < half_a_level
    assert told["stored_p999"] < 0.25


def test_what_saturates_is_counted_apart():
    fields = np.zeros((2, 2, 72, 96), np.float32)
    fields[0, 0, :36] = 7
    told = flow_error(fields, SETTINGS)
    assert told["saturated"] == pytest.approx(1 / 8)
    assert told["quantised_mean"] == told["quantised_p999"] == 0
    assert flow_error(np.full((1, 2, 72, 96), 9, np.float32), SETTINGS)["saturated"] == 1


def test_indices_are_read_in_order_with_repeats(store, video):
    store.write("a", *video)
    for modality in ("rgb", "flow"):
        every = store.read("a", modality, np.arange(11))
        for indices in ([5, 0, 5], [3, 4, 5, 9], [2], [10, 9]):
            np.testing.assert_array_equal(store.read("a", modality, np.array(indices)), every[indices])
        assert store.read("a", modality, np.array([], int)).shape == (0, *every.shape[1:])


def test_a_part_goes_where_it_is_wanted(store, video):
    store.write("a", *video)
    part, indices = (slice(10, 40), slice(20, 50)), np.array([4, 5, 1])
    for modality, channels in (("rgb", 3), ("flow", 2)):
        out = np.zeros((3, channels, 50, 50), np.uint8)
        with store.open("a") as entry:
            entry.read(modality, indices, part, out[..., :30, :30])
        np.testing.assert_array_equal(out[..., :30, :30], store.read("a", modality, indices)[:, :, *part])
        assert not out[..., 30:, :].any()
        assert not out[..., 30:].any()


@pytest.mark.parametrize("indices", [[12], [-1, 3], [3, 400]])
def test_indices_outside_of_the_video_are_refused(store, video, indices):
    store.write("a", *video)
    with pytest.raises(IfttnError, match=r"a: .* requested, but there are 12"):
        store.read("a", "rgb", np.array(indices))


def test_other_tools_open_what_is_inside(store, video):
    store.write("a", *video)
    expected = {m: store.read("a", m, np.array([3]))[0] for m in ("rgb", "flow", "mv")}
    with safe_open(store.folder / "videos" / "a.safetensors", "np") as file:
        for modality, planes in expected.items():
            offsets, jpegs = file.get_tensor(f"{modality}.offsets"), file.get_tensor(modality)
            picture = np.asarray(Image.open(io.BytesIO(jpegs[offsets[3] : offsets[4]].tobytes()))).astype(int)
            planar = picture.transpose(2, 0, 1) if modality == "rgb" else picture.reshape(2, 72, 96)
            assert np.abs(planar - planes).max() <= 3  # other decoders may round otherwise


def test_the_same_video_gives_the_same_bytes(tmp_path, video):
    names = ["B/2", "A/1", "B/1"]
    contents = []
    for number, order in enumerate((names, names[::-1], names)):
        store = Store.create(tmp_path / str(number), SETTINGS)
        for name in order:
            store.write(name, *video)
            if number:
                store.tidy()
                Store.create(store.folder, SETTINGS).write(name, *video)
        store.tidy()
        files = sorted(path for path in store.folder.rglob("*") if path.is_file())
        contents.append({path.relative_to(store.folder): path.read_bytes() for path in files})
    assert contents[0] == contents[1] == contents[2]
    assert len(contents[0]) == 5


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


def test_the_index_tells_the_bytes_of_each_modality(store, video):
    store.write("a", *video)
    row = store.index().iloc[0]
    assert row.bytes == (store.folder / "videos" / "a.safetensors").stat().st_size
    assert 0 < row.rgb_bytes + row.flow_bytes + row.mv_bytes < row.bytes
    with store.open("a") as entry:
        assert sum(map(len, entry.jpegs("flow", np.arange(11)))) == row.flow_bytes


def age(store: Store, seconds: float) -> None:
    """Let every entry be older than the index that follows."""
    for path in store.folder.rglob("*.safetensors"):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def test_entries_that_the_index_knows_are_not_opened_again(store, video, monkeypatch):
    for name in ("A/1", "A/2", "B/1"):
        store.write(name, *video)
    age(store, 10)
    store.tidy()
    expected = store.index()
    opened = []
    monkeypatch.setattr(Entry, "__init__", lambda *_: opened.append(1))
    pd.testing.assert_frame_equal(store.index(), expected)
    store.tidy()
    assert not opened


def test_a_stale_index_is_seen_through(store, video):
    for name in ("A/1", "A/2", "B/1"):
        store.write(name, *video)
    age(store, 10)
    store.tidy()
    store.write("A/0", *video)
    (store.folder / "videos" / "A" / "1.safetensors").unlink()
    store.write("B/1", video[0][:5], video[1][:4], video[2][:4], 30.0)
    index = store.index()
    assert index.video.tolist() == ["A/0", "A/2", "B/1"]
    assert index.frames.tolist() == [12, 12, 5]
    assert index.fps.tolist() == [25.0, 25.0, 30.0]


@pytest.mark.parametrize("content", [b"", b"no parquet"])
def test_a_damaged_index_is_made_anew(store, video, content):
    store.write("a", *video)
    (store.folder / "index.parquet").write_bytes(content)
    assert store.index().video.tolist() == ["a"]
    pd.DataFrame({"video": ["a"]}).to_parquet(store.folder / "index.parquet")
    assert store.index().frames.tolist() == [12]


def test_an_empty_store_has_an_empty_index(store):
    assert store.index().empty


def test_a_store_opens_again_and_names_all_that_differs(store, video, monkeypatch):
    store.write("a", *video)
    assert Store.create(store.folder, SETTINGS).num_frames("a") == 12
    assert Store(store.folder).settings == SETTINGS
    with pytest.raises(
        IfttnError, match=r"bound 5\.0 there, 20\.0 here; flow dis there, tvl1 here; use another folder"
    ):
        Store.create(store.folder, StoreSettings(96, 72, 20.0, flow="tvl1"))


def test_another_version_of_a_library_is_noted_and_refuses_nothing(store, video, tmp_path, monkeypatch):
    assert store.begin(tmp_path, "cpu") == ""
    versions = {name: version(name) for name in module.LIBRARIES}
    monkeypatch.setattr(module, "_versions", lambda: {**versions, "numpy": "0.1", "torch": "0.2"})
    again = Store.create(store.folder, SETTINGS)
    again.write("b", *video)
    # torch computes no flow on a CPU
    assert again.begin(tmp_path, "cpu") == f"prepared with numpy 0.1 instead of {version('numpy')}"


def test_flow_of_one_store_comes_from_one_kind_of_device(store, tmp_path):
    store.begin(tmp_path, "cuda")
    with pytest.raises(IfttnError, match=r"computed on cuda, and cpu rounds in another way: use --device cuda"):
        Store(store.folder).begin(tmp_path, "cpu")
    assert Store(store.folder).device == "cuda"


def test_a_damaged_entry_counts_as_not_prepared_and_is_named(store, video):
    for name in ("A/good", "A/cut", "A/empty"):
        store.write(name, *video)
    store.tidy()
    path = store.folder / "videos" / "A" / "cut.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    (path.parent / "empty.safetensors").write_bytes(b"")
    assert store.index().video.tolist() == ["A/good"]
    assert store.damaged() == ["A/cut", "A/empty"]
    store.tidy()
    assert Store(store.folder).damaged() == ["A/cut", "A/empty"]
    videos = [Video(f"A/{name}", path, "A", 0, "1") for name in ("good", "cut")]
    with pytest.raises(IfttnError, match=r"1 of 2 videos are not prepared, .* damaged \(the first is A/cut\)"):
        store.refuse_unprepared(videos)
    store.refuse_unprepared(videos[:1])


def test_the_manifest_tells_how_the_bytes_came_about(store):
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert manifest["settings"] == {"width": 96, "height": 72, "bound": 5.0, "flow": "dis", "quality": 95}
    assert "128" in manifest["rounding"]
    assert manifest["libraries"]["opencv-python-headless"] == version("opencv-python-headless")


@pytest.mark.parametrize("manifest", [None, "", "{}", '{"settings": {"width": 3}}'])
def test_a_folder_without_a_manifest_is_no_store(tmp_path, manifest):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(IfttnError, match=str(tmp_path)):
        Store(tmp_path)


def test_an_unknown_video_is_named(store):
    with pytest.raises(IfttnError, match="ghost: is not in the store"):
        store.num_frames("ghost")


def with_header(content: bytes, **changes: object) -> bytes:
    """The entry with other facts in its header."""
    length = struct.unpack_from("<Q", content)[0]
    header = json.dumps({**json.loads(content[8 : 8 + length]), **changes}).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def tensor(begin: object, end: object, dtype: str = "I64") -> dict[str, object]:
    return {"dtype": dtype, "shape": [13], "data_offsets": [begin, end]}


DAMAGE = {
    "nothing at all": lambda content: b"",
    "half of a length": lambda content: content[:5],
    "half of a header": lambda content: content[:100],
    "cut in the offsets": lambda content: content[:800],
    "cut in the frames": lambda content: content[: len(content) - 3000],
    "zeros": lambda content: bytes(len(content)),
    "no header": lambda content: content[:8] + b"x" * (len(content) - 8),
    "a list as header": lambda content: struct.pack("<Q", 2) + b"[]" + content[10:],
    "nested without end": lambda content: struct.pack("<Q", 100_000) + b"[" * 100_000,
    "a header beyond the file": lambda content: struct.pack("<Q", len(content) + 1) + content[8:],
    "a huge header": lambda content: struct.pack("<Q", 2**63 + 5) + content[8:],
    "a header of megabytes": lambda content: struct.pack("<Q", 2**21) + b" " * 2**21 + content,
    "no metadata": lambda content: with_header(content, __metadata__=None),
    "offsets outside": lambda content: with_header(content, **{"rgb.offsets": tensor(0, 2**40)}),
    "offsets before": lambda content: with_header(content, **{"rgb.offsets": tensor(-400, 0)}),
    "offsets backwards": lambda content: with_header(content, **{"rgb.offsets": tensor(104, 0)}),
    "offsets of another kind": lambda content: with_header(content, **{"rgb.offsets": tensor(0, 104, "F64")}),
    "offsets that are none": lambda content: with_header(content, **{"rgb.offsets": tensor("x", None)}),
    "offsets of another modality": lambda content: with_header(content, **{"rgb": tensor(0, 104, "U8")}),
    "an endless number": lambda content: with_header(content, **{"rgb": tensor(float("nan"), float("inf"), "U8")}),
    "pictures of nothing": lambda content: content[:-5000].replace(b"\xff\xd8\xff", b"\0\0\0") + content[-5000:],
    "pictures of another size": lambda content: content.replace(struct.pack(">HH", 72, 96), struct.pack(">HH", 72, 95)),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_entry_is_one_clear_error(store, video, how):
    store.write("A/x", *video)
    path = store.folder / "videos" / "A" / "x.safetensors"
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    with pytest.raises(IfttnError, match=r"^A/x: its entry .*x\.safetensors is damaged.*prepare it again$"):
        store.read("A/x", "rgb", np.arange(12))


def test_a_wrong_count_of_fields_is_refused(store, video):
    with pytest.raises(IfttnError, match="a: 12 frames do not fit"):
        store.write("a", video[0], video[1][:-1], video[2][:-1], 25.0)
    assert "a" not in store


def test_a_full_disk_leaves_no_half_video_and_the_rest_readable(store, video, monkeypatch):
    store.write("before", *video)

    def fill(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fill)
        with pytest.raises(DiskFullError, match="disk is full"):
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
        kill.setattr(Path, "unlink", killed)  # a process that is killed cannot tidy up
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


def test_an_entry_that_comes_in_pieces_is_byte_for_byte_what_the_library_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "IN_MEMORY", 1000)  # the rest goes to the disk
    rng, settings = np.random.default_rng(0), StoreSettings(24, 16, 5.0, "dis")
    frames, (flow, mv) = (
        rng.integers(0, 256, (9, 16, 24, 3), np.uint8),
        rng.integers(0, 256, (2, 8, 2, 16, 24), np.uint8),
    )
    store = Store.create(tmp_path / "store", settings)
    with store.writing("a/pieces") as writer:
        writer.fps = 25.0
        for first, end in ((0, 4), (4, 5), (5, 9)):
            fields = slice(max(0, first - 1), end - 1)
            writer.add(frames[first:end], flow[fields], mv[fields])
    store.write("a/whole", frames, flow, mv, 25.0)
    paths = [store.folder / "videos" / "a" / f"{name}.safetensors" for name in ("pieces", "whole")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert save(load_file(paths[0]), {"fps": "25.0"}) == paths[0].read_bytes()


def test_an_entry_that_is_given_up_leaves_nothing_behind(tmp_path):
    store = Store.create(tmp_path / "store", StoreSettings(24, 16, 5.0, "dis"))
    with pytest.raises(IfttnError, match="2 frames do not fit flow"), store.writing("a/b") as writer:
        writer.add(np.zeros((2, 16, 24, 3), np.uint8), *np.zeros((2, 2, 2, 16, 24), np.uint8))
    assert [path.name for path in store.folder.rglob("*") if path.is_file()] == ["manifest.json"]


@pytest.mark.parametrize("stem", ["x" * 243, "x" * 251, "\N{SNOWMAN}" * 83, "tilde" * 12 + "~"])
def test_the_longest_name_that_a_file_can_have_is_stored(tmp_path, stem):
    store = Store.create(tmp_path / "store", StoreSettings(24, 16, 5.0, "dis"))
    store.write(f"a/{stem}", np.zeros((2, 16, 24, 3), np.uint8), *np.zeros((2, 1, 2, 16, 24), np.uint8), 25.0)
    store.tidy()
    assert store.index().video.tolist() == [f"a/{stem}"]
    assert f"a/{stem}" in store
    assert store.num_frames(f"a/{stem}") == 2
