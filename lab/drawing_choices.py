"""What can be chosen in the DeepDraw studio, and the settings of the drawing that follow."""

from dataclasses import replace

from traitlets import Enum, HasTraits, Int, Unicode

from ifttn.insight.drawing_settings import DRAWING_PRESETS, Settings

OPTIONS: dict[str, tuple[str, tuple[tuple[str, object], ...]]] = {
    "length": ("steps", (("¼", 0.25), ("½", 0.5), ("of the recipe", 1.0), ("twice", 2.0), ("four times", 4.0))),
}
"""Trait of `StudioState` -> its label and its choices."""


def _choice(name: str, default: object = None) -> Enum:
    values = [value for _, value in OPTIONS[name][1]]
    return Enum(values, values[0] if default is None else default)


class StudioState(HasTraits):
    """All that a person chooses."""

    dataset = Unicode()
    split = Int(1)
    run = Unicode()
    action = Unicode()
    head = Unicode()
    settings = Unicode(help="a name of DRAWING_PRESETS")
    seed = Int(0)
    length = _choice("length", 1.0)

    def drawing_settings(self) -> Settings:
        """The chosen preset with the chosen length."""
        plain = DRAWING_PRESETS[self.settings]
        octaves = tuple(replace(octave, steps=max(1, round(octave.steps * self.length))) for octave in plain.octaves)
        return replace(plain, octaves=octaves)

    def in_words(self) -> str:
        """The options that differ from their defaults."""
        words = []
        for name, (label, choices) in OPTIONS.items():
            value = getattr(self, name)
            if value != self.trait_defaults(name):
                words.append(f"{label} {next(text for text, other in choices if other == value)}")
        return ", ".join(words)
