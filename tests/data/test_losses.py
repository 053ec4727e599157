"""What a file promises and does not deliver."""

import av
import numpy as np
import pytest

from ifttn.data.video import decode
from ifttn.vocabulary import IfttnError


@pytest.mark.parametrize(
    ("name", "frames"), [("trimmed_edit_list.mp4", 42), ("empty_packets.avi", 50), ("h264_in_avi.avi", 24)]
)
def test_what_is_hidden_empty_or_counted_twice_is_not_lost(shared_data, name, frames):
    asked = []
    decoded = decode(shared_data / "faults" / name, choose=lambda count: asked.append(count) or [0])
    assert (len(decoded.kinds), asked, decoded.notes) == (frames, [frames], ())


def test_frames_that_were_trimmed_off_are_not_shown(shared_data):
    path = shared_data / "faults" / "trimmed_edit_list.mp4"
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(decode(path).frames[0].astype(int) - first).mean() < 3


def test_a_video_that_was_cut_where_no_header_counts_says_so(shared_data):
    decoded = decode(shared_data / "faults" / "cut_half.webm")
    assert decoded.notes == ("cut short (its pictures end at 1.6 of 4.0 s)",)


def test_a_few_frames_that_cannot_be_decoded_are_counted(shared_data):
    lost, damaged = decode(shared_data / "faults" / "damaged_tail.mp4").notes
    assert lost == "lost frames (3 of 100 cannot be decoded)"
    assert damaged.startswith("damaged frames (1 of 97")


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_what_is_whole_has_no_notes(tmp_path, pan, encode, suffix):
    for b_frames in (0, 2):
        codec = "mpeg4" if suffix == ".avi" else "libx264"
        assert decode(encode(tmp_path / f"whole{suffix}", pan(30), codec, b_frames=b_frames)).notes == ()


def faststart(path, frames):
    """An MP4 whose index stands before its pictures, as files for the web have it."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "refs": "1"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("kept", "lost"), [(0.95, True), (0.4, False)])
def test_packets_that_never_come_are_lost(tmp_path, pan, kept, lost):
    path = faststart(tmp_path / "download.mp4", pan(60))
    whole = path.read_bytes()
    start = whole.index(b"mdat")
    path.write_bytes(whole[: start + round(kept * (len(whole) - start))])
    if lost:
        assert decode(path).notes[0].startswith("lost frames (")
    else:
        with pytest.raises(IfttnError, match=r"download\.mp4: truncated or damaged, \d+ of its 60 frames cannot"):
            decode(path)


def test_frames_that_are_missing_in_the_middle_of_a_stream_leave_a_gap(tmp_path, pan, encode):
    whole, holed = encode(tmp_path / "whole.mkv", pan(40), "libx264", refs="1"), tmp_path / "holed.mkv"
    with av.open(str(whole)) as source, av.open(str(holed), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and not 14 <= number < 24:
                packet.stream = stream
                target.mux(packet)
    notes = decode(holed).notes
    assert any(note.startswith("gaps (1; the widest is 0.4 s without a frame, at 0.5 s)") for note in notes)


def test_a_screen_that_is_recorded_when_it_changes_has_no_gaps(shared_data):
    assert decode(shared_data / "faults" / "variable_rate.mp4").notes == ()
