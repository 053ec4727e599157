import argparse

import numpy as np
import pytest
import torch

from ifttn import cli
from ifttn.data import doctor as room
from ifttn.data.flow import FLOWS, flow_of


@pytest.fixture
def short(monkeypatch):
    """Three codecs, one without an encoder, and the fast flow."""
    codecs = {name: room.CODECS[name] for name in ("MPEG-4", "MPEG-4, B-frames")}
    monkeypatch.setattr(room, "CODECS", {**codecs, "Dream": room.Codec("dreamvideo")})
    monkeypatch.setattr(room, "FLOWS", {"dis": FLOWS["dis"]})
    return monkeypatch


def test_all_is_right_here(short, tmp_path):
    table = room.doctor(tmp_path)
    assert tuple(table.columns) == room.TABLE_COLUMNS
    read = table[table.codec.isin(["MPEG-4", "MPEG-4, B-frames"])]
    assert len(read) == 4
    assert (read.verdict == "ok").all()
    assert (read.zero == "128").all()
    np.testing.assert_allclose(read[["x", "y"]].to_numpy(float), np.tile(room.STEP, (4, 1)), atol=room.MEDIAN_ERROR)
    assert read.transcoded.tolist() == ["", "", "B-frames", "B-frames"]
    assert table.verdict.tolist()[-2:] == ["no encoder dreamvideo here", "no GPU here"]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("spoil", "verdict"),
    [
        (lambda flow: -flow, "wrong sign"),
        (lambda flow: flow[:, ::-1], "wrong size"),
        (lambda flow: flow / 2, "wrong size"),
        (lambda flow: flow + 0.2, "wrong zero"),
        (lambda flow: -2 * flow, "wrong sign, size"),
    ],
)
def test_a_wrong_flow_is_seen(short, spoil, verdict, capsys):
    short.setattr(room, "flow_of", lambda name, frames, device: spoil(flow_of("dis", frames)))
    assert room.run(argparse.Namespace(folder=None)) == 1
    printed = capsys.readouterr().out
    assert printed.count(verdict) == 2
    assert "2 of 6 rows are wrong" in printed


def test_the_flow_of_every_gpu_is_tested(short, capsys):
    def flow(name, frames, device):
        if device == "cuda:1":
            raise RuntimeError("no kernel image\nis available")
        return flow_of("dis", frames)

    short.setattr(torch.cuda, "is_available", lambda: True)
    short.setattr(torch.cuda, "device_count", lambda: 2)
    short.setattr(room, "FLOWS", {"dis": FLOWS["dis"], "tvl1": FLOWS["tvl1"]})
    short.setattr(room, "flow_of", flow)
    assert room.run(argparse.Namespace(folder=None)) == 1
    printed = capsys.readouterr().out
    assert printed.count("tvl1 on cuda:0") == printed.count("failed: no kernel image is available") == 2
    assert "dis on cuda" not in printed
    assert "2 of 11 rows are wrong" in printed


def test_the_verb_prints_the_table(short, capsys):
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "MPEG-4, B-frames" in printed
    assert printed.endswith("Everything is right.\n")
