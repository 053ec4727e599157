"""Class activation maps per second, compared with the package grad-cam, and DeepDraw steps per second.

    ifttn bench insight --device cuda --presets tiny small paper --repeat 5

The sides take turns, and the best repetition counts. A call of grad-cam gives one map of one head, without negative
values. A call of ours gives the signed maps of all heads.
"""

import argparse
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ifttn.bench.clock import Clock, PrintedTable, device_name
from ifttn.bench.options import DRAWN_BACKBONES
from ifttn.insight.cam import OneTensor, class_activation_maps, stack
from ifttn.insight.deepdraw import DrawingStep, draw_many
from ifttn.insight.drawing_settings import DRAWING_PRESETS
from ifttn.model.network import Network, NetworkSettings

SAME_PICTURE = 1.0
"""Two drawings count as the same picture if their mean difference is smaller than this (levels of 255)."""


def run(o: argparse.Namespace) -> int:
    """Print the rates of each preset."""
    clock = Clock(o.device)
    if not clock.on_gpu:
        torch.set_num_threads(1)
    threads = "" if clock.on_gpu else ", 1 thread"
    print(f"{device_name(o.device)}{threads}; torch {torch.__version__}; best of {o.repeat}; {clock.unit}")
    for preset in o.presets:
        network = network_of(preset, o.device)
        print(f"{preset}: {DRAWN_BACKBONES[preset]}, {DRAWING_PRESETS[preset].crop} px, pairs of RGB and flow")
        print_maps(network, preset, clock, o.repeat)
        print_steps(network, preset, o.batch, clock, o.repeat)
        print_limits(network, preset, clock, o.repeat)
        print_forms(preset, clock)
    return 0


def network_of(preset: str, device: str) -> Network:
    """The network of a drawing preset, with the same random weights in every call."""
    torch.manual_seed(0)
    return Network(NetworkSettings(actions=16, backbone=DRAWN_BACKBONES[preset])).to(device).eval()


def print_maps(network: Network, preset: str, clock: Clock, repeat: int) -> None:
    """Print rates for class activation maps of eight pairs: ours and, if it is installed, those of grad-cam."""
    size = DRAWING_PRESETS[preset].crop
    generator = torch.Generator().manual_seed(0)
    inputs = {m: torch.rand((8, 2, c, size, size), generator=generator) * 255 for m, c in (("rgb", 3), ("flow", 10))}
    inputs = {m: x.to(clock.device) for m, x in inputs.items()}
    actions = torch.zeros((8, 1), dtype=torch.long, device=clock.device)
    ours = partial(class_activation_maps, network, inputs, actions)
    sides = {
        "ours, signed, three heads": ours,
        "ours, 2x finer": partial(ours, finer=2),
        "ours, 4x finer": partial(ours, finer=4),
    }
    adapter, stacked = OneTensor(network, "ttn"), stack(network, inputs)
    package: Any = None
    if find_spec("pytorch_grad_cam"):
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets: list[Any] = [ClassifierOutputTarget(0)] * 8  # the package takes any callable, unlike its types
        package = partial(GradCAM(adapter, [adapter.probe]), stacked, targets)
        sides["grad-cam, one head"] = package
    seconds = clock.best(sides, repeat, warm_up=True)
    table = PrintedTable(f"maps, {preset}", "maps/s", "pairs/s", first=28)
    for name, own in seconds.items():
        maps = 8 if "one head" in name else 8 * 5  # of two snippets in two streams, and of the pair
        table.row(name, f"{maps / own:.1f}", f"{8 / own:.1f}")
    if package is None:
        print("grad-cam: not installed")
        return
    exact = ours()["ttn"][:, 0, 0].clamp_min(0)
    resized = torch.nn.functional.interpolate(exact[:, None], (size, size), mode="bilinear")[:, 0].cpu().numpy()
    resized -= resized.min((1, 2), keepdims=True)
    difference = np.abs(resized / (1e-7 + resized.max((1, 2), keepdims=True)) - package()).max()
    package.func.activations_and_grads.release()
    print(f"largest difference between the two maps (0..1): {difference:.1e}")


def print_steps(network: Network, preset: str, batches: list[int], clock: Clock, repeat: int) -> None:
    """Print the rates of drawing steps, for several drawings at once."""
    table = PrintedTable(f"DeepDraw, {preset}", "steps/s", "drawings x steps/s", first=28)
    for batch in batches:
        states = draw_many([network], [(a % 16, a) for a in range(batch)], DRAWING_PRESETS[preset])
        seconds = clock.best({"": lambda states=states: list(islice(states, 1))}, repeat, warm_up=True)[""]
        table.row(f"batch {batch}", f"{1 / seconds:.2f}", f"{batch / seconds:.1f}")


def print_limits(network: Network, preset: str, clock: Clock, repeat: int) -> None:
    """Print the share of the network's forward and backward pass in a drawing step."""
    size = DRAWING_PRESETS[preset].crop
    crops = {
        m: torch.rand((1, 2, c, size, size), device=clock.device).requires_grad_()
        for m, c in (("rgb", 3), ("flow", 10))
    }
    a, b = torch.rand((2, 2048, 2048), device=clock.device)

    def passes() -> object:
        return torch.autograd.grad(network(crops).logits["ttn"][:, 0].sum(), list(crops.values()))

    states = draw_many([network], [(0, 0)], DRAWING_PRESETS[preset])
    sides = {"step": lambda: list(islice(states, 1)), "passes": passes, "product": lambda: a @ b}
    seconds = clock.best(sides, max(3, repeat), warm_up=True)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(crops)
    # The backward pass computes no gradients of weights, so it costs as much as the forward pass.
    rate, product = 2 * counter.get_total_flops() / seconds["passes"], 2 * 2048**3 / seconds["product"]
    print(
        f"the network's two passes take {min(1.0, seconds['passes'] / seconds['step']):.0%} of a step, at "
        f"{rate / 1e9:.3g} GFLOP/s: {rate / product:.0%} of the rate of a large matrix product"
    )


def print_forms(preset: str, clock: Clock) -> None:
    """Compute the same drawing in other ways, and print their speed and the difference to the usual picture."""
    many = 40 if preset == "tiny" else 10
    usual: torch.Tensor | None = None
    table = PrintedTable(f"form, {preset}", "steps/s", "levels apart", "the picture", first=28, width=14)
    for name in ("channels_last", "contiguous", "bf16", *(["compile"] if clock.on_gpu else [])):
        network = network_of(preset, clock.device)
        if name == "contiguous":
            network.to(memory_format=torch.contiguous_format)
        elif name == "bf16":
            network.forward = torch.autocast(torch.device(clock.device).type, torch.bfloat16)(network.forward)
        elif name == "compile":
            network.compile()
        states = draw_many([network], [(0, 0)], DRAWING_PRESETS[preset])
        next(states)
        steps = list[tuple[DrawingStep, ...]]()
        seconds = clock.seconds(lambda states=states, steps=steps: steps.extend(islice(states, many - 1)))
        (drawn,) = steps[-1]
        assert drawn.rgb is not None
        verdict = "the usual one"
        if usual is None:
            usual = drawn.rgb
        else:
            verdict = "the same" if (drawn.rgb - usual).abs().mean() < SAME_PICTURE else "another"
        apart = (drawn.rgb - usual).abs().mean().item()
        table.row(name, f"{(many - 1) / seconds:.2f}", f"{apart:.2f}", verdict)
    print(f"levels apart: on average, of 255, after {many} steps")
