"""`ifttn export`: write a network to a file that does not need this package."""

import argparse

from ifttn.experiment.runs import Run
from ifttn.exporting import export


def run(o: argparse.Namespace) -> None:
    """Write the file, and print the difference between its scores and the network's."""
    difference = export(Run(o.run), o.out)
    print(f"{o.out}: its scores differ from the network's by at most {difference:.1e} of the largest")
