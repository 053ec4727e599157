import errno
import io
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from ifttn import cli, gallery
from ifttn.data.flow import FLOWS
from ifttn.data.store import Store
from ifttn.experiment import training
from ifttn.experiment.recipes import RECIPES
from ifttn.insight.embedded import denoiser
from ifttn.insight.embedded.denoiser import train_denoiser
from ifttn.model.fusion import FUSIONS
from ifttn.verbs.inputs import print_names

EXTENDING = Path(__file__).parents[1] / "docs" / "extending.md"
VERBS = ("prepare", "train", "test", "tables", "figures", "reproduce", "predict", "export", "bench")


@pytest.fixture(scope="module")
def trained(embedded, tmp_path_factory):
    """A complete network, trained and tested from the command line; its folder of runs, and the options to reach it."""
    runs = tmp_path_factory.mktemp("runs")
    options = ["--data", embedded.data, "--store", embedded.store, "--runs", runs, "--preset", "smallest"]
    options = [*map(str, options), "--device", "cpu"]
    assert cli.main(["train", "if-ttn", *options]) == 0
    for recipe in ("spatial", "temporal", "if-ttn"):
        assert cli.main(["test", recipe, *options]) == 0
    return runs, options


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def mistake(capsys, *arguments):
    """The one line that a mistake ends in."""
    try:
        code = run(*arguments)
    except SystemExit as ended:
        code = ended.code
    assert code in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ifttn")
    return lines[0]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.count("  -") >= 3 or "parts:" in text or verb == "export"
    assert "SUPPRESS" not in text


def test_training_a_recipe_trains_first_what_it_starts_from(trained):
    runs, _ = trained
    assert {path.name for path in (runs / "embedded-ucf" / "split1").iterdir()} >= {"spatial", "temporal", "if-ttn"}


def test_the_docs_add_a_fusion_that_trains(trained, monkeypatch):
    runs, options = trained
    *_, example = re.findall(r"```python\n(.*?)```", EXTENDING.read_text(), re.DOTALL)
    for table, name in ((FUSIONS, "maximum"), (RECIPES, "if-ttn-maximum")):
        monkeypatch.setitem(table, name, None)  # what the example puts there goes when the test ends
    monkeypatch.setattr(cli, "main", lambda arguments, main=cli.main: main([*arguments, *options]))
    exec(compile(example, "extending.md", "exec"), {})
    assert (runs / "embedded-ucf" / "split1" / "if-ttn-maximum" / "scores.npz").exists()


def test_a_dry_run_says_what_a_recipe_will_cost_and_stops(embedded, capsys, tmp_path):
    options = ("--data", embedded.data, "--runs", tmp_path / "runs", "--dry-run")
    assert run("train", "if-ttn-adaptive", "--preset", "smallest", *options) == 0
    text = capsys.readouterr().out
    assert "recipe if-ttn-adaptive\n  why: Table 1: Eq. 3" in text
    assert "preset smallest, like tiny but for backbone" in text
    assert "parameters: " in text
    assert "16 videos of 16 actions" in text
    stages = [line.split()[0] for line in text.splitlines()[-2:]]
    assert stages == ["ttn", "joint"]
    assert not (tmp_path / "runs").exists()
    assert run("train", "spatial", "--preset", "paper", "--data", tmp_path / "none", "--dry-run") == 0
    assert "computed for UCF101" in capsys.readouterr().out


def test_epochs_of_a_stage_belong_to_the_run(trained, embedded, capsys, tmp_path):
    runs, options = trained
    assert run("train", "spatial", *options[:4], "--runs", tmp_path, *options[6:], "--epochs", "spatial=2") == 0
    assert len((tmp_path / "embedded-ucf" / "split1" / "spatial" / "metrics.jsonl").read_text().splitlines()) == 2
    capsys.readouterr()
    differs = mistake(capsys, "train", "spatial", *options, "--epochs", "spatial=2")
    assert "preset_row.schedules.spatial.epochs" in differs
    assert str(runs) in differs
    assert "choose from spatial" in mistake(capsys, "train", "spatial", *options, "--epochs", "ttn=2")


def test_tables_print_measured_beside_paper_and_leave_the_rest_empty(trained, embedded, capsys, tmp_path):
    runs, _ = trained
    assert run("tables", "3", "4", "--runs", runs, "--data", embedded.data.parent, "--csv", tmp_path / "t.csv") == 0
    text = capsys.readouterr().out
    assert "Table 3" in text
    assert "scene" in text
    assert text.startswith("What the paper claims")
    assert (
        "Motion vectors in place of optical flow cost little accuracy. embedded-ucf: needs a tested run of"
        in " ".join(text.split())
    )
    assert "additive fusion." not in text  # of Table 2, which was not asked for
    shutil.copytree(runs, tmp_path / "of another seed", ignore=shutil.ignore_patterns("weights*", "pyramids"))
    further = ("--seeds", tmp_path / "of another seed")
    assert run("tables", "3", "--runs", runs, "--data", embedded.data.parent, *further) == 0
    assert "sd seeds" in capsys.readouterr().out
    frame = pd.read_csv(tmp_path / "t.csv")
    complete = frame[(frame.table == 3) & (frame.method == "complete IF-TTN")].iloc[0]
    assert complete.paper == 95.0
    assert 0 <= complete.measured <= 100
    mv = frame[(frame.table == 4) & frame.column.str.contains("motion vectors") & (frame.method == "IF-TTN")].iloc[0]
    assert mv.paper == 94.4
    assert np.isnan(mv.measured)  # no run, and never the paper's number in its place


def test_a_test_tells_order_read_outs_and_classes(trained, capsys):
    _, options = trained
    assert run("test", "if-ttn", *options, "--classes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["rgb", "flow", "ttn", "together"]
    assert all("one view 0." in line and "reversed 0." in line and "shuffled 0." in line for line in lines[:4])
    assert lines[4].split() == ["action", "videos", "right", "accuracy", "low", "high", "taken", "for"]
    assert len(lines) == 4 + 1 + 16 + 1
    assert "held nothing out of training" in mistake(capsys, "test", "if-ttn", *options, "--tune")


def test_figures_are_drawn_from_runs(trained, two_steps, tmp_path):
    _, options = trained
    assert run("figures", *options, "--out", tmp_path) == 0
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {
        f"{name}.png"
        for name in ("figure_1_7", "order", "figure_6", "localisation", "training", "confusion", "actions")
    }
    assert {path.name for path in tmp_path.glob("*.csv")} == {"order.csv", "localisation.csv", "actions.csv"}
    assert all(path.stat().st_size > 5000 for path in tmp_path.glob("*.png"))


def test_a_denoiser_is_trained_once_and_draws_figures_1_and_7(trained, two_steps, tmp_path, monkeypatch, capsys):
    runs, options = trained
    kept = runs / "embedded-ucf" / "split1" / "denoiser-rgb-flow.safetensors"
    monkeypatch.setattr(gallery, "train_denoiser", partial(train_denoiser, steps=2))
    monkeypatch.setattr(denoiser, "SAVE_EVERY", 0.0)
    try:
        assert run("figures", *options, "--denoise", "--out", tmp_path) == 0
        assert list(kept.parent.glob("denoiser*")) == [kept]
        written = kept.stat().st_mtime_ns
        assert all(
            (tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("figure_1_7", "figure_1_7_all", "order")
        )
        assert "through a denoiser" in (tmp_path / "figure_1_7.txt").read_text()
        drawn = pd.read_csv(tmp_path / "order.csv")
        assert (drawn.action.nunique(), drawn.seed.nunique()) == (16, 5)
        assert (drawn["tsn gap"] == 0).all()
        monkeypatch.setattr(gallery, "draw_figures", lambda *_, **__: [])
        assert run("figures", *options, "--denoise", "--out", tmp_path) == 0
        assert kept.stat().st_mtime_ns == written
    finally:
        kept.unlink(missing_ok=True)
    capsys.readouterr()
    larger = [{"smallest": "small"}.get(option, option) for option in options]
    message = mistake(capsys, "figures", *larger, "--denoise", "--out", tmp_path)
    assert "preset small does not draw with a denoiser" in message


def test_predict_reads_a_video_of_any_size_and_codec(trained, embedded, encode, capsys, tmp_path):
    runs, _ = trained
    rng = np.random.default_rng(0)
    odd = encode(tmp_path / "odd one (1).mp4", rng.integers(0, 256, (30, 98, 202, 3), dtype=np.uint8), "libx264", 2)
    own = next(embedded.data.glob("*/*.avi"))
    folder = runs / "embedded-ucf" / "split1" / "if-ttn"
    assert run("predict", odd, own, "--run", folder, "--top", 3, "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(odd)
    shares = [float(line.split("%")[0]) for line in lines[1:4]]
    assert shares == sorted(shares, reverse=True)
    assert len(lines) == 2 * (1 + 3 + 4)  # of each video its name, its likeliest actions, and a line a segment
    times = [float(line.split()[0].split(":")[1]) for line in lines[4:8]]
    assert times == sorted(times)
    assert all(line.split()[1].count("█") == round(int(line.split()[2][:-1]) / 5) for line in lines[4:8])


def test_predict_plays_a_video_and_writes_what_it_found(trained, embedded, capsys, tmp_path):
    runs, _ = trained
    video, file = next(embedded.data.glob("*/*.avi")), tmp_path / "found.json"
    folder = runs / "embedded-ucf" / "split1" / "if-ttn"
    assert run("predict", video, "--run", folder, "--every", 0.5, "--top", 1, "--json", file, "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(file.read_text())[str(video)]
    assert len(lines) >= 1 + 5 + 1 + 1  # the videos are three seconds long
    assert lines[-2].split()[-1] == found["top"][0]["action"] == lines[-3].split()[-1]
    assert [len(votes) for votes in found["votes"].values()] == [4, 4, 3]
    assert "choose fewer seconds for a segment" in mistake(capsys, "predict", video, "--run", folder, "--every", 100)


def test_a_stream_of_a_damaged_file_ends_with_its_last_prediction(trained, encode, capsys, tmp_path):
    runs, _ = trained
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 128, 3), dtype=np.uint8)
    whole = encode(tmp_path / "cut.avi", noise).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    file, options = tmp_path / "found.json", ("--run", runs / "embedded-ucf" / "split1" / "if-ttn", "--device", "cpu")
    assert run("predict", tmp_path / "cut.avi", *options, "--every", 0.3, "--top", 1, "--json", file) == 1
    printed = capsys.readouterr()
    assert "cut.avi: truncated or damaged, its pictures end at" in printed.err
    assert (
        printed.out.splitlines()[-2].split()[-1]
        == next(iter(json.loads(file.read_text()).values()))["top"][0]["action"]
    )


def run_in_ascii(monkeypatch, *arguments) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr in a terminal that can show ASCII alone."""
    with monkeypatch.context() as patch:
        streams = [io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True) for _ in range(2)]
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        code = run(*arguments)
    return code, *(stream.buffer.getvalue() for stream in streams)


def test_a_name_that_the_terminal_cannot_show_costs_nothing(trained, encode, tmp_path, monkeypatch):
    runs, _ = trained
    video = encode(tmp_path / "v.avi", np.zeros((8, 64, 64, 3), np.uint8)).rename(tmp_path / "caf\udce9 \u2603.avi")
    where = ("--run", runs / "embedded-ucf" / "split1" / "if-ttn", "--device", "cpu")
    code, out, err = run_in_ascii(monkeypatch, "predict", video, *where)
    assert (code, err) == (0, b"")
    assert rb"caf\udce9 \u2603.avi" in out


def test_export_writes_a_network_or_says_what_it_can_write(trained, capsys, tmp_path):
    runs, _ = trained
    folder = runs / "embedded-ucf" / "split1" / "if-ttn"
    assert run("export", folder, tmp_path / "net.pt2") == 0
    assert "its scores differ from the network's by at most" in capsys.readouterr().out
    assert (tmp_path / "net.pt2").stat().st_size > 10_000
    assert ".pt2 or .onnx" in mistake(capsys, "export", folder, tmp_path / "net.pkl")


def test_predict_goes_on_after_a_video_that_it_cannot_read(trained, embedded, capsys, tmp_path):
    runs, _ = trained
    empty, own = tmp_path / "empty.mp4", next(embedded.data.glob("*/*.avi"))
    empty.touch()
    folder = runs / "embedded-ucf" / "split1" / "if-ttn"
    assert run("predict", empty, own, "--run", folder, "--device", "cpu") == 1
    printed = capsys.readouterr()
    assert f"ifttn: {empty}" in printed.err
    assert str(own) in printed.out


def test_mistakes_end_in_one_clear_line(trained, embedded, capsys, tmp_path):
    runs, options = trained
    assert "choose from spatial, temporal" in mistake(capsys, "train", "tsm2", *options)
    assert "choose from paper, tiny, small" in mistake(capsys, "train", "spatial", "--preset", "huge")
    assert "manifest.json" in mistake(capsys, "train", "spatial", "--store", tmp_path, "--data", embedded.data)
    assert str(tmp_path) in mistake(capsys, "prepare", tmp_path, tmp_path / "store")
    assert "no run in" in mistake(capsys, "predict", __file__, "--run", tmp_path)
    assert "the paper has no Table 9" in mistake(capsys, "tables", "9", "--runs", runs)
    assert "no tested run" in mistake(capsys, "tables", "--runs", tmp_path)
    assert "there is no folder" in mistake(capsys, "tables", "--runs", runs, "--seeds", tmp_path / "none")
    assert "holds no recipe.json" in mistake(capsys, "test", "ttn-separate", *options)


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a capacity of 79 GiB")


@pytest.mark.parametrize(
    ("arguments", "where", "helps"),
    [
        ("train spatial --precision fp32", "experiment.training.train", "--micro-batch --precision --recompute"),
        ("train spatial --micro-batch 1 --recompute", "experiment.training.train", ""),
        ("test spatial --precision fp32", "experiment.testing.test", "--micro-batch --precision"),
        ("figures", "gallery.draw_figures", ""),
        (f"predict {__file__}", "verbs.predict.Recognizer.load", "--crops"),
        ("bench train --micro-batch 1", "bench.train.run", "--batch --recompute"),
        ("bench flow", "bench.flow.run", ""),
    ],
)
def test_a_device_without_memory_ends_in_one_line_that_names_what_helps(
    trained, capsys, monkeypatch, arguments, where, helps
):
    monkeypatch.setattr(f"ifttn.{where}", out_of_memory)
    verb, *rest = arguments.split()
    line = mistake(capsys, verb, *rest, *({"predict": ["--run", trained[0]], "bench": []}.get(verb, trained[1])))
    found, _, named = line.partition("; what helps: ")
    assert found == "ifttn: the device has too little memory (Tried to allocate 20.00 GiB)"
    assert re.findall(r"--[a-z-]+", named) == helps.split()


def test_a_killed_loader_ends_in_one_line(trained, capsys, monkeypatch):
    def killed(*_):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(training, "train", killed)
    assert "--workers (0 loads in the main process)" in mistake(capsys, "train", "spatial", *trained[1])


def test_a_broken_video_is_a_listed_skip_and_the_rest_goes_on(embedded, capsys, tmp_path):
    data = tmp_path / "data"
    for action in ("Walk", "Run"):
        (data / action).mkdir(parents=True)
        for number, video in enumerate(sorted(embedded.data.glob("*/*.avi"))[:3]):
            shutil.copy(video, data / action / f"v{number}.avi")
    broken = data / "Run" / "v1.avi"
    broken.write_bytes(broken.read_bytes()[:2000])
    assert run("prepare", data, tmp_path / "store", "--preset", "smallest", "--jobs", 1) == 1
    printed = capsys.readouterr()
    assert "5 done, 0 skipped, 1 failed" in printed.out
    assert "failed: Run/v1: " in printed.err
    assert len(Store(tmp_path / "store").index()) == 5
    report = pd.read_csv(tmp_path / "store" / "report.csv")
    assert report[report.status == "failed"].video.tolist() == ["Run/v1"]
    common = ("--data", data, "--store", tmp_path / "store", "--runs", tmp_path / "runs", "--preset", "smallest")
    assert run("train", "spatial", *common, "--split", 2) == 0  # on what is there, and says what is not
    said = capsys.readouterr().err
    assert "not used: Run/v1: " in said
    assert "listed" not in said  # there are no lists


def test_what_the_lists_or_the_folder_lack_is_named(embedded, capsys, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(embedded.data, data)
    gone = sorted(data.glob("*/*.avi"))[0]
    shutil.copy(gone, gone.with_name("v_extra_g01_c01.avi"))
    gone.unlink()
    assert run("prepare", data, tmp_path / "store", "--preset", "smallest", "--jobs", 1, "--limit", 1) == 0
    lines = capsys.readouterr().err.splitlines()
    assert f"listed, but not in the folder: {gone.parent.name}/{gone.stem}" in lines
    assert f"in the folder, but in no list: {gone.parent.name}/v_extra_g01_c01" in lines


def test_of_many_names_only_the_first_are_told(capsys):
    print_names("listed, but not in the folder", [f"Run/v{number}" for number in range(13000)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "listed, but not in the folder: 12980 more"


def test_the_flow_of_a_preset_can_be_overridden(embedded, capsys, tmp_path):
    flows = set()
    for name in FLOWS:
        where = ("prepare", embedded.data, tmp_path / name, "--preset", "smallest", "--jobs", 1, "--limit", 1)
        assert run(*where, "--flow", name, "--device", "cpu") == 0
        flows.add(Store(tmp_path / name).settings.flow)
    assert flows == set(FLOWS)
    assert "bytes per video" in capsys.readouterr().out


def test_a_cluster_that_does_not_answer_ends_in_one_line(embedded, capsys, tmp_path):
    where = ("prepare", embedded.data, tmp_path / "store", "--preset", "smallest")
    assert run(*where, "--scheduler", "nowhere://1") == 1
    assert "no Dask scheduler answers at nowhere" in capsys.readouterr().err.splitlines()[-1]  # after the bar


def test_bench_runs_the_part_that_is_named(capsys, monkeypatch):
    asked = []
    monkeypatch.setitem(sys.modules, "ifttn.bench.flow", SimpleNamespace(run=lambda o: asked.append(o.pairs) or 0))
    assert run("bench", "flow", "--pairs", 5) == 0
    assert run("bench", "flow") == 0
    assert asked == [5, 3]
    with pytest.raises(SystemExit) as ended:
        run("bench", "flow", "--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "our TV-L1 against OpenCV's DualTVL1" in text
    assert "usage: ifttn bench flow" in text
    assert "--pairs" in text


def test_a_full_disk_ends_in_one_line(embedded, capsys, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "store"))

    assert run("prepare", embedded.data, tmp_path / "store", "--preset", "smallest", "--jobs", 1, "--limit", 1) == 0
    monkeypatch.setattr("ifttn.files.os.replace", full)
    capsys.readouterr()
    assert run("prepare", embedded.data, tmp_path / "store", "--preset", "smallest", "--jobs", 1, "--limit", 3) == 1
    assert "ifttn: " in capsys.readouterr().err
    monkeypatch.undo()
    assert len(Store(tmp_path / "store").index()) == 1
    assert not list((tmp_path / "store").rglob("*.partial"))


def test_classes_with_one_video_each_cannot_be_split(embedded, capsys, tmp_path):
    for action, video in zip(("Walk", "Run"), sorted(embedded.data.glob("*/*.avi")), strict=False):
        (tmp_path / action).mkdir()
        shutil.copy(video, tmp_path / action / "a.avi")
    assert run("prepare", tmp_path, tmp_path / "store", "--preset", "smallest", "--jobs", 1) == 0
    capsys.readouterr()
    assert "a class needs two" in mistake(capsys, "train", "spatial", "--data", tmp_path, "--store", tmp_path / "store")


def test_a_name_that_the_terminal_lacks_ends_no_verb(tmp_path, monkeypatch):
    for name in ("été", "中文"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "a.avi").write_bytes(b"no video")
    code, out, _ = run_in_ascii(monkeypatch, "prepare", tmp_path / "data", tmp_path / "中文", "--jobs", 1)
    assert code == 1
    assert out.endswith(b"\\u4e2d\\u6587/report.csv\n")


@pytest.mark.slow
def test_reproduce_ends_with_a_report_and_goes_on_where_it_was(tmp_path, capsys):
    arguments = ("reproduce", "--quick", "--preset", "smallest", "--videos", 32, "--out", tmp_path, "--device", "cpu")
    assert run(*arguments, "--jobs", 2) == 0
    text = capsys.readouterr().out
    assert "Table 3" in text
    assert "Seconds of each step" in text
    page = (tmp_path / "report.html").read_text()
    assert "complete IF-TTN" in page
    assert page.count("data:image/png;base64,") == len(list((tmp_path / "figures").glob("*.png"))) > 4
    weights = tmp_path / "runs" / "embedded-ucf" / "split1" / "if-ttn" / "weights.safetensors"
    made = [weights, tmp_path / "figures" / "figure_6.png"]
    written = [path.stat().st_mtime_ns for path in made]
    assert not list(tmp_path.rglob("pyramids"))
    assert run(*arguments, "--jobs", 2) == 0
    assert [path.stat().st_mtime_ns for path in made] == written
    capsys.readouterr()
    made.append(tmp_path / "report.html")  # of what is done already, a few words leave the report of a larger study
    written.append(made[-1].stat().st_mtime_ns)
    assert run(*arguments, "--jobs", 2, "--brief") == 0
    assert [path.stat().st_mtime_ns for path in made] == written
    first, *places = capsys.readouterr().out.splitlines()
    assert first.startswith("All 6 steps of the study were done before")
    assert places == [f"report: {tmp_path / 'report.html'}", f"runs: {tmp_path / 'runs'}"]


@pytest.mark.slow
def test_reproduce_studies_a_data_set_of_ones_own_and_leaves_out_what_is_broken(embedded, tmp_path, capsys):
    own = tmp_path / "UCF101"
    shutil.copytree(embedded.data, own)
    (own / "factors.parquet").unlink(missing_ok=True)  # a real data set has none
    broken = sorted(own.glob("*/*.avi"))[0]
    broken.write_bytes(broken.read_bytes()[:1000])
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*")}
    out = tmp_path / "results"
    arguments = ("reproduce", "--quick", "--preset", "smallest", "--data", own, "--out", out, "--device", "cpu")
    assert run(*arguments, "--jobs", 2) == 0
    assert "complete IF-TTN" in (out / "report.html").read_text()
    assert (out / "runs" / "UCF101" / "split1" / "if-ttn" / "scores.npz").exists()
    assert not (out / "data").exists()
    assert {path: path.stat().st_mtime_ns for path in own.rglob("*")} == before
    assert "Table 3" in capsys.readouterr().out


def test_reproduce_looks_into_every_data_set_before_it_begins(embedded, tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    options = ("--preset", "smallest", "--out", tmp_path / "results")
    assert "nothing" in mistake(capsys, "reproduce", "--data", embedded.data, tmp_path / "nothing", *options)
    assert "same name" in mistake(capsys, "reproduce", "--data", embedded.data, embedded.data, *options)
    assert not (tmp_path / "results").exists()


def test_many_processes_are_for_training_alone(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun" in mistake(capsys, "reproduce")


def test_tables_wait_for_no_network_no_decoder_and_no_pandas(trained, embedded):
    heavy = {"torch", "torchvision", "av", "decord", "cv2", "matplotlib", "pandas", "scipy", "joblib", "numba"}
    words = ["tables", "--runs", str(trained[0]), "--data", str(embedded.data.parent)]
    script = f"import sys\nfrom ifttn import cli\nassert cli.main({words}) == 0\nassert not {heavy} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["tables", "--help"], 0), (["tables", "--mistyped"], 2)])
def test_help_and_mistyped_options_wait_for_no_library(words, code):
    heavy = {"torch", "numpy", "pandas", "scipy", "pyarrow", "jaxtyping"}
    script = (
        f"import sys\nfrom ifttn import cli\ntry:\n    cli.main({words})\nexcept SystemExit as ended:\n"
        f"    assert ended.code == {code}\n    assert not {heavy} & set(sys.modules)\nelse:\n    raise AssertionError"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
