import errno
import importlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ifttn.data import catalogue, preparation
from ifttn.data.flow_service import serve
from ifttn.data.preparation import prepare
from ifttn.data.preparation_report import summary
from ifttn.data.store import Store, StoreSettings
from ifttn.data.workers import Crash
from ifttn.files import held
from ifttn.vocabulary import IfttnError

SETTINGS = StoreSettings(48, 36, 5.0)


def status(report: pd.DataFrame) -> dict[str, str]:
    return dict(zip(report.video, report.status, strict=True))


def test_every_video_comes_into_the_store_with_all_modalities(root, tmp_path):
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert set(status(report).values()) == {"done"}
    assert (report.frames == 8).all()
    store = Store(tmp_path / "store")
    for action, expected in (("Left", -1), ("Right", 1)):
        name = f"{action}/v_{action}_g01_c01"
        assert store.read(name, "rgb", np.arange(8)).shape == (8, 3, 36, 48)
        for modality in ("flow", "mv"):
            motion = (store.read(name, modality, np.arange(7)).astype(float) - 128) * 5 / 127
            np.testing.assert_allclose(np.median(motion, axis=(0, 2, 3)), (expected, 0), atol=0.15)
    assert pd.read_parquet(tmp_path / "store" / "index.parquet").video.tolist() == report.video.tolist()
    assert (tmp_path / "store" / "report.csv").read_text() == report.to_csv(index=False)
    assert report.bytes.tolist() == store.index().bytes.tolist()


def test_processes_write_what_one_process_writes(root, tmp_path):
    (root / "Left" / "v_Left_g03_c01.avi").touch()
    reports = [prepare(root, tmp_path / str(jobs), SETTINGS, jobs=jobs, progress=False) for jobs in (1, 2)]
    one, two = (report.drop(columns=["seconds"]) for report in reports)
    pd.testing.assert_frame_equal(one, two)
    alone, together = Store(tmp_path / "1"), Store(tmp_path / "2")
    for name in alone.index().video:
        for modality in ("rgb", "flow", "mv"):
            written = alone.read(name, modality, np.arange(7))
            np.testing.assert_array_equal(written, together.read(name, modality, np.arange(7)))


def test_a_broken_video_is_reported_with_its_reason_and_the_rest_go_on(root, tmp_path, pan, encode, encode_sound):
    folder = root / "Left"
    (folder / "v_Left_g03_c01.avi").touch()
    (folder / "v_Left_g04_c01.avi").write_text("no video")
    encode_sound(folder / "v_Left_g05_c01.avi")
    whole = encode(folder / "v_Left_g06_c01.avi", pan(40)).read_bytes()
    (folder / "v_Left_g06_c01.avi").write_bytes(whole[: len(whole) // 2])
    encode(folder / "v_Left_g07_c01.avi", pan(1))
    encode(folder / "v_Left_g08_c01.avi", pan(2))
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    failed = report[report.status == "failed"].set_index("video").reason
    assert failed.index.tolist() == [f"Left/v_Left_g0{group}_c01" for group in range(3, 8)]
    for reason, words in zip(
        failed, ("is empty", "cannot be decoded", "no video stream", "truncated", "one frame"), strict=True
    ):
        assert words in reason
    assert status(report)["Left/v_Left_g08_c01"] == "done"
    assert (report.status == "done").sum() == 5
    assert len(Store(tmp_path / "store").index()) == 5


def test_running_again_does_only_what_is_left(root, tmp_path, pan, encode):
    late = root / "Left" / "v_Left_g03_c01.avi"
    late.touch()
    prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    paths = sorted((tmp_path / "store" / "videos").rglob("*.safetensors"))
    before = [path.stat().st_mtime_ns for path in paths]
    encode(late, pan(3))
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert status(report).pop("Left/v_Left_g03_c01") == "done"
    assert (report.status == "skipped").sum() == 4
    assert (report.frames[report.status == "skipped"] == 8).all()
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_a_batch_of_failures_is_a_report_and_no_crash(tmp_path):
    for name in ("A/v_A_g01_c01.avi", "A/v_A_g02_c01.avi", "B/v_B_g01_c01.avi", "B/v_B_g02_c01.avi"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    report = prepare(tmp_path / "set", tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert set(report.status) == {"failed"}
    assert Store(tmp_path / "store").index().empty


def test_a_full_disk_ends_the_batch_and_a_later_run_goes_on(root, tmp_path, monkeypatch):
    replace, written = os.replace, []

    def fill(source: Path, target: Path) -> None:
        if target.suffix == ".safetensors":
            written.append(target)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as full:
        full.setattr(os, "replace", fill)
        with pytest.raises(IfttnError, match="disk is full"):
            prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert len(written) == 3
    store = Store(tmp_path / "store")
    assert len(store.index()) == 2
    assert not list(store.folder.rglob("*.partial"))
    assert pd.read_csv(store.folder / "report.csv").status.tolist() == ["done", "done"]
    assert sorted(status(prepare(root, store.folder, SETTINGS, jobs=1, progress=False)).values()) == [
        *["done"] * 2,
        *["skipped"] * 2,
    ]


def test_what_a_killed_process_left_is_removed(root, tmp_path):
    leftover = tmp_path / "store" / "videos" / "Left" / ".v_Left_g01_c01.safetensors.77.partial"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert not leftover.exists()
    assert len(Store(tmp_path / "store").index()) == 4


def test_a_limit_spreads_over_the_actions(root, tmp_path):
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, limit=2, progress=False)
    assert [name.split("/")[0] for name in report.video] == ["Left", "Right"]


def test_unknown_flow_and_other_settings_are_errors(root, tmp_path):
    with pytest.raises(IfttnError, match="unknown optical flow horn; choose from tvl1, tvl1-fast, dis"):
        prepare(root, tmp_path / "store", StoreSettings(48, 36, 5.0, flow="horn"), progress=False)
    Store.create(tmp_path / "store", SETTINGS)
    with pytest.raises(IfttnError, match="another folder"):
        prepare(root, tmp_path / "store", StoreSettings(48, 36, 6.0), progress=False)


def test_progress_is_shown_on_request(root, tmp_path, capfd):
    prepare(root, tmp_path / "store", SETTINGS, jobs=1)
    assert "4/4" in capfd.readouterr().err


def test_a_new_encoding_is_noted(root, tmp_path, pan, encode):
    encode(root / "Left" / "v_Left_g03_c01.avi", pan(12, 96, 72), b_frames=2)
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False).set_index("video")
    assert report.notes["Left/v_Left_g03_c01"] == "re-encoded: B-frames"
    assert (report.notes.drop("Left/v_Left_g03_c01") == "").all()
    again = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert again.notes.tolist() == report.notes.tolist()  # what a skipped video took is still known
    assert summary(again)[-1] == "1 videos re-encoded: B-frames"


def test_a_link_out_of_the_data_set_is_refused_and_one_within_it_is_not(root, tmp_path, pan, encode):
    private = encode(tmp_path / "private.avi", pan(3))
    encode(tmp_path / "far" / "v_Up_g01_c01.avi", pan(3))
    (tmp_path / "far" / "v_Up_g02_c01.avi").symlink_to("v_Up_g01_c01.avi")
    (root / "Up").symlink_to(tmp_path / "far")  # classes on another disk are common
    (root / "Left" / "v_Left_g03_c01.avi").symlink_to(private)
    (root / "Left" / "v_Left_g04_c01.avi").symlink_to(root / "Right" / "v_Right_g01_c01.avi")
    (root / "Left" / "v_Left_g05_c01.avi").symlink_to("nowhere.avi")
    (tmp_path / "linked").symlink_to(root)
    report = prepare(tmp_path / "linked", tmp_path / "store", SETTINGS, jobs=1, progress=False)
    failed = report[report.status == "failed"].set_index("video").reason
    assert failed.index.tolist() == ["Left/v_Left_g03_c01", "Left/v_Left_g05_c01"]
    assert f"is a link to {private}, outside the data set" in failed.iloc[0]
    assert "does not exist" in failed.iloc[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read_is_named(root, tmp_path):
    (root / "Left" / "v_Left_g01_c01.avi").chmod(0)
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert "cannot be read" in report.set_index("video").reason["Left/v_Left_g01_c01"]


def test_names_may_hold_whatever_a_file_system_takes(root, tmp_path):
    names = ["[]()!#&;~", "two  words", "été 中文", "100%d", "quote\"s, 'and' $HOME `ls`", "line\nbreak", "-rf", "a:b"]
    video = (root / "Left" / "v_Left_g01_c01.avi").read_bytes()
    for name in names:
        (root / "Right" / f"{name}.avi").write_bytes(video)
    (root / "Right" / os.fsdecode(b"latin-\xe9.avi")).write_bytes(video)
    for expected in ("done", "skipped"):
        report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False).set_index("video")
        assert (report.status[[f"Right/{name}" for name in (*names, "latin-\\xe9")]] == expected).all()
    assert len(Store(tmp_path / "store").index()) == 5 + len(names)


def test_a_video_of_any_type_that_ffmpeg_reads_is_prepared(tmp_path, pan, encode):
    types = {
        "m4v": "mpeg4",
        "MOV": "mpeg4",
        "3gp": "mpeg4",
        "mpeg": "mpeg2video",
        "ts": "mpeg2video",
        "MTS": "mpeg2video",
    }
    types |= {"wmv": "wmv2", "flv": "flv"}
    for suffix, codec in types.items():
        encode(tmp_path / "set" / "Left" / f"{codec}-{suffix}.{suffix}", pan(8, 96, 72, (-2, 0)), codec)
    report = prepare(tmp_path / "set", tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert report.video.tolist() == sorted(f"Left/{codec}-{suffix}" for suffix, codec in types.items())
    assert set(report.status) == {"done"}, report.reason.tolist()


def test_an_error_of_any_kind_is_the_reason_of_one_video(root, tmp_path, monkeypatch):
    reader = preparation.reader_of

    def fail(path, *size):
        if "g02" in path.name:
            raise MemoryError("no room\nfor this")
        return reader(path, *size)

    monkeypatch.setattr(preparation, "reader_of", fail)
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert status(report)["Left/v_Left_g01_c01"] == "done"
    assert report.reason[1] == f"{root / 'Left' / 'v_Left_g02_c01.avi'}: MemoryError: no room for this"


CRASHING = """
import os, signal
from ifttn.data.preparation import _prepare_one

def crash(video, work):
    if video.name == "Left/v_Left_g02_c01":
        os.kill(os.getpid(), signal.SIGSEGV)
    return _prepare_one(video, work)
"""


@pytest.mark.slow
def test_a_video_that_crashes_its_process_is_tried_alone_and_listed(root, tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(preparation, "_prepare_one", importlib.import_module("crashing").crash)
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=2, progress=False).set_index("video")
    assert (report.status.drop("Left/v_Left_g02_c01") == "done").all()
    assert "the decoder crashed (SIGSEGV" in report.reason["Left/v_Left_g02_c01"]


def test_one_device_serves_all_processes(root, tmp_path, monkeypatch):
    shared, settings = [], StoreSettings(48, 36, 5.0, flow="tvl1")
    monkeypatch.setattr(preparation, "serve", lambda *each: shared.append(each) or serve(*each))
    monkeypatch.setattr(preparation, "device_for", lambda name, device: device)
    for folder, device in (("alone", "cpu"), ("served", "cpu:0")):
        report = prepare(root, tmp_path / folder, settings, jobs=2, progress=False, device=device)
        assert set(report.status) == {"done"}
    assert shared == [("tvl1", "cpu:0")]
    assert contents(tmp_path / "alone") == contents(tmp_path / "served")


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in (store / "videos").rglob("*.safetensors")}


def test_a_store_is_prepared_by_one_process_at_a_time(root, tmp_path):
    Store.create(tmp_path / "store", SETTINGS)
    with held(tmp_path / "store"), pytest.raises(IfttnError, match="is in use by"):
        prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)


def test_ctrl_c_loses_nothing_that_was_done(root, tmp_path, monkeypatch):
    real = preparation._prepare_one

    def stop(video, work):
        if video.name.startswith("Right"):
            raise KeyboardInterrupt
        return real(video, work)

    with monkeypatch.context() as stopped:
        stopped.setattr(preparation, "_prepare_one", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    written = pd.read_csv(tmp_path / "store" / "report.csv")
    assert written.video.tolist() == ["Left/v_Left_g01_c01", "Left/v_Left_g02_c01"]
    assert (written.status == "done").all()
    assert len(pd.read_parquet(tmp_path / "store" / "index.parquet")) == 2


@pytest.fixture(autouse=True)
def _restore_opencv_threads():
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)


@pytest.mark.parametrize(
    ("how", "said"),
    [("SIGKILL(-9)", "memory ran out: prepare fewer videos at once"), ("SIGSEGV(-11)", "crashed (SIGSEGV")],
)
def test_a_process_that_was_killed_is_no_decoder_that_crashed(tmp_path, pan, encode, monkeypatch, how, said):
    encode(tmp_path / "set" / "Left" / "v_Left_g01_c01.avi", pan(3))
    monkeypatch.setattr(preparation, "each", lambda function, items, *_, **__: ((item, Crash(how)) for item in items))
    report = preparation.prepare(
        tmp_path / "set", tmp_path / "store", StoreSettings(24, 16, 5.0, "dis"), progress=False
    )
    assert said in report.reason[0]


def test_what_a_video_lost_is_noted_in_the_report_and_counted_in_its_summary(tmp_path, shared_data):
    folder = tmp_path / "set" / "Left"
    folder.mkdir(parents=True)
    for name in ("cut_half.webm", "damaged_tail.mp4", "trimmed_edit_list.mp4"):
        (folder / name).write_bytes((shared_data / "faults" / name).read_bytes())
    report = prepare(tmp_path / "set", tmp_path / "store", StoreSettings(48, 36, 5.0, "dis"), jobs=1, progress=False)
    assert (report.status == "done").all()
    assert report.frames.tolist() == [40, 97, 42]
    assert "cut short (its pictures end at 1.6 of 4.0 s)" in report.notes[0]
    assert "1 videos cut short" in summary(report)


def notes(report: pd.DataFrame) -> dict[str, str]:
    return {video: each for video, each in zip(report.video, report.notes, strict=True) if each}


def test_a_file_that_was_replaced_is_prepared_again_and_a_copy_is_not(root, tmp_path, pan, encode):
    store, other = tmp_path / "store", root / "Left" / "v_Left_g02_c01.avi"
    prepare(root, store, SETTINGS, jobs=1, progress=False)
    before = Store(store).read("Left/v_Left_g02_c01", "rgb", np.arange(3))
    identity = Store(store).identity(["Left/v_Left_g02_c01"])
    encode(other, pan(8, 96, 72, (0, 2)))
    for path in (root / "Right").glob("*.avi"):  # as a copy, an archive or a checkout gives it another time
        os.utime(path, ns=(0, 0))
    assert Store(store).changed(contents_of(root)) == ["Left/v_Left_g02_c01"]
    with pytest.raises(IfttnError, match=r"1 of 4 videos differ from those that were prepared .*v_Left_g02_c01"):
        Store(store).refuse_unprepared(contents_of(root))
    report = prepare(root, store, SETTINGS, jobs=1, progress=False)
    assert notes(report) == {"Left/v_Left_g02_c01": "prepared again, because its file was replaced"}
    assert "1 videos prepared again, because its file was replaced" in summary(report)
    assert not np.array_equal(before, Store(store).read("Left/v_Left_g02_c01", "rgb", np.arange(3)))
    assert Store(store).identity(["Left/v_Left_g02_c01"]) != identity
    assert Store(store).origins()["Right/v_Right_g01_c01"].mtime_ns == 0  # and need not be read again
    Store(store).refuse_unprepared(contents_of(root))


def contents_of(root):
    return catalogue.contents(root).videos


def test_a_damaged_entry_is_prepared_again(root, tmp_path):
    prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    path = tmp_path / "store" / "videos" / "Left" / "v_Left_g01_c01.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert notes(report) == {"Left/v_Left_g01_c01": "prepared again, because its entry was damaged"}
    assert path.read_bytes() == whole


def test_two_data_sets_of_one_name_share_no_store_and_one_that_moved_keeps_its_own(root, tmp_path, pan, encode):
    prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    other = tmp_path / "elsewhere" / "set"
    for path in root.glob("*/*.avi"):
        encode(other / path.relative_to(root), pan(8, 96, 72, (0, 3)))
    line = (
        r"was prepared from .*/set, and .*/elsewhere/set holds other videos under the same names \(the first is Left/"
    )
    with pytest.raises(IfttnError, match=line):
        prepare(other, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    shutil.rmtree(other)
    encode(other / "Up" / "v_Up_g01_c01.avi", pan(8, 96, 72, (0, 3)))
    encode(other / "Down" / "v_Down_g01_c01.avi", pan(8, 96, 72, (0, -3)))
    with pytest.raises(IfttnError, match=r"elsewhere/set holds other videos: use another folder"):
        prepare(other, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    shutil.rmtree(other)
    root.rename(other)
    encode(other / "Left" / "v_Left_g02_c01.avi", pan(8, 96, 72, (0, 2)))
    report = prepare(other, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert sorted(report.status) == ["done", "skipped", "skipped", "skipped"]
    assert Store(tmp_path / "store").data == other


def test_with_nothing_left_to_write_the_device_and_the_libraries_do_not_matter(root, tmp_path, monkeypatch):
    settings = replace(SETTINGS, flow="dis")
    prepare(root, tmp_path / "store", settings, jobs=1, limit=3, progress=False)
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    (tmp_path / "store" / "manifest.json").write_text(json.dumps({**manifest, "device": "cuda"}))
    with pytest.raises(IfttnError, match="computed on cuda"):
        prepare(root, tmp_path / "store", settings, jobs=1, progress=False, device="cpu")
    (tmp_path / "store" / "manifest.json").write_text(json.dumps({**manifest, "libraries": {"av": "1.0"}}))
    report = prepare(root, tmp_path / "store", settings, jobs=1, progress=False)
    assert sorted(report.status) == ["done", "skipped", "skipped", "skipped"]
    assert ["instead of 1.0" in each for each in notes(report).values()] == [True]
    (tmp_path / "store" / "manifest.json").write_text(json.dumps({**manifest, "device": "cuda"}))
    report = prepare(root, tmp_path / "store", settings, jobs=1, progress=False, device="cpu")
    assert set(report.status) == {"skipped"}
