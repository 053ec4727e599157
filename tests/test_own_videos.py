"""A folder of one's own, as a phone fills it, from files to tables."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from ifttn import cli

PHONES = (  # container, codec, width, height, frames a second
    (".mp4", "libx264", 180, 320, 30),
    (".mov", "libx264", 320, 180, 24),
    (".mp4", "libx264", 270, 480, 60),
    (".webm", "libvpx-vp9", 320, 240, 30),
    (".avi", "mpeg4", 240, 320, 25),
    (".mpg", "mpeg2video", 352, 288, 25),
)


def scene(action: str, seconds: float, width: int, height: int, seed: int) -> np.ndarray:
    """A frame: a disc that swings, a square that jumps, or a cross that stands before a moving camera."""
    rng = np.random.default_rng(seed)
    paint, light, phase, pace = (
        rng.integers(0, 60, 3),
        rng.integers(70, 130, 3),
        rng.uniform(0, 6.28),
        rng.uniform(0.8, 1.2),
    )
    swing = np.sin(2 * np.pi * pace * seconds + phase)
    centre = {"swing": (0.3 * swing, 0.0), "jump": (0.0, 0.3 * swing), "stand": (0.0, 0.0)}[action]
    y, x = np.mgrid[:height, :width] - np.array([[[height / 2]], [[width / 2]]])
    unit = min(width, height)
    away_x, away_y = x / unit - centre[0], y / unit - centre[1]
    shape = {
        "swing": np.hypot(away_x, away_y) < 0.15,
        "jump": np.maximum(abs(away_x), abs(away_y)) < 0.14,
        "stand": np.minimum(abs(away_x), abs(away_y)) < 0.05,
    }[action]
    shift = 20 * seconds if action == "stand" else 0
    texture = 30 * np.sin((x + shift) / 9) * np.sin(y / 7)
    frame = 60 + paint + texture[..., None] + light * shape[..., None]
    return np.clip(frame, 0, 255).astype(np.uint8)


def film(folder: Path, videos: int = 6, seconds: float = 1.6) -> Path:
    """Write so many videos of each of three actions, no two in a row alike in shape, rate or codec."""
    for number, action in enumerate(("swing", "jump", "stand")):
        (folder / action).mkdir(parents=True)
        for index in range(videos):
            suffix, codec, width, height, rate = PHONES[index % len(PHONES)]
            with av.open(str(folder / action / f"VID_{index:04}{suffix}"), "w") as file:
                stream = file.add_stream(codec, rate=Fraction(rate))
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                for step in range(round(seconds * rate)):
                    image = scene(action, step / rate, width, height, seed=100 * number + index)
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
                file.mux(stream.encode())
    return folder


@pytest.mark.slow
def test_three_classes_of_a_few_phone_clips_fill_tables_claims_and_figures(tmp_path, capsys):
    own, out = film(tmp_path / "holiday"), tmp_path / "results"
    assert cli.main(["reproduce", "--quick", "--data", str(own), "--out", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "failed" not in printed.err
    page = (out / "report.html").read_text(encoding="utf-8")
    figures = {path.name for path in (out / "figures").glob("*.png")}
    assert {"figure_1_7.png", "figure_6.png", "training.png", "confusion.png"} <= figures
    assert page.count("data:image/png;base64,") == len(figures)
    assert cli.main(["tables", "--runs", str(out / "runs"), "--csv", str(tmp_path / "tables.csv")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (" ".join(printed.out.split()), said, page):
        assert "Measured: holiday in place of UCF-101" in text
        assert "of 6 videos)" in text  # a claim with its numbers
        assert "no tested run in" not in text
        assert "embedded" not in text
    rows = pd.read_csv(tmp_path / "tables.csv").query("table == 3").set_index("method")
    assert rows["measured on"].tolist() == ["holiday"] * 5
    assert (rows.measured.notna() & rows.low.lt(rows.high)).all()
    assert rows["paper on"].unique().tolist() == ["UCF-101"]


@pytest.mark.slow
def test_the_embedded_set_in_the_layout_of_something_something_fills_the_reversal_table(tmp_path, capsys, monkeypatch):
    """By the commands of docs/data.md."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["prepare", "SSV2", "--embedded", "something", "--videos", "32", "--preset", "smallest"]) == 0
    study = ["reproduce", "--quick", "--preset", "smallest", "--data", "SSV2", "--device", "cpu"]
    assert cli.main(study) == 0
    capsys.readouterr()
    assert cli.main(["tables", "order", "--csv", "order.csv"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Actions with a reverse (SSV2, 16 actions), in %" in said
    assert "Desert, fast, red goes across, discs become" in said
    rows = pd.read_csv("order.csv").query("action != 'all'")
    assert rows.groupby("system").videos.sum().to_dict() == dict.fromkeys(rows.system, 16)
    assert (rows[rows.system == "two-stream TSN"].turns == 0).all()  # TSN's mean over snippets has no order
    page = Path("results/report.html").read_text(encoding="utf-8")
    assert "Actions with a reverse: 16 of SSV2" in page
    assert "Which actions need order" in page
