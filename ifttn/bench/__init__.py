"""Measurements of our own parts beside the programs that others use for the same, on the machine of whoever asks."""

import argparse
from importlib import import_module


def run(o: argparse.Namespace) -> int:
    """Measure a part. With --json, every row of its tables is in that file as soon as it is measured."""
    if o.json:
        from ifttn.bench.clock import PrintedTable  # it imports torch, for which help does not wait

        PrintedTable.kept = o.json
    return import_module(f"ifttn.bench.{o.part}").run(o)
