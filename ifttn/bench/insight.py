"""CAM maps a second beside the package grad-cam used plainly, and DeepDraw steps a second by preset and batch.

    ifttn bench insight --device cuda --presets tiny small paper --repeat 5

On a CPU the clock is the process's own time, so that a busy machine does not tell; the two sides take turns, the best
of the repetitions counts. grad-cam gives one map a call and head, cut at 0; ours all heads at once, signed.
"""

import argparse
import platform
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch.utils.flop_counter import FlopCounterMode

from ifttn.bench.options import DRAWN_BACKBONES
from ifttn.insight.cam import OneTensor, class_activation_maps, stack
from ifttn.insight.deepdraw import draw_many
from ifttn.insight.drawing_settings import DRAWING_PRESETS
from ifttn.model.network import Network, NetworkSettings

TOLERANCE = 1.0
"""A way to compute a drawing is as good as another where they are less apart, in the mean (levels of 255)."""


def clock(device: str) -> float:
    """Seconds: of this process on a CPU, of the clock on a GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def best(sides: dict[str, Callable[[], object]], repeat: int, device: str) -> dict[str, float]:
    """Least seconds of each side, the sides taking turns; the first turn does not count."""
    seconds = {name: np.inf for name in sides}
    for turn in range(repeat + 1):
        for name, side in sides.items():
            start = clock(device)
            side()
            if turn:
                seconds[name] = min(seconds[name], clock(device) - start)
    return seconds


def maps(network: Network, size: int, o: argparse.Namespace) -> None:
    """Class activation maps of eight pairs, ours and the package's, and how far the two are apart."""
    generator = torch.Generator().manual_seed(0)
    inputs = {m: torch.rand((8, 2, c, size, size), generator=generator) * 255 for m, c in (("rgb", 3), ("flow", 10))}
    inputs = {m: x.to(o.device) for m, x in inputs.items()}
    actions = torch.zeros((8, 1), dtype=torch.long, device=o.device)
    adapter, stacked = OneTensor(network, "ttn"), stack(network, inputs)
    package = GradCAM(adapter, [adapter.probe])
    targets: list[Any] = [ClassifierOutputTarget(0)] * 8  # the package asks for modules, and takes any callable
    sides = {
        "ours, signed, three heads": lambda: class_activation_maps(network, inputs, actions),
        "ours, 2x finer": lambda: class_activation_maps(network, inputs, actions, finer=2),
        "ours, 4x finer": lambda: class_activation_maps(network, inputs, actions, finer=4),
        "grad-cam, one head": lambda: package(stacked, targets),
    }
    seconds = best(sides, o.repeat, o.device)
    exact = class_activation_maps(network, inputs, actions)["ttn"][:, 0, 0].clamp_min(0)
    resized = torch.nn.functional.interpolate(exact[:, None], (size, size), mode="bilinear")[:, 0].cpu().numpy()
    resized -= resized.min((1, 2), keepdims=True)
    difference = np.abs(resized / (1e-7 + resized.max((1, 2), keepdims=True)) - package(stacked, targets)).max()
    package.activations_and_grads.release()
    counts = {name: 8 * (1 if "one head" in name else 5) for name in sides}
    for name, each in seconds.items():
        print(f"  {name:28} {counts[name] / each:9.1f} maps/s   {8 / each:8.1f} pairs/s")
    print(f"  largest difference of the two pictures (0..1): {difference:.1e}")


def steps(network: Network, preset: str, o: argparse.Namespace) -> None:
    """Steps of drawings that are made at once."""
    for batch in o.batch:
        states = draw_many([network], [(a % 16, a) for a in range(batch)], DRAWING_PRESETS[preset])
        seconds = best({"": lambda states=states: list(islice(states, 1))}, o.repeat, o.device)[""]
        print(
            f"  DeepDraw, batch {batch:3}            {1 / seconds:9.2f} steps/s "
            f"  {batch / seconds:8.1f} drawings x steps/s"
        )


def limits(network: Network, preset: str, o: argparse.Namespace) -> None:
    """What a step of one drawing waits for: the network's two passes, or all that is done around them."""
    size = DRAWING_PRESETS[preset].crop
    crops = {
        m: torch.rand((1, 2, c, size, size), device=o.device).requires_grad_() for m, c in (("rgb", 3), ("flow", 10))
    }
    a, b = torch.rand((2, 2048, 2048), device=o.device)

    def passes() -> object:
        return torch.autograd.grad(network(crops).logits["ttn"][:, 0].sum(), list(crops.values()))

    states = draw_many([network], [(0, 0)], DRAWING_PRESETS[preset])
    sides = {"step": lambda: list(islice(states, 1)), "passes": passes, "product": lambda: a @ b}
    seconds = best(sides, max(3, o.repeat), o.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(crops)
    # Without gradients of weights, the pass back costs as much as the pass forth.
    rate, peak = 2 * counter.get_total_flops() / seconds["passes"], 2 * 2048**3 / seconds["product"]
    print(
        f"  a step is {min(1.0, seconds['passes'] / seconds['step']):.0%} the network's two passes, at "
        f"{rate / 1e9:.3g} GFLOP/s: {rate / peak:.0%} of a large matrix product's rate"
    )


def forms(preset: str, o: argparse.Namespace) -> None:
    """The same drawing computed in other ways: how fast, and how far the picture is from the usual one."""
    settings, usual = DRAWING_PRESETS[preset], torch.zeros(())
    many = 40 if preset == "tiny" else 10
    for name in ("channels_last", "contiguous", "bf16", *(["compile"] if o.device.startswith("cuda") else [])):
        torch.manual_seed(0)
        network = Network(NetworkSettings(actions=16, backbone=DRAWN_BACKBONES[preset])).to(o.device).eval()
        if name == "contiguous":
            network.to(memory_format=torch.contiguous_format)
        elif name == "bf16":
            network.forward = torch.autocast(torch.device(o.device).type, torch.bfloat16)(network.forward)
        elif name == "compile":
            network.compile()
        states = draw_many([network], [(0, 0)], settings)
        next(states)
        start = clock(o.device)
        *_, (drawn,) = islice(states, many - 1)
        rate = (many - 1) / (clock(o.device) - start)
        assert drawn.rgb is not None
        usual = drawn.rgb if name == "channels_last" else usual
        change = (drawn.rgb - usual).abs().mean().item()
        verdict = (
            "as it is used" if name == "channels_last" else "the same" if change < TOLERANCE else "another picture"
        )
        print(f"  {name:14} {rate:9.2f} steps/s   {change:6.2f} levels apart after {many} steps: {verdict}")


def run(o: argparse.Namespace) -> int:
    """Print the rates of each preset."""
    gpu = o.device.startswith("cuda")
    if not gpu:
        torch.set_num_threads(1)
    name = (
        torch.cuda.get_device_name(o.device) if gpu else f"{platform.processor() or platform.machine()} CPU, 1 thread"
    )
    print(f"{name}; torch {torch.__version__}; best of {o.repeat}")
    for preset in o.presets:
        torch.manual_seed(0)
        network = Network(NetworkSettings(actions=16, backbone=DRAWN_BACKBONES[preset])).to(o.device).eval()
        size = DRAWING_PRESETS[preset].crop
        print(f"{preset}: {DRAWN_BACKBONES[preset]}, {size} px, pairs of RGB and flow")
        maps(network, size, o)
        steps(network, preset, o)
        limits(network, preset, o)
        forms(preset, o)
    return 0
