import io

import av
import numpy as np
import pytest
from PIL import Image

from lab import pictures

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (24, 32, 3), np.uint8)


def test_png_keeps_every_pixel_and_its_texts_and_jpeg_nearly():
    assert (np.asarray(Image.open(io.BytesIO(pictures.png(PICTURE)))) == PICTURE).all()
    assert Image.open(io.BytesIO(pictures.png(PICTURE, {"action": "Sprünge"}))).text == {"action": "Sprünge"}
    smooth = np.full((24, 32, 3), (200, 40, 90), np.uint8)
    assert np.abs(np.asarray(Image.open(io.BytesIO(pictures.jpeg(smooth)))).astype(int) - smooth).max() < 6


@pytest.mark.parametrize("fps", [10.0, 25.0, 30000 / 1001])
def test_gif_and_mp4_have_every_picture_at_the_right_rate(fps):
    shades = [np.full((25, 33, 3), 20 * i, np.uint8) for i in range(12)]  # odd sides, which H.264 cannot have
    looped = Image.open(io.BytesIO(pictures.gif(shades, fps)))
    assert looped.n_frames == 12
    assert looped.info["duration"] == pytest.approx(1000 / fps, abs=10)
    with av.open(io.BytesIO(pictures.mp4(shades, fps))) as container:
        stream = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
    assert [round(float(frame.mean()) / 20) for frame in decoded] == list(range(12))


def test_a_gif_with_few_colours_is_smaller():
    gradient = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (32, 1, 3))
    film = [np.roll(gradient, i, 1) for i in range(4)]
    assert len(pictures.gif(film, 10.0, colours=8)) < len(pictures.gif(film, 10.0))


def test_a_map_adds_red_and_blue_inside_its_rectangle_only():
    grey = np.full((40, 40, 3), 128, np.uint8)
    values = np.repeat([[1.0, -1.0]], 8, axis=1).repeat(16, axis=0)
    drawn = pictures.over(grey, pictures.heat(values), 1.0, (0.25, 0.25, 0.5, 0.5)).astype(int)
    inside = drawn[12:28, 12:28]
    assert inside[:, 0, 0].mean() > inside[:, 0, 2].mean() + 100
    assert inside[:, -1, 2].mean() > inside[:, -1, 0].mean() + 100
    drawn[10:30, 10:30] = 128
    assert (drawn == 128).all()
    nothing = pictures.over(grey, pictures.heat(np.zeros((2, 2))), 1.0)
    assert (nothing == 128).all()


def test_arrows_point_along_the_motion_and_still_regions_have_none():
    field = np.zeros((2, 12, 12), np.float32)
    assert not pictures.arrows(field, 48, 48, (255, 255, 255))[..., 3].any()
    field[0] = 6
    right = pictures.arrows(field, 48, 48, (255, 255, 255))
    rows, columns = np.nonzero(right[..., 3])
    assert columns.max() - 8 > 8 - rows.min() or len(rows) > 0
    assert {8, 24, 40} <= set(rows.tolist())
    first = right[:16, :20, 3].any(0).nonzero()[0]
    assert first.min() >= 7
    assert first.max() >= 13
