"""README and docs: their commands are commands of today, their links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from ifttn.cli import parser
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Every command of ifttn in a line of its own, after `torchrun ... -m`, or between backticks."""
    found = set[str]()
    for page in PAGES:
        text = page.read_text()
        found |= {
            match[1] for match in re.finditer(r"^ {4}(?:torchrun .* -m )?(ifttn .*?) *(?:#.*)?$", text, re.MULTILINE)
        }
        found |= {" ".join(match[1].split()) for match in re.finditer(r"`(?:torchrun .* -m )?(ifttn\s[^`]*)`", text)}
    return sorted(command for command in found if len(command.split()) > 2)  # else a verb is only mentioned


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_docs_is_one_that_the_parser_takes(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    for word in words:  # the parser asks for the files and folders that the reader has
        if word.partition(":")[0].endswith((".mp4", ".py")):
            word = word.partition(":")[0]
            Path(word).touch()
        elif "/" in word or word[0].isupper():
            Path(word).mkdir(parents=True)
    options = parser().parse_args(words)
    assert getattr(options, "preset", "tiny") in PRESETS
    recipe = getattr(options, "recipe", "if-ttn")
    assert recipe in RECIPES or ".py:" in recipe


def test_the_docs_have_commands() -> None:
    assert {command.split()[1] for command in commands()} >= {
        "prepare",
        "train",
        "test",
        "predict",
        "reproduce",
        "bench",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_a_page_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_targets_of_make_in_the_docs_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:`|^ {4})(?:QUICK=1 )?make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page.name, target)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
