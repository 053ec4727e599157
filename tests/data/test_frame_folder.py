"""A folder of numbered images is a video."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ifttn.data.catalogue import contents, read_split
from ifttn.data.entry import Origin
from ifttn.data.flow import luminance
from ifttn.data.frame_folder import images_of, is_frame_folder, size_and_time
from ifttn.data.frame_source import StoreSettings
from ifttn.data.live import FolderReader, LiveReader, reader_of
from ifttn.data.preparation import prepare
from ifttn.data.store import Store
from ifttn.data.video import Reader
from ifttn.data.video_source import as_they_come, from_file
from ifttn.vocabulary import IfttnError

SETTINGS = StoreSettings(96, 72, 5.0, flow="dis")


def put(folder: Path, frames: np.ndarray, name: str = "{:05}.png", first: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, first):
        cv2.imwrite(str(folder / name.format(number)), frame[..., ::-1])
    return folder


@pytest.mark.parametrize("name", ["{}.jpg", "{:06}.jpg", "img_{:05}.JPG", "frame_{:06}.png", "image_{:04}.jpeg"])
def test_images_are_read_in_the_order_of_their_numbers(tmp_path: Path, pan, name: str) -> None:
    folder = put(tmp_path / "film", pan(12, 96, 72), name.lower(), first=0)
    for path in folder.iterdir() if "JPG" in name else ():
        path.rename(path.with_suffix(".JPG"))
    (folder / "flow_x_00001.jpg").touch()
    (folder / ".DS_Store").touch()
    assert is_frame_folder(folder)
    assert [int("".join(filter(str.isdecimal, path.stem))) for path in images_of(folder)] == list(range(12))


def test_frames_are_the_images_and_vectors_are_those_of_an_encoder(tmp_path: Path, pan) -> None:
    frames = pan(20, 160, 120, (4, 2))
    reader = reader_of(put(tmp_path / "film", frames))
    chunks = [*reader.chunks(length=7)]
    np.testing.assert_array_equal(np.concatenate([chunk.frames for chunk in chunks]), frames)
    blocks = np.concatenate([chunk.blocks for chunk in chunks])
    assert len(blocks) == 19
    assert np.median(blocks, axis=(0, 2, 3)).round().tolist() == [4, 2]
    assert (reader.count(), reader.fps, reader.notes) == (20, 25.0, ())
    assert isinstance(reader_of(tmp_path / "film.avi"), Reader)


def test_few_frames_of_a_folder_are_read_twice_alike(tmp_path: Path, pan) -> None:
    reader = FolderReader(put(tmp_path / "film", pan(30, 160, 120)), (96, 72))
    few = [np.concatenate([chunk.frames for chunk in reader.chunks(lambda count: [3, count - 1])]) for _ in range(2)]
    np.testing.assert_array_equal(*few)
    assert few[0].shape == (2, 72, 96, 3)


@pytest.mark.parametrize("modality", ["rgb", "mv", "flow"])
def test_a_folder_gives_snippets_as_live_frames_do(tmp_path: Path, pan, modality: str) -> None:
    frames = pan(40, 96, 72)
    folder = put(tmp_path / "film", frames)
    planes, buffer = from_file(folder, SETTINGS, lambda source: source.read(modality, np.array([5, 20])))
    assert buffer.frames == 40
    assert planes.shape == (2, 3 if modality == "rgb" else 2, 72, 96)
    live, came = (
        [*as_they_come(reader, SETTINGS, 0.4, [modality])]
        for reader in (LiveReader(frames, 25.0, (96, 72)), reader_of(folder, (96, 72)))
    )
    assert [second for second, _ in came] == [second for second, _ in live] != []
    for (_, there), (_, here) in zip(live, came, strict=True):
        np.testing.assert_array_equal(here[modality], there[modality])


def test_damaged_images_are_skipped_and_told(tmp_path: Path, pan) -> None:
    frames = pan(30, 96, 72)
    folder = put(tmp_path / "film", frames)
    (folder / "00003.png").write_bytes(b"<html>404</html>")
    (folder / "00005.png").write_bytes(b"")
    reader = reader_of(folder)
    read = np.concatenate([chunk.frames for chunk in reader.chunks()])
    np.testing.assert_array_equal(read, np.delete(frames, (2, 4), axis=0))
    assert reader.notes == ("lost frames (2 of 30 images cannot be read)",)
    _, buffer = from_file(folder, SETTINGS, lambda source: source.read("rgb", np.array([source.frames - 1])))
    assert buffer.frames == 28
    for number in range(10, 13):
        (folder / f"{number:05}.png").write_bytes(b"")
    with pytest.raises(IfttnError, match=r"film: damaged, 5 of its 30 images cannot be read"):
        list(reader_of(folder).chunks())


@pytest.mark.parametrize(
    ("removed", "notes"),
    [((5, 6, 9), ("gaps (3 of the numbers from 1 to 12 have no image)",)), (range(2, 13, 2), ()), ((1, 12), ())],
)
def test_missing_numbers_are_told_unless_they_are_left_out_evenly(tmp_path: Path, pan, removed, notes) -> None:
    folder = put(tmp_path / "film", pan(12, 96, 72))
    for number in removed:
        (folder / f"{number:05}.png").unlink()
    reader = reader_of(folder)
    list(reader.chunks())
    assert reader.notes == notes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no numbered images"),
        (["cover.jpg"], "holds no numbered images"),
        (["img_1.jpg", "rgb_1.jpg"], r"holds images with several names \(img_1.jpg, rgb_1.jpg\)"),
        (["1.jpg", "01.jpg"], r"holds two images with one number, 01.jpg and 1.jpg"),
    ],
)
def test_a_folder_that_is_no_video_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(IfttnError, match=message):
        images_of(tmp_path)


@pytest.mark.parametrize("beside", ["1.mp4", "more/1.jpg"])
def test_thumbnails_beside_videos_or_folders_are_no_video(tmp_path: Path, beside: str) -> None:
    for name in ("1.jpg", beside):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert not is_frame_folder(tmp_path)
    assert not is_frame_folder(tmp_path / "absent")


def test_folders_of_images_stand_in_class_folders_beside_files(tmp_path: Path, pan) -> None:
    for name in ("run/a", "run/b", "walk/a"):
        put(tmp_path / name, pan(2, 32, 32))
    (tmp_path / "walk" / "b.mp4").touch()
    split = read_split(tmp_path)
    assert [video.name for video in split.train + split.test] == ["run/b", "walk/b", "run/a", "walk/a"]
    assert split.notes == ()


def test_a_folder_is_another_video_when_its_images_change(tmp_path: Path, pan) -> None:
    folder = put(tmp_path / "film", pan(3, 32, 32))
    origin = Origin.of(folder, tmp_path)
    assert (origin.path, origin.bytes) == ("film", sum(path.stat().st_size for path in folder.iterdir()))
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    for path in moved.iterdir():
        os.utime(path, ns=(5, 5))
    assert origin.mtime_if_same(moved) == 5
    (folder / "00002.png").unlink()
    assert origin.mtime_if_same(folder) is None
    content = bytearray((moved / "00002.png").read_bytes())
    content[-1] ^= 1
    (moved / "00002.png").write_bytes(content)
    assert origin.mtime_if_same(moved) is None


def test_folders_of_images_are_prepared_as_files_are(tmp_path: Path, pan, encode) -> None:
    root, store = tmp_path / "set", tmp_path / "store"
    for name, step in (("left", (-2, 0)), ("right", (2, 0))):
        put(root / name / "images", pan(8, 96, 72, step))
        encode(root / name / "file.avi", pan(8, 96, 72, step))
    (root / "left" / "linked").mkdir()
    for number in (1, 2):
        (root / "left" / "linked" / f"{number}.png").symlink_to(tmp_path / "elsewhere.png")
    report = prepare(root, store, SETTINGS, jobs=1, progress=False).set_index("video")
    assert report.status.to_dict() == {
        "left/file": "done",
        "left/images": "done",
        "left/linked": "failed",
        "right/file": "done",
        "right/images": "done",
    }
    assert report.notes["left/images"] == "re-encoded: images"
    assert "1.png: is a link to " in report.reason["left/linked"]
    prepared = Store(store)
    assert prepared.num_frames("left/images") == 8
    frames = [prepared.read(f"left/{name}", "rgb", np.arange(8)).transpose(0, 2, 3, 1) for name in ("images", "file")]
    assert np.abs(luminance(frames[0]).astype(int) - luminance(frames[1])).mean() < 3
    vectors = prepared.read("left/images", "mv", np.arange(7)).mean((0, 2, 3))
    assert vectors[0] < 128 - 25 < 128 + 25 > vectors[1]
    again = prepare(root, store, SETTINGS, jobs=1, progress=False)
    assert (again.status == "skipped").sum() == 4
    put(root / "left" / "images", pan(9, 96, 72, (0, 2)))
    assert prepared.changed(contents(root).videos) == ["left/images"]
    assert size_and_time(root / "left" / "images")[0] > size_and_time(root / "right" / "images")[0]
