import argparse
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from ifttn.bench import train as bench
from ifttn.cli import parser
from ifttn.vocabulary import IfttnError


def options(*arguments: object) -> argparse.Namespace:
    small = ["--preset", "smallest", "--videos", "16", "--steps", "1", "--repetitions", "1", "--device", "cpu"]
    return parser().parse_args(["bench", "train", *small, *map(str, arguments)])


def test_every_stage_is_measured_with_its_data_and_from_memory(capsys, tmp_path):
    assert bench.run(options("--folder", tmp_path, "--batch", 2)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"batch 2 instead of {bench.PRESETS['smallest'].batch}" in lines[1]
    head = next(index for index, line in enumerate(lines) if line.startswith("stage"))
    rows = [re.sub(r"\[.*?\]", "", line).split() for line in lines[head + 1 :]]
    assert [row[0] for row in rows] == ["spatial", "temporal", "ttn", "joint"]
    for _, fed, from_memory, ratio, waiting, *_ in rows:
        assert float(ratio) == pytest.approx(float(fed) / float(from_memory), rel=0.05, abs=0.011)
        assert 0 <= float(waiting.rstrip("%")) < 100


def test_the_peak_of_a_cpu_is_that_of_the_process_since_it_was_reset():
    large = np.ones(1 << 28, np.uint8)
    before = bench.peak_of("cpu")
    del large
    bench.reset_peak("cpu")
    after = bench.peak_of("cpu")
    assert math.isnan(after) or before - after > 0.9 * (1 << 28)


@given(st.integers(0, 3000), st.integers(1, 3000))
def test_the_largest_batch_is_found_from_any_guess_and_from_a_good_one_soon(limit, guess):
    tries = []
    with tqdm(disable=True) as bar:
        assert bench.most(lambda videos: tries.append(videos) or videos <= limit, guess, bar) == limit
    assert len(set(tries)) == len(tries)
    if abs(limit - guess) <= guess / 16:
        assert len(tries) <= 3 + math.log2(max(1, guess / 16)) + 1


def test_the_search_starts_where_the_plan_says_and_shows_how_far_it_is(monkeypatch, capsys):
    tried = []

    def on_a_card(preset, device, videos, machine, timed=0):
        tried.append((machine.recompute, videos))
        return (2.0 * videos, 1e9) if bench.planned_memory(preset, videos, machine) < 9e9 else None

    monkeypatch.setattr(bench, "free_memory", lambda _: 10e9)
    monkeypatch.setattr(bench, "steps_of", on_a_card)
    bench.largest("small", "cuda", bench.Machine())
    said = capsys.readouterr()
    rows = [line.split() for line in said.out.splitlines()[1:]]
    for recomputed, (_, videos, speed, peak, planned) in zip((False, True), rows, strict=True):
        first = next(own for way, own in tried if way == recomputed)
        assert bench.planned_memory("small", first, bench.Machine(recompute=recomputed)) == pytest.approx(
            10e9, rel=0.05
        )
        assert float(planned) == pytest.approx(9, rel=0.05)
        assert (float(speed), float(peak)) == (2 * int(videos), 1.0)
    assert len(tried) < 24
    assert "recompute True" in said.err
    assert "videos=" in said.err


def test_a_cpu_has_no_largest_batch():
    with pytest.raises(IfttnError, match="cpu is none: take --device cuda"):
        bench.run(options("--largest-batch"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.gpu
def test_recomputing_lets_more_videos_fit(capsys):
    bench.largest("smallest", "cuda", bench.Machine())
    plain, recomputed = (int(line.split()[1]) for line in capsys.readouterr().out.splitlines()[1:])
    assert recomputed >= plain > 0
