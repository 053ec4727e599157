import pytest

from ifttn.bench import clock
from ifttn.bench.clock import Clock, PrintedTable, Spread, Workload


@pytest.fixture
def spend(monkeypatch):
    """A function that spends seconds of a processor time that no other work takes from."""
    now = [0.0]
    monkeypatch.setattr(clock.time, "process_time", lambda: now[0])

    def spend(seconds):
        now[0] += seconds

    return spend


def test_the_least_of_each_step_counts_and_the_first_turn_may_be_left_out(spend):
    seconds = iter([9, 1, 5, 2, 1, 7, 3, 4])
    sides = {"a": lambda: (spend(next(seconds)) for _ in range(2))}
    assert Clock().best(sides, repetitions=3, warm_up=True) == {"a": 1 + 2}


def test_sides_take_turns(spend):
    order = []
    sides = {name: lambda name=name: order.append(name) for name in "ab"}
    Clock().best(sides, repetitions=2)
    assert order == ["a", "b", "a", "b"]


def test_what_takes_long_is_measured_once(spend):
    slow, quick = (Workload(n, "videos", 1.0, lambda s=s: spend(s), float(s)) for n, s in (("slow", 50), ("quick", 1)))
    found = [(t.workload.row, t.round) for t in Clock().rounds([slow, quick], repetitions=9, minutes=0.1)]
    assert found == [("slow", 0), ("quick", 0), ("quick", 1), ("quick", 2)]


def test_the_time_left_is_known_once_everything_was_measured(spend):
    both = [Workload(name, "", 1.0, lambda: spend(2.0), 1.0) for name in "ab"]
    left = [timing.left for timing in Clock().rounds(both, repetitions=3, minutes=1.0)]
    assert left[2:] == [6, 4, 2, 0]


def test_a_spread_has_quartiles():
    assert f"{Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]):.1f}" == "3.0 [2.0, 4.0]"


def test_a_table_prints_rows_as_they_come(capsys):
    table = PrintedTable("name", "one", "two", first=6, width=5)
    table.row("a", "1")
    assert capsys.readouterr().out == "name    one  two\na         1\n"
