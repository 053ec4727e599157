import json

import av
import numpy as np
import pytest
import torch
from PIL import Image

from ifttn.insight.deepdraw import PRESETS, State
from ifttn.insight.pictures import every, facts, sheet, write_film, write_png
from ifttn.vocabulary import IfttnError


def state(side: int = 20, rgb: bool = True, motion: bool = True) -> State:
    generator = torch.Generator().manual_seed(side)
    return State(
        0,
        1,
        1,
        0.0,
        0.5,
        torch.rand((2, 3, side, side), generator=generator) * 255 if rgb else None,
        torch.rand((2, 10, side, side), generator=generator) * 255 if motion else None,
        1.0,
        1.0,
    )


def test_a_sheet_shows_snippets_side_by_side_and_motion_below():
    drawn = state()
    picture = sheet(drawn)
    assert picture.shape == (40, 40, 3)
    np.testing.assert_array_equal(picture[:20, 20:], drawn.rgb[1].round().byte().permute(1, 2, 0))
    assert sheet(state(motion=False)).shape == (20, 40, 3)
    assert sheet(state(rgb=False)).shape == (20, 40, 3)


def test_a_png_says_how_it_was_made(tmp_path):
    said = facts(PRESETS["tiny"], action="Sprünge", seed=3, head="ttn", run="runs/x")
    write_png(tmp_path / "a.png", sheet(state()), said)
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == said
        np.testing.assert_array_equal(np.asarray(image), sheet(state()))
    assert json.loads(said["settings"])["crop"] == 64


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_film_has_every_picture(suffix, tmp_path):
    pictures = every([state(side) for side in (10, 10, 21, 21, 21)], 2)
    assert [picture.shape for picture in pictures] == [(42, 42, 3)] * 2
    path = tmp_path / f"film{suffix}"
    write_film(path, pictures)
    with av.open(str(path)) as film:
        assert len(list(film.decode(video=0))) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_another_kind_of_film_is_refused(tmp_path):
    with pytest.raises(IfttnError, match=r"choose from .gif, .mp4"):
        write_film(tmp_path / "film.avi", [sheet(state())])
