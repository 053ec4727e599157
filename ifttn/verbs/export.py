"""`ifttn export`: a network as a file that needs none of this package."""

import argparse

from ifttn.experiment.runs import Run
from ifttn.exporting import export


def run(o: argparse.Namespace) -> None:
    """Write the file, and print how far its scores are from the network's."""
    difference = export(Run(o.run), o.out)
    print(f"{o.out}: its scores are the network's to within {difference:.1e} of the largest")
