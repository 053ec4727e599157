"""What the options of several verbs name: the store, the split with its runs, and how the machine trains."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from ifttn.data.catalogue import Contents, read_split
from ifttn.data.store import Store
from ifttn.experiment import study
from ifttn.experiment.processes import Machine
from ifttn.experiment.work import Work, without_failed
from ifttn.vocabulary import Split


def store_of(o: argparse.Namespace) -> Path:
    """The store that is named, or where a study has it."""
    return o.store or study.Places(Path("results")).store(o.data.resolve().name, o.preset)


def work_of(o: argparse.Namespace) -> Work:
    """The split, the store and the runs that the options name."""
    split = read_split(o.data, o.split)
    store = Store(store_of(o))
    split = without_failed(split, store)
    print_left_out(split)
    return Work(split, store, o.runs, o.preset, o.seed, o.device, machine=machine_of(o))


def machine_of(o: argparse.Namespace) -> Machine:
    """How this machine trains and tests, as far as the verb has options for it."""
    return Machine(**{field.name: getattr(o, field.name) for field in fields(Machine) if field.name in o})


def print_left_out(data: Contents | Split) -> None:
    """Print to stderr which listed videos are absent, and what was left out and why."""
    print_names("listed, and not in the folder", data.missing)
    print_names("left out", data.notes)


def print_names(what: str, names: Sequence[str], most: int = 20) -> None:
    """Print to stderr a line for each name, and one for the number of those beyond `most`."""
    for name in names[:most]:
        print(f"{what}: {name}", file=sys.stderr)
    if len(names) > most:
        print(f"{what}: {len(names) - most} more", file=sys.stderr)
