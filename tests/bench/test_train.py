import argparse
import multiprocessing
import os
import re

import pytest

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
    for _, fed, from_memory, ratio, start, waiting, *_ in rows:
        assert float(ratio) == pytest.approx(float(fed) / float(from_memory), rel=0.05, abs=0.011)
        assert float(start) > 0
        assert 0 <= float(waiting.rstrip("%")) < 100


def test_processes_that_load_are_measured_once_they_have_got_going(capsys, tmp_path):
    others = {*multiprocessing.active_children()}
    assert bench.run(options("--folder", tmp_path, "--batch", 2, "--workers", 1, "--stages", "spatial")) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("spatial")
    assert {*multiprocessing.active_children()} == others


def test_stages_are_fed_from_memory_beside_torchvisions_network(capsys):
    assert bench.run(options("--from-memory", "--batch", 2, "--stages", "spatial", "temporal", "joint")) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [re.sub(r"\[.*?\]", "", line).split() for line in lines[3:8]]
    assert [row[0] for row in rows] == ["resnet18", "spatial", "temporal", "ttn", "joint"]
    assert rows[3].pop(1) == "alone"
    # Two videos a step. Both numbers are rounded to a tenth.
    assert all(float(row[2]) == pytest.approx(2000 / float(row[1]), rel=0.01, abs=0.06) for row in rows)
    assert float(rows[0][4]) == 1
    assert "spatial + temporal + ttn alone" in lines[-1]


def test_a_cpu_has_no_largest_batch():
    with pytest.raises(IfttnError, match="cpu is no GPU: use --device cuda"):
        bench.run(options("--largest-batch"))


def test_a_machine_of_few_cores_is_measured_on_a_larger_one(capsys, tmp_path, monkeypatch):
    every = os.sched_getaffinity(0)
    try:
        assert bench.run(options("--folder", tmp_path, "--batch", 2, "--stages", "spatial", "--cores", 1)) == 0
        assert len(os.sched_getaffinity(0)) == 1
    finally:
        os.sched_setaffinity(0, every)
    assert ", 1 cores, " in capsys.readouterr().out
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(IfttnError, match="--cores needs Linux"):
        bench.run(options("--cores", 1))
