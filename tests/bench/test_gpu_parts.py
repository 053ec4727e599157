import os

import cv2
import numpy as np
import pytest
import torch

from ifttn.bench.clock import PrintedTable
from ifttn.bench.gpu import Place
from ifttn.bench.gpu_parts import OWN_PARTS
from ifttn.bench.store import drawn
from ifttn.data import diagnostic
from ifttn.data.catalogue import read_split


@pytest.fixture(autouse=True)
def _restore_cores():
    threads, of_cv2, cores = torch.get_num_threads(), cv2.getNumThreads(), os.sched_getaffinity(0)
    yield
    torch.set_num_threads(threads)
    cv2.setNumThreads(of_cv2)
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place("cpu", tmp_path_factory.mktemp("parts"))


def test_a_drawn_store_holds_the_pictures_of_the_plan_and_is_found_the_second_time(place):
    data, store = drawn(place.folder / "train", "smallest", 16)
    split, before = read_split(data, 1), store.index()
    assert {video.name for video in (*split.train, *split.test)} == set(before.video)
    row = diagnostic.plan_videos("ucf", 16, seed=0).iloc[3]
    frame = cv2.resize(diagnostic.render(row)[5], (96, 72), interpolation=cv2.INTER_AREA)
    stored = store.read(row.name, "rgb", np.array([5]))[0].transpose(1, 2, 0)
    assert np.abs(stored.astype(int) - frame).mean() < 4  # a JPEG
    assert drawn(place.folder / "train", "smallest", 16)[1].index().equals(before)


@pytest.mark.parametrize(("part", "rows"), [("loader", 1), ("jpeg", 2), ("peers", 3), ("study", 6)])
def test_a_part_puts_its_rows_into_the_file(part, rows, place, monkeypatch):
    monkeypatch.setattr(PrintedTable, "kept", place.rows)
    place.rows.unlink(missing_ok=True)
    assert OWN_PARTS[part](place) == 0
    assert place.rows.read_text().count('{"row": ') == rows
