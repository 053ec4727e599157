"""Benchmarks: the speed of our parts on this machine, compared with other programs for the same task."""

import argparse
from importlib import import_module


def run(o: argparse.Namespace) -> int:
    """Measure a part. With --json, every row of its tables is written to that file as soon as it is measured."""
    if o.json:
        from ifttn.bench.clock import PrintedTable  # imports torch, which the help does not need

        PrintedTable.kept = o.json
    return import_module(f"ifttn.bench.{o.part}").run(o)
