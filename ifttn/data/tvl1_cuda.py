"""TV-L1 of many pairs on a GPU: `tvl1.cu`, which NVRTC compiles for the GPU at hand, and the launches around it.

Most of the time goes into iterations, and an iteration does little with each byte that it reads. So a launch of `relax`
does FUSED of them on a tile that stays on the chip. How many iterations a pair needs is known only afterwards: where
one before the last of a launch was enough, the next launch does the pair again from the input, which is still there,
with the right number. Each field has two buffers; a launch reads one and writes the other, and the state of a pair says
which one holds the result, so that nothing is ever copied. The host waits once after each median, for the list of pairs
that go on.

Shapes: B pairs, H x W pixels of a level, S floats in a row of a plane.
"""

from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from ifttn.data.cuda_kernels import Launch, arguments, launcher, machine_code
from ifttn.data.tvl1 import EPSILON, FLAT, INNER, LAMBDA, OPENCV, OUTER, TAU, THETA, CoarseToFine

SOURCE = Path(__file__).with_name("tvl1.cu")
BYTES = 100
"""What a pixel of the images takes, on all levels together."""
SHARE = 0.25
"""Of the free memory, what the pairs of a chunk take."""
ROWS, WARPS, FUSED = 4, 12, 6
"""Rows of a tile that a warp holds, warps of a block, iterations of a launch: two blocks fit on an H100's processor."""
THREADS = 128
"""Threads of a block of the other kernels: each has a pixel, or four."""
DEFINED = {
    "PIXELS": THREADS,
    "ROWS": ROWS,
    "WARPS": WARPS,
    "FUSED": FUSED,
    "INNER": INNER,
    "LIMIT": f"{LAMBDA * THETA}f",
    "THETA": f"{THETA}f",
    "RATE": f"{TAU / THETA}f",
    "FLAT": f"{FLAT}f",
    "ENOUGH": EPSILON**2 * 2**24,
}
"""What the source leaves open."""
ROUNDED = ("--prec-sqrt=false", "--prec-div=false", "--ftz=true")
"""A root or a quotient may be off by its last bit, and what is below 1e-38 is 0: a quarter fewer instructions."""
ALIGNED = 8
"""Floats: a row begins at a multiple."""
MOST_PAIRS = 65_535 // 2
"""A grid has at most 65,535 blocks along its second axis, and `resize` needs two a pair."""


def solve(
    previous: UInt8[Tensor, "B H W"],
    following: UInt8[Tensor, "B H W"],
    pyramid: CoarseToFine = OPENCV,
    launch: Launch | None = None,
) -> Float32[Tensor, "B 2 H W"]:
    """Displacement along x and y from each previous to its following image, in pixels. Both are luminance.

    Args:
        previous: on a GPU.
        following: the images that follow, on the same GPU.
        pyramid: levels and warps.
        launch: how kernels are launched; by default on the GPU of the images.
    """
    if launch:
        return _solve_chunk(previous, following, pyramid, launch)
    with torch.cuda.device(previous.device):  # a kernel is launched in the context of the current device
        launch = on_gpu(torch.cuda.current_device())
        pairs = int(SHARE * torch.cuda.mem_get_info()[0] / BYTES / previous[0].numel())
        pairs = min(MOST_PAIRS, max(1, pairs))
        chunks = zip(previous.split(pairs), following.split(pairs), strict=True)
        return torch.cat([_solve_chunk(first, second, pyramid, launch) for first, second in chunks])


def _solve_chunk(
    previous: UInt8[Tensor, "B H W"], following: UInt8[Tensor, "B H W"], pyramid: CoarseToFine, launch: Launch
) -> Float32[Tensor, "B 2 H W"]:
    solver = _Solver(launch, len(previous), pyramid.warps)
    sizes, ratio = pyramid.sizes(*previous.shape[1:]), 1 / pyramid.step
    images = [_padded(torch.stack([previous, following]).float())]
    for old, new in pairwise(sizes):
        images.append(solver.resized(images[-1], old, new, (ratio, ratio)))
    flow = images[-1].new_zeros(len(previous), 2, *images[-1].shape[-2:])
    for level in reversed(range(len(sizes))):
        if level + 1 < len(sizes):
            old, new = sizes[level + 1], sizes[level]
            flow = solver.resized(flow, old, new, (old[0] / new[0], old[1] / new[1]), gain=ratio)
        flow = solver.level(images[level][0], images[level][1], flow, sizes[level][1])
    return flow[..., : previous.shape[2]]


def shared_bytes() -> int:
    """Shared memory of a block of `relax`: its tile of the image, what neighbouring warps exchange, and the sums."""
    return 16 * (2 * ROWS * 32 * WARPS + 2 * 32 * (WARPS + 1)) + 4 * FUSED * WARPS


class _Solver:
    """The launches for B pairs."""

    def __init__(self, launch: Launch, pairs: int, warps: int) -> None:
        self.launch, self.pairs, self.warps = launch, pairs, warps

    def resized(
        self,
        planes: Float32[Tensor, "*planes h s"],
        old: tuple[int, int],
        new: tuple[int, int],
        ratios: tuple[float, float],
        gain: float = 1.0,
    ) -> Float32[Tensor, "*planes H S"]:
        out = planes.new_zeros(*planes.shape[:-2], new[0], _stride(new[1]))
        count, blocks = planes[..., 0, 0].numel(), -(-new[0] * new[1] // THREADS)
        sizes = *old, planes.shape[-1], *new, out.shape[-1]
        self.launch("resize", (blocks, count, 1), THREADS, 0, arguments(planes, out, *sizes, *ratios, gain))
        return out

    def level(
        self,
        first: Float32[Tensor, "B H S"],
        second: Float32[Tensor, "B H S"],
        flow: Float32[Tensor, "B 2 H S"],
        width: int,
    ) -> Float32[Tensor, "B 2 H S"]:
        height, stride = first.shape[1:]
        flows, duals = flow.new_zeros(2, *flow.shape), flow.new_zeros(2, self.pairs, 4, height, stride)
        flows[0] = flow
        data = flow.new_zeros(self.pairs, 3, height, stride)
        states = torch.zeros(self.pairs, 2 * FUSED + 6, dtype=torch.int32, device=flow.device)
        turned, live = 2 * FUSED, 2 * FUSED + 4  # of a State: which buffer holds the flow, and whether the pair goes on
        everyone = torch.arange(self.pairs, dtype=torch.int32, device=flow.device)
        size, pixels = (self.pairs, height, width, stride), -(-height * width // THREADS)
        fours = -(-height * -(-width // 4) // THREADS)
        tiles = _tiles(width, 64), _tiles(height, ROWS * WARPS)
        for _ in range(self.warps):
            fields = arguments(first, second, flows, data, states, *size)
            self.launch("linearise", (pixels, self.pairs, 1), THREADS, 0, fields)
            chosen = everyone
            for _ in range(OUTER):
                self.launch("median", (fours, 1, len(chosen)), THREADS, 0, arguments(flows, states, chosen, *size))
                fields = arguments(flows, duals, data, states, chosen, *size)
                for _ in range(-(-INNER // FUSED) + 1):  # the last is for pairs that end within a launch
                    self.launch("relax", (*tiles, len(chosen)), 32 * WARPS, shared_bytes(), fields)
                chosen = everyone[states[:, live] != 0]
                if not len(chosen):
                    break
        return flows[states[:, turned].long(), everyone.long()]


def _tiles(length: int, tile: int) -> int:
    """Tiles along an axis. The first begins two pixels outside the image."""
    return 1 + max(0, -(-(length + 2 - tile) // (tile - 2 * FUSED)))


def _stride(width: int) -> int:
    return -(-width // ALIGNED) * ALIGNED


def _padded(images: Float32[Tensor, "*batch H W"]) -> Float32[Tensor, "*batch H S"]:
    return torch.nn.functional.pad(images, (0, _stride(images.shape[-1]) - images.shape[-1]))


@cache
def on_gpu(device: int) -> Launch:
    """Launches on this GPU, which must be the current one (`cuda_kernels.launcher`)."""
    return launcher(compiled, {"resize": 0, "linearise": 0, "median": 0, "relax": shared_bytes()})


def compiled(architecture: str) -> bytes:
    """The machine code for an architecture such as "sm_90" (`cuda_kernels.machine_code`)."""
    return machine_code(SOURCE, architecture, DEFINED, ROUNDED)
