import errno
import os
import subprocess
import sys
import threading

import pytest

from ifttn.files import DiskFullError, held, remove_leftovers, write_whole, written_whole
from ifttn.vocabulary import IfttnError


def started(script: str, *arguments: object) -> subprocess.Popen:
    """A process that runs a script, which finds this ifttn."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WRITE = """
import os, sys
from pathlib import Path
from ifttn.files import write_whole

os.fsync = lambda file: None  # it takes the disk's time, and changes nothing here
path, whole = Path(sys.argv[1]), {letter * 50_000 for letter in (b"a", b"b")}
write_whole(path, min(whole))
writers = set()
for content in whole:
    if (writer := os.fork()) == 0:
        for _ in range(300):
            write_whole(path, content)
        os._exit(0)
    writers.add(writer)
while writers:
    assert path.read_bytes() in whole
    ended, status = os.waitpid(-1, os.WNOHANG)
    assert status == 0
    writers.discard(ended)
"""


def test_two_processes_that_write_one_file_600_times_neither_fail_nor_mix(tmp_path):
    script = started(WRITE, tmp_path / "weights.safetensors")
    _, errors = script.communicate()
    assert script.returncode == 0, errors
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / "new" / ("é" * 127 + "a")  # 255 bytes
    write_whole(path, b"content")
    assert path.read_bytes() == b"content"


def test_what_fails_leaves_what_was_there_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"before")
    with pytest.raises(ZeroDivisionError), written_whole(path) as file:
        file.write(b"half" * (1 // 0))
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_an_error_of_its_own_that_names_the_file(tmp_path, monkeypatch, reason):
    def full(_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="file: cannot be written, because the disk is full"):
        write_whole(tmp_path / "file", b"content")
    assert not os.listdir(tmp_path)


def test_a_file_that_cannot_be_written_is_named_in_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IfttnError, match=r"folder: cannot be written \(Is a directory\)"):
        write_whole(tmp_path / "folder", b"content")
    (tmp_path / "file").touch()
    with pytest.raises(IfttnError, match=r"file/below: cannot be written \(File exists\)"):
        write_whole(tmp_path / "file" / "below", b"content")


HOLD = """
import os, sys, time
from pathlib import Path
from ifttn.files import held
with held(Path(sys.argv[1])):
    if os.fork() == 0:  # as a loader's worker, which outlives a parent that is killed
        os.closerange(0, 3)
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_hears_who_holds_a_folder_until_that_one_is_gone(tmp_path):
    holder = started(HOLD, tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    line = rf"is in use by `-c .*` \(process {holder.pid} on .*, since 20.*\); wait for it, or end it"
    with pytest.raises(IfttnError, match=line), held(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with held(tmp_path):  # though a process that it forked lives on
        pass


def test_threads_of_one_process_lock_each_other_out_and_may_wait(tmp_path, capsys):
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with held(tmp_path):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    with pytest.raises(IfttnError, match="is in use by"), held(tmp_path):
        pass
    threading.Timer(0.2, leave.set).start()
    with held(tmp_path, wait=True):
        assert leave.is_set()
    thread.join()
    assert "this one waits for it" in capsys.readouterr().err


def test_those_who_share_a_folder_keep_out_only_the_one_who_does_not(tmp_path):
    shared = held(tmp_path, shared=True)
    with shared, held(tmp_path, shared=True), pytest.raises(IfttnError, match="is in use by"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_a_file_system_without_locks_is_worked_in_all_the_same(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", none)
    with held(tmp_path), held(tmp_path):
        pass


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    write_whole(tmp_path / "below" / "mine.partial", b"")
    (tmp_path / "below" / ".0123.partial").touch()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path / "below") == ["mine.partial"]
