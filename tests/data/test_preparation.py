import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ifttn.data.preparation import prepare
from ifttn.data.store import Store, StoreSettings
from ifttn.vocabulary import IfttnError

SETTINGS = StoreSettings(48, 36, 5.0)


@pytest.fixture
def root(tmp_path, pan, encode):
    """Two actions of two groups, a video each."""
    for action, step in (("Left", (-2, 0)), ("Right", (2, 0))):
        for group in (1, 2):
            encode(tmp_path / "set" / action / f"v_{action}_g{group:02}_c01.avi", pan(8, 96, 72, step))
    return tmp_path / "set"


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
    written = pd.read_csv(tmp_path / "store" / "report.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(written, report, check_dtype=False)


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
        failed, ("cannot be decoded", "cannot be decoded", "no video stream", "truncated", "one frame"), strict=True
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
    with pytest.raises(IfttnError, match="unknown optical flow horn; choose from dis"):
        prepare(root, tmp_path / "store", StoreSettings(48, 36, 5.0, flow="horn"), progress=False)
    Store.create(tmp_path / "store", SETTINGS)
    with pytest.raises(IfttnError, match="another folder"):
        prepare(root, tmp_path / "store", StoreSettings(48, 36, 6.0), progress=False)


def test_progress_is_shown_on_request(root, tmp_path, capfd):
    prepare(root, tmp_path / "store", SETTINGS, jobs=1)
    assert "4/4" in capfd.readouterr().err


@pytest.fixture(autouse=True)
def _restore_opencv_threads():
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)
