import gc
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from ifttn.data.flow import flow_of, to_bytes
from ifttn.data.gop import GOP
from ifttn.data.motion_vectors import BLOCK_SIDE
from ifttn.data.video import SHORT, Reader, decode, exported, read_frames, spread
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
    flow = flow_of("dis", decoded.frames)
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


AS_IT_IS = {
    "plain.avi": {},
    "quarter_pixels.avi": {"flags": "+qpel"},
    "four_vectors.avi": {"flags": "+mv4"},
    "x264.mp4": {"codec": "libx264", "refs": "1"},
    "x264_start_codes.ts": {"codec": "libx264", "refs": "1"},
    "baseline.mkv": {"codec": "libx264", "profile": "baseline", "refs": "1"},
}
ANEW = {
    "b_frames.avi": ({"b_frames": 2}, "B-frames"),
    "interlaced.avi": ({"flags": "+ildct+ilme"}, "interlaced"),
    "x264.mp4": ({"codec": "libx264", "refs": "3"}, "H.264: several references"),
    "x264_start_codes.ts": ({"codec": "libx264", "refs": "3"}, "H.264: several references"),
    "x264_b_frames.mp4": ({"codec": "libx264", "b_frames": 3}, "H.264: several references"),
    "x264_fields.mkv": ({"codec": "libx264", "refs": "1", "flags": "+ildct"}, "interlaced"),
    "no_vectors.mkv": ({"codec": "libvpx-vp9", "deadline": "realtime"}, "vp9: neither MPEG-4 nor H.264"),
    "no_p_frames.avi": ({"codec": "ffv1"}, "ffv1: neither MPEG-4 nor H.264"),
}


def painted_pixel_by_pixel(path, height, width):
    fields = []
    for kind, blocks in exported(path):
        field = np.zeros((2, height, width), np.float32)
        for source, w, h, _, _, x, y, _, *motion, scale in blocks.tolist():
            if source < 0:
                inside = (slice(max(y - h // 2, 0), y + h // 2), slice(max(x - w // 2, 0), x + w // 2))
                field[0][inside], field[1][inside] = -motion[0] / scale, -motion[1] / scale
        fields.append(fields[-1] if kind == "I" and fields else field)
    return np.stack(fields)[1:]


@pytest.mark.parametrize("name", AS_IT_IS)
@pytest.mark.parametrize("size", [(160, 120), (150, 106)])
def test_every_exported_block_is_painted_up_to_the_borders(tmp_path, pan, encode, name, size):
    frames = pan(16, *size)
    frames[:, 30:60, 40:90] = np.roll(frames[:, 30:60, 40:90], 5, axis=0)
    path = encode(tmp_path / name, frames, **AS_IT_IS[name])
    decoded = decode(path)
    assert decoded.transcoded == ""
    np.testing.assert_array_equal(decoded.vectors, painted_pixel_by_pixel(path, size[1], size[0]))
    np.testing.assert_array_equal(decoded.frames, read_frames(path))
    assert decoded.vectors[..., -1].any(axis=(1, 2)).all()
    assert decoded.vectors[..., -1, :].any(axis=(1, 2)).all()


@pytest.mark.parametrize("name", ANEW)
def test_a_stream_that_reaches_further_is_re_encoded_and_says_why(tmp_path, pan, encode, name):
    options, reason = ANEW[name]
    decoded = decode(encode(tmp_path / name, pan(15), **options))
    assert decoded.transcoded == reason
    assert decoded.frames.shape == (15, 120, 160, 3)
    assert set(decoded.kinds) == {"I", "P"}
    assert decoded.kinds.count("I") <= 2
    np.testing.assert_allclose(np.median(decoded.vectors, axis=(2, 3)), np.tile([4, 2], (14, 1)), atol=0.5)


def packets_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def joined(path, first, second):
    """One AVI with the packets of two."""
    with av.open(str(first)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for index, data in enumerate(packets_of(first) + packets_of(second)):
            packet = av.Packet(data)
            packet.stream, packet.dts, packet.pts, packet.time_base = stream, index, index, Fraction(1, 25)
            packet.is_keyframe = index == 0
            target.mux(packet)
    return path


def test_b_frames_that_come_late_change_only_what_follows(tmp_path, pan, encode):
    frames = pan(30)
    first, second = encode(tmp_path / "p.avi", frames[:15]), encode(tmp_path / "b.avi", frames[15:], b_frames=2)
    decoded = decode(joined(tmp_path / "both.avi", first, second))
    assert decoded.transcoded == "B-frames"
    np.testing.assert_array_equal(decoded.frames[:15], read_frames(first))
    assert set(decoded.kinds) == {"I", "P"}
    assert len(decoded.kinds) >= 28
    np.testing.assert_allclose(np.median(decoded.vectors, axis=(2, 3)), np.tile([4, 2], (len(decoded.blocks), 1)))


def test_a_video_that_changes_its_size_keeps_the_first(tmp_path, pan, encode):
    first, second = encode(tmp_path / "small.avi", pan(6)), encode(tmp_path / "large.avi", pan(6, 320, 240))
    decoded = decode(joined(tmp_path / "both.avi", first, second))
    assert decoded.transcoded == "changes its size"
    assert decoded.frames.shape == (12, 120, 160, 3)


def test_a_frame_that_no_later_one_refers_to_stretches_the_next_vectors(tmp_path, pan, encode):
    path = encode(tmp_path / "pan.mp4", pan(10), "libx264", refs="1")
    assert decode(path).transcoded == ""
    whole, slice_ = bytearray(path.read_bytes()), packets_of(path)[4]
    header = whole.index(slice_) + 4
    assert whole[header] & 0x9F == 1  # a slice of a P-frame, behind its length
    whole[header] = 1  # later frames may not refer to it
    path.write_bytes(whole)
    assert decode(path).transcoded == "H.264: temporal layers"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.avi", {}),
        ("b_frames.avi", {"b_frames": 2}),
        ("x264.mp4", {"codec": "libx264", "b_frames": 2}),
        ("unannounced.mkv", {"codec": "libx264", "refs": "1"}),
    ],
)
@pytest.mark.parametrize("size", [None, (96, 72)])
def test_sampled_frames_are_those_of_a_full_decoding_bit_for_bit(tmp_path, pan, encode, name, options, size):
    path, asked = encode(tmp_path / name, pan(30), **options), []

    def choose(count):
        asked.append(count)
        return np.array([[count - 1, 3], [3, 17]])

    whole, sampled = decode(path, size), decode(path, size, choose)
    assert asked == [30]
    np.testing.assert_array_equal(sampled.frames, whole.frames[[3, 17, 29]])
    np.testing.assert_array_equal(sampled.blocks, whole.blocks)
    assert sampled.kinds == whole.kinds


def test_where_fewer_frames_come_than_announced_those_that_came_are_sampled(tmp_path, pan, encode):
    path = encode(tmp_path / "pan.avi", pan(40))
    whole = bytearray(path.read_bytes())
    packet = [i for i in range(len(whole)) if whole[i : i + 4] == b"00dc"][30]
    whole[packet + 8 : packet + 200] = bytes(192)
    path.write_bytes(whole)
    everything, last = decode(path), decode(path, choose=lambda count: [count - 1])
    np.testing.assert_array_equal(last.frames, everything.frames[-1:])
    assert decode(path, choose=lambda count: []).frames.shape == (0, 120, 160, 3)


@pytest.mark.parametrize("length", [1, 5, GOP, 64])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_video_is_the_same_in_chunks(tmp_path, pan, encode, length, b_frames):
    path = encode(tmp_path / "pan.avi", pan(30), b_frames=b_frames)
    whole, chunks = decode(path), [*Reader(path).chunks(length=length)]
    assert max(len(chunk.kinds) for chunk in chunks) <= length
    np.testing.assert_array_equal(np.concatenate([chunk.frames for chunk in chunks]), whole.frames)
    np.testing.assert_array_equal(np.concatenate([chunk.indices for chunk in chunks]), np.arange(30))
    np.testing.assert_array_equal(np.concatenate([chunk.blocks for chunk in chunks]), whole.blocks)
    assert "".join(chunk.kinds for chunk in chunks) == whole.kinds


@pytest.mark.parametrize("b_frames", [0, 2])
def test_frames_are_let_go_without_the_garbage_collector(tmp_path, pan, encode, b_frames):
    path = encode(tmp_path / "pan.avi", pan(60), b_frames=b_frames)
    gc.collect()
    gc.disable()
    try:
        for _ in Reader(path).chunks(lambda count: [], length=10):
            assert sum(type(thing) is VideoFrame for thing in gc.get_objects()) <= 10
    finally:
        gc.enable()


def test_bytes_on_the_blocks_are_bytes_on_the_pixels(tmp_path, pan, encode):
    decoded = decode(encode(tmp_path / "pan.avi", pan(6)), (100, 90))
    assert decoded.blocks.shape[2:] == (2 * -(-120 // (2 * BLOCK_SIDE)), 160 // BLOCK_SIDE)
    levels = spread(to_bytes(decoded.blocks[2:4], 20.0), decoded.rows, decoded.columns)
    np.testing.assert_array_equal(levels, to_bytes(decoded.vectors, 20.0)[2:4])


def test_more_vectors_than_the_buffer_holds_are_painted(tmp_path, pan, encode):
    frames = np.tile(pan(4), (1, 10, 13, 1))[:, :1088, :1920]
    path = encode(tmp_path / "large.avi", frames, flags="+mv4", b="40000000")
    vectors = decode(path).vectors
    np.testing.assert_array_equal(vectors, painted_pixel_by_pixel(path, 1088, 1920))


def test_a_large_video_is_re_encoded_at_the_short_side_of_the_others(tmp_path, pan, encode):
    path = encode(tmp_path / "large.mp4", np.tile(pan(5), (1, 5, 5, 1)), "libx264")
    reader = Reader(path, (340, 256))
    chunks = [*reader.chunks()]
    assert (min(reader.coded), reader.size) == (SHORT, (340, 256))
    expected = (4 * 340 / 800, 2 * 256 / 600)
    middle = chunks[0].blocks[:, :, 4:-4, 4:-4]
    np.testing.assert_allclose(np.median(middle, axis=(0, 2, 3)), expected, atol=0.3)
    assert decode(path).frames.shape == (5, 600, 800, 3)


@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_size_that_is_odd_is_read(tmp_path, pan, encode, b_frames):
    decoded = decode(encode(tmp_path / "odd.avi", pan(6, width=151, height=107), b_frames=b_frames))
    assert decoded.frames.shape == (6, 107, 151, 3)
    np.testing.assert_array_equal(np.median(decoded.vectors, axis=(0, 2, 3)), (4, 2))


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv422p", "yuv420p10le"])
@pytest.mark.parametrize("refs", [1, 3])
def test_other_pixel_formats_are_read(tmp_path, pan, pixels, refs):
    path, frames = tmp_path / "pan.mkv", pan(8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"refs": str(refs), "bf": "0", "crf": "15"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, pixels
        for frame in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    decoded = decode(path)
    assert bool(decoded.transcoded) == (refs > 1)
    assert np.abs(decoded.frames.astype(float) - frames).mean() < 5
    np.testing.assert_allclose(np.median(decoded.vectors, axis=(0, 2, 3)), (4, 2), atol=0.3)


@pytest.mark.parametrize("refs", ["1", "3"])
def test_a_variable_frame_rate_changes_neither_frames_nor_vectors(tmp_path, pan, refs):
    path = tmp_path / "variable.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"refs": refs, "bf": "0"})
        stream.width, stream.height, stream.codec_context.time_base = 160, 120, Fraction(1, 1000)
        for time, frame in zip((0, 40, 200, 210, 900, 940, 1500, 1960), pan(8), strict=True):
            picture = VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    decoded = decode(path)
    assert len(decoded.frames) == 8
    assert 3 < decoded.fps < 5
    np.testing.assert_allclose(np.median(decoded.vectors, axis=(2, 3)), np.tile([4, 2], (7, 1)), atol=0.5)


def test_two_frames_have_one_field(tmp_path, pan, encode):
    decoded = decode(encode(tmp_path / "two.avi", pan(2)))
    assert decoded.blocks.shape[0] == 1
    np.testing.assert_array_equal(np.median(decoded.vectors[0], axis=(1, 2)), (4, 2))


def test_a_file_without_a_frame_is_an_error(tmp_path, pan, encode):
    path = encode(tmp_path / "none.avi", pan(1))
    whole = bytearray(path.read_bytes())
    start = whole.index(packets_of(path)[0])
    whole[start : start + len(packets_of(path)[0])] = bytes(len(packets_of(path)[0]))
    path.write_bytes(whole)
    with pytest.raises(IfttnError, match=r"none\.avi: .*none of its frames"):
        decode(path)


@pytest.mark.parametrize("read", [decode, read_frames])
def test_what_holds_no_moving_pictures_is_refused_though_ffmpeg_opens_it(tmp_path, read):
    text, sound = tmp_path / "notes.txt", tmp_path / "song.mp3"
    text.write_text("No video, but forty lines of text.\n" * 40)
    with pytest.raises(IfttnError, match=r"notes\.txt: holds text and no video \(FFmpeg would draw it as ansi\)"):
        read(text)
    picture = b"\0image/png\0\3\0" + cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    tag = b"APIC" + len(picture).to_bytes(4) + b"\0\0" + picture  # ID3v2.3, and lengths of 7 bits a byte
    lengths = bytes(len(tag) >> shift & 127 for shift in (21, 14, 7, 0))
    sound.write_bytes(b"ID3\3\0\0" + lengths + tag + (b"\xff\xfb\x90\0" + bytes(413)) * 40)
    with pytest.raises(IfttnError, match=r"song\.mp3: holds a cover picture and no video stream"):
        read(sound)


@pytest.mark.parametrize("clip", [*CLIPS, "h264_426x240.mkv"])
def test_real_videos_move_as_their_optical_flow_says(shared_data, clip):
    decoded = decode(shared_data / "clips" / clip, (160, 120))
    assert decoded.transcoded in ("B-frames", "H.264: several references")
    assert len(decoded.frames) == len(read_frames(shared_data / "clips" / clip))
    fields = slice(0, 40)
    flow, vectors = flow_of("dis", decoded.frames[:41]), decoded.vectors[fields]
    moving = np.abs(flow[: len(vectors)]).max(1) > 1
    agreement = (np.sign(flow[: len(vectors)]) == np.sign(vectors)).all(1)[moving].mean() if moving.any() else 1.0
    assert agreement > 0.4
    assert np.median(np.abs(vectors - flow[: len(vectors)])) < 0.5


@pytest.mark.parametrize("name", ["2021-01-01T12:30:05.mp4", "caf\udce9.mp4", "100%d.mp4", "a" * 250 + ".mp4"])
def test_any_name_that_a_file_can_have_is_read(tmp_path, pan, encode, name):
    path = encode(tmp_path / "plain.mp4", pan(3), "libx264", refs="1").rename(tmp_path / name)
    assert len(decode(path).frames) == len(decode(str(path)).frames) == 3
    if "\udce9" not in name:  # decord takes no other names than UTF-8
        assert len(read_frames(str(path))) == 3


def test_of_several_tracks_the_largest_is_read(tmp_path, pan):
    path = tmp_path / "tracks.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25, width=side, height=side) for side in (64, 160, 96)]
        for stream in streams:
            for frame in pan(stream.width // 16, stream.width, stream.height):
                container.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    assert decode(path, choose=lambda count: [count - 1]).frames.shape == (1, 160, 160, 3)
    assert len(decode(path).kinds) == 10


def test_times_are_those_of_the_stream(shared_data):
    path = shared_data / "faults" / "variable_rate.mp4"
    with av.open(str(path)) as container:
        expected = [frame.time for frame in container.decode(video=0)]
    decoded = decode(path)
    np.testing.assert_allclose(decoded.seconds, expected)
    assert decoded.seconds[-1] > 2 * len(decoded.kinds) / 25
    again = np.concatenate([chunk.seconds for chunk in Reader(path).chunks(length=7)])
    np.testing.assert_array_equal(again, decoded.seconds)


def test_times_of_an_avi_ascend_though_it_holds_none(shared_data):
    for clip, count in (("clips/ucf_like_mpeg4_320x240.avi", 164), ("faults/h264_in_avi.avi", 24)):
        decoded = decode(shared_data / clip)
        np.testing.assert_allclose(decoded.seconds, np.arange(count) / 25, atol=1e-6)
        assert decoded.fps == 25
