import av
import pytest

from ifttn.data.h264 import Parameters, is_reference, parameters


@pytest.mark.parametrize(("suffix", "length_size"), [("mp4", 4), ("mkv", 4), ("ts", 0)])
@pytest.mark.parametrize("profile", ["baseline", "main", "high"])
@pytest.mark.parametrize("refs", [1, 2, 4])
def test_the_number_of_references_is_what_x264_was_told(tmp_path, pan, encode, suffix, length_size, profile, refs):
    path = encode(tmp_path / f"pan.{suffix}", pan(3, 96, 80), "libx264", refs=str(refs), profile=profile)
    with av.open(str(path)) as container:
        header = container.streams.video[0].codec_context.extradata
        packets = [memoryview(bytes(packet)) for packet in container.demux(video=0) if packet.size]
    assert parameters(header) == Parameters(refs, True, length_size)
    assert all(is_reference(packet, length_size) for packet in packets)


def test_fields_are_seen(tmp_path, pan, encode):
    path = encode(tmp_path / "fields.mp4", pan(3), "libx264", refs="1", flags="+ildct")
    with av.open(str(path)) as container:
        found = parameters(container.streams.video[0].codec_context.extradata)
    assert found is not None
    assert not found.progressive


@pytest.mark.parametrize("header", [b"", b"\1", b"\1\x64\0\x1f\xff\xe1\0\x05\x67\x64\0\x1f\xff", b"no header"])
def test_a_header_that_says_nothing_is_none(header):
    assert parameters(header) is None


def test_b_frames_are_no_references(tmp_path, pan, encode):
    path = encode(tmp_path / "pan.mp4", pan(12), "libx264", b_frames=2, **{"x264-params": "b-pyramid=none"})
    with av.open(str(path)) as container:
        stream, seen = container.streams.video[0], set()
        for packet in container.demux(stream):
            if packet.size:
                seen.add(is_reference(memoryview(packet), 4))
    assert seen == {True, False}
    assert is_reference(memoryview(b"\0\0\1\x09\xf0\0\0\1\x41"), 0)
    assert not is_reference(memoryview(b"\0\0\1\x09\xf0\0\0\1\x01"), 0)
