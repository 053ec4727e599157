"""Fixtures that run JupyterLab in Chromium. Without a browser, the tests are skipped with the reason."""

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
from typing import Any

import nbformat
import pytest

from ifttn.experiment import testing, training

TOKEN = "of-this-test"
SHOTS = Path(os.environ.get("IFTTN_SHOTS", Path(__file__).resolve().parents[2] / "build" / "screenshots"))
"""The folder for screenshots of the panels."""

SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # With subshells, a kernel loses clicks on widgets whose last message came through an ended subshell
    # ("Unknown subshell_id"). `make lab` has the same setting.
    "apputils-extension/kernels-settings": {"commsOverSubshells": "disabled"},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page, seen or not
}
"""Settings of JupyterLab."""

FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a request to another machine fails
]
"""Options of Chromium. root needs --no-sandbox; the others prevent requests and background work."""

WINDOW: Any = {"width": 1280, "height": 800}
"""The window of a small laptop (px). The side bar of JupyterLab takes a part."""
MISSING = "playwright, chromium (or IFTTN_CHROMIUM) or both are missing; `make browser` installs them"


@pytest.fixture(scope="session")
def chromium() -> str:
    pytest.importorskip("playwright", reason=f"NO BROWSER: {MISSING}")
    found = os.environ.get("IFTTN_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not found:
        pytest.skip(f"NO BROWSER: {MISSING}")
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
    for name, settings in SETTINGS.items():
        path = folder / ".settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / ".config"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"),
        "IPYTHONDIR": str(folder / ".ipython"),
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        # Where the notebooks work, each with what those before it made.
        "IFTTN_RESULTS": str(folder / "results"),
        "IFTTN_PRESET": "smallest",
        "IFTTN_VIDEOS": "32",
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

    page: Any
    name: str
    path: Path
    complaints: list[str] = field(default_factory=list)
    """Errors on the console, and requests to other machines."""

    @property
    def shots(self) -> Path:
        """The folder for screenshots."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        return SHOTS

    def shot(self, name: str, selector: str = ".ifttn") -> None:
        """Save a screenshot of a whole panel. The window is made high enough for it."""
        panel, window = self.page.locator(selector).first, self.page.viewport_size
        height = max(window["height"], int(panel.bounding_box()["height"]) + 300)
        self.page.set_viewport_size({**window, "height": height})
        panel.screenshot(path=self.shots / f"{name}.png")
        self.page.set_viewport_size(window)


@pytest.fixture(scope="session")
def browser(chromium) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=chromium, args=FLAGS, ignore_default_args=["--hide-scrollbars"])
        yield made
        made.close()


@pytest.fixture
def open_notebook(browser, jupyterlab) -> Iterator[Callable[..., Notebook]]:
    """open_notebook(content, name): open a notebook in JupyterLab and run all its cells without an error."""
    contexts, notebooks = [], []

    def run(content: nbformat.NotebookNode, name: str, timeout: float = 900) -> Notebook:
        contexts.append(browser.new_context(viewport=WINDOW))
        notebook = opened(contexts[-1], jupyterlab, content, name)
        notebooks.append(notebook)
        run_all(notebook, timeout)
        return notebook

    yield run
    for notebook in notebooks:  # its kernel holds more than a gigabyte
        notebook.page.evaluate(f"{WIDGET}.sessionContext.shutdown()")
    for context in contexts:
        context.close()


def opened(context, jupyterlab: Lab, content: nbformat.NotebookNode, name: str) -> Notebook:
    """Open a notebook and wait until its kernel is idle."""
    nbformat.write(content, jupyterlab.folder / f"{name}.ipynb")
    page = context.new_page()
    notebook = Notebook(page, name, jupyterlab.folder / f"{name}.ipynb")
    page.on("console", lambda message: notebook.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: notebook.complaints.append(str(error)))
    page.on("request", lambda each: None if _local(each.url) else notebook.complaints.append(f"request of {each.url}"))
    page.goto(f"{jupyterlab.address}/lab/tree/{name}.ipynb?token={TOKEN}&reset", timeout=120_000)
    page.wait_for_function("window.jupyterapp !== undefined", timeout=120_000)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    page.wait_for_function(f"{WIDGET}?.sessionContext?.session?.kernel?.status === 'idle'", timeout=180_000)
    return notebook


WIDGET = "window.jupyterapp.shell.currentWidget"
FIRST_FRAME = """[...document.querySelectorAll('.ifttn canvas, img.picture')]
    .some(i => i.offsetParent && (i.naturalWidth > 10 || i.dataset.drawn))"""
READY = "document.querySelector('.ifttn [role=status]').textContent.includes('ready')"
"""Whether a panel has drawn a picture, and whether its worker has nothing to do."""
COUNT = """() => {
    window.messages = {iopub: 0, shell: 0, bytes: 0};
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    if (kernel.isCounted) return;  // an earlier test in this page counts already
    kernel.isCounted = true;
    kernel.anyMessage.connect((_, {msg, direction}) => {
        if (!msg.header.msg_type.startsWith('comm_')) return;
        window.messages[direction === 'send' ? 'shell' : 'iopub'] += 1;
        if (direction !== 'send') window.messages.bytes += JSON.stringify(msg.content).length
            + (msg.buffers ?? []).reduce((sum, each) => sum + each.byteLength, 0) }) }"""
"""Start to count the messages of widgets."""
RUN = "window.ran = 0; window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => window.ran = 1); 0"


def run_all(notebook: Notebook, timeout: float) -> None:
    """Run every cell, for at most `timeout` seconds."""
    notebook.page.evaluate(RUN)
    notebook.page.wait_for_function("window.ran", timeout=1000 * timeout)
    errors = [each for each in outputs(notebook) if each["output_type"] == "error"]
    assert not errors, "\n".join(errors[0]["traceback"])


def outputs(notebook: Notebook) -> list[dict]:
    """The outputs of all cells."""
    return notebook.page.evaluate(f"{WIDGET}.content.model.toJSON().cells.flatMap(c => c.outputs ?? [])")


@pytest.fixture(scope="session")
def desk(browser, jupyterlab) -> Iterator[Notebook]:
    """One notebook with one cell for all panels, because importing torch for each panel would take too long."""
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import torch")])
    content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    context = browser.new_context(viewport=WINDOW)
    notebook = opened(context, jupyterlab, content, "desk")
    run_all(notebook, 300)
    yield notebook
    context.close()


@pytest.fixture
def run_cell(desk, request) -> Iterator[Callable[..., Notebook]]:
    """run_cell(source): close the earlier panel, and run this source in the cell. It must not print a warning."""

    def run(source: str, timeout: float = 300) -> Notebook:
        desk.complaints.clear()
        source = f"if 'panel' in globals():\n    panel.close()\n{source}"
        desk.page.evaluate(f"s => {WIDGET}.content.model.cells.get(0).sharedModel.setSource(s)", source)
        run_all(desk, timeout)
        assert [each["text"] for each in outputs(desk) if each.get("name") == "stderr"] == []
        return desk

    yield run
    SHOTS.mkdir(parents=True, exist_ok=True)
    desk.page.screenshot(path=SHOTS / f"end_of_{request.node.name[:60]}.png")  # for a failed test


def _local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "http://localhost"))


@pytest.fixture(scope="session")
def results_folder(request) -> Path:
    """An embedded data set with three small runs, or the study in IFTTN_BROWSER_RESULTS."""
    if given := os.environ.get("IFTTN_BROWSER_RESULTS"):
        return Path(given)
    embedded = request.getfixturevalue("embedded")
    root = embedded.data.parents[1]
    for recipe in ("spatial", "temporal", "if-ttn"):
        training.train(embedded.work(root / "runs"), recipe)
        testing.test(embedded.work(root / "runs"), recipe)
    return root


@pytest.fixture
def opening(results_folder):
    """opening(module, panel, more): the source of a cell that opens a panel of the study."""
    return lambda module, panel, more="": (
        f"from lab.{module} import {panel}\npanel = {panel}({str(results_folder)!r}{more})\npanel"
    )
