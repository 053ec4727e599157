import shutil
from functools import partial

import pandas as pd
import pytest
import torch

from ifttn.bench import drawing as bench
from ifttn.bench.options import DRAWING_WAYS
from ifttn.cli import main
from ifttn.experiment import training
from ifttn.insight.canvases import SeenInput
from ifttn.insight.drawing_settings import preset_for
from ifttn.insight.embedded.denoiser import Denoiser, denoiser_file, packed, train_denoiser


@pytest.fixture(scope="module")
def study(embedded, tmp_path_factory):
    """A study whose networks of all splits are copies of one that was trained for a step, with a raw denoiser."""
    results = tmp_path_factory.mktemp("study")
    for folder in ("data", "stores"):
        shutil.copytree(embedded.data.parents[1] / folder, results / folder)
    for recipe in ("spatial", "temporal", "if-ttn"):
        training.train(embedded.work(results / "runs"), recipe)
    for split in ("split2", "split3"):
        shutil.copytree(results / "runs" / "embedded-ucf" / "split1", results / "runs" / "embedded-ucf" / split)
    denoiser = Denoiser({"rgb": 3, "flow": 10}, 5)
    denoiser_file(results / "runs", "embedded-ucf", 1, ("rgb", "flow")).write_bytes(packed(denoiser))
    return results


@pytest.fixture
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_steps", "_threads")
@pytest.mark.parametrize("ways", [DRAWING_WAYS[2:4], pytest.param(DRAWING_WAYS, marks=pytest.mark.slow)], ids=len)
def test_every_way_has_a_row_with_its_floor_and_intervals(ways, study, monkeypatch, tmp_path, capsys):
    trained, raw = [], partial(train_denoiser, steps=2)
    monkeypatch.setattr(bench, "train_denoiser", lambda real, steps, progress: trained.append(steps) or raw(real))
    options = ["--results", str(study), "--seeds", "3", "--csv", str(tmp_path / "ways.csv"), "--ways", *ways]
    assert main(["bench", "drawing", *options]) == 0
    _, heads, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == list(ways)
    assert all(row.count("[") == len(bench.COLUMNS) + 2 for row in rows)
    assert all(name in heads for name in (*bench.COLUMNS, "core-s", "floor"))
    assert trained == ([300, 600, 1600] if "default" in ways else [])
    pairs = pd.read_csv(tmp_path / "ways.csv")
    assert (pairs.groupby(["way", "weights"]).action.nunique() == 16).all()
    drawn = pairs[pairs.weights == "trained"].pivot(index="action", columns="way", values="own gap")
    # No two ways draw the same picture, but the three denoisers that are trained alike here.
    assert (drawn.nunique(axis=1) == len(ways) - 2 * ("default" in ways)).all()


@pytest.mark.usefixtures("two_steps")
def test_phases_keep_the_magnitudes_of_real_frames_and_an_accentuation_begins_with_a_real_pair(study):
    contest = bench.Contest(study)
    of = SeenInput(("rgb", "flow"), 2, torch.device("cpu")), preset_for(64), None, [torch.Generator()] * 2
    real = {modality: images.flatten(0, 1).float() for modality, images in contest.real.items()}
    drawn = bench.Phases(*of, real=real).images()["rgb"]
    by_row = [
        torch.fft.rfft2(images).abs().mean((0, 1, 2)) for images in (drawn.flatten(0, 1)[None], real["rgb"][None])
    ]
    assert torch.corrcoef(torch.stack([each.flatten()[1:].log() for each in by_row]))[0, 1] > 0.9
    start = contest.pairs([(3, 0), (5, 0)], own=True)
    assert torch.equal(bench.Accentuated(*of, start=start).images()["flow"], start["flow"])
    assert start["rgb"].shape == (2, 2, 3, 72, 96)
