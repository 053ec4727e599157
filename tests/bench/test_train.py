import argparse
import math
import re

import numpy as np
import pytest
import torch

from ifttn.bench import train as bench


def options(*arguments: object) -> argparse.Namespace:
    p = argparse.ArgumentParser()
    bench.add_options(p)
    small = ["--preset", "smallest", "--videos", "16", "--steps", "1", "--repetitions", "1", "--device", "cpu"]
    return p.parse_args([*small, *map(str, arguments)])


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.gpu
def test_recomputing_lets_more_videos_fit(capsys):
    bench.largest("smallest", "cuda", bench.Machine())
    plain, recomputed = (int(line.split()[1]) for line in capsys.readouterr().out.splitlines()[1:])
    assert recomputed >= plain > 0
