"""What can be chosen in the DeepDraw studio, and the settings of the drawing that follow."""

from collections.abc import Sequence
from dataclasses import replace

from traitlets import Enum, HasTraits, Int, Unicode

from ifttn.insight.drawing_settings import DRAWING_PRESETS, Octave, Settings
from ifttn.vocabulary import IfttnError

WAVE_RATE = 0.05
"""Adam's learning rate for amplitudes of waves, as in the published lucid and lucent."""

OPTIONS: dict[str, tuple[str, tuple[tuple[str, object], ...]]] = {
    "objective": (
        "ascend",
        (
            ("as the recipe", "recipe"),
            ("the logit alone", "logit"),
            ("the logit less all others", "contrast"),
            ("log-probability", "log-probability"),
        ),
    ),
    "canvas": ("draw", (("pixels", "pixels"), ("waves (Fourier)", "waves"))),
    "colours": ("colours", (("any", "any"), ("as in real frames, decorrelated", "real"))),
    "start": ("begin with", (("noise", "noise"), ("the same noise twice", "shared"), ("a real frame, twice", "frame"))),
    "motion": ("motion", (("drawn", "drawn"), ("still", "still"), ("of a real video", "real"))),
    "shake": ("jitter", (("of the recipe", "recipe"), ("none", "none"), ("slight", "slight"), ("strong", "strong"))),
    "smooth": ("total variation, space", (("0", 0.0), ("0.1", 0.1), ("0.3", 0.3), ("1", 1.0), ("3", 3.0))),
    "calm": ("in time", (("0", 0.0), ("0.1", 0.1), ("0.3", 0.3), ("1", 1.0), ("3", 3.0))),
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
    objective, canvas, colours, start, motion = map(_choice, ("objective", "canvas", "colours", "start", "motion"))
    shake, smooth, calm, length = _choice("shake"), _choice("smooth"), _choice("calm"), _choice("length", 1.0)

    def drawing_settings(self) -> Settings:
        """The chosen preset with the chosen options."""
        plain = DRAWING_PRESETS[self.settings]
        octaves = tuple(replace(octave, steps=max(1, round(octave.steps * self.length))) for octave in plain.octaves)
        if self.canvas == "waves":  # one canvas, no blur, and Adam's own learning rate
            octaves = (Octave(sum(o.steps for o in octaves), octaves[0].canvas, (0.0, 0.0), (WAVE_RATE, WAVE_RATE)),)
        share = {"recipe": plain.shift / plain.crop, "none": 0.0, "slight": 1 / 16, "strong": 1 / 8}[self.shake]
        zoom, turn = (plain.zoom, plain.turn) if self.shake == "recipe" else (2.4 * share, 160 * share)
        return replace(
            plain,
            octaves=octaves,
            objective=plain.objective if self.objective == "recipe" else self.objective,
            waves=self.canvas == "waves",
            shared_start=self.start == "shared",
            shift=share * plain.crop,
            zoom=zoom,
            turn=turn,
            smooth=self.smooth,
            smooth_in_time=self.calm,
        )

    def in_words(self) -> str:
        """The options that differ from their defaults."""
        words = []
        for name, (label, choices) in OPTIONS.items():
            value = getattr(self, name)
            if value != self.trait_defaults(name):
                words.append(f"{label} {next(text for text, other in choices if other == value)}")
        return ", ".join(words)


def check_options(chosen: StudioState, seen: Sequence[str]) -> None:
    """Refuse options that the modalities seen by the head, or other options, rule out.

    Raises:
        IfttnError: there is such an option.
    """
    alone = f"the head {chosen.head} sees {'frames' if seen[0] == 'rgb' else 'motion'} alone"
    if chosen.motion != "drawn" and len(seen) < 2:
        raise IfttnError(f"{alone}: leave the motion drawn, or choose another head")
    if chosen.start == "frame" and "rgb" not in seen:
        raise IfttnError(f"{alone}: begin with noise, or choose another head")
    if chosen.start == "frame" and chosen.canvas == "waves":
        raise IfttnError("waves begin with noise: draw pixels to begin with a real frame")
