"""The inputs that several verbs share: the store, the split with its runs, and the settings of the machine."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from ifttn.data.catalogue import Contents, read_split
from ifttn.data.store import Store
from ifttn.experiment import study
from ifttn.experiment.processes import Machine
from ifttn.experiment.results import refuse_published
from ifttn.experiment.work import Work, without_failed
from ifttn.vocabulary import Split


def store_of(o: argparse.Namespace) -> Path:
    """The store in the options, or the default store of the study."""
    return o.store or study.Places(Path("results")).store(o.data.resolve().name, o.preset)


def work_of(o: argparse.Namespace) -> Work:
    """The split, the store and the runs in the options."""
    refuse_published(o.runs.parent)
    split = read_split(o.data, o.split)
    store = Store(store_of(o))
    split = without_failed(split, store)
    print_left_out(split)
    return Work(split, store, o.runs, o.preset, o.seed, o.device, machine=machine_of(o))


def machine_of(o: argparse.Namespace) -> Machine:
    """The settings of this machine for training and testing, from the options of the verb."""
    return Machine(**{field.name: getattr(o, field.name) for field in fields(Machine) if field.name in o})


def print_left_out(data: Contents | Split) -> None:
    """Print to stderr which listed videos are missing, and what is not used and why."""
    print_names("listed, but not in the folder", data.missing)
    print_names("not used", data.notes)


def print_names(what: str, names: Sequence[str], most: int = 20) -> None:
    """Print to stderr a line for each of the first `most` names, and a line with the number of the others."""
    for name in names[:most]:
        print(f"{what}: {name}", file=sys.stderr)
    if len(names) > most:
        print(f"{what}: {len(names) - most} more", file=sys.stderr)
