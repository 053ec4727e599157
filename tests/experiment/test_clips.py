"""Accuracy against the number of training videos."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ifttn import cli
from ifttn.experiment.clips import curve, fewer
from ifttn.experiment.scores import Scores
from ifttn.experiment.significance import wilson
from ifttn.vocabulary import IfttnError, Split, Video


def split_of(*counts: int) -> Split:
    videos = [
        Video(f"{label}/{n}", Path(f"{label}/{n}.avi"), str(label), label, group=f"{label}/{n}")
        for label, count in enumerate(counts)
        for n in range(count)
    ]
    return Split("mine", 1, tuple(map(str, range(len(counts)))), tuple(videos), ())


def test_few_clips_are_among_those_of_more_and_another_seed_takes_others():
    split = split_of(40, 40, 5)
    few, more, other = (
        {video.name for video in fewer(split, clips, seed).train} for clips, seed in ((8, 0), (16, 0), (8, 1))
    )
    assert few < more
    assert few != other
    assert [sum(name.startswith(f"{label}/") for name in more) for label in range(3)] == [16, 16, 5]
    assert [v.name for v in fewer(split, 40, 3).train] == [v.name for v in split.train]
    with pytest.raises(IfttnError, match="41 clips of an action: split 1 of mine trains on 40 at most"):
        fewer(split, 41, 0)


def scores(right: int) -> Scores:
    labels = np.zeros(10, int)
    said = np.eye(2, dtype=np.float32)[(np.arange(10) >= right).astype(int)]
    heads = {"rgb": said, "flow": -said}
    return Scores(tuple(f"v{i}" for i in range(10)), labels, ("a", "b"), heads)


def test_the_curve_is_the_mean_over_seeds_with_an_interval_over_videos_and_trainings():
    table = curve({(8, 0): scores(5), (4, 0): scores(2), (4, 1): scores(6)}).set_index(["clips", "head"])
    assert [*table.index] == [(clips, head) for clips in (4, 8) for head in ("rgb", "flow", "together")]
    two = table.loc[(4, "rgb")]
    assert (two.accuracy, two.lowest, two.highest, two.seeds, two.videos) == (0.4, 0.2, 0.6, 2, 10)
    one = table.loc[(8, "rgb")]
    np.testing.assert_allclose([one.low, one.high], wilson(5, 10))
    assert table.accuracy[8, "together"] == table.accuracy[8, "flow"] == 0.5  # flow weighs more than rgb
    low, high = wilson(4, 10)
    assert two.low < low < high < two.high  # two answers to a video are not two videos, and trainings differ


def test_the_command_trains_on_few_and_goes_on_where_it_was(embedded, tmp_path, capsys):
    words = ["clips", "spatial", "1", "--preset", "smallest", "--device", "cpu", "--workers", "0"]
    words += ["--data", str(embedded.data), "--store", str(embedded.store), "--runs", str(tmp_path)]
    assert cli.main(words) == 0
    weights = tmp_path / "1-clips-seed-0" / "embedded-ucf" / "split1" / "spatial" / "weights.safetensors"
    first = weights.stat().st_mtime_ns
    assert cli.main([*words, "--repeats", "2"]) == 0
    assert weights.stat().st_mtime_ns == first
    assert "1 clips of each action, seed 1: done" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "embedded-ucf-split1-spatial.csv")
    assert table[["clips", "head", "seeds", "videos"]].to_numpy().tolist() == [[1, "rgb", 2, 16]]
    assert (tmp_path / "embedded-ucf-split1-spatial.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main([*words[:2], "2", *words[3:]]) == 1
    assert "2 clips of an action: split 1 of embedded-ucf trains on 1 at most" in capsys.readouterr().err
