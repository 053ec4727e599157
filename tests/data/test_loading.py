import multiprocessing
import os
import pickle
import signal
import time
from collections import deque
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from ifttn.data import augmentation, loading, sampling, sharing
from ifttn.data.batch import Batch, HostBatch, assembled, nvjpeg
from ifttn.data.entry import Entry
from ifttn.data.flow import from_bytes, to_bytes
from ifttn.data.gop import ACCUMULATED_BOUND, accumulate, p_frames, residual
from ifttn.data.loading import Loader, batches, decoder, in_order
from ifttn.data.samples import SnippetDataset
from ifttn.data.sharing import Workers
from ifttn.data.store import Store, StoreSettings
from ifttn.memory import explained
from ifttn.vocabulary import MODALITIES, IfttnError, Video

SCALES = (1.0, 0.875, 0.75)
EVERY = ("rgb", "flow", "mv", "rgbdiff", "accumulated", "residual")


def numbered(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Frame t is grey 4 t; field t of flow is x = 20 + 4 t and y = 21 + 4 t, of motion vectors 2 more."""
    frames = np.empty((count, 36, 48, 3), np.uint8)
    frames[:] = (4 * np.arange(count))[:, None, None, None]
    fields = np.empty((count - 1, 2, 36, 48), np.uint8)
    fields[:] = (20 + 4 * np.arange(count - 1))[:, None, None, None] + np.array([0, 1])[:, None, None]
    return frames, fields, fields + 2, 25.0


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store.create(tmp_path_factory.mktemp("store"), StoreSettings(48, 36, 5.0, quality=100))
    for index, count in enumerate((40, 40, 25, 3, 9)):
        store.write(f"A/{index}", *numbered(count))
    noise = np.random.default_rng(0).integers(0, 256, (30, 36, 48, 3), dtype=np.uint8)
    motion = np.random.default_rng(1).integers(1, 256, (29, 2, 36, 48), dtype=np.uint8)
    store.write("A/noise", noise, motion, motion[::-1], 25.0)
    return store


def videos(*names: str) -> list[Video]:
    return [Video(f"A/{name}", Path(f"{name}.avi"), "A", label, name) for label, name in enumerate(names)]


def dataset(store, *names: str, modalities=("rgb", "flow"), **options) -> SnippetDataset:
    return SnippetDataset(store, videos(*names), modalities, segments=4, size=32, **options)


@pytest.mark.parametrize("options", [{}, {"scales": SCALES, "seed": 3}])
def test_all_modalities_come_from_one_index_draw(store, options):
    data = dataset(store, "0", modalities=("rgb", "flow", "mv"), **options)
    for view in range(1 if not options else 5):
        inputs, label, name = data[view, 0]
        assert (label, name) == (0, "A/0")
        frames = inputs["rgb"].mean(axis=(1, 2, 3)) / 4
        fields = np.median(inputs["mv"], axis=(2, 3)).reshape(4, 5, 2)[:, :, 1] - 23
        np.testing.assert_allclose(fields / 4, frames[:, None] + np.arange(-2, 3), atol=0.3)
        assert (np.diff(frames) > 0.5).all()


def test_planes_are_x_y_x_y_as_tsn_stacks_them(store):
    flow = np.median(dataset(store, "0")[0, 0][0]["flow"], axis=(2, 3)).reshape(4, 5, 2)
    np.testing.assert_allclose(flow[:, :, 1] - flow[:, :, 0], 1, atol=0.5)
    np.testing.assert_allclose(np.diff(flow, axis=1), 4, atol=1)


@pytest.mark.parametrize("options", [{}, {"scales": SCALES}])
def test_one_crop_serves_all_snippets_and_modalities(store, options):
    """A still picture stays still: were a snippet cropped elsewhere, it would differ."""
    picture = np.random.default_rng(2).integers(0, 256, (36, 48, 1), dtype=np.uint8).repeat(3, 2)
    fields = np.broadcast_to(picture[:, :, 0], (19, 2, 36, 48)).copy()
    store.write("A/still", np.stack([picture] * 20), fields, fields, 25.0)
    data = dataset(store, "still", **options)
    for view in range(len(data.views) if not options else 6):
        inputs, *_ = data[view, 0]
        assert (inputs["rgb"] == inputs["rgb"][:1]).all()
        assert (inputs["flow"][:, 1::2] == inputs["flow"][:1, 1:2]).all()
        both = np.corrcoef(inputs["rgb"][0, 0].ravel(), inputs["flow"][0, 1].ravel())
        assert both[0, 1] > 0.95


def test_rgb_differences_are_halves_around_128(store):
    inputs, *_ = dataset(store, "0", modalities=("rgbdiff",))[0, 0]
    assert inputs["rgbdiff"].shape == (4, 15, 32, 32)
    np.testing.assert_allclose(inputs["rgbdiff"], 130, atol=1)  # neighbouring frames differ by 4
    noisy = dataset(store, "noise", modalities=("rgbdiff",))[0, 0][0]["rgbdiff"]
    frames = store.read("A/noise", "rgb", np.arange(30)).astype(int)[:, :, 2:34, 8:40]
    start = 3  # the centre of the first of four segments of 25 starts
    expected = 128 + np.diff(frames[start : start + 6], axis=0).reshape(15, 32, 32) / 2
    np.testing.assert_allclose(noisy[0], expected, atol=0.5)


@pytest.mark.parametrize(
    ("modality", "stored", "count"), [("rgb10", "rgb", 10), ("rgb16", "rgb", 16), ("mv10", "mv", 10)]
)
def test_a_run_of_images_stands_around_the_middle_of_its_snippet_and_stops_at_the_ends(store, modality, stored, count):
    for options in ({"fitted": True}, {"fitted": False}):
        data = dataset(store, "noise", modalities=(modality,), **options)
        found = data.read([(0, 0)]).planes[modality][0, ..., :32, :32].numpy()
        last = 29 if stored == "rgb" else 28
        for k, middle in enumerate((5, 11, 17, 23)):
            wanted = np.arange(middle - count // 2, middle - count // 2 + count).clip(0, last)
            expected = store.read("A/noise", stored, wanted)[:, :, 2:34, 8:40]
            np.testing.assert_array_equal(found[k], expected.reshape(-1, 32, 32))
    ahead, back = (dataset(store, "noise", modalities=(modality,), crops=10)[view, 0][0][modality] for view in (0, 5))
    back = back[..., ::-1].astype(int)
    if stored == "mv":
        ahead, back = np.maximum(ahead[:, 0::2], 1), 256 - back[:, 0::2]
    np.testing.assert_array_equal(ahead, back)


@pytest.mark.parametrize("name", ["3", "4"])
def test_a_short_video_gives_whole_batches(store, name):
    for modality in (*EVERY, "rgb16", "mv10"):
        inputs, *_ = dataset(store, name, modalities=(modality,), scales=SCALES)[0, 0]
        assert inputs[modality].shape == (4, MODALITIES[modality].channels, 32, 32)
        assert inputs[modality].dtype == np.uint8
    assert len(np.unique(dataset(store, name, modalities=("rgb",))[0, 0][0]["rgb"].mean(axis=(1, 2, 3)))) > 1


def test_a_training_sample_depends_on_seed_epoch_and_index_alone(store):
    one, other = dataset(store, "noise", "noise", scales=SCALES), dataset(store, "noise", "noise", scales=SCALES)
    _ = other[3, 1], other[0, 0]
    np.testing.assert_array_equal(one[1, 0][0]["rgb"], other[1, 0][0]["rgb"])
    reseeded = dataset(store, "noise", "noise", scales=SCALES, seed=1)
    for different in (other[2, 0], other[1, 1], reseeded[1, 0]):
        assert (one[1, 0][0]["rgb"] != different[0]["rgb"]).any()


def test_test_views_are_the_fixed_crops(store):
    data = dataset(store, "noise", crops=10)
    views = [data[view, 0][0] for view in range(10)]
    whole = store.read("A/noise", "rgb", np.array([3 + 2, 9 + 2, 15 + 2, 21 + 2]))
    np.testing.assert_array_equal(views[0]["rgb"], whole[:, :, :32, :32])
    np.testing.assert_array_equal(views[3]["rgb"], whole[:, :, -32:, -32:])
    for view in range(5):
        np.testing.assert_array_equal(views[view]["rgb"], views[view + 5]["rgb"][..., ::-1])
        x, mirrored = views[view]["flow"][:, 0::2], views[view + 5]["flow"][:, 0::2, :, ::-1]
        np.testing.assert_array_equal(np.maximum(x, 1), 256 - mirrored.astype(int))


def test_a_batch_holds_bytes_labels_and_names(store):
    data = dataset(store, "0", "2", "3")
    (batch,) = batches(data, in_order(data, 4), "cpu")
    assert batch.inputs["rgb"].shape == (3, 4, 3, 32, 32)
    assert batch.inputs["flow"].shape == (3, 4, 10, 32, 32)
    assert {each.dtype for each in batch.inputs.values()} == {torch.uint8}
    assert batch.labels.tolist() == [0, 1, 2]
    assert batch.labels.dtype == torch.int64
    assert batch.names == ["A/0", "A/2", "A/3"]


def test_workers_change_nothing(store):
    data = dataset(store, "0", "1", "noise", scales=SCALES)
    alone, helped = (batches(data, in_order(data, 2), "cpu", workers) for workers in (0, 1))
    for batch, expected in zip(helped, alone, strict=True):
        assert batch.names == expected.names
        assert torch.equal(batch.inputs["rgb"], expected.inputs["rgb"])


def test_a_data_set_can_be_sent_to_another_process(store):
    data = dataset(store, "noise", scales=SCALES)
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy[0, 0][0]["flow"], data[0, 0][0]["flow"])


def plainly(data: SnippetDataset, view: int, index: int) -> dict[str, np.ndarray]:
    """A sample by way of whole planes, one step after the other."""
    name, settings = data.videos[index].name, data.store.settings
    count, rng = data.store.num_frames(name), np.random.default_rng((data.seed, view, index))
    if data.scales is None:
        starts, crop = sampling.centre_starts(count, data.segments), data.views[view]
    else:
        starts = sampling.random_starts(count, data.segments, rng)
        crop = augmentation.random_crop(settings.height, settings.width, data.size, data.scales, rng)
    frames, fields = sampling.snippet_indices(starts, count)
    every = {m: data.store.read(name, m, np.arange(count - (m != "rgb"))) for m in ("rgb", "flow", "mv")}
    halves = ((256 + np.diff(every["rgb"].astype(int), axis=0)) // 2).astype(np.uint8)
    whole = {
        "rgb": every["rgb"][frames],
        **{m: every[m][fields].reshape(len(fields), 10, 36, 48) for m in ("flow", "mv")},
        "rgbdiff": halves[fields].reshape(len(fields), 15, 36, 48),
        **groups_of(every, p_frames(frames)),
    }
    return {m: augmentation.apply(crop, whole[m], data.size, m) for m in data.modalities}


def groups_of(every: dict[str, np.ndarray], frames: np.ndarray) -> dict[str, np.ndarray]:
    """CoViAR's two, a group of pictures at a time."""
    accumulated, left = [], []
    for frame in frames:
        start = frame // 12 * 12
        since = accumulate(from_bytes(every["mv"][start : start + 11], 5.0))[frame - start - 1]
        accumulated.append(to_bytes(since, ACCUMULATED_BOUND * 5.0))
        left.append(residual(every["rgb"][start], every["rgb"][frame], since))
    return {"accumulated": np.stack(accumulated), "residual": np.stack(left)}


@pytest.mark.parametrize("options", [{"crops": 10}, {"scales": SCALES, "seed": 3}])
def test_a_sample_is_what_whole_planes_give(store, options):
    data = dataset(store, "noise", "3", "4", modalities=EVERY, **options)
    for view in range(10):
        for index in range(3):
            inputs, expected = data[view, index][0], plainly(data, view, index)
            for modality in EVERY:
                np.testing.assert_array_equal(inputs[modality], expected[modality])


def grey(files: list[torch.Tensor]) -> list[torch.Tensor]:
    """In the place of a GPU's decoder: OpenCV's."""
    images = [cv2.imdecode(file.numpy(), cv2.IMREAD_GRAYSCALE) for file in files]
    if any(image is None for image in images):
        raise RuntimeError("no JPEG")
    return [torch.from_numpy(image)[None] for image in images]


NAMES = ("noise", "0", "3", "noise", "4", "1")
STACKED = (*EVERY, "rgb10", "flow8", "mv10")


def assert_same(one: Batch, other: Batch) -> None:
    assert one.names == other.names
    assert torch.equal(one.labels, other.labels.cpu())
    assert one.inputs.keys() == other.inputs.keys()
    for modality, x in one.inputs.items():
        assert torch.equal(x, other.inputs[modality].cpu()), modality


@pytest.mark.parametrize("options", [{"crops": 10}, {"crops": 1}, {"scales": SCALES}])
@pytest.mark.parametrize("workers", [0, 2])
def test_fields_that_are_decoded_and_crops_that_are_cut_for_a_whole_batch_are_the_same(store, options, workers):
    data = dataset(store, *NAMES, modalities=STACKED, **options)
    views = range(data.crops) if data.scales is None else (0, 7)
    keys = [key for view in views for key in in_order(data, 5, view)]
    with closing(Loader(data, "cpu", workers, decode=grey)) as loader:
        for batch, own in zip(loader(keys), keys, strict=True):
            expected = [data[key] for key in own]
            assert batch.names == [name for _, _, name in expected]
            assert batch.labels.tolist() == [label for _, label, _ in expected]
            for modality in STACKED:
                np.testing.assert_array_equal(batch.inputs[modality], np.stack([x[modality] for x, *_ in expected]))


def test_the_processes_of_a_loader_serve_all_its_epochs(store):
    data, others = dataset(store, *NAMES, scales=SCALES), {*multiprocessing.active_children()}
    with closing(Loader(data, "cpu", 2)) as loader:
        found, processes = [], set()
        for epoch in range(3):
            next(loader(in_order(data, 2, 7)))  # an epoch that is not read to its end
            found.append([*loader(in_order(data, 5, epoch))])
            processes |= {*multiprocessing.active_children()} - others
        assert len(processes) == 2
    assert {*multiprocessing.active_children()} == others
    for epoch, own in enumerate(found):
        for batch, expected in zip(own, batches(data, in_order(data, 5, epoch), "cpu"), strict=True):
            assert_same(batch, expected)


def test_all_processes_share_the_first_batch(store, monkeypatch):
    """Each process writes its number into the planes that it fills."""
    data = dataset(store, *NAMES, *NAMES, scales=SCALES)

    def signed(self, keys, planes):
        time.sleep(0.2)  # so that one process cannot be through with all parts before another begins
        portion = usual(self, keys, planes)
        planes["rgb"][:] = os.getpid() % 256
        return portion

    usual = SnippetDataset.fill
    monkeypatch.setattr(SnippetDataset, "fill", signed)
    made_by = next(batches(data, in_order(data, 8), "cpu", workers=2)).inputs["rgb"].flatten(1)
    assert (made_by == made_by[:, :1]).all()
    assert torch.unique_consecutive(made_by[:, 0], return_counts=True)[1].tolist() == [4, 4]


@pytest.fixture
def start_method(request):
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize(("start_method", "room"), [("fork", 1), ("fork", 0), ("spawn", 1)], indirect=["start_method"])
@pytest.mark.usefixtures("start_method")
def test_processes_fill_batches_of_every_size_however_they_start(store, monkeypatch, room):
    """Files without room in the ring go through the pipe."""
    monkeypatch.setattr(sharing, "SHARE_OF_JPEGS", 8 if room else 10_000)
    data = dataset(store, *NAMES, modalities=STACKED, scales=SCALES)
    with closing(Loader(data, "cpu", 2, decode=grey)) as loader:
        for size in (2, 5, 1):  # a first epoch may have only a small batch left
            keys = [key for view in range(3 * size) for key in in_order(data, size, view)]
            for batch, own in zip(loader(keys), keys, strict=True):
                assert_same(batch, *Loader(data, "cpu", decode=grey)([own]))


@pytest.mark.parametrize(("workers", "size"), [(1, 1), (2, 3), (1, 5), (2, 9)])
def test_the_last_two_batches_stay_while_processes_go_on_as_far_as_they_can(store, workers, size):
    data = replace(dataset(store, *NAMES, *NAMES, scales=SCALES), fitted=False, encoded=True)
    keys = [key for view in range(9) for key in in_order(data, size, view)][:24]
    with closing(Workers(data, workers, size, torch.device("cpu"))) as processes:
        kept = deque[tuple[HostBatch, HostBatch]](maxlen=2)
        for read, own in zip(processes.start(keys), keys, strict=True):
            kept.append((read, replace(data).read(own)))
            time.sleep(0.05)
            for found, expected in kept:
                assert found.names == expected.names
                np.testing.assert_array_equal(found.crops, expected.crops)
                assert all(map(torch.equal, found.jpegs["flow"].files, expected.jpegs["flow"].files))
                for x, y, (_, _, height, width, _) in zip(
                    found.planes["rgb"], expected.planes["rgb"], found.crops, strict=True
                ):
                    assert torch.equal(x[..., :height, :width], y[..., :height, :width])


def test_torchs_generator_goes_on_the_same_whatever_loads(store):
    data, found = dataset(store, *NAMES, scales=SCALES), set()
    for workers in (0, 1):
        torch.manual_seed(0)
        with closing(Loader(data, "cpu", workers)) as loader:
            for epoch in range(2):
                _ = [*loader(in_order(data, 5, epoch))]
        found.add(torch.rand(()).item())
    torch.manual_seed(0)
    for _ in range(2):
        torch.empty((), dtype=torch.int64).random_()
    assert found == {torch.rand(()).item()}


def test_ten_views_are_cut_from_pictures_that_are_decoded_once(store, monkeypatch):
    data, decoded = dataset(store, *NAMES, crops=10), []
    keys = [[(view, index) for index in portion] for portion in ((0, 1, 2), (4, 5)) for view in range(10)]
    usual = Entry.images
    monkeypatch.setattr(Entry, "images", lambda self, *what: decoded.append((self.name, *what)) or usual(self, *what))
    assert len([*batches(data, keys, "cpu")]) == 20
    assert len(decoded) == 5 * 2  # videos x modalities


def fails(files):
    raise RuntimeError("Error while decoding JPEG images: 5\nand a stack")


def test_a_field_that_cannot_be_decoded_is_named(store):
    data = dataset(store, "1", "0", "3", modalities=("flow",), scales=SCALES)
    with pytest.raises(IfttnError, match=r"^a video: a field of flow cannot be decoded \(Error .*: 5\); remove"):
        next(Loader(data, "cpu", decode=fails)(in_order(data, 3)))
    read = replace(data, fitted=False, encoded=True).read(in_order(data, 3)[0])
    jpegs = read.jpegs["flow"]
    jpegs.files[10][:4] = 0
    with pytest.raises(IfttnError, match=rf"^{read.names[[10 in places for places in jpegs.places].index(True)]}: a f"):
        assembled(read, store.settings, torch.device("cpu"), grey, whole=False, lent=False)


def test_a_torchvision_without_nvjpeg_is_told_once(capfd):
    device = torch.device("cuda", 77)
    assert nvjpeg(device) is nvjpeg(device) is None
    assert capfd.readouterr().err.count("motion fields are decoded on the CPU") == 1


def test_processes_decode_where_they_are_faster_than_the_device(store, monkeypatch):
    """A GPU without engines for JPEG takes its time, a file after another."""

    def slow(files):
        time.sleep(len(files) / 1000)
        return files

    data, device = dataset(store, *NAMES, scales=SCALES), torch.device("cpu")
    for decode, workers, chosen in ((slow, 8, None), (list, 1, list)):
        monkeypatch.setattr(loading, "nvjpeg", lambda _, decode=decode: decode)
        assert decoder(data, device, workers) is chosen
    monkeypatch.setattr(loading, "nvjpeg", lambda _: fails)
    assert decoder(data, device, 8) is fails
    monkeypatch.setattr(loading, "nvjpeg", lambda _: list)
    assert decoder(replace(data, modalities=("rgb",)), device, 8) is list
    assert decoder(replace(data, videos=()), device, 8) is list


def test_videos_are_looked_for_once(store, monkeypatch):
    data = dataset(store, "0", "1")
    monkeypatch.setattr(Store, "index", lambda _: pytest.fail("looked for again"))
    assert replace(replace(data, fitted=False), crops=10).crops == 10
    monkeypatch.setattr(Store, "index", lambda _: pd.DataFrame({"video": ["A/0"]}))
    with pytest.raises(IfttnError, match="the first is A/ghost"):
        replace(data, videos=videos("0", "ghost"))


def corner(batch: Batch) -> torch.Tensor:
    return batch.inputs["rgb"][0, 0, :, :20, :20]


def test_a_batch_that_is_kept_is_not_written_again(store):
    for decode in (None, grey):
        data = dataset(store, "noise", "0", "1", "2", "4", scales=SCALES)
        keys = [key for view in range(3) for key in in_order(data, 1, view)]
        kept = [*Loader(data, "cpu", decode=decode)(keys)]
        parts = [corner(batch) for batch in Loader(data, "cpu", decode=decode)(keys)]
        for number, batch in enumerate(Loader(data, "cpu", decode=decode)(keys)):
            assert_same(batch, kept[number])
            assert torch.equal(corner(batch), parts[number])


def test_memory_is_used_again_once_nobody_holds_it(store):
    data = dataset(store, "noise", "0", scales=SCALES)
    keys = [key for view in range(8) for key in in_order(data, 1, view)]
    places = {batch.inputs["flow"].data_ptr() for batch in batches(data, keys, "cpu")}
    assert len(places) <= 3


def test_ten_thousand_videos_are_checked_without_opening_them(store, monkeypatch):
    opened = []
    with monkeypatch.context() as watched:
        watched.setattr(Store, "index", lambda self: pd.DataFrame({"video": [f"A/{i}" for i in range(10_000)]}))
        watched.setattr(Store, "open", lambda *_: opened.append(1))
        assert len(dataset(store, *map(str, range(10_000)))) == 10_000
    assert not opened


def test_unknown_modalities_and_unprepared_videos_are_errors(store):
    with pytest.raises(IfttnError, match="unknown modality depth; choose from rgb, flow"):
        dataset(store, "0", modalities=("rgb", "depth"))
    with pytest.raises(IfttnError, match=r"1 of 2 videos are not in .* the first is A/ghost"):
        dataset(store, "0", "ghost")


KEYS = [[(2, row) for row in range(first, min(first + 6, 16))] for first in (0, 6, 12)]


@pytest.fixture
def training_set(embedded):
    work = embedded.work(embedded.store)
    return SnippetDataset(work.store, work.split.train, ("rgb", "flow"), segments=3, size=64, scales=(1.0, 0.875))


@pytest.mark.gpu
def test_a_gpu_decodes_and_cuts_the_same_batches(training_set, gpu):
    decode = loading.nvjpeg(torch.device(gpu))
    assert decode
    for data, given in product((training_set, replace(training_set, scales=None, crops=10)), (decode, None)):
        with closing(Loader(data, gpu, 2, given)) as loader:
            for one, other in zip(batches(data, KEYS, "cpu"), loader(KEYS), strict=True):
                assert_same(one, other)


def test_memory_that_the_system_does_not_give_ends_in_a_line(training_set, monkeypatch):
    def refuses(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(sharing.mmap, "mmap", refuses)
    message = r"too little memory \(Tried to allocate \d+ MB\); what helps: --micro-batch with fewer videos at once"
    with pytest.raises(IfttnError, match=message), explained({"micro_batch": None}):
        batches(training_set, KEYS, "cpu", workers=2)


def test_a_killed_worker_ends_in_one_line(training_set, capfd):
    others = {*multiprocessing.active_children()}
    feed = batches(training_set, 100 * KEYS, "cpu", workers=1)
    next(feed)
    (worker,) = {*multiprocessing.active_children()} - others
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(IfttnError, match=r"^a process that loads batches was killed, .*fewer --workers"):
        list(feed)
    assert capfd.readouterr().err == ""


def test_a_video_that_cannot_be_read_is_named_by_a_worker_as_by_the_process_itself(training_set, monkeypatch):
    def damaged(*_):
        raise IfttnError("ring/v_1 is damaged")

    monkeypatch.setattr(Store, "open", damaged)
    for workers in (0, 1):
        with pytest.raises(IfttnError, match=r"^ring/v_1 is damaged$"):
            list(batches(training_set, KEYS, "cpu", workers))
