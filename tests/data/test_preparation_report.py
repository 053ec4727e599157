import pandas as pd
import pytest

from ifttn.data import catalogue
from ifttn.data.preparation import prepare
from ifttn.data.preparation_report import ReportRow, kept_report, read_report, summary
from ifttn.data.store import Store, StoreSettings
from ifttn.experiment.work import without_failed
from ifttn.vocabulary import IfttnError

SETTINGS = StoreSettings(48, 36, 5.0)


def status(report: pd.DataFrame) -> dict[str, str]:
    return dict(zip(report.video, report.status, strict=True))


def test_what_a_video_took_is_told(root, tmp_path, pan, encode):
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    lines = summary(report)
    assert lines[0] == "4 done, 0 skipped, 0 failed"
    assert lines[1] == f"8 frames and {report.bytes.mean():,.0f} bytes per video"
    # A pan of one pixel, rounded to 5 / 127 px and compressed.
    assert (report.stored_mean.between(0.001, 0.1) & (report.stored_p999 > report.stored_mean)).all()
    assert (report.quantised_p999 <= 2.5 / 127 + 1e-6).all()  # half a level
    assert f"as stored: {report.stored_mean.mean():.3f} and" in lines[2]


def test_an_earlier_failure_stays_in_the_report_until_it_is_tried_again(root, tmp_path, pan, encode):
    late, store = root / "Left" / "v_Left_g01_c02.avi", tmp_path / "store"
    late.touch()
    assert status(prepare(root, store, SETTINGS, jobs=1, progress=False))["Left/v_Left_g01_c02"] == "failed"
    limited = prepare(root, store, SETTINGS, jobs=1, limit=2, progress=False).set_index("video")
    assert "is empty" in limited.reason["Left/v_Left_g01_c02"]
    assert (limited.status == "skipped").sum() == 4
    late.unlink()
    assert "failed" not in set(prepare(root, store, SETTINGS, jobs=1, progress=False).status)


def test_what_is_listed_and_not_there_is_missing(root, tmp_path):
    lists = root / "lists"
    lists.mkdir()
    for action in ("Left", "Right"):
        names = [f"v_{action}_g{group:02}_c01.avi" for group in (1, 2, 3)]
        (lists / f"{action}_test_split1.txt").write_text("".join(f"{name} 1 \n" for name in names))
    report = prepare(root, tmp_path / "store", SETTINGS, jobs=1, progress=False)
    assert report[report.status == "missing"].video.tolist() == ["Left/v_Left_g03_c01", "Right/v_Right_g03_c01"]
    assert summary(report)[0] == "4 done, 0 skipped, 0 failed, 2 missing"


@pytest.mark.parametrize("spreadsheet", ["semicolons", "tabs in UTF-16", "byte order mark", "cp1252", "columns moved"])
def test_a_report_that_a_spreadsheet_saved_says_the_same(root, tmp_path, spreadsheet):
    store = tmp_path / "store"
    broken = root / "Left" / "v_Left_g01_c01.avi"
    broken.rename(broken.with_name("été.avi")).write_bytes(b"no video")
    first = prepare(root, store, SETTINGS, jobs=1, progress=False)
    before = read_report(store)
    assert before["Left/été"].status == "failed"
    path = store / "report.csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    semicolons = frame.replace(r"(\d)\.(\d)", r"\1,\2", regex=True)
    semicolons.video = frame.video
    how = {
        "semicolons": (semicolons, {"sep": ";", "lineterminator": "\r\n"}, "utf-8-sig"),
        "tabs in UTF-16": (frame, {"sep": "\t", "lineterminator": "\r\n"}, "utf-16"),
        "byte order mark": (frame, {"lineterminator": "\r"}, "utf-8-sig"),
        "cp1252": (semicolons, {"sep": ";"}, "cp1252"),
        "columns moved": (frame[sorted(frame.columns)].assign(mine=""), {}, "utf-8"),
    }
    changed, options, encoding = how[spreadsheet]
    path.write_bytes(changed.to_csv(index=False, **options).encode(encoding))
    after = read_report(store)
    assert after.keys() == before.keys()
    for name, row in after.items():
        assert (row.status, row.frames, row.bytes) == (before[name].status, before[name].frames, before[name].bytes)
        assert row.seconds == before[name].seconds
    split = without_failed(catalogue.read_split(root), Store(store))
    assert [note.partition(":")[0] for note in split.notes] == ["Left/été"]
    again = prepare(root, store, SETTINGS, jobs=1, progress=False)
    pd.testing.assert_series_equal(again.stored_mean, first.stored_mean)


def test_a_report_that_is_no_report_is_named_in_one_line(root, tmp_path):
    store = tmp_path / "store"
    prepare(root, store, SETTINGS, jobs=1, progress=False)
    for content in (b"my shopping\n1 egg\n", b"\x00\xff\x80" * 9):
        (store / "report.csv").write_bytes(content)
        for read in (
            lambda: without_failed(catalogue.read_split(root), Store(store)),
            lambda: prepare(root, store, SETTINGS, jobs=1, progress=False),
        ):
            with pytest.raises(IfttnError, match=r"report.csv is no report of a preparation.*remove it"):
                read()


def test_the_rows_of_a_killed_preparation_are_known_to_the_next(root, tmp_path):
    store = tmp_path / "store"
    first = prepare(root, store, SETTINGS, jobs=1, progress=False)
    path = store / "report.csv"
    path.unlink()
    with kept_report(store, {}) as report:
        report(ReportRow("Left/v_Left_g01_c01", "done", notes="re-encoded", frames=8, stored_mean=0.25))
        report(ReportRow("Right/v_Right_g01_c01", "done", notes="half of this line is los"))
        so_far = path.read_bytes()
    path.write_bytes(so_far[:-40])
    report = prepare(root, store, SETTINGS, jobs=1, progress=False).set_index("video")
    assert (report.status == "skipped").all()
    assert (report.notes["Left/v_Left_g01_c01"], report.stored_mean["Left/v_Left_g01_c01"]) == ("re-encoded", 0.25)
    assert report.notes["Right/v_Right_g01_c01"] == ""
    assert report.bytes.tolist()[1:] == first.bytes.tolist()[1:]  # told by the store itself
