import argparse

import cv2
import pytest
import torch

from ifttn.bench import store as bench
from ifttn.bench.options import TRAINED_STAGES
from ifttn.cli import parser
from ifttn.data.store import Store, StoreSettings
from ifttn.vocabulary import IfttnError


def options(*arguments: object) -> argparse.Namespace:
    small = ["--preset", "tiny", "--videos", "2", "--batch", "2", "--repetitions", "1"]
    return parser().parse_args(["bench", "store", *small, *map(str, arguments)])


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)


def test_every_stage_has_a_row_and_the_cores_that_a_device_needs(capsys):
    assert bench.run(options("--rate", 100, 200, 300, 400)) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = lines[-5].split()
    for line, name, rate in zip(lines[-4:], TRAINED_STAGES, (100, 200, 300, 400), strict=True):
        row = dict(
            zip(["stage", "bare", "loader", "ratio", "fitted", "of", "device", "cores"], line.split(), strict=True)
        )
        assert row["stage"] == name
        assert float(row["ratio"]) == pytest.approx(float(row["loader"]) / float(row["bare"]), abs=0.01)
        assert float(row["device"]) == rate
        assert float(row["cores"]) == pytest.approx(rate / float(row["loader"]), abs=0.06)
    assert heads[0] == "stage"


def test_without_a_device_the_row_says_what_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    store = bench.example(tmp_path, StoreSettings(48, 36, 5.0))
    assert bench.run(options("--store", store.folder)) == 0
    out = capsys.readouterr().out
    assert "--rate spatial temporal ttn joint" in out
    assert f"{store.folder}: 48x36" in out


def test_mistakes_are_named(tmp_path):
    with pytest.raises(IfttnError, match="a number for each of spatial, temporal, ttn, joint"):
        bench.run(options("--rate", 3))
    Store.create(tmp_path, StoreSettings(48, 36, 5.0))
    with pytest.raises(IfttnError, match="holds no video"):
        bench.run(options("--store", tmp_path))
