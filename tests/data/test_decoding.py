import av
import numpy as np
import pytest

from ifttn.data.decoding import GOP, decode, read_frames
from ifttn.data.flow import dis
from ifttn.vocabulary import IfttnError

CLIPS = ("h264_340x256_32frames.mp4", "ucf_like_mpeg4_320x240.avi")


@pytest.mark.parametrize("clip", CLIPS)
def test_decord_and_pyav_give_the_same_frames_bit_for_bit(shared_data, clip):
    path = shared_data / "clips" / clip
    with av.open(str(path)) as container:
        expected = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    np.testing.assert_array_equal(read_frames(path), expected)


def test_a_stream_without_b_frames_is_read_as_it_is(tmp_path, pan, encode):
    path = encode(tmp_path / "pan.avi", pan(15))
    decoded = decode(path)
    np.testing.assert_array_equal(decoded.frames, read_frames(path))
    assert decoded.kinds == "I" + "P" * (GOP - 1) + "IPP"
    assert decoded.fps == 25


def test_frames_are_read_in_the_order_asked_for(tmp_path, pan, encode):
    path = encode(tmp_path / "pan.mp4", pan(9), "libx264", b_frames=2)
    np.testing.assert_array_equal(read_frames(path, [7, 0, 7]), read_frames(path)[[7, 0, 7]])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.avi", {}),
        ("quarter_pixels.avi", {"flags": "+qpel"}),
        ("b_frames.avi", {"b_frames": 2}),
        ("x264.mp4", {"codec": "libx264"}),
        ("x264_b_frames.mp4", {"codec": "libx264", "b_frames": 3}),
        ("no_vectors.mkv", {"codec": "ffv1"}),
    ],
)
def test_vectors_and_flow_agree_with_a_pan_in_sign_and_size(tmp_path, pan, encode, name, options):
    decoded = decode(encode(tmp_path / name, pan(20), **options))
    assert set(decoded.kinds) == {"I", "P"}
    inside = decoded.vectors[:, :, 24:-24, 24:-24]
    error = np.abs(inside - np.array([4, 2])[:, None, None]).max(axis=1)
    assert (error <= 0.5).mean() > 0.95
    flow = dis(decoded.frames)
    assert flow.shape == decoded.vectors.shape
    np.testing.assert_allclose(np.median(flow, axis=(0, 2, 3)), (4, 2), atol=0.1)


@pytest.mark.parametrize("size", [(96, 72), (320, 120), (37, 51)])
def test_vectors_are_in_pixels_of_the_size_asked_for(tmp_path, pan, encode, size):
    decoded = decode(encode(tmp_path / "pan.avi", pan(6)), size)
    assert decoded.frames.shape == (6, size[1], size[0], 3)
    assert decoded.vectors.shape == (5, 2, size[1], size[0])
    expected = (4 * size[0] / 160, 2 * size[1] / 120)
    np.testing.assert_allclose(np.median(decoded.vectors, axis=(0, 2, 3)), expected, atol=0.01)


def test_field_t_is_the_motion_from_frame_t_to_the_next(tmp_path, pan, encode):
    still, moving = pan(1), pan(5)
    decoded = decode(encode(tmp_path / "starts.avi", np.concatenate([still.repeat(3, 0), moving])))
    motion = np.median(decoded.vectors[:, 0], axis=(1, 2))
    np.testing.assert_array_equal(motion, [0, 0, 0, 4, 4, 4, 4])


def test_a_block_of_motion_lies_where_it_arrives(tmp_path, pan, encode):
    frames = np.full((4, 96, 160, 3), 90, np.uint8)
    for t in range(4):
        frames[t, 32:64, 16 + 16 * t : 48 + 16 * t] = pan(1)[0, :32, :32]
    decoded = decode(encode(tmp_path / "square.avi", frames))
    for t, field in enumerate(decoded.vectors):
        square = field[:, 32:64, 32 + 16 * t : 64 + 16 * t]
        assert (np.abs(square - np.array([16, 0])[:, None, None]) <= 0.5).mean() > 0.9
    assert np.abs(decoded.vectors[:, :, :32]).max() <= 0.5


def test_motion_goes_on_through_an_i_frame(tmp_path, pan, encode):
    decoded = decode(encode(tmp_path / "pan.avi", pan(GOP + 2)))
    assert decoded.kinds[GOP] == "I"
    assert decoded.vectors[GOP - 1].any()
    np.testing.assert_array_equal(decoded.vectors[GOP - 1], decoded.vectors[GOP - 2])


def test_encoding_anew_keeps_the_frames_and_their_rate(tmp_path, pan, encode):
    path = encode(tmp_path / "pan.mp4", pan(14), "libx264", b_frames=2)
    original, decoded = read_frames(path), decode(path)
    assert decoded.frames.shape == original.shape
    assert decoded.fps == 25
    error = decoded.frames.astype(float) - original
    assert 10 * np.log10(255**2 / (error**2).mean()) > 35


def test_a_frame_size_that_is_no_multiple_of_a_block_is_read(tmp_path, pan, encode):
    decoded = decode(encode(tmp_path / "odd.avi", pan(5, width=150, height=106)))
    assert decoded.vectors.shape == (4, 2, 106, 150)
    np.testing.assert_array_equal(np.median(decoded.vectors, axis=(0, 2, 3)), (4, 2))


def test_one_frame_has_no_vectors(tmp_path, pan, encode):
    assert decode(encode(tmp_path / "one.avi", pan(1))).vectors.shape == (0, 2, 120, 160)


def test_metadata_that_is_not_unicode_is_tolerated(tmp_path, pan, encode):
    path = encode(tmp_path / "title.avi", pan(4))
    with av.open(str(path)) as source, av.open(str(tmp_path / "bad.avi"), "w") as target:
        target.metadata["title"] = "TITLE"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    bad = (tmp_path / "bad.avi").read_bytes()
    assert b"TITLE" in bad
    path.write_bytes(bad.replace(b"TITLE", b"\xff\xfe\xe9\xe8\xff"))
    assert len(decode(path).frames) == len(read_frames(path)) == 4


@pytest.fixture
def broken(tmp_path, pan, encode, encode_sound, request):
    path = tmp_path / f"{request.param}.avi"
    if request.param == "empty":
        path.touch()
    elif request.param == "text":
        path.write_text("This is no video.\n" * 100)
    elif request.param == "sound":
        encode_sound(path)
    elif request.param == "truncated":
        whole = encode(path, pan(40)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif request.param == "truncated_mp4":
        whole = encode(path.with_suffix(".mp4"), pan(40), "libx264").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif request.param == "noise":
        whole = bytearray(encode(path, pan(40)).read_bytes())
        start = whole.index(b"movi") + 4
        whole[start:] = np.random.default_rng(0).bytes(len(whole) - start)
        path.write_bytes(whole)
    return path


@pytest.mark.parametrize(
    "broken", ["empty", "text", "sound", "truncated", "truncated_mp4", "noise", "absent"], indirect=True
)
def test_a_broken_file_is_one_clear_error_that_names_it(broken):
    with pytest.raises(IfttnError) as error:
        decode(broken)
    assert str(error.value).startswith(f"{broken}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("broken", ["empty", "text", "sound", "truncated_mp4", "noise", "absent"], indirect=True)
def test_a_broken_file_has_no_frames_to_read(broken):
    with pytest.raises(IfttnError, match=broken.name):
        read_frames(broken)


def test_a_frame_that_does_not_exist_is_an_error(tmp_path, pan, encode):
    path = encode(tmp_path / "pan.avi", pan(4))
    for index in (4, -1):
        with pytest.raises(IfttnError, match="has 4 frames"):
            read_frames(path, [0, index])


def test_a_damaged_packet_costs_a_frame_and_not_the_video(tmp_path, pan, encode):
    path = encode(tmp_path / "pan.avi", pan(40))
    whole = bytearray(path.read_bytes())
    packet = [i for i in range(len(whole)) if whole[i : i + 4] == b"00dc"][30]
    whole[packet + 8 : packet + 200] = bytes(192)
    path.write_bytes(whole)
    assert 36 <= len(decode(path).frames) <= 40
