import argparse
import math

import pytest
import torch

from ifttn.bench import train as bench


def options(*arguments: object) -> argparse.Namespace:
    p = argparse.ArgumentParser()
    bench.add_options(p)
    small = ["--preset", "smallest", "--videos", "16", "--steps", "1", "--repetitions", "1", "--device", "cpu"]
    return p.parse_args([*small, *map(str, arguments)])


def test_every_stage_is_measured_with_its_data_and_from_memory(capsys, tmp_path):
    assert bench.run(options("--folder", tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("stage"))
    rows = [line.split() for line in lines[head + 1 :]]
    assert [row[0] for row in rows] == ["spatial", "temporal", "ttn", "joint"]
    for _, fed, from_memory, ratio, waiting, *_ in rows:
        assert float(ratio) == pytest.approx(float(fed) / float(from_memory), rel=0.05, abs=0.011)
        assert 0 <= float(waiting.rstrip("%")) < 100


def test_a_cpu_has_no_peak_and_no_matrix_product_to_compare_with(capsys, tmp_path):
    work = bench.prepared(tmp_path, options(), bench.Machine())
    row = bench.measured(work, "spatial", 0, steps=1, repetitions=1)
    assert math.isnan(row.peak)
    assert row.flops > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.gpu
def test_recomputing_lets_more_videos_fit(capsys):
    bench.largest("smallest", "cuda", bench.Machine())
    plain, recomputed = (int(line.split()[1]) for line in capsys.readouterr().out.splitlines()[1:])
    assert recomputed >= plain > 0
