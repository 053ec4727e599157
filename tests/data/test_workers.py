import os
import sys

import pytest

from ifttn.data.workers import Crash, each
from ifttn.vocabulary import IfttnError

SUICIDE = "__import__('os').kill(__import__('os').getpid(), 11)"


def test_one_job_is_done_in_this_process():
    assert list(each(eval, ["1 + 1", "__import__('os').getpid()"], 1)) == [
        ("1 + 1", 2),
        ("__import__('os').getpid()", os.getpid()),
    ]


def test_who_dies_is_told_apart_from_who_was_near(tmp_path):
    # The first time it dies, the second time it finds that it has been here.
    seen = str(tmp_path / "seen")
    once = f"__import__('os').path.exists({seen!r}) or (open({seen!r}, 'w').close(), {SUICIDE})"
    usual = [f"{number} * 2" for number in range(12)]
    outcomes = dict(each(eval, [*usual[:4], SUICIDE, *usual[4:8], once, *usual[8:]], 2))
    assert outcomes.pop(SUICIDE) == Crash("SIGSEGV(-11)")
    assert outcomes.pop(once) is True
    assert outcomes == {item: number * 2 for number, item in enumerate(usual)}


def test_it_can_be_left_early(recwarn):
    outcomes = each(eval, [f"{number} + 0" for number in range(50)], 2)
    assert next(outcomes)[1] in range(50)
    outcomes.close()
    assert not recwarn


def test_what_the_function_raises_ends_it():
    with pytest.raises(ZeroDivisionError):
        list(each(eval, ["1", "1 / 0", "2"], 2))


def test_nothing_to_do_starts_nothing():
    assert list(each(eval, [], 2)) == []


def test_a_cluster_needs_its_package_and_an_address(monkeypatch):
    with pytest.raises(IfttnError, match=r"no Dask scheduler answers at nonsense://here"):
        list(each(eval, ["1"], "nonsense://here"))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(IfttnError, match=r"needs the package distributed.*ifttn\[cluster\]"):
        list(each(eval, ["1"], "tcp://localhost:1"))
