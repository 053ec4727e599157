"""The front end without a browser: its modules can be parsed, and have nothing that a notebook forbids."""

import re
import shutil
import subprocess

import pytest

import lab.panel
from lab.grid import GridView
from lab.pair import FrameLink
from lab.panel import Page
from lab.pickable import Pickable
from lab.player import Player
from lab.upload import Upload

FOLDER = lab.panel.Path(lab.panel.__file__).parent
MODULES = sorted(FOLDER.glob("*.js"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_node_can_parse_a_module(path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on the PATH")
    command = [node, "--input-type=module", "--check"]
    read = subprocess.run(command, input=path.read_text(encoding="utf-8"), capture_output=True, text=True, check=False)
    assert read.stderr == ""


@pytest.mark.parametrize("path", [*MODULES, *FOLDER.glob("*.css")], ids=lambda path: path.name)
def test_the_front_end_loads_nothing_and_every_colour_of_jupyter_has_a_fallback(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|^import |@import|\bonload=", text, re.M)
    assert not re.search(r"var\(--jp-[\w-]+\)", text)


@pytest.mark.parametrize("path", [*MODULES, *FOLDER.glob("*.css")], ids=lambda path: path.name)
def test_the_front_end_uses_no_part_of_jupyterlab_that_vs_code_and_colab_lack(path):
    text = re.sub(r"//.*", "", path.read_text(encoding="utf-8")).replace("data-lm-suppress-shortcuts", "")
    assert not re.search(r"[\".](?:jp|lm|p)-[A-Z]\w+|jupyterapp|\blumino\b|require\(|import\(", text, re.I)


@pytest.mark.parametrize("path", [*FOLDER.glob("*.py"), *FOLDER.glob("*.html")], ids=lambda path: path.name)
def test_our_html_has_no_scripts_in_attributes(path):
    assert not re.search(r"<\w[^>\n]*\son[a-z]+=", path.read_text(encoding="utf-8"))


def test_every_widget_has_its_module_without_imports():
    for kind in (Page, GridView, Player, Pickable, FrameLink, Upload):
        assert "export default" in kind._esm
        assert not re.search(r"^\s*import\b", kind._esm, re.M)
