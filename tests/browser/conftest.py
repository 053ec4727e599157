"""A real JupyterLab in a real browser, both of this machine; skipped, with the reason, where there is none."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest

from ifttn.experiment import training

TOKEN = "of-this-test"
SHOTS = Path(os.environ.get("IFTTN_SHOTS", Path(__file__).resolve().parents[2] / "build" / "screenshots"))
"""Where the pictures of the panels go."""


@pytest.fixture(scope="session")
def chromium() -> str:
    pytest.importorskip("playwright", reason="the browser tests need the PyPI package playwright")
    found = os.environ.get("IFTTN_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not found:
        pytest.skip("NO BROWSER: neither chromium nor google-chrome is on the PATH, and IFTTN_CHROMIUM is not set")
    return found


@dataclass
class Lab:
    """A JupyterLab server."""

    folder: Path
    address: str


@pytest.fixture(scope="session")
def jupyterlab(tmp_path_factory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).resolve().parents[2]
    quiet = folder / ".settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / ".config"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"),
        "IPYTHONDIR": str(folder / ".ipython"),
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.root_dir": str(folder),
        "ServerApp.allow_root": True,
        "IdentityProvider.token": TOKEN,
        "LabApp.expose_app_in_browser": True,
        "LabApp.extension_manager": "readonly",
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: _answers(f"{address}/api/status?token={TOKEN}"), 180, "JupyterLab", folder / "server.log")
        yield Lab(folder, address)
    finally:
        server.terminate()
        server.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return "started" in json.load(answer)
    except OSError:
        return False


def _wait(ready: Callable[[], bool], seconds: float, what: str, log: Path) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what} did not start:\n{log.read_text()[-3000:]}"
        time.sleep(0.3)


@dataclass
class Notebook:
    """A notebook open in the browser."""

    page: object
    name: str
    complaints: list[str] = field(default_factory=list)
    """Errors on the console, and requests that left this machine."""

    def shot(self, name: str, selector: str = ".ifttn") -> None:
        """Keep a picture of a panel."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.locator(selector).first.screenshot(path=SHOTS / f"{name}.png")


@pytest.fixture(scope="session")
def browser(chromium) -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


@pytest.fixture
def run_cells(browser, jupyterlab) -> Iterator[Callable[..., Notebook]]:
    """run_cells(name, *sources): a new notebook of these cells, run from top to bottom, in the browser."""
    contexts = []

    def run(name: str, *sources: str, timeout: float = 300) -> Notebook:
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, jupyterlab.folder / f"{name}.ipynb")
        context = browser.new_context(viewport={"width": 1500, "height": 1400})
        contexts.append(context)
        page = context.new_page()
        notebook = Notebook(page, name)
        page.on("console", lambda said: notebook.complaints.append(said.text) if said.type == "error" else None)
        page.on(
            "request",
            lambda asked: None if _local(asked.url) else notebook.complaints.append(f"asked for {asked.url}"),
        )
        page.goto(f"{jupyterlab.address}/doc/tree/{name}.ipynb?token={TOKEN}")
        page.wait_for_function("window.jupyterapp !== undefined", timeout=120_000)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_function(
            "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'", timeout=120_000
        )
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        finished = f"""() => {{
            const marks = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(x => x.textContent);
            return marks.slice(0, {len(sources)}).every(x => /\\[\\d+\\]/.test(x)) }}"""
        page.wait_for_function(finished, timeout=1000 * timeout)
        problems = page.locator(
            ", ".join(
                f".jp-RenderedText[data-mime-type='application/vnd.jupyter.{kind}']" for kind in ("stderr", "error")
            )
        )
        assert problems.count() == 0, problems.first.inner_text()
        return notebook

    yield run
    for context in contexts:
        context.close()


def _local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "http://localhost"))


@pytest.fixture(scope="session")
def results_folder(embedded) -> Path:
    """An embedded data set with three small runs; IFTTN_BROWSER_RESULTS names a study in its place."""
    if given := os.environ.get("IFTTN_BROWSER_RESULTS"):
        return Path(given)
    root = embedded.data.parents[1]
    for recipe in ("spatial", "temporal", "if-ttn"):
        training.train(embedded.work(root / "runs"), recipe)
        training.test(embedded.work(root / "runs"), recipe)
    return root
