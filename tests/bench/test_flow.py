import subprocess
import zipfile

import numpy as np
import pytest

from ifttn.bench import flow
from ifttn.bench.flow import MOTIONS, Motion
from ifttn.bench.options import FRAME_SIZES
from ifttn.bench.peers import python_of
from ifttn.cli import parser
from ifttn.data.flow import flow_of
from ifttn.vocabulary import IfttnError


class Twin:
    """Stands for OpenCV: our own flow, one pixel further along x, in a tenth of a second."""

    version = "none"

    def __call__(self, pair):
        shifted = flow_of("tvl1", pair)[0] + np.array([1, 0], np.float32)[:, None, None]
        return shifted, 0.1


def test_a_known_motion_moves_the_texture_as_its_flow_says():
    motion = Motion("pan", (3.0, -2.0))
    first, second = motion.pair(50, 60).astype(int)
    assert np.abs(second[4:-4, 8:-4] - first[6:-2, 5:-7]).max() <= 1
    np.testing.assert_allclose(motion.flow(50, 60).mean((1, 2)), (3, -2), atol=1e-5)


def test_clockwise_on_the_screen_is_positive():
    right_of_the_middle = Motion("turn", degrees=2.0).flow(51, 51)[:, 25, 50]
    assert right_of_the_middle[1] == pytest.approx(25 * np.sin(np.radians(2)), rel=1e-3)


def test_both_are_timed_and_measured_against_each_other_and_the_truth():
    motion = Motion("pan", (1.0, 1.0))
    compared = flow.compare_flows(Twin(), [motion.pair(40, 50)], 1, motion.flow(40, 50))
    assert compared.theirs == 0.1
    assert compared.ours > 0
    assert compared.distances == pytest.approx((1,), rel=1e-3)
    assert compared.errors[0] < 0.2 < 0.8 < compared.errors[1]


def test_the_table_names_videos_motions_and_the_floor(encode, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(flow, "opencv", lambda: _Twins())
    monkeypatch.setattr(flow, "MOTIONS", MOTIONS[:1])
    frames = [np.roll(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), i, 1) for i in range(6)]
    video = encode(tmp_path / "six.avi", frames)
    assert (
        flow.run(
            parser().parse_args(["bench", "flow", str(video), "--pairs", "2", "--repetitions", "1", "--sizes", "40x32"])
        )
        == 0
    )
    printed = capsys.readouterr().out
    for expected in ("six.avi 40x32", MOTIONS[0].name, "iterations per warp", "GB per pair"):
        assert expected in printed


class _Twins:
    def __enter__(self):
        return Twin()

    def __exit__(self, *_):
        return None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["h264_340x256_32frames.mp4", "h264_426x240.mkv", "ucf_like_mpeg4_320x240.avi"])
def test_on_real_videos_opencvs_flow_comes_out_five_times_as_fast(shared_data, name):
    with flow.opencv() as peer:
        for size in FRAME_SIZES:
            compared = flow.compare_flows(peer, flow.pairs_of(shared_data / "clips" / name, size, 2), 2)
            assert np.mean(compared.distances) < 0.05
            assert compared.theirs > 5 * compared.ours


@pytest.mark.slow
def test_on_known_motions_the_truth_is_as_near_as_opencv_gets():
    with flow.opencv() as peer:
        for motion in MOTIONS:
            compared = flow.compare_flows(peer, [motion.pair(120, 160)], 1, motion.flow(120, 160))
            assert compared.errors[0] < compared.errors[1] + 0.002
            assert compared.distances[0] < 0.05


def test_a_peer_that_cannot_be_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("IFTTN_PEERS", str(tmp_path))
    with pytest.raises(IfttnError, match=r"cannot make the environment .*/wrong with ./no-such-package"):
        python_of("wrong", ["./no-such-package"])
    assert not (tmp_path / "wrong" / "requirements.txt").exists()


def test_a_peer_is_made_once_and_has_what_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("IFTTN_PEERS", str(tmp_path))
    wheel = tmp_path / "lone-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as package:
        package.writestr("lone.py", "")
        package.writestr("lone-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: lone\nVersion: 1\n")
        package.writestr("lone-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        package.writestr(
            "lone-1.dist-info/RECORD", "lone.py,,\nlone-1.dist-info/METADATA,,\nlone-1.dist-info/WHEEL,,\n"
        )
    python = python_of("alone", [str(wheel)])
    subprocess.run([python, "-c", "import lone"], check=True)
    wheel.unlink()  # a second installation would fail
    assert python_of("alone", [str(wheel)]) == python
