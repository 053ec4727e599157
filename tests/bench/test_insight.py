import pytest
import torch

from ifttn.bench import insight as bench
from ifttn.cli import parser


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_maps_stand_beside_the_packages_and_show_the_same(capsys):
    assert bench.run(parser().parse_args(["bench", "insight", "--device", "cpu", "--batch", "1", "--repeat", "1"])) == 0
    lines = capsys.readouterr().out.splitlines()
    first = lines.index(next(line for line in lines if line.startswith("maps"))) + 1
    rates = {line[:28].strip(): float(line[28:38]) for line in lines[first : first + 4]}
    assert set(rates) == {"ours, signed, three heads", "ours, 2x finer", "ours, 4x finer", "grad-cam, one head"}
    assert min(rates.values()) > 0
    (difference,) = [float(line.split()[-1]) for line in lines if "difference" in line]
    assert difference < 1e-3  # of 0..1: single precision, after resizing
    assert any(line.startswith("DeepDraw") for line in lines)
    (share,) = [int(line.split("%")[0].split()[-1]) for line in lines if "two passes" in line]
    assert 0 < share <= 100
    first = lines.index(next(line for line in lines if line.startswith("form"))) + 1
    apart = {line.split()[0]: float(line.split()[2]) for line in lines[first : first + 3]}
    assert apart["channels_last"] == 0.0 <= apart["contiguous"] < apart["bf16"]
