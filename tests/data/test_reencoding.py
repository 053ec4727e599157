"""Colours and turns of a video that is re-encoded."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from ifttn.data.video import decode, read_frames


def plainly(path):
    """The frames as FFmpeg decodes and converts them, with nothing else done."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)


@pytest.mark.parametrize("name", ["bt709_encoded_anew.mp4", "bt709_read_as_is.mp4"])
def test_colours_of_bt709_are_those_of_a_plain_decoding(shared_data, name):
    path = shared_data / "faults" / name
    decoded, expected = decode(path), plainly(path)
    apart = np.abs(decoded.frames - expected)
    assert bool(decoded.transcoded) == ("anew" in name)
    assert apart.mean() < 1
    assert np.abs((decoded.frames - expected).mean((0, 1, 2))).max() < 0.5


@pytest.mark.parametrize(
    ("colorspace", "color_range", "pixels"),
    [
        (1, 1, "yuv420p"),
        (1, 2, "yuv420p"),
        (6, 2, "yuv420p"),
        (9, 1, "yuv420p10le"),
        (2, 0, "yuv420p"),
        (1, 2, "yuv444p"),
    ],
)
def test_every_colour_space_and_range_survives(tmp_path, colorspace, color_range, pixels):
    path, colours = (
        tmp_path / "patches.mp4",
        [(200, 30, 30), (30, 200, 30), (30, 30, 200), (255, 255, 255), (10, 10, 10)],
    )
    image = np.concatenate([np.full((96, 32, 3), colour, np.uint8) for colour in colours], axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", "refs": "4", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = image.shape[1], 96, pixels
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
        for index in range(6):
            frame = VideoReformatter().reformat(
                VideoFrame.from_ndarray(image, format="rgb24"),
                format=pixels,
                dst_colorspace=colorspace if color_range else None,
                dst_color_range=color_range,
            )
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    decoded, expected = decode(path), plainly(path)
    assert decoded.transcoded
    inner = np.arange(image.shape[1]) % 32 // 8 % 3 != 0  # colour bleeds over the edges of a patch
    apart = np.abs(decoded.frames - expected)[:, :, inner]
    assert apart.max() <= 3
    assert np.abs(expected[:, :, inner] - image[:, inner]).max() <= 6  # the file itself is what it is meant to be


def test_the_full_range_of_motion_jpeg_survives(tmp_path, pan, encode):
    path = encode(tmp_path / "camera.avi", pan(5), "mjpeg")
    decoded, expected = decode(path), plainly(path)
    assert decoded.transcoded == "mjpeg: neither MPEG-4 nor H.264"
    assert np.abs((decoded.frames - expected).mean((0, 1, 2))).max() < 0.5


# (a, b, c, d) in the matrix of a track of MP4: (x, y) is shown at (a x + c y, b x + d y). A phone held upright writes
# the third. What numpy does to the frames, and to the motion (4, 2) of the pan.
TURNS = {
    (0, -1, 1, 0): (lambda x: np.rot90(x, 1, (1, 2)), (2, -4)),
    (-1, 0, 0, -1): (lambda x: np.rot90(x, 2, (1, 2)), (-4, -2)),
    (0, 1, -1, 0): (lambda x: np.rot90(x, 3, (1, 2)), (-2, 4)),
    (-1, 0, 0, 1): (lambda x: x[:, :, ::-1], (-4, 2)),
    (1, 0, 0, -1): (lambda x: x[:, ::-1], (4, -2)),
    (0, 1, 1, 0): (lambda x: x.swapaxes(1, 2), (2, 4)),
    (0, -1, -1, 0): (lambda x: np.rot90(x, 2, (1, 2)).swapaxes(1, 2), (-2, -4)),
}


def matrix(a, b, c, d):
    rows = [[a << 16, b << 16, 0], [c << 16, d << 16, 0], [0, 0, 1 << 30]]
    return np.array(rows, ">i4").tobytes()


@pytest.mark.parametrize("turn", TURNS)
def test_a_video_is_turned_and_mirrored_as_a_player_shows_it(tmp_path, pan, encode, turn):
    path = encode(tmp_path / "phone.mp4", pan(6), "libx264", refs="1")
    lying, whole = read_frames(path), path.read_bytes()
    start = whole.index(b"tkhd")
    place = whole.index(matrix(1, 0, 0, 1), start)
    path.write_bytes(whole[:place] + matrix(*turn) + whole[place + 36 :])
    show, motion = TURNS[turn]
    decoded, expected = decode(path), show(lying)
    assert decoded.transcoded == "rotated"
    assert decoded.frames.shape == expected.shape
    assert np.abs(decoded.frames.astype(float) - expected).mean() < 5
    np.testing.assert_allclose(np.median(decoded.vectors, axis=(0, 2, 3)), motion, atol=0.5)


def test_a_mirrored_file_of_a_phone_is_the_mirror_of_the_plain_one(shared_data):
    plain = decode(shared_data / "faults" / "mirror_none.mp4").frames.astype(int)
    mirrored = decode(shared_data / "faults" / "mirror_horizontal.mp4").frames
    assert np.abs(mirrored[:, :, ::-1] - plain).mean() < 3 < np.abs(mirrored - plain).mean()
    assert decode(shared_data / "faults" / "portrait_rot90.mp4").frames.shape[1:3] == (96, 72)
