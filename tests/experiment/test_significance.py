import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from ifttn.experiment.significance import MANY, design_effect, flip_test, mcnemar, student_t, wilson


def test_wilsons_interval_is_the_published_one():
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(81, 263) == pytest.approx(tuple(binomtest(81, 263).proportion_ci(method="wilson")), abs=1e-5)


@given(st.integers(1, 500), st.data())
def test_an_interval_holds_its_share(total, data):
    correct = data.draw(st.integers(0, total))
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_a_flip_test_counts_every_way_that_the_signs_can_fall(changes):
    sums = [sum(np.multiply(signs, changes)) for signs in itertools.product((-1, 1), repeat=len(changes))]
    expected = np.mean([abs(each) >= abs(sum(changes)) for each in sums])
    assert flip_test(np.array(changes, int)) == pytest.approx(expected)


def answers(both, only_first, only_second, neither, times=1):
    """`times`: splits that test each video, with the same answers."""
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return mcnemar(np.array(first * times), np.array(second * times), np.tile(np.arange(len(first)), times))


def test_answers_that_three_splits_repeat_make_nothing_surer():
    once, thrice = answers(30, 12, 2, 6), answers(30, 12, 2, 6, times=3)
    assert (thrice.answers, thrice.videos, thrice.only_first) == (150, 50, 36)
    assert (thrice.difference, thrice.p) == pytest.approx((once.difference, once.p))
    assert thrice.interval == pytest.approx(once.interval)


def test_answers_that_differ_between_splits_lie_between_one_video_and_three():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 3, 100)) < [[[0.7]], [[0.5]]]
    videos = np.tile(np.arange(100), 3)
    clustered, apart = mcnemar(first.ravel(), second.ravel(), videos), mcnemar(first.ravel(), second.ravel())
    assert 1 <= design_effect(first.ravel() * 1.0, videos) < 1.5
    assert clustered.interval == pytest.approx(apart.interval, abs=0.03)
    assert design_effect(np.tile(first[0] * 1.0, 3), videos) == pytest.approx(3)
    assert design_effect(np.ones(300), videos) == 3  # nothing tells how alike they are
    assert design_effect(first.ravel() * 1.0, np.arange(300)) == pytest.approx(1)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemars_p_is_that_of_a_binomial_test(only_first, only_second):
    expected = binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
    assert answers(7, only_first, only_second, 3).p == pytest.approx(expected)


def test_a_paired_difference_has_the_published_interval():
    # Newcombe 1998 (Statistics in Medicine 17, 2635-2650), table III, method 10.
    found = answers(36, 12, 2, 0)
    assert found.interval == pytest.approx((0.0569, 0.3404), abs=1e-4)
    assert (found.first, found.second, found.difference) == pytest.approx((0.96, 0.76, 0.2))
    assert found.p == pytest.approx(2 * (1 + 14 + 91) / 2**14)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_an_interval_holds_its_difference_and_turns_with_it(both, one, other, neither):
    if both + one + other + neither == 0:
        return
    there, back = answers(both, one, other, neither), answers(both, other, one, neither)
    assert -1 - 1e-12 <= there.interval[0] <= there.difference + 1e-12
    assert there.difference - 1e-12 <= there.interval[1] <= 1 + 1e-12
    assert (back.difference, *back.interval) == pytest.approx(
        (-there.difference, -there.interval[1], -there.interval[0]), abs=1e-12
    )


@pytest.mark.parametrize("freedom", [1.0, 1.7, 2.0, 3.0, 5.5, 30.0, 500.0])
def test_students_t_is_the_published_one(freedom):
    assert student_t(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=1e-3)
    assert student_t(1e9) == student_t(MANY) == pytest.approx(1.96, abs=2e-3)


def trainings(rng: np.random.Generator, seeds: int, spread: float, videos: int = 272, means=(4.0, 3.0)):
    """Two networks, each trained `seeds` times, on the same videos: their log odds vary by training and by video."""
    hardness = rng.normal(size=videos)
    odds = (mean + rng.normal(0, spread, (seeds, 1)) + hardness for mean in means)
    first, second = (rng.random((seeds, videos)) < 1 / (1 + np.exp(-each)) for each in odds)
    which = np.tile(np.arange(videos), seeds)
    return mcnemar(first.ravel(), second.ravel(), which, np.repeat(np.arange(seeds), videos))


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.8), (4, 0.0), (4, 0.3), (4, 0.8)])
def test_the_interval_holds_the_true_difference_of_all_trainings_and_videos(seeds, spread):
    rng = np.random.default_rng(0)
    normal = rng.normal(0, np.hypot(1, spread), 400_000)
    truth = np.mean(1 / (1 + np.exp(-4 - normal)) - 1 / (1 + np.exp(-3 - normal)))
    intervals = [trainings(rng, seeds, spread).interval for _ in range(200)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.91 <= covered <= 0.995  # 0.95 is the aim; a share of 200 has a standard error of 0.015
    if spread > 0.5:  # what one training says
        alone = [trainings(rng, 1, spread).interval for _ in range(200)]
        assert np.mean([low <= truth <= high for low, high in alone]) < 0.7


def test_two_studies_agree_where_single_trainings_do_not():
    """Two networks that are equally good on average, and whose trainings differ by some points."""
    rng = np.random.default_rng(1)

    def wrong(seeds: int) -> float:
        intervals = [trainings(rng, seeds, 0.8, means=(3.0, 3.0)).interval for _ in range(200)]
        return float(np.mean([not low <= 0 <= high for low, high in intervals]))

    assert wrong(1) > 0.35
    assert wrong(4) < 0.1


def test_one_training_has_newcombes_interval_and_equal_trainings_add_nothing():
    first, second = np.arange(50) < 45, np.arange(50) % 5 > 0
    once = mcnemar(first, second, np.arange(50), np.zeros(50, int))
    assert once == mcnemar(first, second)
    thrice = mcnemar(np.tile(first, 3), np.tile(second, 3), np.tile(np.arange(50), 3), np.repeat(np.arange(3), 50))
    assert thrice.interval == pytest.approx(once.interval, abs=2e-3)
    assert (thrice.trainings, thrice.videos, thrice.answers) == (3, 50, 150)
