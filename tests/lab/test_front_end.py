"""The front end without a browser: its modules are parsed, and hold nothing that a notebook forbids."""

import re
import shutil
import subprocess

import pytest

import lab.panel

FOLDER = lab.panel.Path(lab.panel.__file__).parent
MODULES = sorted(FOLDER.glob("*.js"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_is_one_that_node_can_read(path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on the PATH")
    command = [node, "--input-type=module", "--check"]
    read = subprocess.run(command, input=path.read_text(encoding="utf-8"), capture_output=True, text=True, check=False)
    assert read.stderr == ""


@pytest.mark.parametrize("path", [*MODULES, *FOLDER.glob("*.css")], ids=lambda path: path.name)
def test_the_front_end_loads_nothing_and_names_no_colour_of_jupyter_without_another(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|^import |@import|\bonload=", text, re.M)
    assert not re.search(r"var\(--jp-[\w-]+\)", text)
