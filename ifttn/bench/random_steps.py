"""Training steps on random bytes that are on the device already, and the largest batch of the joint stage."""

import gc
from collections.abc import Callable
from dataclasses import replace

import torch
from tqdm import tqdm

from ifttn.bench.clock import Clock, PrintedTable
from ifttn.bench.memory import peak_bytes, reset_peak
from ifttn.experiment.cost import stage_cost
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
    recipe: str, number: int, preset: Preset, videos: int, machine: Machine, device: str
) -> Callable[[], None]:
    """A step of stage `number` of a recipe on so many random videos, with a new network."""
    stage = RECIPES[recipe].stages[number]
    network = Network(network_settings(RECIPES[recipe], preset, _ACTIONS)).to(device)
    freeze_all_but(network, stage.trains, preset.batch_norm_in(stage))
    if machine.recompute:
        recompute(network)
    steps = optimiser(network, preset)
    for group in steps.param_groups:
        group["lr"] = 1e-6
    shape, size = (videos, preset.segments), (preset.size, preset.size)
    inputs = {
        m: torch.randint(0, 256, (*shape, MODALITIES[m].channels, *size), dtype=torch.uint8, device=device)
        for m in RECIPES[recipe].modalities
    }
    labels = torch.zeros(videos, dtype=torch.long, device=device)

    def step() -> None:
        with machine.autocast(device):
            output = network(inputs)
        stage_loss(stage, output, labels)[0].backward()
        clip(network, preset)
        steps.step()
        steps.zero_grad(set_to_none=True)

    return step


def print_largest_batch(preset: str, device: str, machine: Machine) -> None:
    """Print the most videos at once of the joint stage, without and with recomputed blocks, and their speed.

    Raises:
        IfttnError: the device is no GPU.
    """
    if not device.startswith("cuda"):
        raise IfttnError(f"--largest-batch fills the memory of a GPU, and {device} is none: take --device cuda")
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
    """The memory that a joint step on so many videos at once is expected to need."""
    machine = replace(machine, micro_batch=videos)
    cost = stage_cost(RECIPES["if-ttn"], PRESETS[preset], JOINT, videos=videos, actions=_ACTIONS, machine=machine)
    return cost.memory


def planned_videos(preset: str, free: float, machine: Machine) -> int:
    """The number of videos whose planned memory fits into so many bytes; at least one."""
    one, two = (planned_bytes(preset, videos, machine) for videos in (1, 2))
    return max(1, int(1 + (free - one) / (two - one)))


def most_that_fit(fits: Callable[[int], bool], guess: int, bar: tqdm) -> int:
    """The largest number that fits, 0 if none does.

    Steps away from the guess double until one number fits and one does not; then the interval is halved.
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
    """Videos/s of joint steps on so many random videos, and peak bytes; None where memory does not suffice.

    Two steps come first that are not timed.
    """
    gc.collect()  # a recomputed network of an earlier try holds itself
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
    """The memory of a GPU that nobody uses."""
    return float(torch.cuda.mem_get_info(device)[0])
