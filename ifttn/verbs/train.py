"""`ifttn train`: train a recipe, after the recipes that it starts from."""

import argparse
import os
from dataclasses import replace

import torch

from ifttn.data.catalogue import read_split
from ifttn.experiment import cost, training
from ifttn.experiment.own import recipe_of
from ifttn.experiment.processes import deterministic, joined
from ifttn.experiment.pyramids import drop_pyramids
from ifttn.experiment.recipes import RECIPES, find, with_its_sources
from ifttn.verbs.inputs import machine_of, work_of


def run(o: argparse.Namespace) -> None:
    """Train in this process, or in the processes that torchrun started."""
    o.recipe = recipe_of(o.recipe)
    stages = {stage.name: stage for recipe in with_its_sources(o.recipe) for stage in RECIPES[recipe].stages}
    for stage, _ in o.epochs:
        find(stage, stages, "stage of --epochs")
    if o.dry_run:
        print_plan(o)
        return
    torch.backends.cudnn.benchmark = True
    if o.deterministic:
        deterministic()
    with joined(o.device) as (processes, device):
        work = replace(work_of(o), device=device, hold_out=o.hold_out, epochs=dict(o.epochs), processes=processes)
        for recipe in with_its_sources(o.recipe):
            run = training.train(work, recipe)
            if processes.leads:
                print(f"{recipe}: trained, in {run.folder}")
        if processes.leads:
            drop_pyramids(work.folder)


def print_plan(o: argparse.Namespace) -> None:
    """Print the cost of training for the videos of the data set, or of UCF101 if the folder does not exist."""
    videos, actions = 9537, 101
    if o.data.exists():
        split = read_split(o.data, o.split)
        videos, actions = len(split.train), len(split.actions)
    else:
        print(f"no data set in {o.data}: computed for UCF101, split 1")
    world = int(os.environ.get("WORLD_SIZE", 1))
    counts = {"videos": videos, "actions": actions, "world": world}
    print(cost.as_text(o.recipe, o.preset, **counts, machine=machine_of(o), epochs=dict(o.epochs)))
