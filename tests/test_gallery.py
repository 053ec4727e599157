import pytest

from ifttn.gallery import spread_couples


@pytest.mark.parametrize(("actions", "shown"), [(1, [0]), (2, [0, 1]), (3, [0, 1]), (101, [0, 1, 98, 99])])
def test_the_actions_of_a_figure_are_actions_of_the_data_set(actions, shown):
    assert spread_couples(actions, 4) == shown
