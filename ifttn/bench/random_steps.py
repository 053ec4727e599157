"""Training steps on random bytes on the device, compared with torchvision's network on as many images, and the largest
batch of the joint stage."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from tqdm import tqdm

from ifttn.bench.clock import Clock, PrintedTable, Spread
from ifttn.bench.memory import peak_bytes, reset_peak
from ifttn.bench.options import TRAINED_STAGES
from ifttn.experiment.cost import stage_cost
from ifttn.experiment.forward import Forward, compiled_forward
from ifttn.experiment.networks import network_settings
from ifttn.experiment.optimisation import clip, freeze_all_but, optimiser, stage_loss
from ifttn.experiment.presets import PRESETS, Preset
from ifttn.experiment.processes import Machine
from ifttn.experiment.recipes import JOINT, RECIPES
from ifttn.experiment.recomputing import recompute
from ifttn.memory import lacks_memory
from ifttn.model.network import Network
from ifttn.vocabulary import MODALITIES, IfttnError

_ACTIONS = 101


def random_step(
    recipe: str, number: int, preset: Preset, videos: int, machine: Machine, device: str, given: bool = False
) -> Callable[[], None]:
    """A step of stage `number` of a recipe on `videos` random videos, with a new network. With `given`, the pyramids of
    the streams are computed beforehand, and the step trains only the part after them."""
    stage = RECIPES[recipe].stages[number]
    network = Network(network_settings(RECIPES[recipe], preset, _ACTIONS)).to(device)
    freeze_all_but(network, stage.trains, preset.batch_norm_in(stage))
    if machine.recompute:
        recompute(network)
    forward = compiled_forward(Forward(network, preset.segments, machine.dtype(device)), machine)
    steps = optimiser(network, preset)
    for group in steps.param_groups:
        group["lr"] = 1e-6
    shape, size = (videos, preset.segments), (preset.size, preset.size)
    inputs: Any = {
        m: torch.randint(0, 256, (*shape, MODALITIES[m].channels, *size), dtype=torch.uint8, device=device)
        for m in RECIPES[recipe].modalities
    }
    labels = torch.zeros(videos, dtype=torch.long, device=device)
    if given:
        with torch.no_grad(), machine.autocast(device):
            inputs = network.pyramids(inputs)

    def step() -> None:
        with machine.autocast(device):
            output = forward(inputs, given)
        stage_loss(stage, output, labels, preset.joint_loss)[0].backward()
        clip(network, preset)
        steps.step()
        steps.zero_grad(set_to_none=True)

    return step


def peer_step(name: str, images: int, size: int, machine: Machine, device: str) -> Callable[[], None]:
    """A step of torchvision's network `name` on `images` images, in the same way as our steps: autocast, channels last,
    momentum, and compiled if `machine` says so. All of it is trained, with batch statistics."""
    network = models.get_model(name).to(device).to(memory_format=torch.channels_last)
    forward: Callable[..., Any] = compiled_forward(network, machine)
    steps = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9, fused=device.startswith("cuda"))
    inputs = torch.randn(images, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.zeros(images, dtype=torch.long, device=device)

    def step() -> None:
        with machine.autocast(device):
            logits = forward(inputs)
        functional.cross_entropy(logits.float(), labels).backward()
        steps.step()
        steps.zero_grad(set_to_none=True)

    return step


def peer_of(preset: Preset) -> str:
    """The preset's backbone if torchvision has it, otherwise torchvision's smallest ResNet."""
    return preset.backbone if preset.backbone in models.list_models(module=models) else "resnet18"


@dataclass(frozen=True)
class FromMemory:
    """The speed of a stage, or of torchvision's network, with batches that are already on the device."""

    name: str
    videos: int
    """Videos of one training step."""
    flops: float | None
    """Operations of one step, forward and backward. None if they are not counted."""
    seconds: Spread
    """Seconds of one step."""
    first: float
    """Seconds of the first step, in which code is compiled and kernels are chosen."""
    peak: float
    """Peak memory of the device in bytes, on a CPU of the process; NaN if the system does not measure it."""

    @property
    def rate(self) -> float | None:
        """FLOP/s. None if operations are not counted."""
        return self.flops and self.flops / self.seconds.median


ALONE = "ttn alone"
"""The stage of TTN on pyramids that are computed beforehand."""


def stages_from_memory(
    preset: Preset, machine: Machine, device: str, stages: Sequence[str], steps: int, repetitions: int
) -> Iterator[FromMemory]:
    """Measure torchvision's network on the images of one stream, then the stages. A stage is a name of TRAINED_STAGES,
    or ALONE."""
    videos, peer = preset.batch, peer_of(preset)
    speed = partial(_speed, device=device, steps=steps, repetitions=repetitions, videos=videos)
    make = partial(peer_step, peer, videos * preset.segments, preset.size, machine, device)
    yield speed(peer, _peer_flops(peer, preset.size) * videos * preset.segments, make)
    for name in stages:
        recipe, number = TRAINED_STAGES["ttn" if name == ALONE else name]
        stage = RECIPES[recipe].stages[number]
        cost = stage_cost(RECIPES[recipe], preset, stage, videos=1, actions=_ACTIONS, machine=machine)
        flops = None if name == ALONE else cost.flops * videos
        yield speed(name, flops, partial(random_step, recipe, number, preset, videos, machine, device, name == ALONE))


def _speed(
    name: str,
    flops: float | None,
    make: Callable[[], Callable[[], None]],
    *,
    device: str,
    steps: int,
    repetitions: int,
    videos: int,
) -> FromMemory:
    gc.collect()
    torch.cuda.empty_cache()
    clock, step = Clock(device, wall=True), make()
    reset_peak(device)
    first, _ = clock.seconds(step), clock.seconds(step)
    seconds = [clock.seconds(lambda: [step() for _ in range(steps)]) / steps for _ in range(repetitions)]
    return FromMemory(name, videos, flops, Spread.of(seconds), first, peak_bytes(device))


def _peer_flops(name: str, size: int) -> float:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        models.get_model(name)(torch.empty(1, 3, size, size)).sum().backward()
    return float(counter.get_total_flops())


def print_from_memory(measured: Iterator[FromMemory], product: float | None) -> None:
    """Print a row for each, then the joint stage and the sum of its parts. `product`: FLOP/s of a large product."""
    heads = ("ms/step", "      [quartiles]", "videos/s", "TFLOP/s", "share", "of peer", "first/s", "peak/GB")
    table, milliseconds, peer = PrintedTable("from memory", *heads, first=12), dict[str, float](), None
    for row in measured:
        low, median, high = (1000 * seconds for seconds in row.seconds[:3])
        milliseconds[row.name] = median
        peer = peer or row.rate  # the first row
        rate = row.rate
        table.row(
            row.name,
            f"{median:.1f}",
            f"[{low:.1f}, {high:.1f}]",
            f"{1000 * row.videos / median:.1f}",
            f"{rate / 1e12:.3f}" if rate else "",
            f"{rate / product:.1%}" if rate and product else "",
            f"{rate / peer:.2f}" if rate and peer else "",
            f"{row.first:.1f}",
            f"{row.peak / 1e9:.2f}",
        )
    print("of peer: FLOP/s divided by those of the first row, torchvision's network on the images of one stream.")
    parts = ("spatial", "temporal", ALONE)
    if {"joint", *parts} <= milliseconds.keys():
        whole, together = milliseconds["joint"], sum(milliseconds[part] for part in parts)
        print(f"joint: {whole:.1f} ms/step; {' + '.join(parts)}: {together:.1f} ms, {together / whole:.2f} of its rate")


def print_largest_batch(preset: str, device: str, machine: Machine) -> None:
    """Print the largest batch of the joint stage, without and with recomputed blocks, and its speed.

    Raises:
        IfttnError: the device is no GPU.
    """
    if not device.startswith("cuda"):
        raise IfttnError(f"--largest-batch fills the memory of a GPU, and {device} is no GPU: use --device cuda")
    table = PrintedTable("recompute", "videos", "videos/s", "peak/GB", "planned/GB", first=10)
    for recomputed in (False, True):
        own = replace(machine, recompute=recomputed)
        guess = planned_videos(preset, free_bytes(device), own)
        with tqdm(desc=f"recompute {recomputed}", unit="try", leave=False) as bar:
            most = most_that_fit(
                lambda videos, own=own: joint_speed(preset, device, videos, own) is not None, guess, bar
            )
        found = joint_speed(preset, device, most, own, timed=3) if most else None
        if found is None:
            print(f"{recomputed!s:10} none fits")
            continue
        speed, peak = found
        planned = planned_bytes(preset, most, own)
        table.row(str(recomputed), str(most), f"{speed:.1f}", f"{peak / 1e9:.2f}", f"{planned / 1e9:.2f}")


def planned_bytes(preset: str, videos: int, machine: Machine) -> float:
    """The expected memory of a joint step on `videos` videos at once, in bytes."""
    machine = replace(machine, micro_batch=videos)
    cost = stage_cost(RECIPES["if-ttn"], PRESETS[preset], JOINT, videos=videos, actions=_ACTIONS, machine=machine)
    return cost.memory


def planned_videos(preset: str, free: float, machine: Machine) -> int:
    """The number of videos whose planned memory fits into `free` bytes, at least one."""
    one, two = (planned_bytes(preset, videos, machine) for videos in (1, 2))
    return max(1, int(1 + (free - one) / (two - one)))


def most_that_fit(fits: Callable[[int], bool], guess: int, bar: tqdm) -> int:
    """The largest number that fits, or 0.

    The search moves away from the guess in doubling steps until one number fits and one does not, then bisects.
    """
    low, high, at, step = 0, None, guess, max(1, guess // 16)
    while high is None or high - low > 1:
        bar.set_postfix(videos=at, largest=low)
        if fits(at):
            low = at
        else:
            high = at
        between = (low + (high or 0)) // 2
        at = low + step if high is None else between if low else max(high - step, between)
        step *= 2
        bar.total = bar.n + 1 + (step if high is None else high - low).bit_length()
        bar.update()
    return low


def joint_speed(preset: str, device: str, videos: int, machine: Machine, timed: int = 0) -> tuple[float, float] | None:
    """Videos/s of joint steps on `videos` random videos, and peak memory in bytes. None if memory is too small.

    Two steps before the `timed` steps are not timed.
    """
    gc.collect()  # a recomputed network of an earlier try refers to itself
    torch.cuda.empty_cache()
    clock = Clock(device, wall=True)
    try:
        number = RECIPES["if-ttn"].stages.index(JOINT)
        step = random_step("if-ttn", number, PRESETS[preset], videos, machine, device)
        reset_peak(device)
        step()
        step()
        seconds = sum(clock.seconds(step) for _ in range(timed))
        return timed * videos / seconds if timed else 0.0, peak_bytes(device)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        return None


def free_bytes(device: str) -> float:
    """The free memory of a GPU in bytes."""
    return float(torch.cuda.mem_get_info(device)[0])
