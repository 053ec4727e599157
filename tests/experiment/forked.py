"""Trainings in processes that are killed, or that train together: forked.py WHAT DATA STORE FOLDER [KILLS DEVICE].

A process of its own, so that it may fork: every training then starts with all that is imported. Prints JSON.
"""

import json
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ifttn import files
from ifttn.data.catalogue import read_split
from ifttn.data.store import Store
from ifttn.experiment import runs, training
from ifttn.experiment.presets import PRESETS, Schedule
from ifttn.experiment.processes import Machine, deterministic, joined
from ifttn.experiment.work import Work
from ifttn.vocabulary import IfttnError

RECIPES = ("spatial", "temporal", "if-ttn")


def forked(function: Callable[[], object]) -> int:
    """The number of a new process that runs a function. Exit code 1: IfttnError, its line on stderr."""
    pid = os.fork()
    if pid:
        return pid
    try:
        function()
    except IfttnError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(2)
    os._exit(0)


def end(pid: int) -> int:
    """The exit code of a process; below 0 where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_oneself(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(moment: str, countdown: int) -> None:
    """Let this process kill itself at the n-th step, in the middle of writing a file, or after it was written."""
    counted = iter(range(countdown))

    def after(function):
        def wrapped(*arguments):
            result = function(*arguments)
            if next(counted, None) is None:
                kill_oneself()
            return result

        return wrapped

    def torn(path: Path, content) -> None:
        if next(counted, None) is None:
            files.partial_beside(path).write_bytes(bytes(content)[: len(content) // 2])
            kill_oneself()
        whole(path, content)

    whole = files.write_whole
    if moment == "step":
        training.Training.step = after(training.Training.step)
    elif moment == "torn":
        runs.write_whole = training.write_whole = torn
    else:
        runs.write_whole = training.write_whole = after(whole)


def weights(folder: Path, work: Work) -> dict[str, bytes]:
    work = replace(work, runs=folder)
    return {name: (work.run(name).folder / "weights.safetensors").read_bytes() for name in RECIPES}


def faults(work: Work, folder: Path, kills: int) -> dict[str, object]:
    """Kill trainings at random moments, start them again, and compare what they end with."""
    draw = random.Random(0)
    for name in RECIPES:
        assert end(forked(lambda name=name: training.train(replace(work, runs=folder / "calm"), name))) == 0
    killed: list[tuple[str, str]] = []
    same: list[bool] = []
    while len(killed) < kills:
        own = folder / f"killed{len(same)}"
        for name in RECIPES:
            while not finished(work, own, name):
                moment, countdown = draw.choice(["step", "step", "torn", "written"]), draw.randrange(1, 9)

                def train(name=name, moment=moment, countdown=countdown, own=own) -> None:
                    deadly(moment, countdown)
                    training.train(replace(work, runs=own), name)

                if (code := end(forked(train))) == -signal.SIGKILL:
                    state = replace(work, runs=own).run(name).checkpoint() if (own).exists() else None
                    killed.append((name, "none" if state is None else f"stage {state['stage']}"))
                else:
                    assert code == 0, code
        same.append(weights(own, work) == weights(folder / "calm", work))
    return {"killed": len(killed), "where": sorted(set(killed)), "same": same}


def finished(work: Work, folder: Path, name: str) -> bool:
    return replace(work, runs=folder).run(name).finished


def together(work: Work, name: str, world: int, deaths: dict[int, int]) -> list[int]:
    """Exit codes of `world` processes that train a recipe together; some die at a step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        if rank in deaths:
            deadly("step", deaths[rank])
        with joined("cpu") as (processes, device):
            training.train(replace(work, processes=processes, device=device), name)

    return [end(pid) for pid in [forked(lambda rank=rank: one(rank)) for rank in range(world)]]


def losses(work: Work, name: str) -> list[float]:
    return work.run(name).metrics().loss.tolist()


def processes(work: Work, folder: Path, _: int) -> dict[str, object]:
    """One process, one with micro-batches, two, and two of which one is lost; then both again."""
    found: dict[str, object] = {}
    for name in ("spatial", "temporal", "if-ttn"):
        for runs_, world, machine in (
            ("one", 1, work.machine),
            ("micro", 1, replace(work.machine, micro_batch=2)),
            ("two", 2, work.machine),
        ):
            if name == "spatial" or runs_ == "two":
                own = replace(work, runs=folder / runs_, machine=machine)
                codes = (
                    together(own, name, world, {})
                    if world > 1
                    else [end(forked(lambda w=own, n=name: training.train(w, n)))]
                )
                assert codes == [0] * world, (name, runs_, codes)
                found[f"{name} {runs_}"] = losses(own, name)
    lost = replace(work, runs=folder / "lost")
    found["codes"] = together(lost, "spatial", 2, {1: 5})
    found["checkpoint"] = lost.run("spatial").checkpoint() is not None
    found["again"] = together(lost, "spatial", 2, {})
    ends = [replace(work, runs=folder / each).run("spatial").folder / "weights.safetensors" for each in ("two", "lost")]
    found["same"] = ends[0].read_bytes() == ends[1].read_bytes()
    fewer = replace(work, runs=folder / "fewer")
    together(fewer, "spatial", 2, {0: 5, 1: 5})
    assert end(forked(lambda: training.train(fewer, "spatial"))) == 0  # goes on alone
    found["fewer"] = losses(fewer, "spatial")
    return found


def main(what: str, data: str, store: str, folder: str, kills: str = "0", device: str = "cpu") -> None:
    torch.set_num_threads(1)
    if device != "cpu":
        deterministic()
    smallest = PRESETS["smallest"]
    PRESETS["smallest"] = replace(  # type: ignore[index]
        smallest,
        # Adam would hide a gradient that is out by a factor, and so would clipping.
        optimiser="adamw" if what == "faults" else "sgd",
        clip=smallest.clip if what == "faults" else dict.fromkeys(smallest.clip, 1e9),
        schedules={name: Schedule(3, 2e-3 if what == "faults" else 0.1, None) for name in smallest.schedules},
        batch=5,  # of 16 videos: the last step of an epoch has one, and a second process none
        dropout=dict.fromkeys(smallest.dropout, 0.2 if what == "faults" else 0.0),
        batch_norm="trained" if what == "faults" else "frozen",
    )
    work = Work(
        read_split(Path(data), 1),
        Store(Path(store)),
        Path(folder),
        "smallest",
        0,
        device,
        progress=False,
        machine=Machine(checkpoint_steps=3 if what == "faults" else 2),
    )
    print(json.dumps({"faults": faults, "processes": processes}[what](work, Path(folder), int(kills))))


if __name__ == "__main__":
    main(*sys.argv[1:])
