"""Whole data sets, clusters and killed processes: what only real processes show."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ifttn.data.preparation import prepare
from ifttn.data.store import StoreSettings
from ifttn.data.workers import Crash, each
from ifttn.files import LOCK
from ifttn.vocabulary import IfttnError

pytestmark = pytest.mark.slow

SETTINGS = StoreSettings(96, 72, 5.0)
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "prepare_at_scale.py"
# Forks a preparation, the leader of a group of its own, for every number of jobs on stdin; tells its pid and its end.
PREPARE = """
import os, sys
from pathlib import Path
from ifttn.data.preparation import prepare
from ifttn.data.store import StoreSettings
for jobs in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        prepare(Path(sys.argv[1]), Path(sys.argv[2]), StoreSettings(96, 72, 5.0), jobs=int(jobs), progress=False)
        os._exit(0)
    os.setpgid(pid, pid)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
# Who starts the tests in the background has Ctrl-C ignored.
MAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from ifttn.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory, pan, encode) -> Path:
    """60 videos of a few hundred milliseconds each, and one that fails."""
    root = tmp_path_factory.mktemp("scale") / "set"
    for number in range(60):
        step = (number % 5 - 2, number % 3 - 1)
        encode(root / "AB"[number % 2] / f"v_g{number:02}_c01.avi", pan(40, 160, 120, step), b_frames=number % 2)
    (root / "A" / "v_g99_c01.avi").touch()
    return root


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory) -> dict[str, bytes]:
    """What one process writes in one go."""
    store = tmp_path_factory.mktemp("undisturbed")
    prepare(root, store, SETTINGS, jobs=1, progress=False)
    return contents(store)


def contents(store: Path) -> dict[str, bytes]:
    """All files but the report, which tells the seconds, and the lock, which tells who held it."""
    paths = (path for path in store.rglob("*") if path.is_file() and path.name not in ("report.csv", LOCK))
    return {str(path.relative_to(store)): path.read_bytes() for path in paths}


def prepared(store: Path) -> set[Path]:
    return set((store / "videos").glob("*/*.safetensors"))


def wait(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def is_alive(group: int) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def test_killed_at_twenty_moments_the_store_is_what_an_undisturbed_run_writes(root, undisturbed, tmp_path):
    moments, store, ends = random.Random(0), tmp_path / "store", []
    command = [sys.executable, "-c", PREPARE, str(root), str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin
        assert process.stdout
        for attempt in range(20):
            before = prepared(store)
            process.stdin.write("2\n" if attempt % 5 == 0 else "1\n")
            group = int(process.stdout.readline())
            if attempt % 4:  # while videos are written
                wait(lambda before=before: prepared(store) - before)
                time.sleep(moments.uniform(0, 0.2))
            else:  # while it starts
                time.sleep(moments.uniform(0, 0.5))
            os.killpg(group, signal.SIGKILL)
            ends.append(int(process.stdout.readline()))
        assert ends == [-signal.SIGKILL] * 20
        assert 0 < len(prepared(store)) < 60
        process.stdin.write("2\n")
        process.stdout.readline()
        assert process.stdout.readline() == "0\n"
        process.stdin.close()
    assert contents(store) == undisturbed
    report = (store / "report.csv").read_text()
    assert report.count(",skipped,") + report.count(",done,") == 60
    assert report.count(",failed,") == 1


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(root, tmp_path):
    store = tmp_path / "store"
    command = [sys.executable, "-c", MAIN, "prepare", str(root), str(store), "--preset", "smallest", "--jobs", "2"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    wait(lambda: len(prepared(store)) > 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    told = [line for line in errors.splitlines() if line and not line.startswith("prepare:")]
    assert told == ["ifttn: stopped; the same command continues from here"]
    report = (store / "report.csv").read_text()
    assert 3 <= report.count(",done,") <= len(prepared(store)) < 60
    assert not list(store.rglob("*.partial"))
    wait(lambda: not is_alive(process.pid))


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Three workers of a Dask cluster, processes of their own, renewed when they die."""
    distributed = pytest.importorskip("distributed")
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
    ):
        yield cluster


def test_a_cluster_that_loses_a_worker_prepares_the_same_store(root, undisturbed, cluster, tmp_path):
    store, killed = tmp_path / "store", []

    def disturb() -> None:
        for number in (0, 1):
            wait(lambda number=number: len(prepared(store)) > 6 + 12 * number)
            killed.append(cluster.workers[number].pid)
            os.kill(killed[-1], signal.SIGKILL)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    report = prepare(root, store, SETTINGS, jobs=cluster.scheduler_address, progress=False)
    disturber.join()
    assert len(killed) == 2
    assert (report.status == "done").sum() == 60
    assert report[report.status == "failed"].video.tolist() == ["A/v_g99_c01"]
    assert contents(store) == undisturbed


def test_an_item_that_ends_every_worker_of_a_cluster_is_a_crash(cluster):
    crash = "__import__('os').kill(__import__('os').getpid(), 9)"
    outcomes = dict(each(eval, [*map(str, range(20)), crash], cluster.scheduler_address))
    assert outcomes.pop(crash) == Crash("SIGKILL(-9)")
    assert outcomes == {str(number): number for number in range(20)}


def test_a_cluster_that_does_not_see_the_store_is_refused(cluster, tmp_path):
    with pytest.raises(IfttnError, match=r"does not see .*/elsewhere: data set and store must be on"):
        list(each(eval, ["1"], cluster.scheduler_address, shared=[tmp_path, tmp_path / "elsewhere"]))


def test_a_cluster_that_goes_away_ends_in_one_line(root, tmp_path, cluster):
    store = tmp_path / "store"

    def disturb() -> None:
        wait(lambda: len(prepared(store)) > 3)
        cluster.close()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    with pytest.raises(IfttnError, match="the Dask cluster failed"):
        prepare(root, store, SETTINGS, jobs=cluster.scheduler_address, progress=False)
    disturber.join()
    assert prepared(store)


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51"])
def test_a_whole_official_data_set_is_prepared_and_its_faults_are_found(shared_data, dataset, tmp_path):
    told = tmp_path / "told.json"
    lists = shared_data / f"{dataset}_splits"
    command = [sys.executable, str(BENCHMARK), "--sizes", "--lists", str(lists), "--json", str(told)]
    assert subprocess.run(command).returncode == 0
    rows, problems = json.loads(told.read_text()).values()
    assert problems == []
    assert rows[-1]["videos"] == {"ucf101": 13320, "hmdb51": 6766}[dataset]
    assert rows[-1]["done again"] == 0
    assert rows[-1]["again"] < rows[-1]["seconds"] / 5
    assert rows[-1]["peak MiB"] - rows[0]["peak MiB"] < 200
