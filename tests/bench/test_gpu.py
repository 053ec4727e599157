import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ifttn import cli
from ifttn.bench import gpu
from ifttn.bench.gpu import Part
from ifttn.bench.options import GPU_PARTS
from ifttn.vocabulary import IfttnError

QUICK = """
import sys
with open(sys.argv[1], "w") as file:
    file.write('{"headings": ["stage", "videos/s"]}\\n{"row": ["spatial", "12|3"]}\\n{"row": ["temp')
print("spatial 12|3")
"""
IGNORING = """
import signal, subprocess, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """measure(minutes, name=(source, weight), ...): the exit code, and what is in the file."""

    def run(minutes, **parts):
        made = {}
        for name, (source, weight, *needs) in parts.items():
            (tmp_path / f"part_{name}.py").write_text(source)
            words = lambda place, name=name: (f"part_{name}", str(place.rows))  # noqa: E731
            made[name] = Part(f"Is {name} fast?", weight, words, tuple(needs))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(gpu, "QUESTIONS", made)
        monkeypatch.setattr(gpu, "GPU_PARTS", tuple(made))
        monkeypatch.setattr(gpu, "LAST_SECONDS", 0.5)
        out = tmp_path / "out" / "gpu.json"
        options = cli.parser().parse_args(["bench", "gpu", "--device", "cpu", "--json", str(out)])
        options.parts, options.minutes = list(made), minutes
        code = gpu.run(options)
        return code, json.loads(out.read_text()), out.with_suffix(".md").read_text()

    return run


def test_every_part_can_be_chosen_in_order_of_worth():
    assert tuple(gpu.QUESTIONS) == GPU_PARTS


def test_the_page_of_speeds_has_the_tables_of_the_runs_that_are_kept():
    page = (gpu.ROOT / "docs" / "speed.md").read_text()
    assert page == gpu.renewed(page, gpu.kept_runs()), "run `ifttn bench gpu --docs`"


def test_rows_come_with_the_device_versions_and_commit_and_stand_in_a_page(measure):
    code, found, text = measure(1.0, quick=(QUICK, 1))
    assert code == 0
    (part,) = found["parts"]
    assert (part["status"], part["tables"]) == (
        "done",
        [{"headings": ["stage", "videos/s"], "rows": [["spatial", "12|3"]]}],
    )
    assert part["printed"][-1].split() == ["spatial", "12|3"]
    assert found["versions"].keys() >= {"python", "torch", "numpy", "opencv-python-headless"}
    assert "tiny" in found["device"]
    assert found["commit"]
    assert "| spatial | 12/3 |" in text
    page = gpu.renewed(f"before\n{gpu.BEGIN}\nold\n{gpu.END}\nafter\n", [found])
    assert page == gpu.renewed(page, [found])
    assert (page.startswith("before\n"), page.endswith("after\n"), "old" in page) == (True, True, False)
    with pytest.raises(IfttnError, match="needs the lines"):
        gpu.renewed("a page without marks", [found])


def test_a_part_that_takes_too_long_is_ended_with_its_children_and_keeps_its_rows(measure):
    # The first part may take twice its share, and the second gets what is left.
    code, found, text = measure(0.05, slow=(QUICK + IGNORING, 1), quick=(QUICK, 1))
    slow, quick = found["parts"]
    assert (code, slow["status"], quick["status"]) == (0, "cut off", "cut off")
    assert slow["tables"][0]["rows"] == [["spatial", "12|3"]]
    assert "its limit was 3 s" in text
    child = next(int(line.split()[1]) for line in slow["printed"] if line.startswith("child"))
    time.sleep(0.2)
    assert not Path(f"/proc/{child}/stat").exists() or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"
    assert quick["reason"] == "no time was left"


def test_a_part_that_fails_is_named_with_its_reason_and_the_next_one_runs(measure):
    code, found, text = measure(1.0, failing=(QUICK + "raise SystemExit('no bandwidth')", 1), quick=(QUICK, 1))
    assert code == 1
    assert [part["status"] for part in found["parts"]] == ["failed", "done"]
    assert found["parts"][0]["tables"][0]["rows"]
    assert "(failed: no bandwidth;" in text


def test_a_part_that_lacks_a_package_is_absent(measure):
    code, found, _ = measure(1.0, quick=(QUICK, 1, "no_such_package", "json"))
    assert code == 0
    assert [(part["status"], part["reason"]) for part in found["parts"]] == [
        ("absent", "no_such_package is not installed")
    ]


def test_a_run_that_is_told_to_end_keeps_what_it_has(measure, tmp_path):
    def end():
        while "spatial" not in (out.read_text() if out.exists() else ""):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "out" / "gpu.json"
    threading.Thread(target=end, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        measure(1.0, slow=(QUICK + IGNORING, 1), quick=(QUICK, 1))
    (part,) = json.loads(out.read_text())["parts"]
    assert (part["status"], part["tables"][0]["rows"]) == ("cut off", [["spatial", "12|3"]])


BARE = """
import sys
sys.modules |= dict.fromkeys(("av", "decord", "pytorch_grad_cam", "beartype", "ipywidgets", "IPython"))
"""


@pytest.mark.parametrize(
    "parts", ["largest speed peers", pytest.param(" ".join(GPU_PARTS), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_a_bare_machine_without_a_video_library_measures_all_that_it_can(tmp_path, parts):
    (tmp_path / "sitecustomize.py").write_text(BARE)
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "ifttn", "bench", "gpu", "--device", "cpu", "--json", out, "--parts"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(gpu.ROOT)])}
    done = subprocess.run(
        [*map(str, command), *parts.split()], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {part["part"]: part for part in json.loads(out.read_text())["parts"]}
    ended = {name: part["status"] for name, part in found.items()}
    assert ended == dict.fromkeys(parts.split(), "done") | {"largest": "absent"}, done.stdout
    assert all(part["tables"] or part["printed"] for name, part in found.items() if name != "largest")
    assert all(table["rows"] for part in found.values() for table in part["tables"])
