import cv2
import pandas as pd
import pytest
import torch

from ifttn.bench import speed
from ifttn.bench.systems import DEFINITIONS, ROWS
from ifttn.cli import parser
from ifttn.data.doctor import pan


def options(*words):
    return parser().parse_args(["bench", "speed", *map(str, words), "--device", "cpu"])


@pytest.fixture(autouse=True, scope="module")
def _restore_arithmetic():
    threads, of_cv2 = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    cv2.setNumThreads(of_cv2)


@pytest.fixture(scope="module")
def video(tmp_path_factory, encode):
    return encode(tmp_path_factory.mktemp("speed") / "pan.avi", pan(30, 96, 72, (2, 1)))


def test_all_rows_of_the_table_are_measured_in_one_run(video, tmp_path, capsys):
    csv = tmp_path / "speed.csv"
    words = ("--size", "small", "--video", video, "--segments", 2, "--repetitions", 1, "--csv", csv)
    assert speed.run(options(*words)) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert "float32" in lines[0]
    assert "K = 2, batch 1" in lines[1]
    assert all(any(line.strip().startswith(name) for line in lines[2:5]) for name in DEFINITIONS)
    for peer in ROWS.values():
        (line,) = (line for line in lines if line.startswith(f"{peer.row:32}"))
        assert line.count("n1") == len(DEFINITIONS)
    ours = next(line for line in lines if line.startswith("MV-IF-TTN  "))
    assert ours.split()[-1] == "142"  # the paper's, in a column that says so
    assert "paper fps" in printed
    assert "MV-IF-TTN end to end against IF-TTN (RGB + Optical flow)" in printed
    frame = pd.read_csv(csv)
    assert set(frame.row) >= set(ROWS)
    assert (frame.seconds >= 0).all()
    assert set(frame.definition.dropna()) == set(DEFINITIONS)


def test_what_was_measured_before_it_was_stopped_is_kept(video, capsys, monkeypatch):
    measured = speed.Clock.rounds

    def stopped(*arguments):
        for number, timing in enumerate(measured(*arguments)):
            if number == 5:
                raise KeyboardInterrupt
            yield timing

    monkeypatch.setattr(speed.Clock, "rounds", stopped)
    words = ("--size", "small", "--video", video, "--segments", 2, "--rows", "tsn-rgb", "mv-if-ttn")
    assert speed.run(options(*words)) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("TSN (RGB) [27]"))
    assert line.count("n1") == 2  # the third definition was not reached
    assert not any(line.startswith("MV-IF-TTN  ") for line in lines)


def test_the_papers_column_is_that_of_table_5():
    paper = speed.paper_speeds()
    assert [paper[peer.row] for name, peer in ROWS.items() if name != "if-ttn"] == [
        *(14, 14, 131, 314, 680, 340, 390, 240, 206, 142)
    ]
