"""What the options of all verbs share: how a mistake is answered, and what a value may be.

It imports nothing heavy, so that a mistyped option is answered at once.
"""

import argparse
from collections.abc import Collection
from importlib import import_module
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """It answers a mistake with one line that says where help is, in place of all options."""

    def error(self, message: str) -> NoReturn:
        """Print the line to stderr and end with exit code 2."""
        self.exit(2, f"{self.prog}: {message} (`{self.prog} --help` explains the options)\n")


class OneOf:
    """An option's type: a name of a table. The module of the table is imported once a name is checked or help is shown.

    Args:
        table: "<module>.<name>".
    """

    def __init__(self, table: str) -> None:
        self.module, _, self.name = table.rpartition(".")

    @property
    def names(self) -> Collection[str]:
        """All that may be chosen."""
        return getattr(import_module(self.module), self.name)

    def __call__(self, text: str) -> str:
        """The name itself."""
        if text not in self.names:
            raise argparse.ArgumentTypeError(f"unknown name {text!r}: choose from {self}")
        return text

    def __str__(self) -> str:
        return ", ".join(self.names)


PRESET = OneOf("ifttn.experiment.recipes.PRESETS")
RECIPE = OneOf("ifttn.experiment.recipes.RECIPES")
FLOW = OneOf("ifttn.data.flow.FLOWS")
