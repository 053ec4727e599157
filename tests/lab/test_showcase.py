import io

import numpy as np
import pytest
from PIL import Image

from ifttn.vocabulary import IfttnError
from lab import showcase


def test_every_picture_of_the_showcase_is_small_and_the_films_move(results, embedded, tmp_path):
    figures, shots, out = tmp_path / "figures", tmp_path / "shots", tmp_path / "docs"
    for folder, names in ((figures, showcase.FIGURES), (shots, [f"small_{name}" for name in showcase.SHOTS])):
        folder.mkdir()
        for name in names:
            Image.new("RGB", (1400, 800), "white").save(folder / f"{name}.png")
    written = list(showcase.write_showcase(embedded.work(results / "runs"), "if-ttn", figures, out, shots))
    assert [path.name for path in written] == [
        "clip.gif",
        "deepdraw.gif",
        *(f"{name}.png" for name in showcase.FIGURES),
        *(f"{name}.png" for name in showcase.SHOTS),
    ]
    assert all(path.stat().st_size < showcase.LIMIT for path in written)
    for path in written[:2]:
        with Image.open(path) as film:
            seen = []
            for index in range(film.n_frames):
                film.seek(index)
                seen.append(film.convert("RGB").tobytes())
        assert len(set(seen)) > 10
    with Image.open(out / "inspector.png") as picture:
        assert picture.size[0] <= 1100


def test_a_picture_that_compresses_badly_is_scaled_down_until_it_fits():
    rng = np.random.default_rng(0)
    noisy = [rng.integers(0, 256, (160, 600, 3), dtype=np.uint8) for _ in range(8)]
    content = showcase.small_gif(noisy, 10.0)
    assert len(content) < showcase.LIMIT
    with Image.open(io.BytesIO(content)) as film:
        assert film.size[0] < 600


def test_the_error_names_a_film_that_is_too_large_or_a_missing_figure(tmp_path):
    rng = np.random.default_rng(0)
    with pytest.raises(IfttnError, match="a film of 24 pictures"):
        showcase.small_gif([rng.integers(0, 256, (400, 800, 3), dtype=np.uint8) for _ in range(24)], 10.0)
    with pytest.raises(IfttnError, match="`ifttn figures` or `make browser` makes it"):
        showcase.small_png(tmp_path / "order.png")
