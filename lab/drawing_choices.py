"""What can be chosen in the DeepDraw studio, and the settings of the drawing that follow."""

from dataclasses import replace

from traitlets import Enum, HasTraits, Int, Unicode

from ifttn.insight.drawing_settings import DRAWING_PRESETS, Settings

LENGTHS = {"¼": 0.25, "½": 0.5, "of the recipe": 1.0, "twice": 2.0, "four times": 4.0}
"""Steps of a drawing, in parts of those of its recipe."""
SEEDS = {"1": 1, "best of 3": 3, "best of 6": 6}
"""Drawings from consecutive seeds, of which the best is shown."""


class StudioState(HasTraits):
    """All that a person chooses."""

    dataset = Unicode()
    split = Int(1)
    run = Unicode()
    action = Unicode()
    head = Unicode()
    settings = Unicode(help="a name of DRAWING_PRESETS")
    seed = Int(0)
    seeds = Enum(tuple(SEEDS.values()), 1)
    length = Enum(tuple(LENGTHS.values()), 1.0)

    def drawing_settings(self) -> Settings:
        """The chosen preset with the chosen length."""
        plain = DRAWING_PRESETS[self.settings]
        octaves = tuple(replace(octave, steps=max(1, round(octave.steps * self.length))) for octave in plain.octaves)
        return replace(plain, octaves=octaves)

    @property
    def in_words(self) -> str:
        """The length, where it is not that of the recipe."""
        return (
            "" if self.length == 1 else f"steps {next(text for text, each in LENGTHS.items() if each == self.length)}"
        )
