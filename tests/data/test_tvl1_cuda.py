"""The very source of the CUDA kernels, run on a CPU (`cuda_on_cpu.py`)."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from ifttn.bench.flow import Motion
from ifttn.data import tvl1_cuda
from ifttn.data.flow import flow_of
from ifttn.data.flow_service import FlowHere, serve
from ifttn.data.tvl1 import FAST, INNER, OUTER, CoarseToFine
from tests.data import tvl1_reference
from tests.data.cuda_on_cpu import OnCpu

ONE_LEVEL = CoarseToFine(scales=1, warps=2)


def on_cpu_in(folder: Path) -> OnCpu:
    return OnCpu(folder, tvl1_cuda.SOURCE, tvl1_cuda.DEFINED, ("resize", "linearise", "median", "relax"))


@cache
def pairs_of(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three pairs: two that move, and between them one that does not."""
    pairs = [
        torch.from_numpy(Motion("pan", shift).pair(height, width)) for shift in ((1.2, -0.7), (0.0, 0.0), (2.5, 1.0))
    ]
    return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    if not shutil.which("g++"):
        pytest.skip("no g++")
    return on_cpu_in(tmp_path_factory.mktemp("kernels"))


# One tile; several tiles along an axis; a width whose rows end in a gap.
@pytest.mark.parametrize(("height", "width", "pyramid"), [(33, 47, FAST), (20, 131, ONE_LEVEL), (57, 30, ONE_LEVEL)])
def test_the_kernels_source_finds_the_references_flow(on_cpu, height, width, pyramid):
    previous, following = pairs_of(height, width)
    flow = tvl1_cuda.solve(previous, following, pyramid, on_cpu)
    reference = tvl1_reference.solve(previous.float(), following.float(), pyramid)
    assert flow.shape == reference.shape
    assert reference[2].abs().mean() > 0.5
    assert (flow - reference).abs().mean() < 2e-4
    assert flow[1].abs().max() == 0


def test_the_flow_depends_neither_on_tiles_nor_on_how_many_iterations_a_launch_does(on_cpu, tmp_path, monkeypatch):
    previous, following = pairs_of(20, 70)
    flow = tvl1_cuda.solve(previous, following, ONE_LEVEL, on_cpu)
    for name, value in {"WARPS": 2, "FUSED": 2}.items():
        monkeypatch.setattr(tvl1_cuda, name, value)
        monkeypatch.setitem(tvl1_cuda.DEFINED, name, value)
    assert torch.equal(tvl1_cuda.solve(previous, following, ONE_LEVEL, on_cpu_in(tmp_path)), flow)


def test_a_pair_is_solved_as_it_is_alone(on_cpu):
    previous, following = pairs_of(20, 30)
    flow = tvl1_cuda.solve(previous, following, ONE_LEVEL, on_cpu)
    alone = [tvl1_cuda.solve(previous[i : i + 1], following[i : i + 1], ONE_LEVEL, on_cpu) for i in range(3)]
    assert torch.equal(torch.cat(alone), flow)


def test_a_launch_does_several_iterations_and_pairs_share_it(on_cpu):
    on_cpu.launches.clear()
    tvl1_cuda.solve(*pairs_of(20, 30), ONE_LEVEL, on_cpu)
    medians = on_cpu.launches["median"]
    assert on_cpu.launches["relax"] == medians * (INNER // tvl1_cuda.FUSED + 1)
    assert on_cpu.launches["linearise"] == ONE_LEVEL.warps
    assert ONE_LEVEL.warps <= medians <= OUTER * ONE_LEVEL.warps


@pytest.mark.skipif(not find_spec("cuda"), reason="no bindings of CUDA for this platform")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_120"])
def test_nvrtc_compiles_the_kernels_without_spilling_registers(architecture, tmp_path):
    code = tmp_path / "kernels.cubin"
    code.write_bytes(tvl1_cuda.compiled(architecture))
    inspector = Path(str(pytest.importorskip("triton").__file__)).parent / "backends/nvidia/bin/cuobjdump"
    if not inspector.exists():
        pytest.skip("no cuobjdump")
    used = subprocess.run([inspector, "-res-usage", code], capture_output=True, text=True, check=True).stdout
    functions = dict(re.findall(r"Function (\w+):\s+REG:(\d+)", used))
    assert set(functions) == {"resize", "linearise", "median", "relax"}
    assert int(functions["relax"]) * 32 * tvl1_cuda.WARPS * 2 <= 65_536, "two blocks share a processor's registers"
    assert all(int(stack) <= 16 for stack in re.findall(r"STACK:(\d+)", used)), used


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("height", "width"), [(96, 131), (17, 40), (3, 3), (256, 340)])
def test_a_gpu_finds_the_flow_of_the_cpu_in_chunks_of_any_size(height, width, monkeypatch):
    images = torch.cat([pair for pair in pairs_of(height, width)]).numpy()
    starts = np.array([0, 1, 2, 3, 4])
    flow = flow_of("tvl1", images, "cuda", starts)
    assert np.abs(flow - flow_of("tvl1", images, "cpu", starts)).mean() < 0.02
    monkeypatch.setattr(tvl1_cuda, "SHARE", 1e-9)  # a pair a chunk
    np.testing.assert_array_equal(flow_of("tvl1", images, "cuda", starts), flow)


@pytest.mark.gpu
def test_a_service_on_a_gpu_answers_many_at_once_as_each_alone(gpu):
    videos = [np.random.default_rng(n).integers(0, 256, (n, 72, 96), np.uint8) for n in range(2, 12)]
    alone = [FlowHere("tvl1", gpu)(images, 5.0, np.array([0])) for images in videos]
    with serve("tvl1", gpu) as service, ThreadPoolExecutor(10) as askers:
        for answer, expected in zip(
            askers.map(lambda images: service(images, 5.0, np.array([0])), videos), alone, strict=True
        ):
            np.testing.assert_equal(answer, expected)
