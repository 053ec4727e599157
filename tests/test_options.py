"""What a person would mistype, for every option of every verb and of every part of `ifttn bench`."""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ifttn import cli, options
from ifttn.data.flow import FLOWS
from ifttn.options import Number, OneOf, Whole
from ifttn.vocabulary import FLOW_NAMES


def parsers_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of its subcommands by name; of one that has subcommands in its turn, those."""
    (choices,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return choices


VERBS = parsers_of(cli.parser())
COMMANDS = {name: parser for name, parser in VERBS.items() if name != "bench"}
COMMANDS |= {f"bench {part}": parser for part, parser in parsers_of(VERBS["bench"]).items()}


def mistakes(action: argparse.Action) -> Iterator[str]:
    """Values that the option cannot have. In the folder are a file `film.avi` and a folder `set`."""
    kind = action.type
    if isinstance(kind, Whole):
        yield from ("x", "", "nan", "1.5", str(kind.low - 1))
        yield from (str(kind.high + 1),) if kind.high else ()
        yield from (str(kind.low + 1),) if kind.step > 1 else ()
    elif isinstance(kind, Number):
        yield from ("x", "", "nan", "inf", "-1")
    elif isinstance(kind, OneOf) or action.choices or kind is None:
        yield from ("nonsense", "")
    else:
        yield from {
            options.device: ("nonsense", "", "gpu", "cuda:x", "cuda:99"),
            options.address: ("nonsense", ""),
            options.crops: ("nonsense", "", "2", "-1"),
            options.size: ("nonsense", "", "0x0", "340"),
            options.stage_epochs: ("nonsense", "", "spatial", "spatial=0", "spatial=x"),
            options.table: ("nonsense", "", "0", "1.5"),
            options.folder: ("", "film.avi", "film.avi/below"),
            options.existing_folder: ("", "film.avi", "none"),
            options.existing_video: ("", "none", "film.avi/below"),
            options.existing_file: ("", "set", "none", "film.avi/below"),
            options.new_file: ("", "set", "film.avi/below"),
        }[kind]


def in_time(command: str, action: argparse.Action) -> Iterator[list[str]]:
    """The command with each mistake in one option, and what it needs beside that."""
    needed = {"recipe": "spatial", "clips": "4", "data": "set", "video": "film.avi", "run": "set", "out": "out.pt2"}
    words = {
        each.dest: needed[each.dest]
        for each in COMMANDS[command]._actions
        if not each.option_strings and each.nargs in (None, "+") and each is not action
    }
    if action.nargs == 0:
        yield [*command.split(), *words.values(), f"{action.option_strings[-1]}=yes"]
        return
    for value in mistakes(action):
        if action.option_strings:
            yield [*command.split(), *words.values(), action.option_strings[-1], value]
        else:
            order = {each.dest: None for each in COMMANDS[command]._actions if not each.option_strings}
            given = words | {action.dest: value}
            yield [*command.split(), *(given[name] for name in order if name in given)]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a file and a data set, to work in."""
    for name in ("film.avi", "set/run/a.avi", "set/run/b.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line_of(words: list[str], capsys) -> str:
    """The one line on stderr that a command ends in."""
    try:
        code = cli.main(words)
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    assert (code in (1, 2), said.out) == (True, ""), words
    lines = said.err.splitlines()
    assert len(lines) == 1, (words, lines)
    assert lines[0].startswith("ifttn"), words
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistyped_value_is_one_line_that_names_it_and_nothing_is_written(command, here, capsys):
    before = sorted(here.rglob("*"))
    for action in COMMANDS[command]._actions:
        if action.dest == "help":
            continue
        name = action.option_strings[-1] if action.option_strings else action.dest
        for words in in_time(command, action):
            line = line_of(words, capsys)
            assert name in line or repr(words[-1]) in line, (words, line)
            names = getattr(action.type, "names", action.choices) or ()
            assert all(str(each) in line for each in names), (words, line)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("command", ["train", "test", "figures", "prepare"])
def test_data_that_is_not_there_is_named_and_nothing_is_written(command, here, capsys):
    before = sorted(here.rglob("*"))
    where = ["none"] if command == "prepare" else ["--data", "none"]
    assert str(here / "none") in line_of([command, *(["spatial"] * (command in ("train", "test"))), *where], capsys)
    if command != "prepare":
        words = [*(["spatial"] * (command != "figures")), "--data", "set", "--store", "none"]
        assert "none: no prepared data set" in line_of([command, *words], capsys)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    "words", ["", "nonsense", "bench", "bench nonsense", "train", "train spatial --daat x", "predict"]
)
def test_a_mistyped_verb_or_option_is_one_line(words, here, capsys):
    assert "--help" in line_of(words.split(), capsys)


def test_a_gpu_that_is_not_here_is_named_with_those_that_are(here, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    line = line_of(["train", "spatial", "--data", "set", "--device", "cuda:2"], capsys)
    assert line == "ifttn: --device cuda:2: torch does not find this GPU; choose from cpu, cuda:0, cuda:1"
    assert "no prepared data set" in line_of(["train", "spatial", "--data", "set", "--device", "cuda:1"], capsys)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for command in (
        "train spatial",
        "test spatial",
        "figures",
        "predict film.avi",
        "reproduce",
        "prepare set",
        "bench train",
    ):
        line = line_of([*command.split(), "--device", "cuda"], capsys)
        assert line.endswith("--device cuda: torch does not find this GPU; choose from cpu"), command
    assert cli.main(["train", "spatial", "--data", "set", "--device", "cuda", "--dry-run"]) == 0  # for another machine


HEAVY = ("torch", "torchvision", "av", "decord", "cv2", "matplotlib", "pandas")
"""Modules that take seconds or hundreds of megabytes to import."""


def test_help_and_mistyped_options_wait_for_nothing_heavy():
    commands = ["--help", *(f"{command} --help" for command in COMMANDS)]
    commands += ["predict x.mp4 --top -1", "doctor --nonsense", "train nonsense", "train spatial --preset nonsense"]
    commands += ["prepare set --flow nonsense", "train spatial --precision nonsense", "bench speed --rows nonsense"]
    script = (
        "import sys\nfrom ifttn import cli\n"
        f"for words in {commands}:\n"
        "    try: cli.main(words.split())\n"
        "    except SystemExit: pass\n"
        f"assert not set({HEAVY}) & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_names_that_options_take_are_those_of_the_tables():
    assert tuple(FLOWS) == FLOW_NAMES
