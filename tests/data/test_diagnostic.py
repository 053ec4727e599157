import hashlib
import json
from itertools import combinations, pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ifttn.data import diagnostic
from ifttn.data.catalogue import contents, read_split
from ifttn.data.diagnostic import FACTORS, FLAVOURS, ball_masks, factors, plan_videos, render, write
from ifttn.data.factors import factors_of_actions
from ifttn.data.flow import flow_of
from ifttn.data.sampling import centre_starts
from ifttn.data.video import decode, read_frames
from ifttn.files import partial_beside
from ifttn.vocabulary import IfttnError

SIZES = {"ucf": 320, "hmdb": 160}
LUMA = (0.299, 0.587, 0.114)


@pytest.fixture(scope="module", params=SIZES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small written set of each flavour."""
    root = tmp_path_factory.mktemp("sets") / request.param
    write(root, request.param, videos=SIZES[request.param], seed=1, jobs=2, progress=False)
    return root


def auc(values: np.ndarray, truth: np.ndarray) -> float:
    """Probability that a video with the factor 1 has the greater value than one with 0."""
    first, second = values[truth == 1][:, None], values[truth == 0][None]
    return float((first > second).mean() + (first == second).mean() / 2)


def chance(count: int) -> float:
    """Four standard deviations of the AUC of a value that tells nothing of `count` videos, half of each kind."""
    return 4 * ((count + 1) / 12) ** 0.5 / (count / 2)


def tell(values: pd.DataFrame, table: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(statistic, factor) -> |AUC - 1/2| of all pairs that are told apart better than by chance."""
    edges = {
        (name, f): abs(auc(values[name].to_numpy(), table[f].to_numpy()) - 0.5) for name in values for f in FACTORS
    }
    return {pair: edge for pair, edge in edges.items() if edge > chance(len(table))}


def otherwise(row: pd.Series, factor: str) -> pd.Series:
    """The same video with the other value of one factor, every other draw being the same."""
    about = vars(diagnostic._plain(row)) | {factor: 1 - int(row[factor])}
    return pd.Series(about | diagnostic._draw(about, FLAVOURS[row.flavour]), name=row.name)


def luma(frames: np.ndarray) -> np.ndarray:
    return frames @ np.array(LUMA)


# What a single stream could read off.


def statistics(path: Path) -> dict[str, float]:
    frames = read_frames(path)
    small = np.stack([cv2.resize(frame, (96, 72), interpolation=cv2.INTER_AREA) for frame in frames])
    flow = np.abs(np.concatenate([flow_of("dis", small[t : t + 2]) for t in range(0, len(small) - 1, 4)]))
    red, _, blue = np.moveaxis(frames[::4].astype(float), -1, 0)
    grey = luma(frames[::4])
    edges = [np.abs(cv2.Laplacian(level, cv2.CV_64F)).mean() for level in grey]
    histogram = np.histogram(grey, np.arange(24, 184, 20))[0]
    # The median over the pairs, because flow is senseless across a cut.
    along_x, along_y = np.median(flow.mean((2, 3)), axis=0)
    return {"red chroma": (red - grey).mean(), "blue chroma": (blue - grey).mean()} | {
        "luma": grey.mean(),
        "contrast": grey.std(),
        "sharpness": float(np.mean(edges)),
        "flow along x": along_x,
        "flow along y": along_y,
        "frames": len(frames),
        **{f"luma bin {i}": count / grey.size for i, count in enumerate(histogram)},
    }


SEEN = {("red chroma", "scene"), ("blue chroma", "scene"), ("flow along x", "speed"), ("flow along y", "speed")}


def test_encoded_videos_tell_a_single_stream_only_the_factor_that_it_is_meant_to_see(folder: Path) -> None:
    table = factors(folder)
    told = tell(pd.DataFrame([statistics(folder / file) for file in table.file]), table)
    assert set(told) == SEEN, told
    assert min(told.values()) > 0.45


@pytest.mark.parametrize("flavour", SIZES)
def test_a_frame_says_nothing_of_how_the_balls_move(flavour: str) -> None:
    table = plan_videos(flavour, 1600, seed=2)
    when = np.arange(len(table)) % 64  # one frame a video, at all times
    red, blue = np.stack([c.reshape(-1, 2, 2)[t] for c, t in zip(table.centres, when, strict=True)]).transpose(1, 2, 0)
    middle = np.array(((diagnostic.WIDTH - 1) / 2, (diagnostic.HEIGHT - 1) / 2))[:, None]
    values = {
        "red x": red[0],
        "red y": red[1],
        "blue x": blue[0],
        "blue y": blue[1],
        "red from the middle along x": abs(red - middle)[0],
        "red from the middle along y": abs(red - middle)[1],
        "distance": np.hypot(*(red - blue)),
        "distance along x": abs(red - blue)[0],
        "distance along y": abs(red - blue)[1],
    }
    assert not tell(pd.DataFrame(values), table)


@pytest.mark.parametrize("flavour", SIZES)
def test_displacement_between_test_snippets_says_nothing_of_binding_but_between_frames_all(flavour: str) -> None:
    table = plan_videos(flavour, 1600, seed=3, difficulty=0.0)  # a still camera
    far, near = [], []
    for row in table.itertuples():
        path = row.centres.reshape(-1, 2, 2)
        snippets = np.diff(path[centre_starts(row.frames, 4) + 2], axis=0)
        far.append(np.abs(snippets[len(far) % 3]).ravel())
        near.append(np.abs(path[row.boundary + 1] - path[row.boundary]).ravel())
    names = ["red x", "red y", "blue x", "blue y"]
    assert not tell(pd.DataFrame(far, columns=names), table)
    assert tell(pd.DataFrame(near, columns=names), table).keys() >= {(name, "binding") for name in names}


# The same video with another value of one factor.


@pytest.mark.parametrize("flavour", SIZES)
def test_scenes_differ_in_hue_only(flavour: str) -> None:
    row = plan_videos(flavour, 16, seed=4).iloc[5]
    one, other = render(row), render(otherwise(row, "scene"))
    assert np.abs(luma(one) - luma(other)).max() < 1  # rounding to bytes
    assert np.abs(one.astype(int) - other).mean() > 10


@pytest.mark.parametrize("flavour", SIZES)
def test_luminance_does_not_tell_red_from_blue(flavour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = plan_videos(flavour, 16, seed=5).iloc[6]
    one = render(row)
    monkeypatch.setattr(diagnostic, "COLOURS", diagnostic.COLOURS[::-1])
    other = render(row)
    assert np.abs(luma(one) - luma(other)).max() < 1
    assert (one != other).any()


@pytest.mark.parametrize("factor", ["speed", "binding"])
def test_speed_and_binding_change_nothing_at_the_start_of_a_shot_and_the_rest_after(factor: str) -> None:
    row = plan_videos("ucf", 16, seed=6).iloc[7]
    one, other = render(row), render(otherwise(row, factor))
    starts = [0, *row.cuts]
    same = (one == other).all((1, 2, 3))
    assert same.nonzero()[0].tolist() == starts


@pytest.mark.parametrize("flavour", SIZES)
def test_order_swaps_rings_and_discs_and_nothing_else(flavour: str) -> None:
    row = plan_videos(flavour, 16, seed=7).iloc[8]
    other = otherwise(row, "order")
    np.testing.assert_array_equal(row.centres, other.centres)
    seen = [[ball_masks(video)[t].sum() for t in (0, row.boundary - 1, row.boundary, -1)] for video in (row, other)]
    assert (np.sign(np.subtract(*seen)) == (-1, -1, 1, 1)).all()  # rings cover less


# The plan.


@pytest.mark.parametrize("flavour", SIZES)
def test_the_boundary_is_a_cut_near_the_middle_and_shots_are_shorter_than_the_way_between_snippets(
    flavour: str,
) -> None:
    table = plan_videos(flavour, 960, seed=8)
    for row in table.itertuples():
        edges = [0, *row.cuts, row.frames]
        gaps = np.diff(centre_starts(row.frames, 4))
        assert row.boundary in row.cuts
        assert 0.4 <= row.boundary / row.frames <= 0.6
        assert 0 < min(np.diff(edges)) <= max(np.diff(edges)) <= min(gaps)
    assert (table.frames.min(), table.frames.max()) == diagnostic.FRAME_COUNTS


def test_constant_speed_within_a_shot_and_a_jump_at_every_cut() -> None:
    for row in plan_videos("ucf", 32, seed=9).itertuples():
        world = row.centres.reshape(-1, 2, 2) - np.reshape(row.shake, (-1, 1, 2))
        steps = np.abs(np.diff(world, axis=0))
        moving = steps[:, [0, 1], [row.binding, 1 - row.binding]]
        still = steps[:, [0, 1], [1 - row.binding, row.binding]]
        cut = np.isin(np.arange(1, row.frames), row.cuts)
        assert still[~cut].max() < 1e-4
        assert moving[~cut].max() <= row.speed_px + 1e-4
        assert np.median(moving[~cut]) == pytest.approx(row.speed_px, abs=1e-4)  # less only where it bounces
        assert (still[cut] > 0.01).any(axis=1).all()


@pytest.mark.parametrize("flavour", SIZES)
def test_every_ball_stays_on_the_screen(flavour: str) -> None:
    for row in plan_videos(flavour, 160, seed=10, difficulty=2.0).itertuples():
        centres = row.centres.reshape(-1, 2)
        assert (centres >= row.radius - 1e-3).all()
        assert (centres <= np.array((159, 119)) - row.radius + 1e-3).all()


def test_every_action_has_as_many_videos_and_every_nuisance_is_independent_of_it() -> None:
    table = plan_videos("ucf", 1600, seed=11)
    assert set(table.action.value_counts()) == {100}
    assert all(set(table.groupby([a, b]).size()) == {400} for a, b in combinations(FACTORS, 2))
    assert table.groupby(["group", "action"]).size().nunique() == 1
    nuisances = table[["frames", "boundary", "radius", "upper", "brightness", "contrast", "still_hollow"]].assign(
        still_x=[still[0] for still in table.still],
        still_radius=[still[2] for still in table.still],
        view=[view[0] for view in table["view"]],
        shots=table.cuts.map(len),
        steps=[np.abs(np.diff(np.reshape(shake, (-1, 2)), axis=0)).sum() for shake in table.shake],
    )
    assert not tell(nuisances.astype(float), table)


def test_no_difficulty_leaves_no_nuisance() -> None:
    table = plan_videos("hmdb", 32, seed=12, difficulty=0.0)
    assert table[["radius", "contrast"]].nunique().tolist() == [1, 1]
    assert not table[["brightness", "strays"]].any(axis=None)
    frames = render(table.iloc[0])
    masks = ball_masks(table.iloc[0]).any(1)
    away = ~cv2.dilate(masks.any(0).astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert (frames[:, away] == frames[0, away]).all()


@pytest.mark.parametrize(
    ("flavour", "digest"),
    [("ucf", "8ee85b9cb155fc4d"), ("hmdb", "1022c3377f8ac77e")],
)
def test_the_same_seed_gives_the_same_pixels(flavour: str, digest: str) -> None:
    row = plan_videos(flavour, 32, seed=2024).iloc[13]
    assert hashlib.sha256(render(row).tobytes()).hexdigest()[:16] == digest
    assert (render(plan_videos(flavour, 32, seed=2025).iloc[13])[0] != render(row)[0]).any()


@pytest.mark.parametrize("flavour", SIZES)
def test_no_channel_is_cut_off_at_the_hardest(flavour: str) -> None:
    for index in (0, 15):
        frames = render(plan_videos(flavour, 16, seed=13, difficulty=2.0).iloc[index])
        assert frames.min() > 0
        assert frames.max() < 255


# On disk.


def test_masks_agree_with_the_pixels_of_the_file(folder: Path) -> None:
    for file, row in list(factors(folder).set_index("file").iterrows())[:8]:
        frames, masks = read_frames(folder / str(file)).astype(int), ball_masks(row)
        excess = frames[..., 0] - frames[..., 2]  # red less blue: 114, -143, and within -29..53 elsewhere
        red, blue = masks.transpose(1, 0, 2, 3)
        assert masks.shape == (row.frames, 2, 120, 160) == (len(frames), 2, *frames.shape[1:3])
        assert not (red & blue).any()
        for seen, mask in ((excess > 80, red), (excess < -85, blue)):
            assert (seen & mask).sum() / (seen | mask).sum() > 0.85  # chroma is coded at half the resolution


def test_videos_are_encoded_as_ucf101s_are(folder: Path) -> None:
    row = factors(folder).iloc[3]
    video = decode(folder / row.file)
    assert video.fps == 25
    assert set(video.kinds) == {"I", "P"}
    assert len(video.frames) == row.frames
    assert all(kind == "I" for kind in video.kinds[::12])
    assert np.abs(luma(video.frames) - luma(render(row))).mean() < 3


def test_the_catalogue_reads_it_and_splits_by_group(folder: Path) -> None:
    table, tested = factors(folder), list[str]()
    for number in (1, 2, 3):
        split = read_split(folder, number)
        assert split.dataset == folder.name
        assert split.actions == tuple(sorted(table.action.unique()))
        assert not split.missing
        assert not split.extra
        train, test = (table.loc[[video.name for video in videos]] for videos in (split.train, split.test))
        assert set(train.group).isdisjoint(test.group)
        assert 0.2 < len(test) / len(table) < 0.35
        assert test.action.value_counts().nunique() == train.action.value_counts().nunique() == 1
        assert all(video.action == table.action[video.name] for video in split.train + split.test)
        tested += test.index.tolist()
    assert len(set(tested)) == len(tested)
    assert {video.name for video in contents(folder).videos} == set(table.index)


def test_in_the_layout_of_something_something_the_videos_are_numbered_and_the_lists_name_their_actions(
    tmp_path,
) -> None:
    write(tmp_path, "something", videos=32, seed=1, jobs=2, progress=False)
    table, split = factors(tmp_path), read_split(tmp_path)
    assert split.actions[0] == "Desert, fast, red goes across, discs become rings"
    assert split.actions == tuple(sorted(diagnostic.actions("something")))
    assert {video.name for video in split.train + split.test} == set(table.index)
    assert all(video.path == tmp_path / table.file[video.name] for video in split.train + split.test)
    assert all(video.action == table.action[video.name] for video in split.train + split.test)
    assert (set(table.group[[video.name for video in split.test]]), len(split.train)) == ({1}, 16)
    listed = json.loads((tmp_path / "labels" / "something-something-v2-validation.json").read_text())
    assert listed[0]["template"] == "Meadow, slow, [red] goes across, rings become discs"
    assert factors_of_actions(tmp_path)["order"].tolist() == [1, 0] * 8


def test_lists_have_the_bytes_of_the_real_ones(folder: Path) -> None:
    if folder.name == "ucf":
        lists = folder / "ucfTrainTestlist"
        assert (lists / "classInd.txt").read_bytes().startswith(b"1 DesertFastRedAcrossDiscRing\r\n2 DesertFast")
        first = "DesertFastRedAcrossDiscRing/v_DesertFastRedAcrossDiscRing_g{}_c01.avi"
        assert (lists / "testlist01.txt").read_bytes().startswith(first.format("01").encode() + b"\r\n")
        assert (lists / "trainlist01.txt").read_bytes().startswith(first.format("08").encode() + b" 1\r\n")
    else:
        lists = (folder / "testTrainMulti_7030_splits").glob("dusk_fast_red_across_disc_ring_test_split1.txt")
        lines = next(lists).read_bytes().split(b"\n")
        assert lines[0] == b"Reel_#01_dusk_fast_red_across_disc_ring_f_cm_np2_fr_med_0.avi 2 "
        assert {line[-2:] for line in lines[:-1]} <= {b"0 ", b"1 ", b"2 "}


def test_the_table_is_read_back_as_it_was_planned(folder: Path) -> None:
    planned, stored = plan_videos(folder.name, SIZES[folder.name], seed=1).iloc[11], factors(folder).iloc[11]
    np.testing.assert_array_equal(render(planned), render(stored))


def test_writing_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write(tmp_path, "ucf", videos=16, seed=0, jobs=1, progress=False)
    files = sorted(tmp_path.glob("*/*.avi"))
    assert len(files) == 16
    before = files[0].stat().st_mtime_ns
    whole = files[1].read_bytes()
    files[1].unlink()
    files[2].unlink()
    partial_beside(files[2]).write_bytes(b"half")
    write(tmp_path, "ucf", videos=16, seed=0, jobs=1, progress=False)
    assert sorted(tmp_path.glob("*/*.avi")) == files
    assert not list(tmp_path.rglob("*.partial"))
    assert files[0].stat().st_mtime_ns == before
    np.testing.assert_array_equal(read_frames(files[1]).shape[1:], (120, 160, 3))
    assert files[1].read_bytes() == whole


@pytest.mark.parametrize("change", [{"seed": 1}, {"videos": 32}, {"difficulty": 0.5}])
def test_another_set_in_the_folder_is_an_error(tmp_path: Path, change: dict) -> None:
    planned = plan_videos("ucf", 16, seed=0)
    planned.to_parquet(tmp_path / "factors.parquet")
    with pytest.raises(IfttnError, match="another embedded data set"):
        write(tmp_path, "ucf", **{"videos": 16, "seed": 0, "jobs": 1, "progress": False} | change)
    assert [path.name for path in tmp_path.iterdir()] == ["factors.parquet"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(IfttnError, match=r"kinetics.*ucf, hmdb"):
        plan_videos("kinetics", 16, seed=0)
    with pytest.raises(IfttnError, match="100 videos"):
        plan_videos("ucf", 100, seed=0)
    with pytest.raises(IfttnError, match=r"difficulty 3"):
        plan_videos("ucf", 16, seed=0, difficulty=3.0)
    with pytest.raises(IfttnError, match="not the embedded"):
        factors(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(IfttnError, match="cannot be written"):
        write(tmp_path / "file", "ucf", videos=16, seed=0, jobs=1, progress=False)


@pytest.mark.parametrize(("flavour", "videos"), [("ucf", 32), ("ucf", 48), ("hmdb", 32), ("hmdb", 80)])
def test_few_videos_still_give_a_first_split(flavour: str, videos: int, tmp_path: Path) -> None:
    planned = plan_videos(flavour, videos, seed=0)
    for name, text in FLAVOURS[flavour].lists(planned).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    for file in planned.file:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    split = read_split(tmp_path, 1)
    assert {video.action for video in split.train} == {video.action for video in split.test} == set(planned.action)
    assert all(a.name != b.name for a, b in pairwise(sorted(split.train, key=lambda video: video.name)))
