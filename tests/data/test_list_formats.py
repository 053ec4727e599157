"""Lists as other data sets have them: found by themselves, read, and refused with the file and the line."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from ifttn.data.catalogue import contents, read_split, split_numbers
from ifttn.data.list_formats import parse_lists
from ifttn.data.lists import folder_name
from ifttn.data.preparation import prepare
from ifttn.data.store import Store
from ifttn.data.video import decode
from ifttn.vocabulary import IfttnError

CLASSES = (
    "Pretending to open something without actually opening it",
    'Putting "a, b" / (c) \\ d: e? <*>|.',
    "No gesture",
)
# Of each video: its name, its label and its side.
VIDEOS = (("10", 0, 0), ("2", 1, 0), ("3_b", 2, 0), ("40", 0, 1), ("5", 1, 1), ("6", 2, 1))
Files = Mapping[str, str]


def something(videos=VIDEOS, classes=CLASSES, prefix="something-something-v2-") -> Files:
    """JSON, with the brackets that the templates have."""

    def side(number: int) -> str:
        brackets = [
            (name, classes[label].replace("something", "[something]")) for name, label, at in videos if at == number
        ]
        return json.dumps([{"id": name, "label": "a box", "template": template} for name, template in brackets])

    labels = json.dumps({action: str(label) for label, action in enumerate(classes)})
    return {f"{prefix}labels.json": labels, f"{prefix}train.json": side(0), f"{prefix}validation.json": side(1)}


def jester(videos=VIDEOS, classes=CLASSES) -> Files:
    def side(number: int) -> str:
        return "".join(f"{name};{classes[label]}\n" for name, label, at in videos if at == number)

    names = "\n".join(classes)
    return {"jester-v1-labels.csv": names, "jester-v1-train.csv": side(0), "jester-v1-validation.csv": side(1)}


def diving(videos=VIDEOS, classes=CLASSES) -> Files:
    def side(number: int) -> str:
        rows = [(name, label) for name, label, at in videos if at == number]
        return json.dumps([{"vid_name": n, "label": label, "start_frame": 0, "end_frame": 9} for n, label in rows])

    words = json.dumps([action.split(" ") for action in classes])
    return {"Diving48_V2_train.json": side(0), "Diving48_V2_test.json": side(1), "Diving48_vocab.json": words}


def tsn(videos=VIDEOS, classes=CLASSES, row: str = "frames/{name} 8 {label}") -> Files:
    def side(number: int) -> str:
        return "".join(f"{row.format(name=name, label=label)}\n" for name, label, at in videos if at == number)

    names = "\n".join(classes)
    return {"category.txt": names, "train_videofolder.txt": side(0), "val_videofolder.txt": side(1)}


def videomae(videos=VIDEOS, classes=CLASSES) -> Files:
    return tsn(videos, classes, "some videos/{name}.mp4 {label}")


def kinetics(videos=VIDEOS, classes=CLASSES) -> Files:
    def side(number: int) -> str:
        rows = [
            f'"{classes[label]}",{name},1,11,{"val" if at else "train"}'.replace('"a, b"', '""a, b""')
            for name, label, at in videos
            if at == number
        ]
        return "\n".join(["label,youtube_id,time_start,time_end,split", *rows])

    return {"train.csv": side(0), "validate.csv": side(1)}


def put(root: Path, files: Files, folder: str = "annotations") -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / folder / name).write_text(text)
    return root


def touch(root: Path, path: str, videos=VIDEOS, classes=CLASSES) -> None:
    """A video for each of VIDEOS: a file, or a folder of two images."""
    for name, label, side in videos:
        video = root / path.format(name=name, action=folder_name(classes[label]), side=("train", "val")[side])
        for each in (video,) if video.suffix else (video / "img_00001.jpg", video / "img_00002.jpg"):
            each.parent.mkdir(parents=True, exist_ok=True)
            each.touch()


LAYOUTS: Mapping[str, tuple[Callable[..., Files], str]] = {
    "something": (something, "20bn-something-something-v2/{name}.webm"),
    "something, short names": (partial(something, prefix=""), "{name}.webm"),
    "something, frames": (something, "20bn/frames/{name}"),
    "jester": (jester, "20bn-jester-v1/{name}"),
    "diving48": (diving, "rgb/{name}.mp4"),
    "kinetics": (kinetics, "{side}/{action}/{name}_000001_000011.mp4"),
    "kinetics, flat": (kinetics, "{side}/{name}_000001_000011.mp4"),
    "tsn": (tsn, "data/frames/{name}"),
    "tsn, commas": (partial(tsn, row="frames/{name}, 8, {label}"), "frames/{name}"),
    "tsn, first frames": (partial(tsn, row="frames/{name} 1 8 {label}"), "frames/{name}"),
    "videomae": (videomae, "some videos/{name}.mp4"),
}


@pytest.mark.parametrize("folder", ["", "annotations"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_found_by_itself(tmp_path: Path, layout: str, folder: str) -> None:
    files, path = LAYOUTS[layout]
    root = put(tmp_path / "set", files(), folder)
    touch(root, path)
    split = read_split(root)
    actions = sorted(CLASSES) if "kinetics" in layout else list(CLASSES)
    assert split.actions == tuple(actions)
    assert (split.dataset, split.missing, split.extra, split.notes) == ("set", (), (), ())
    for side, videos in enumerate((split.train, split.test)):
        found = [(re.split(r"\.|_000001", video.path.name)[0], video.action) for video in videos]
        assert found == [(name, CLASSES[label]) for name, label, at in VIDEOS if at == side]
        assert all(split.actions[video.label] == video.action for video in videos)
        assert all(video.path.exists() and video.group == video.name for video in videos)
    assert {video.name for video in contents(root).videos} == {video.name for video in split.train + split.test}
    assert split_numbers(root) == (1,)
    with pytest.raises(IfttnError, match="are split 1, and there is no split 2"):
        read_split(root, 2)


def of_embedded(embedded, most: int | None = None):
    """The videos of the embedded data set as rows of VIDEOS, its classes, and the file of each video."""
    split = embedded.split
    sides = split.train[:most], split.test[:most]
    rows = [(video.path.stem, video.label, at) for at, videos in enumerate(sides) for video in videos]
    return rows, split.actions, {video.path.stem: video.path for videos in sides for video in videos}


@pytest.mark.parametrize(
    ("layout", "tested", "text"),
    [
        ("something", "something-something-v2-test.json", '[{"id": "71"}, {"id": "72"}]'),
        ("jester", "jester-v1-test.csv", "71\n72\n"),
    ],
)
def test_a_test_list_without_labels_is_one_note_and_its_videos_are_known(
    tmp_path: Path, layout: str, tested: str, text: str
) -> None:
    files, path = LAYOUTS[layout]
    touch(put(tmp_path, {**files(), tested: text}), path)
    touch(tmp_path, path, [("71", 0, 1), ("72", 0, 1), ("unknown", 0, 1)])
    split = read_split(tmp_path)
    assert split.notes == (f"{tested}: its 2 videos have no published labels; train and validation are used",)
    assert [name.rpartition("/")[2] for name in split.extra] == ["unknown"]
    assert (len(split.train), len(split.test)) == (3, 3)


def test_a_row_may_begin_at_the_first_image_of_its_folder(tmp_path: Path) -> None:
    files = faulty(tsn(), TRAIN, "frames/2 8", "frames/2 5 8")
    touch(put(tmp_path, files), "frames/{name}")
    for number in (1, 2):
        (tmp_path / "frames" / "2" / f"img_0000{number}.jpg").rename(
            tmp_path / "frames" / "2" / f"img_0000{number + 4}.jpg"
        )
    assert [video.name for video in read_split(tmp_path).train] == ["frames/10", "frames/2", "frames/3_b"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_embedded_data_set_is_the_same_in_every_layout(tmp_path: Path, embedded, layout: str) -> None:
    files, path = LAYOUTS[layout]
    videos, classes, _ = of_embedded(embedded)
    touch(put(tmp_path, files(videos, classes)), path, videos, classes)
    split, own = read_split(tmp_path), embedded.split
    assert split.actions == own.actions
    for side in ("train", "test"):
        found = [(re.split(r"\.|_000001", video.path.name)[0], video.label) for video in split.side(side)]
        assert found == [(video.path.stem, video.label) for video in own.side(side)]


def test_files_and_frames_in_the_layout_of_something_something_are_prepared(tmp_path: Path, embedded) -> None:
    videos, classes, paths = of_embedded(embedded, most=1)
    classes = [action + ', "something" / <long>' * 5 for action in classes]
    (file, _, _), (folder, _, _) = videos
    put(tmp_path / "v2", something(videos, classes))
    (tmp_path / "v2" / "videos" / folder).mkdir(parents=True)
    os.link(paths[file], tmp_path / "v2" / "videos" / f"{file}.avi")
    for number, frame in enumerate(decode(paths[folder]).frames, 1):
        cv2.imwrite(str(tmp_path / "v2" / "videos" / folder / f"{number:06}.png"), frame[..., ::-1])
    whole = Store(embedded.store)
    report = prepare(tmp_path / "v2", tmp_path / "store", whole.settings, jobs=1, progress=False)
    assert report.status.tolist() == ["done", "done"]
    store, split = Store(tmp_path / "store"), read_split(tmp_path / "v2")
    store.refuse_unprepared(split.train + split.test)
    own = embedded.split.train[0], embedded.split.test[0]
    for video, original in zip(split.train + split.test, own, strict=True):
        assert video.action == split.actions[video.label] == classes[original.label]
        frames = np.arange(whole.num_frames(original.name))
        here, there = (each.read(name, "rgb", frames) for each, name in ((store, video.name), (whole, original.name)))
        assert np.abs(here.astype(int) - there).mean() < 2
    fields = np.arange(3)
    vectors = store.read(split.train[0].name, "mv", fields)
    np.testing.assert_array_equal(vectors, whole.read(own[0].name, "mv", fields))


def test_what_is_missing_and_what_no_list_names_is_told(tmp_path: Path) -> None:
    put(tmp_path, something())
    touch(tmp_path, "videos/{name}.webm", [*VIDEOS[:-1], ("7", 0, 0)])
    touch(tmp_path, "frames/{name}", [("8", 0, 0), ("2", 0, 0)])
    split = read_split(tmp_path)
    assert split.missing == ("No gesture/6",)
    assert split.extra == ("8", "7")
    assert split.notes == ("videos/2.webm: frames/2 has the same name",)
    assert contents(tmp_path).missing == split.missing


@pytest.mark.parametrize(
    ("action", "folder"),
    [
        ("Putting something", "Putting something"),
        ('a/b\\c:d*e?f"g<h>i|j\n', "a_b_c_d_e_f_g_h_i_j_"),
        ("trailing. .", "trailing"),
        ("con", "_con"),
        ("LPT1.txt", "_LPT1.txt"),
        ("..", "_"),
        ("é" * 60, "é" * 60),
    ],
)
def test_a_class_becomes_the_name_of_a_folder_that_every_system_takes(action: str, folder: str) -> None:
    assert folder_name(action) == folder


def test_long_classes_that_begin_alike_have_folders_of_their_own() -> None:
    first, second = (
        folder_name("Putting something onto something else that cannot support it so " + end) for end in "ab"
    )
    assert first != second
    assert len(first) == len(second) == 60


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("layout", ["something", "jester", "tsn", "kinetics"])
def test_other_lists_are_read_as_any_editor_saves_them(tmp_path: Path, layout: str, encoding: str) -> None:
    files, _ = LAYOUTS[layout]
    plain = parse_lists(put(tmp_path / "plain", files(), ""), 1)
    put(tmp_path / "edited", files(), "")
    for name, text in files().items():
        (tmp_path / "edited" / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert parse_lists(tmp_path / "edited", 1) == plain


def test_classes_that_are_not_utf8_can_be_written(tmp_path: Path) -> None:
    put(tmp_path, jester(), "")
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(b"No gesture", b"caf\xe9"))
    assert parse_lists(tmp_path, 1).actions[2] == "caf\\xe9"


@pytest.mark.parametrize(
    ("row", "actions"),
    [
        ("run/{name}.mp4 {label}", ("0", "1", "2")),
        ("data/class{label}/{name}.mp4 {label}", ("class0", "class1", "class2")),
        ("data/class{label}/{name} 40 {label}", ("class0", "class1", "class2")),
    ],
)
def test_without_a_list_of_classes_the_folder_of_each_label_names_it(tmp_path: Path, row: str, actions) -> None:
    put(tmp_path, {name: text for name, text in tsn(row=row).items() if name != "category.txt"}, "")
    assert parse_lists(tmp_path, 1).actions == actions


def test_paths_that_begin_at_the_root_of_the_disk_lie_in_the_data_set(tmp_path: Path) -> None:
    put(tmp_path, tsn(row=f"{tmp_path}/videos/{{name}}.mp4 {{label}}"))
    touch(tmp_path, "videos/{name}.mp4")
    assert [video.name for video in read_split(tmp_path).test] == ["videos/40", "videos/5", "videos/6"]


def test_a_start_that_is_not_followed_is_noted(tmp_path: Path) -> None:
    files = dict(diving())
    files["Diving48_V2_test.json"] = files["Diving48_V2_test.json"].replace('"start_frame": 0', '"start_frame": 5', 2)
    touch(put(tmp_path, files), "rgb/{name}.mp4")
    assert read_split(tmp_path).notes == ("start_frame of 2 videos: the whole file is read",)


def faulty(files: Files, name: str, old: str, new: str) -> Files:
    assert old in files[name]
    return {**files, name: files[name].replace(old, new, 1)}


V2, TRAIN = "something-something-v2-", "train_videofolder.txt"
FAULTS = {
    "a class that the labels do not name": (
        faulty(something(), f"{V2}train.json", "Pretending to", "Trying to"),
        r"v2-train.json, entry 1 names the class 'Trying to open .* does not; similar names: pretending to op",
    ),
    "labels with a gap": (faulty(something(), f"{V2}labels.json", '"2"', '"3"'), r"are not the numbers from 0 to 2"),
    "labels that are words": (faulty(something(), f"{V2}labels.json", '"2"', '"x"'), r"is not a list of classes"),
    "no list to test on": (
        {name: text for name, text in something().items() if "validation" not in name},
        r"the list .*v2-validation.json does not exist",
    ),
    "damaged JSON": (
        {**something(), f"{V2}train.json": '[\n{"id": "1", "template": "a"},\n{"id": "2", "temp'},
        r"v2-train.json, line 3 cannot be read: it is not JSON",
    ),
    "JSON that is no list": (faulty(something(), f"{V2}train.json", "[{", "{\"a\": [{"), r"line 1 cannot be read"),
    "JSON of another kind": ({**something(), f"{V2}train.json": "{}"}, r"is not a list of videos: it needs"),
    "an entry without a template": (
        faulty(something(), f"{V2}train.json", '"template"', '"text"'),
        r"v2-train.json, entry 1 cannot be read: it needs id and template",
    ),
    "an id that is a path": (
        faulty(something(), f"{V2}train.json", '"10"', '"../../10"'),
        r"entry 1 names the video '../../10', which is not the name of a file",
    ),
    "an id that is a path in a CSV": (
        faulty(jester(), "jester-v1-train.csv", "10;", "../10;"),
        r"jester-v1-train.csv, line 1 names the video '../10', which is not the name",
    ),
    "a row of one field": (
        faulty(jester(), "jester-v1-train.csv", "2;", "2,"),
        r"jester-v1-train.csv, line 2 cannot be read: .*; it needs <id>;<class>",
    ),
    "a class twice": (faulty(jester(), "jester-v1-labels.csv", CLASSES[0], "no Gesture"), r"names the class .* twice"),
    "a video twice": (
        faulty(jester(), "jester-v1-train.csv", "10;", f"3_b;{CLASSES[2]}\n10;"),
        r"name one video 2 times: 3_b, 3_b",
    ),
    "a video on both sides": (
        faulty(jester(), "jester-v1-validation.csv", "40;", "10;"),
        r"name one video 2 times: 10, 10",
    ),
    "a label beyond the vocabulary": (
        faulty(diving(), "Diving48_V2_train.json", '"label": 1', '"label": 3'),
        r"V2_train.json, entry 2 has the label 3: choose 0 to 2, because Diving48_vocab.json has 3 classes",
    ),
    "a label that is no number": (
        faulty(diving(), "Diving48_V2_train.json", '"label": 1', '"label": "x"'),
        r"entry 2 has the label 'x': choose 0 to 2",
    ),
    "a row of too few fields": (
        faulty(kinetics(), "train.csv", ",1,11,train", ",1"),
        r"train.csv, line 2 cannot be read: .*; it needs label,youtube_id,time_start,time_end,split",
    ),
    "times that are no numbers": (
        faulty(kinetics(), "train.csv", ",1,11,train", ",a,b,train"),
        r"train.csv, line 2 cannot be read",
    ),
    "a test without labels": (
        {**kinetics(), "validate.csv": "youtube_id,time_start,time_end,split\nx,1,2,test"},
        r"validate.csv, line 1 has no column label",
    ),
    "a class that is not trained on": (
        faulty(kinetics(), "validate.csv", "No gesture", "No gestures"),
        r"validate.csv, line 4 names the class 'No gestures', but train.csv does not; similar names: no gesture",
    ),
    "a row without a label": (
        faulty(tsn(), TRAIN, "frames/10 8 0", "frames/10"),
        rf"{TRAIN}, line 1 cannot be read: 'frames/10'; it needs <path> <label> or",
    ),
    "a row of five fields": (faulty(tsn(), TRAIN, "frames/2 8", "frames/2 1 8 8"), rf"{TRAIN}, line 2 cannot be read"),
    "a label beyond the classes": (
        faulty(tsn(), TRAIN, "frames/2 8 1", "frames/2 8 3"),
        rf"{TRAIN}, line 2 has the label '3': choose 0 to 2, because category.txt has 3 classes",
    ),
    "a path out of the data set": (faulty(tsn(), TRAIN, "frames/2", "../2"), r"line 2 names ../2, which is outside"),
    "a path elsewhere": (faulty(tsn(), TRAIN, "frames/2", "/etc/2"), r"line 2 names /etc/2, outside the data set"),
    "a part of a folder": (faulty(tsn(), TRAIN, "frames/2 8", "frames/2 5 8"), r"line 2 begins at frame 5 of frames/2"),
    "lists of two splits": (
        {**tsn(), "train_split2.txt": "a 1 1", "val_split2.txt": "b 1 1"},
        r"lists of several splits: train_split2.txt, train_videofolder.txt; keep only the lists of one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_list_is_named_with_its_place(tmp_path: Path, fault: str) -> None:
    files, message = FAULTS[fault]
    touch(put(tmp_path, files), "frames/{name}")
    with pytest.raises(IfttnError, match=message):
        read_split(tmp_path)


def test_json_of_another_encoding_is_named(tmp_path: Path) -> None:
    put(tmp_path, something(), "")
    (tmp_path / f"{V2}train.json").write_bytes(b'[{"id": "\xe9"}]')
    with pytest.raises(IfttnError, match=r"v2-train.json cannot be read: byte 9 is not utf-8"):
        read_split(tmp_path)


MEMORY = """
import resource, sys
from pathlib import Path
from ifttn.data.catalogue import read_split
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
split = read_split(Path(sys.argv[1]))
print(len(split.train), len(split.test), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".webm", ""])
def test_lists_of_the_official_size_take_little_memory(tmp_path: Path, suffix: str) -> None:
    classes = [f"Moving something and something else in way {number}" for number in range(174)]
    videos = [(str(number), number % 174, int(number % 9 == 0)) for number in range(220_847)]
    put(tmp_path, something(videos, classes))
    (tmp_path / "videos").mkdir()
    for name, _, _ in videos:
        path = tmp_path / "videos" / f"{name}{suffix}"
        path.touch() if suffix else path.mkdir()
    told = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True)
    train, test, kilobytes = map(int, told.stdout.split())
    assert (train, test) == (196_308, 24_539)
    assert kilobytes < 500_000
