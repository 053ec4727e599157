import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifttn.data.catalogue import contents, hold_out, read_split, split_numbers
from ifttn.data.list_formats import parse_lists
from ifttn.data.lists import SUFFIXES
from ifttn.vocabulary import IfttnError, Split, Video

UCF_SIZES = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def ucf(root: Path, train: str, test: str = "", classes: str = "1 Archery\r\n2 HandstandPushups\r\n") -> Path:
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    for name, text in {"classInd": classes, "trainlist01": train, "testlist01": test}.items():
        (lists / f"{name}.txt").write_bytes(text.encode())
    return root


def hmdb(root: Path, **lists: str) -> Path:
    for action, text in lists.items():
        touch(root, f"lists/{action}_test_split1.txt")
        (root / f"lists/{action}_test_split1.txt").write_text(text)
    return root


@pytest.mark.parametrize("number", UCF_SIZES)
def test_every_name_of_ucf101_is_parsed(shared_data: Path, number: int) -> None:
    lists = parse_lists(shared_data / "ucf101_splits", number)
    assert (len(lists.train), len(lists.test)) == UCF_SIZES[number]
    assert len({row.path for row in lists.rows}) == 13320
    assert (len(lists.actions), lists.actions[0], lists.actions[100]) == (101, "ApplyEyeMakeup", "YoYo")
    assert {row.path.partition("/")[0] for row in lists.rows} == set(lists.actions)
    assert all(row.path.startswith(f"{lists.actions[row.label]}/") for row in lists.rows)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_name_of_hmdb51_is_parsed(shared_data: Path, number: int) -> None:
    lists = parse_lists(shared_data / "hmdb51_splits", number)
    assert (len(lists.train), len(lists.test), len(lists.unused)) == (3570, 1530, 1666)
    assert len({row.path for row in lists.rows}) == 6766
    assert lists.actions == tuple(sorted(lists.actions))
    assert (len(lists.actions), lists.actions[0], lists.actions[50]) == (51, "brush_hair", "wave")
    odd = [row.path for row in lists.rows if re.search(r"[\[\]()!#&;~]", row.path)]
    assert "brush_hair/Chanta!____THAT_IS_long_blonde_hair!_brush_hair_u_cm_np1_fr_goo_2.avi" in odd
    assert len(odd) > 500


@pytest.mark.parametrize(("dataset", "videos"), [("ucf101", 13320), ("hmdb51", 6766)])
def test_a_whole_official_data_set_is_found_by_name(
    shared_data: Path, tmp_path: Path, dataset: str, videos: int
) -> None:
    lists = shared_data / f"{dataset}_splits"
    (tmp_path / "lists").symlink_to(lists)
    rows = [row.path for row in parse_lists(lists, 1).rows]
    for folder in {row.partition("/")[0] for row in rows}:
        (tmp_path / folder).mkdir()
    for row in rows:
        (tmp_path / row).touch()
    found = contents(tmp_path).videos
    assert {f"{video.name}.avi" for video in found} == set(rows)
    assert all(video.path == tmp_path / f"{video.name}.avi" for video in found)
    assert len(found) == videos
    split = read_split(tmp_path, 3)
    assert (split.missing, split.extra) == ((), ())
    assert {video.group for video in split.train}.isdisjoint(video.group for video in split.test)
    assert all(split.actions[video.label] == video.action for video in split.train + split.test)


def test_missing_and_extra_videos_of_ucf101_are_reported_by_name(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "ucfTrainTestlist").symlink_to(shared_data / "ucf101_splits")
    touch(tmp_path, "UCF-101/Archery/v_Archery_g01_c01.avi", "UCF-101/HandstandPushups/v_HandStandPushups_g08_c01.avi")
    touch(tmp_path, "UCF-101/Archery/v_Archery_g99_c01.avi", "UCF-101/Mine/holiday.mp4", "UCF-101/Archery/notes.txt")
    split = read_split(tmp_path)
    assert [video.name for video in split.test] == ["Archery/v_Archery_g01_c01"]
    (pushups,) = split.train
    assert (pushups.name, pushups.action) == ("HandstandPushups/v_HandStandPushups_g08_c01", "HandstandPushups")
    assert split.actions[pushups.label] == "HandstandPushups"
    assert split.extra == ("Archery/v_Archery_g99_c01", "Mine/holiday")
    assert len(split.missing) == 13318
    assert "YoYo/v_YoYo_g25_c05" in split.missing
    assert [video.name for video in contents(tmp_path).videos] == [split.test[0].name, pushups.name]


def test_what_all_lists_name_is_compared_with_the_folder(tmp_path: Path) -> None:
    hmdb(tmp_path, catch="a.avi 1 \nb.avi 2 \nc.avi 0 \n")
    (tmp_path / "lists" / "catch_test_split2.txt").write_text("a.avi 2 \nd.avi 1 \n")
    touch(tmp_path, "catch/a.avi", "catch/c.mp4", "catch/new.avi", "throw/a.avi")
    found = contents(tmp_path)
    assert [video.name for video in found.videos] == ["catch/a", "catch/c"]
    assert found.missing == ("catch/b", "catch/d")
    assert found.extra == ("catch/new", "throw/a")


def test_class_folders_without_lists_lack_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "run/b.avi", "run/a.avi", "walk/c.avi")
    found = contents(tmp_path)
    assert [video.name for video in found.videos] == ["run/a", "run/b", "walk/c"]
    assert (found.missing, found.extra) == ((), ())


def test_videos_of_hmdb51_are_found_whatever_their_names_hold(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "testTrainMulti_7030_splits").symlink_to(shared_data / "hmdb51_splits")
    lists = parse_lists(shared_data / "hmdb51_splits", 1)
    odd = [row.path for row in lists.train + lists.test if re.search(r"[\[\]()!#&;~]", row.path)]
    touch(tmp_path, *odd, lists.unused[0].path)
    split = read_split(tmp_path)
    assert {f"{video.name}.avi" for video in split.train + split.test} == set(odd)
    assert split.extra == ()  # one that this split does not use is listed all the same
    assert len(split.missing) == 3570 + 1530 - len(odd)
    assert len(contents(tmp_path).videos) == len(odd) + 1


@pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups"])
@pytest.mark.parametrize("listed", ["HandstandPushups", "HandStandPushups"])
def test_the_case_of_a_class_does_not_matter(tmp_path: Path, folder: str, listed: str) -> None:
    ucf(tmp_path, train=f"{listed}/v_HandStandPushups_g01_c01.avi 2\r\n")
    touch(tmp_path, f"{folder}/v_HandStandPushups_g01_c01.avi")
    (video,) = read_split(tmp_path).train
    assert (video.action, video.label) == ("HandstandPushups", 1)
    assert video.name == "HandstandPushups/v_HandStandPushups_g01_c01"
    assert video.path.is_file()


def test_a_data_set_may_have_been_reencoded(tmp_path: Path) -> None:
    touch(ucf(tmp_path, train="Archery/v_Archery_g01_c01.avi 1\n"), "Archery/v_Archery_g01_c01.MP4")
    split = read_split(tmp_path)
    assert [video.path.name for video in split.train] == ["v_Archery_g01_c01.MP4"]
    assert (split.missing, split.extra) == ((), ())


@pytest.mark.parametrize(
    ("train", "what"),
    [
        ("Archery/v_Archery_g01_c01.avi 1\nnonsense\n", r"trainlist01.txt, line 2 cannot be read: 'nonsense'"),
        ("\nArchery/v_Archery_g01_c01.avi one\n", r"trainlist01.txt, line 2 cannot be read"),
        ("Fencing/v_Fencing_g01_c01.avi 3\n", r"trainlist01.txt, line 1 names the class 'Fencing'"),
        (
            "Archery/v_Archery_g01_c01.avi 2\n",
            r"trainlist01.txt, line 1 gives .* the label 2, but its class has",
        ),
        ("Archery/v_Archery_g01_c01.avi 1\n" * 2, r"name one video 2 times: Archery/v_Archery_g01_c01.avi"),
    ],
)
def test_an_unreadable_list_of_ucf101_is_named_with_its_line(tmp_path: Path, train: str, what: str) -> None:
    with pytest.raises(IfttnError, match=what):
        read_split(ucf(tmp_path, train))


def test_a_video_on_both_sides_of_a_split_is_refused(tmp_path: Path) -> None:
    line = "Archery/v_Archery_g01_c01.avi"
    with pytest.raises(IfttnError, match=r"name one video 2 times: Archery/v_Archery_g01_c01.avi"):
        read_split(ucf(tmp_path, f"{line} 1\n", test=f"{line}\n"))


@pytest.mark.parametrize("classes", ["1 Archery\n3 Fencing\n", "0 Archery\n1 Fencing\n", "1 Archery\n1 Fencing\n"])
def test_class_labels_run_from_one(tmp_path: Path, classes: str) -> None:
    with pytest.raises(IfttnError, match=r"classInd.txt are not the numbers from 1 to 2"):
        read_split(ucf(tmp_path, train="", classes=classes))


@pytest.mark.parametrize("line", ["a_catch_0.avi 3 ", "a_catch_0.avi", "a_catch_0.txt 1"])
def test_an_unreadable_list_of_hmdb51_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(IfttnError, match=r"catch_test_split1.txt, line 2 cannot be read"):
        read_split(hmdb(tmp_path, catch=f"b_catch_0.avi 1 \n{line}\n"))


def test_a_split_without_its_lists_is_refused(tmp_path: Path) -> None:
    touch(ucf(tmp_path / "ucf", train="Archery/v_Archery_g01_c01.avi 1\n"), "Archery/v_Archery_g01_c01.avi")
    touch(hmdb(tmp_path / "hmdb", catch="a.avi 1 \n"), "catch/a.avi")
    with pytest.raises(IfttnError, match=r"trainlist02.txt does not exist"):
        read_split(tmp_path / "ucf", 2)
    with pytest.raises(IfttnError, match=r"catch_test_split3.txt does not exist"):
        read_split(tmp_path / "hmdb", 3)
    assert len(contents(tmp_path / "ucf").videos) == len(contents(tmp_path / "hmdb").videos) == 1


def test_lists_of_which_no_video_is_there_are_refused(tmp_path: Path) -> None:
    ucf(tmp_path, train="Archery/v_Archery_g01_c01.avi 1\n")
    with pytest.raises(IfttnError, match=r"holds none of the 1 videos of split 1"):
        read_split(tmp_path)
    with pytest.raises(IfttnError, match=r"holds no video of the lists"):
        contents(tmp_path)


@pytest.mark.parametrize("number", [0, 4, -1])
def test_there_are_three_splits(tmp_path: Path, number: int) -> None:
    touch(tmp_path, "run/a.avi", "run/b.avi")
    with pytest.raises(IfttnError, match=f"no split {number}: choose 1, 2 or 3"):
        read_split(tmp_path, number)


def test_a_folder_of_no_known_layout_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "film.avi", "papers/a.pdf")
    with pytest.raises(IfttnError, match=rf"{re.escape(str(tmp_path))} is no data set: .*classInd.txt.*_test_split1"):
        read_split(tmp_path)
    with pytest.raises(IfttnError, match=r"is no data set"):
        contents(tmp_path)
    with pytest.raises(IfttnError, match=r"there is no folder .*/absent"):
        read_split(tmp_path / "absent")


@pytest.mark.parametrize("names", [["only.avi"], ["v_g01_c01.avi", "v_g01_c02.avi"]])
def test_a_class_of_one_recording_is_left_out_and_the_rest_goes_on(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, "run/a.avi", "run/b.avi", "walk/a.avi", "walk/b.avi", *(f"sit/{name}" for name in names))
    for number in (1, 2):
        split = read_split(tmp_path, number)
        assert split.actions == ("run", "walk")
        assert {(video.action, video.label) for video in split.test} == {("run", 0), ("walk", 1)}
        assert {video.action for video in split.train} == {"run", "walk"}
        assert [note.partition(":")[0] for note in split.notes] == ["sit"]
    assert len(contents(tmp_path).videos) == 4 + len(names)  # it can be prepared all the same


def test_classes_of_one_recording_alone_cannot_be_divided(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.avi", "walk/a.avi")
    with pytest.raises(IfttnError, match=r"no class of .* can be divided: a class needs two videos"):
        read_split(tmp_path)


def test_the_third_split_of_class_folders_tests_third_groups(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.avi", "run/b.avi")
    assert [video.name for video in read_split(tmp_path, 2).test] == ["run/b"]
    with pytest.raises(IfttnError, match=r"split 3 of .* tests the third group of each class, and no class has three"):
        read_split(tmp_path, 3)
    touch(tmp_path, "walk/a.avi", "walk/b.avi", "walk/c.avi")
    third = read_split(tmp_path, 3)
    assert [video.name for video in third.test] == ["walk/c"]
    assert [video.name for video in third.train] == ["run/a", "run/b", "walk/a", "walk/b"]


def test_of_two_files_of_one_name_the_second_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.avi", "run/a.mp4", "run/b.avi")
    found = contents(tmp_path)
    assert [video.path.name for video in found.videos] == ["a.avi", "b.avi"]
    assert found.notes == ("run/a.mp4: run/a.avi has the same name",)
    ucf(tmp_path / "ucf", train="Archery/v_a_g01_c01.avi 1\n")
    touch(tmp_path / "ucf", "UCF-101/Archery/v_a_g01_c01.avi", "old/Archery/V_A_g01_c01.avi")
    assert read_split(tmp_path / "ucf").notes == (
        "old/Archery/V_A_g01_c01.avi: UCF-101/Archery/v_a_g01_c01.avi has the same name",
    )


def test_whatever_is_not_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.m4v", "run/b.MTS", "walk/a.wmv", "walk/b.3gp", "walk/c.xyz", "walk/d.xyz", "run/plain")
    touch(tmp_path, "film.avi", "walk/more/c.avi", "texts/a.txt", "lost+found/#7.avi", "__MACOSX/run/a.avi")
    split = read_split(tmp_path)
    assert [video.name for video in split.train + split.test] == ["run/b", "walk/b", "run/a", "walk/a"]
    assert sorted(split.notes) == [
        "film.avi: it is not in the folder of a class",
        "run/plain: a name without a suffix has no type of video",
        "texts: it holds no video",
        "walk/c.xyz and 1 more: .xyz is not a type of video",
        "walk/more/c.avi: it is not in the folder of a class",
    ]
    assert contents(tmp_path).notes == split.notes


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "run/a.avi", "run/b.avi", "walk/a.avi")
    scandir = os.scandir

    def refuse(path: Path):  # root may read everything
        if path.name == "walk":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    split = read_split(tmp_path)
    assert split.actions == ("run",)
    assert split.notes == ("walk: it cannot be read (permission denied)",)


@pytest.mark.parametrize("above", ["videos", "archive/data"])
def test_class_folders_may_stand_further_down(tmp_path: Path, above: str) -> None:
    touch(tmp_path, *(f"{above}/{name}.mp4" for name in ("run/a", "run/b", "walk/a", "walk/b")))
    split = read_split(tmp_path)
    assert (split.dataset, split.actions) == (tmp_path.name, ("run", "walk"))
    assert [video.name for video in split.train] == ["run/b", "walk/b"]


def test_class_folders_in_several_folders_are_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path, "day/run/a.avi", "night/run/a.avi")
    with pytest.raises(IfttnError, match=r"holds class folders in each of day, night: name one of them"):
        read_split(tmp_path)


@pytest.mark.parametrize("sides", ["train val", "Training validation", "train test"])
def test_folders_of_the_sides_are_the_split(tmp_path: Path, sides: str) -> None:
    train, test = sides.split()
    touch(tmp_path, f"{train}/run/1.mp4", f"{train}/walk/1.mp4", f"{train}/walk/2.mp4", f"{train}/sit/1.mp4")
    touch(tmp_path, f"{test}/Run/1.mp4", f"{test}/walk/1.mp4", f"{test}/fly/1.mp4", f"{test}/walk/9.mp4")
    (tmp_path / test / "Run" / "1.mp4").write_bytes(b"another")
    for name in ("train/walk/2", "test/walk/9", "test/walk/1"):
        (tmp_path / name.replace("train", train).replace("test", test)).with_suffix(".mp4").write_bytes(name.encode())
    (tmp_path / test / "walk" / "2.mp4").write_bytes(b"train/walk/2")  # a copy
    split = read_split(tmp_path)
    assert split.actions == ("run", "sit", "walk")
    assert [video.name for video in split.train] == [
        f"{train}/{name}" for name in ("run/1", "sit/1", "walk/1", "walk/2")
    ]
    assert [(video.name, video.label) for video in split.test] == [
        (f"{test}/Run/1", 0), (f"{test}/walk/1", 2), (f"{test}/walk/9", 2)
    ]  # fmt: skip
    assert split.notes == (
        f"{test}/fly/1: its class has no training video",
        f"{test}/walk/2: it is the same file as {train}/walk/2",
    )
    assert len(contents(tmp_path).videos) == 9
    with pytest.raises(IfttnError, match=r"are split 1, and there is no split 2"):
        read_split(tmp_path, 2)


def test_validation_beside_a_test_is_neither_trained_nor_tested_on(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/1.mp4", "val/run/2.mp4", "test/run/3.mp4")
    (tmp_path / "train/run/1.mp4").write_bytes(b"1")
    split = read_split(tmp_path)
    assert [video.name for video in split.train + split.test] == ["train/run/1", "test/run/3"]
    assert split.notes == ("val: its 1 videos are not used, because there is a folder test",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_are_read_as_any_editor_saves_them(tmp_path: Path, encoding: str, end: str) -> None:
    ucf(tmp_path, train="")
    for name, lines in {"classInd": ["1 Café"], "trainlist01": ["Café/a.avi 1"], "testlist01": ["Café/b.avi"]}.items():
        (tmp_path / "ucfTrainTestlist" / f"{name}.txt").write_bytes((end.join(lines) + end).encode(encoding))
    touch(tmp_path, "Café/a.avi", "Café/b.avi")
    split = read_split(tmp_path)
    assert [video.name for video in split.train + split.test] == ["Café/a", "Café/b"]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_both_forms_of_an_accent_are_one_name(tmp_path: Path, on_disk: str, listed: str) -> None:
    rows = {form: [unicodedata.normalize(form, f"Café/é_{i}.avi") for i in (1, 2)] for form in ("NFC", "NFD")}
    first, second = rows[listed]
    ucf(tmp_path, f"{first} 1\n", f"{second}\n", classes=unicodedata.normalize(listed, "1 Café\n"))
    touch(tmp_path, *rows[on_disk])
    split = read_split(tmp_path)
    assert (split.missing, split.extra, split.actions) == ((), (), ("Café",))
    assert [video.name for video in split.train + split.test] == ["Café/é_1", "Café/é_2"]
    with pytest.raises(IfttnError, match=r"name one video 2 times"):
        read_split(ucf(tmp_path / "leak", f"{rows['NFC'][0]} 1\n", f"{rows['NFD'][0]}\n", classes="1 Café\n"))


@pytest.mark.parametrize("other", ["v_a_g01_c01.mp4", "V_A_g01_c01.avi"])
def test_a_video_on_both_sides_in_another_spelling_is_refused(tmp_path: Path, other: str) -> None:
    ucf(tmp_path, "Archery/v_a_g01_c01.avi 1\n", f"Archery/{other}\n")
    with pytest.raises(IfttnError, match=rf"name one video 2 times: Archery/v_a_g01_c01.avi, Archery/{other}"):
        read_split(tmp_path)


def test_names_that_are_not_utf8_can_be_written(tmp_path: Path) -> None:
    touch(tmp_path, os.fsdecode(b"caf\xe9/\xff_1.avi"), os.fsdecode(b"caf\xe9/\xff_2.avi"))
    split = read_split(tmp_path)
    assert split.actions == ("caf\\xe9",)
    assert [video.name for video in split.train + split.test] == ["caf\\xe9/\\xff_2", "caf\\xe9/\\xff_1"]
    assert all(video.path.is_file() for video in split.train)


def test_a_side_without_videos_is_named(tmp_path: Path) -> None:
    touch(ucf(tmp_path, "Archery/a_g01_c01.avi 1\n", "Archery/a_g02_c01.avi\n"), "Archery/a_g01_c01.avi")
    split = read_split(tmp_path)
    assert len(split.side("train")) == 1
    with pytest.raises(IfttnError, match=rf"split 1 of {tmp_path.name} has no video to test on.*folder: 1"):
        split.side("test")


@pytest.mark.parametrize("suffix", [*SUFFIXES, "AVI"])
def test_class_folders_hold_videos_of_any_container(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, *(f"{action}_g2_/{name}.{suffix}" for action in ("walk", "run") for name in "abc"), "run_g2_/x.txt")
    touch(tmp_path, ".hidden/a.avi", "walk_g2_/._a.avi")
    split = read_split(tmp_path, 2)
    assert (split.dataset, split.number, split.actions) == (tmp_path.name, 2, ("run_g2_", "walk_g2_"))
    assert [video.name for video in split.test] == ["run_g2_/b", "walk_g2_/b"]
    assert [(video.name, video.label) for video in split.train] == [
        ("run_g2_/a", 0), ("run_g2_/c", 0), ("walk_g2_/a", 1), ("walk_g2_/c", 1)
    ]  # fmt: skip


@given(groups=st.lists(st.integers(1, 4), min_size=3, max_size=9))
def test_class_folders_are_divided_by_group_and_every_video_is_tested_once(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int]
) -> None:
    root = tmp_path_factory.mktemp("videos")
    touch(root, *(f"run/v_g{group:02d}_c{i}.avi" for group, videos in enumerate(groups) for i in range(videos)))
    splits = [read_split(root, number) for number in (1, 2, 3)]
    tested = [video.name for split in splits for video in split.test]
    assert sorted(tested) == [video.name for video in contents(root).videos]
    assert len(tested) == sum(groups)
    for split in splits:
        assert len(split.train) + len(split.test) == sum(groups)
        assert {video.group for video in split.train}.isdisjoint(video.group for video in split.test)


def test_a_data_set_has_the_splits_that_have_videos_on_both_sides(tmp_path: Path) -> None:
    listed = ucf(tmp_path / "listed", train="Archery/a.avi 1\r\n", test="Archery/b.avi\r\n")
    touch(listed, "Archery/a.avi", "Archery/b.avi")
    assert split_numbers(listed) == (1,)
    for number, test in ((2, "Archery/a.avi\r\n"), (3, "")):  # the third tests nothing
        (listed / f"ucfTrainTestlist/trainlist0{number}.txt").write_text("Archery/b.avi 1\r\n")
        (listed / f"ucfTrainTestlist/testlist0{number}.txt").write_text(test)
    assert split_numbers(listed) == (1, 2)
    touch(tmp_path, *(f"two/{action}/{video}.mp4" for action in ("run", "walk") for video in "ab"))
    assert split_numbers(tmp_path / "two") == (1, 2)
    touch(tmp_path, "two/walk/c.mp4")
    assert split_numbers(tmp_path / "two") == (1, 2, 3)
    touch(tmp_path, "sides/train/run/a.mp4", "sides/test/run/b.mp4")
    assert split_numbers(tmp_path / "sides") == (1,)
    (listed / "ucfTrainTestlist/testlist03.txt").write_text("Archery a.avi")
    with pytest.raises(IfttnError, match=r"testlist03\.txt, line 1"):
        split_numbers(listed)


def groups_of_actions(actions=3, groups=8, each=2):
    videos = tuple(
        Video(f"a{a}/g{g}_{i}", Path(f"g{g}_{i}.avi"), f"a{a}", a, f"a{a}/g{g}")
        for a in range(actions)
        for g in range(groups)
        for i in range(each)
    )
    return Split("d", 1, tuple(f"a{a}" for a in range(actions)), train=videos, test=())


def test_whole_groups_of_every_action_are_held_out():
    whole = groups_of_actions()
    rest, held = hold_out(whole, 0.25, seed=0)
    assert {video.name for video in rest.train} | {v.name for v in held} == {v.name for v in whole.train}
    assert not {video.group for video in rest.train} & {video.group for video in held}
    assert [sum(video.label == label for video in held) for label in range(3)] == [4, 4, 4]
    assert hold_out(whole, 0.25, seed=0)[1] == held
    assert hold_out(whole, 0.25, seed=1)[1] != held


def test_an_action_keeps_a_group_and_nothing_is_refused():
    rest, _ = hold_out(groups_of_actions(), 0.99, seed=0)
    assert {video.label for video in rest.train} == {0, 1, 2}
    with pytest.raises(IfttnError, match="takes no group"):
        hold_out(groups_of_actions(groups=1), 0.5, seed=0)
    with pytest.raises(IfttnError, match="more than 0 and less than 1"):
        hold_out(groups_of_actions(), 1.0, seed=0)
