"""`ifttn tables`: print the paper's claims and tables, with measured values and the paper's values."""

import argparse
import sys

from ifttn.experiment import results
from ifttn.experiment.claims import claims_text
from ifttn.experiment.recipes import find
from ifttn.experiment.table_texts import table_text
from ifttn.files import write_whole
from ifttn.vocabulary import IfttnError

ORDER = "order"
"""The name of the reversal table, in place of a number."""


def run(o: argparse.Namespace) -> None:
    """Print the chosen tables, and the claims that they decide."""
    results.refuse_published(o.runs.parent)
    for name in o.on:
        find(name, results.tested(o.runs), "data set with tested runs")
    if ORDER in o.numbers:
        print_reversals(o)
        return
    found = results.Results(o.runs, o.data, o.seeds, o.on)
    tables = found.tables()
    unknown = set(o.numbers) - {table.number for table in tables}
    if unknown:
        raise IfttnError(f"the paper has no Table {min(unknown)}: choose from 1 to {len(tables)}")
    chosen = [table for table in tables if (table.number in o.numbers if o.numbers else table.measured)]
    not_shown = results.not_shown(o.runs, tables)
    if not chosen:
        raise IfttnError(not_shown)
    numbers = {table.number for table in chosen}
    decided = [finding for finding in found.findings() if finding.table in numbers]
    print("\n\n".join([claims_text(decided), *(table_text(table) for table in chosen)]))
    if not_shown:
        print(f"ifttn: {not_shown}", file=sys.stderr)
    if o.csv:
        import pandas as pd  # only here and in `print_reversals`: it would take half of the time

        from ifttn.experiment.table_frames import to_frame

        frames = [to_frame(table).assign(table=table.number) for table in chosen]
        write_whole(o.csv, pd.concat(frames).to_csv(index=False).encode())


def print_reversals(o: argparse.Namespace) -> None:
    """Print the predictions of networks for actions that are played backwards."""
    from ifttn.experiment.reversal_frames import reversal_table, reversal_text

    frame = reversal_table(results.Results(o.runs, o.data, on=o.on))
    if frame.empty:
        raise IfttnError(
            "no action of the tested data sets has a known reverse, or if-ttn, spatial and temporal are not tested: "
            "docs/data.md explains how to list pairs in reversals.toml"
        )
    print(reversal_text(frame))
    if o.csv:
        write_whole(o.csv, frame.to_csv(index=False).encode())
