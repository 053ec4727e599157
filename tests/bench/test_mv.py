from dataclasses import replace

import numpy as np
import pytest

from ifttn.bench import mv
from ifttn.cli import parser
from ifttn.data.doctor import CODECS, Codec, pan, write_video
from ifttn.data.motion_vectors import BLOCK_SIDE
from ifttn.data.video import decode, exported

READ_AS_THEY_ARE = {
    "MPEG-4": CODECS["MPEG-4"],
    "quarter pixels": CODECS["MPEG-4, quarter pixels"],
    "four vectors": Codec("mpeg4", ".avi", {"flags": "+mv4"}),
    "one reference": CODECS["H.264, one reference"],
}
OTHERS = {
    "MPEG-4, B-frames": CODECS["MPEG-4, B-frames"],
    "several references": CODECS["H.264, several references"],
    "H.264, B-frames": CODECS["H.264, B-frames"],
}


def options(*words):
    return parser().parse_args(["bench", "mv", *map(str, words)])


def test_the_table_has_every_way_to_read_a_video(tmp_path, capsys):
    video = write_video(tmp_path / "pan.avi", pan(40, 96, 80), CODECS["MPEG-4, B-frames"])
    assert mv.run(options(str(video), "--repetitions", "2", "--no-extractor")) == 0
    printed = capsys.readouterr().out
    assert "mpeg4 96x80, 40 frames, re-encoded: B-frames" in printed
    rows = [line for line in printed.splitlines() if line.startswith(("decoding", "ours: "))]
    assert len(rows) == 4
    rates = [float(line.split()[-1]) for line in rows]
    assert rates[0] == 1
    assert rates[-1] < rates[0]
    assert "us for FFmpeg's export of the vectors" in printed


def test_examples_are_read_as_they_are(tmp_path):
    videos = mv.examples(tmp_path, 5)
    assert [decode(video).transcoded for video in videos] == ["", ""]


def test_a_difference_to_the_other_reader_is_counted(tmp_path):
    video = write_video(tmp_path / "pan.avi", pan(6), CODECS["MPEG-4"])
    rows = [np.stack([blocks[f].astype(int) for f in mv.EXTRACTOR_FIELDS], 1) for _, blocks in exported(video)]
    same = mv.Extracted(rows, "IPPPPP", 1.0)
    assert mv.differing_frames(video, same) == 0
    moved = [row.copy() for row in rows]
    moved[3][0, 7] += 1
    assert mv.differing_frames(video, replace(same, rows=moved)) == 1
    assert mv.differing_frames(video, replace(same, kinds="IPPBPP")) == 1
    assert mv.differing_frames(video, replace(same, rows=rows[:-1], kinds="IPPPP")) == 1
    assert mv.differing_frames(video, replace(same, rows=[rows[0], rows[1][:-1], *rows[2:]])) == 1


def test_a_reader_that_disagrees_with_itself_is_asked_again_and_a_difference_that_stays_is_told(tmp_path, monkeypatch):
    video = write_video(tmp_path / "pan.avi", pan(6), CODECS["MPEG-4"])
    rows = [np.stack([blocks[f].astype(int) for f in mv.EXTRACTOR_FIELDS], 1) for _, blocks in exported(video)]
    same = mv.Extracted(rows, "IPPPPP", 1.0)
    first, second = (replace(same, rows=[x[:-1] if t == gone else x for t, x in enumerate(rows)]) for gone in (2, 4))
    assert mv.differing_frames(video, first, second) == 0
    monkeypatch.setattr(mv, "extract", lambda path: second)
    assert mv.compared_again(video, same) == (0, 1)
    assert mv.compared_again(video, first) == (0, 2)
    assert mv.compared_again(video, second, most=3) == (1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*READ_AS_THEY_ARE, *OTHERS])
def test_motion_vector_extractor_reads_the_same_rows(tmp_path, name):
    codec = {**READ_AS_THEY_ARE, **OTHERS}[name]
    frames = pan(30, 150, 106)
    frames[:, 30:60, 40:90] = np.roll(frames[:, 30:60, 40:90], 5, axis=0)
    video = write_video(tmp_path / f"pan{codec.suffix}", frames, codec)
    other = mv.extract(video)
    assert sum(map(len, other.rows)) > 1000
    assert mv.compared_again(video, other)[0] == 0
    if name in READ_AS_THEY_ARE:
        decoded = decode(video)
        for t in range(1, len(other.kinds)):
            if other.kinds[t] == "P":
                for source, w, h, _, _, x, y, *motion, scale in other.rows[t].tolist():
                    row, column = (y - h // 2) // BLOCK_SIDE, (x - w // 2) // BLOCK_SIDE
                    assert source < 0
                    np.testing.assert_array_equal(decoded.blocks[t - 1, :, row, column] * scale, -np.array(motion))


@pytest.mark.slow
def test_motion_vector_extractor_reads_the_same_rows_of_real_videos(shared_data):
    clips = sorted((shared_data / "clips").iterdir())
    assert len(clips) == 3
    for clip in clips:
        assert mv.compared_again(clip, mv.extract(clip))[0] == 0
