import pytest

from ifttn.vocabulary import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (42.4, "42 s"), (185.0, "3 min 05 s"), (3599.7, "1 h 00 min"), (7800.0, "2 h 10 min")],
)
def test_durations_are_told_in_words(seconds: float, words: str):
    assert duration(seconds) == words
