import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ifttn import files
from ifttn.experiment import runs, training
from ifttn.experiment.presets import PRESETS, Schedule
from ifttn.experiment.processes import Machine
from ifttn.vocabulary import IfttnError


@pytest.fixture
def forked(embedded, tmp_path):
    """forked(what, ...): what forked.py prints."""

    def run(what, *arguments):
        script = Path(__file__).with_name("forked.py")
        command = [sys.executable, script, what, embedded.data, embedded.store, tmp_path, *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, timeout=1200, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1]), ended.stderr

    return run


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_training_killed_at_25_random_moments_ends_with_the_weights_of_an_undisturbed_one(forked, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    found, _ = forked("faults", 25, device)
    assert found["killed"] >= 25
    assert {"stage 0", "stage 1"} <= {where for name, where in found["where"] if name == "if-ttn"}
    assert all(found["same"])


def test_two_processes_learn_what_one_does_and_a_lost_one_costs_nothing(forked):
    found, errors = forked("processes")
    one = found["spatial one"]
    assert found["spatial micro"] == pytest.approx(one, rel=1e-5)
    assert found["spatial two"] == pytest.approx(one, rel=1e-5)
    assert len(found["if-ttn two"]) == 6
    assert found["codes"] == [1, -9]
    assert "process 0 of 2: another process was lost or failed" in errors
    assert "the same command continues from it" in errors
    assert found["checkpoint"]
    assert found["again"] == [0, 0]
    assert found["same"]
    assert found["fewer"] == pytest.approx(one, rel=1e-5)  # two processes, then one


@pytest.fixture
def longer(monkeypatch):
    preset = replace(PRESETS["smallest"], schedules={"spatial": Schedule(2, 1e-3, None)}, batch=4)
    monkeypatch.setitem(PRESETS, "smallest", preset)


def test_a_full_disk_ends_in_one_line_and_leaves_the_last_checkpoint(embedded, tmp_path, monkeypatch, longer):
    calm = training.train(embedded.work(tmp_path / "calm"), "spatial")
    work = replace(embedded.work(tmp_path / "full"), machine=Machine(checkpoint_steps=1))
    synced, writes = os.fsync, iter(range(5))

    def full(descriptor):
        if next(writes, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(IfttnError, match="the disk is full; the last one is complete"):
        training.train(work, "spatial")
    monkeypatch.setattr(files.os, "fsync", synced)
    checkpoint = work.run("spatial").checkpoint()
    assert checkpoint is not None
    assert checkpoint["processes"][0][0]["step"] == 3  # recipe.json and loaded.json were the first two writes
    assert not list(work.run("spatial").folder.glob("*.partial"))
    resumed = training.train(work, "spatial")
    for key, value in calm.weights().items():
        assert torch.equal(value, resumed.weights()[key]), key


def test_a_checkpoint_that_cannot_be_read_says_what_to_do(embedded, tmp_path, longer):
    work = embedded.work(tmp_path)
    run = work.run("spatial")
    run.folder.mkdir(parents=True)
    (run.folder / "checkpoint.pt").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(IfttnError, match="is damaged: remove it"):
        training.train(work, "spatial")


def test_metrics_survive_a_line_that_was_cut_off(tmp_path):
    run = runs.Run(tmp_path)
    run.log({"stage": "spatial", "epoch": 0, "loss": 1.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "spatial", "epo')
    run.log({"stage": "spatial", "epoch": 1, "loss": 1.0})
    assert run.metrics().loss.tolist() == [1.5, 1.0]
