import numpy as np
import pytest

from ifttn.data.flow import from_bytes, to_bytes
from ifttn.data.gop import ACCUMULATED_BOUND, GOP, Groups, accumulate, moved, p_frames, residual
from ifttn.data.store import Entry, Store, StoreSettings
from ifttn.data.video import decode, spread

PAN = (2, 1)


def panned(frames):
    """A random picture, and where it stands in each of so many later frames, with the fields between them."""
    picture = np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8)
    later = [np.roll(picture, (t * PAN[1], t * PAN[0]), axis=(1, 2)) for t in range(1, frames + 1)]
    fields = np.broadcast_to(np.array(PAN, np.float32)[:, None, None], (frames, 2, 40, 40))
    return picture, np.stack(later), fields


def test_vectors_of_a_constant_pan_grow_linearly_back_to_the_i_frame():
    accumulated = accumulate(panned(4)[2])
    for t in range(4):
        assert (accumulated[t] == (t + 1) * np.array(PAN)[:, None, None]).all()


def test_a_pixel_is_followed_back_through_different_vectors():
    fields = np.zeros((2, 2, 1, 8), np.float32)
    fields[0, 0, 0, 3] = 2  # from 1 to 3
    fields[1, 0, 0, 5] = 2  # from 3 to 5
    assert accumulate(fields)[1, 0, 0].tolist() == [0, 0, 0, 2, 0, 4, 0, 0]


def test_parts_of_a_pixel_add_up():
    fields = np.full((10, 2, 8, 30), 0.4, np.float32)
    np.testing.assert_allclose(accumulate(fields)[-1], 4, atol=1e-5)


def test_what_comes_from_outside_is_taken_for_the_border():
    image, by = np.arange(6, dtype=np.uint8).reshape(1, 2, 3), np.zeros((2, 2, 3), np.float32)
    by[0], by[1, 1] = 1, -5
    assert moved(image, by).tolist() == [[[0, 0, 1], [3, 3, 4]]]


def test_a_pan_leaves_no_residual_where_the_picture_was_already():
    picture, later, fields = panned(4)
    left = np.stack([residual(picture, *each) for each in zip(later, accumulate(fields), strict=True)])
    assert (left[:, :, 4:, 8:] == 128).all()
    assert (left != 128).any()


def test_a_residual_is_levels_of_grey_and_stops_at_the_ends():
    i_frame, p_frame = (np.array(levels, np.uint8)[None, None].repeat(3, 0) for levels in ([0, 9, 255], [255, 4, 0]))
    assert residual(i_frame, p_frame, np.zeros((2, 1, 3), np.float32))[0, 0].tolist() == [255, 123, 0]


def test_an_i_frame_is_remapped_to_the_end_of_the_group_before():
    assert p_frames(np.array([0, 1, 11, 12, 13, 24, 35, 36])).tolist() == [1, 1, 11, 11, 13, 23, 35, 35]


def test_groups_of_a_video_that_is_re_encoded_begin_where_its_i_frames_are(tmp_path, pan, encode):
    video = encode(tmp_path / "pan.mp4", pan(3 * GOP + 2), codec="libx264", b_frames=2)
    decoded = decode(video)
    assert decoded.transcoded
    assert [at for at, kind in enumerate(decoded.kinds) if kind == "I"] == [0, 12, 24, 36]


def test_the_motion_of_a_stored_pan_since_its_i_frame_is_known_and_explains_its_frames(
    tmp_path, pan, encode, monkeypatch
):
    decoded = decode(encode(tmp_path / "pan.avi", pan(30, 96, 72, (1, -1))))
    store = Store.create(tmp_path / "store", StoreSettings(96, 72, 5.0))
    levels = spread(to_bytes(decoded.blocks, 5.0), decoded.rows, decoded.columns)
    store.write("A/pan", decoded.frames, levels, levels, 25.0)
    frames = np.array([0, 5, 12, 29])
    with store.open("A/pan") as entry:
        groups, fields_of = Groups(entry, frames), []
        monkeypatch.setattr(Entry, "read", lambda self, *a, read=Entry.read: fields_of.append(a[0]) or read(self, *a))
        for modality in Groups.MODALITIES:
            assert groups.planes(modality).shape == (4, 2 if modality == "accumulated" else 3, 72, 96)
        assert fields_of == ["mv", "rgb"]  # vectors once for both
        found = from_bytes(groups.planes("accumulated"), ACCUMULATED_BOUND * 5.0)[..., 20:-20, 20:-20]
        for of_frame, steps in zip(found, (1, 5, 11, 5), strict=True):
            assert np.median(of_frame, axis=(1, 2)) == pytest.approx([steps, -steps], abs=0.35)
        left = groups.planes("residual")[..., 20:-20, 20:-20].astype(int) - 128
        moves = entry.read("rgb", groups.frames).astype(int) - entry.read("rgb", groups.starts)
        assert np.abs(left).mean() < 0.3 * np.abs(moves[..., 20:-20, 20:-20]).mean()
