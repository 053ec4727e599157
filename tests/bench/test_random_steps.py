import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from ifttn.bench import random_steps
from ifttn.experiment.processes import Machine


@given(st.integers(0, 3000), st.integers(1, 3000))
def test_the_largest_batch_is_found_from_any_guess_and_from_a_good_one_soon(limit, guess):
    tries = []
    with tqdm(disable=True) as bar:
        assert random_steps.most_that_fit(lambda videos: tries.append(videos) or videos <= limit, guess, bar) == limit
    assert len(set(tries)) == len(tries)
    if abs(limit - guess) <= guess / 16:
        assert len(tries) <= 3 + math.log2(max(1, guess / 16)) + 1


def test_the_search_starts_where_the_plan_says_and_shows_how_far_it_is(monkeypatch, capsys):
    tried = []

    def on_a_card(preset, device, videos, machine, timed=0):
        tried.append((machine.recompute, videos))
        return (2.0 * videos, 1e9) if random_steps.planned_bytes(preset, videos, machine) < 9e9 else None

    monkeypatch.setattr(random_steps, "free_bytes", lambda _: 10e9)
    monkeypatch.setattr(random_steps, "joint_speed", on_a_card)
    random_steps.print_largest_batch("small", "cuda", Machine())
    said = capsys.readouterr()
    rows = [line.split() for line in said.out.splitlines()[1:]]
    for recomputed, (_, videos, speed, peak, planned) in zip((False, True), rows, strict=True):
        first = next(own for way, own in tried if way == recomputed)
        assert random_steps.planned_bytes("small", first, Machine(recompute=recomputed)) == pytest.approx(
            10e9, rel=0.05
        )
        assert float(planned) == pytest.approx(9, rel=0.05)
        assert (float(speed), float(peak)) == (2 * int(videos), 1.0)
    assert len(tried) < 24
    assert "recompute True" in said.err
    assert "videos=" in said.err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.gpu
def test_recomputing_lets_more_videos_fit(capsys):
    random_steps.print_largest_batch("smallest", "cuda", Machine())
    plain, recomputed = (int(line.split()[1]) for line in capsys.readouterr().out.splitlines()[1:])
    assert recomputed >= plain > 0
