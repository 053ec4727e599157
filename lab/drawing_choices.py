"""What can be chosen in the DeepDraw studio, and how it is drawn then."""

from collections.abc import Sequence
from dataclasses import replace

from traitlets import Enum, HasTraits, Int, Unicode

from ifttn.insight import deepdraw
from ifttn.insight.deepdraw import Octave, Settings
from ifttn.vocabulary import IfttnError

WAVE_RATE = 0.05
"""Of Adam, where amplitudes of waves are drawn; of the published lucid and lucent."""

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
"""Trait of `StudioState` -> its name and what can be chosen."""


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
    settings = Unicode(help="a name of ifttn.insight.deepdraw.PRESETS")
    seed = Int(0)
    objective, canvas, colours, start, motion = map(_choice, ("objective", "canvas", "colours", "start", "motion"))
    shake, smooth, calm, length = _choice("shake"), _choice("smooth"), _choice("calm"), _choice("length", 1.0)

    def asked(self) -> Settings:
        """How it is to be drawn."""
        plain = deepdraw.PRESETS[self.settings]
        octaves = tuple(replace(octave, steps=max(1, round(octave.steps * self.length))) for octave in plain.octaves)
        if self.canvas == "waves":  # on one canvas, by Adam: no blur, and its own rate
            octaves = (Octave(sum(o.steps for o in octaves), octaves[0].canvas, (0.0, 0.0), (WAVE_RATE, WAVE_RATE)),)
        shaken = {"recipe": plain.shift / plain.crop, "none": 0.0, "slight": 1 / 16, "strong": 1 / 8}[self.shake]
        zoom, turn = (plain.zoom, plain.turn) if self.shake == "recipe" else (2.4 * shaken, 160 * shaken)
        return replace(
            plain,
            octaves=octaves,
            objective=plain.objective if self.objective == "recipe" else self.objective,
            waves=self.canvas == "waves",
            shared_start=self.start == "shared",
            shift=shaken * plain.crop,
            zoom=zoom,
            turn=turn,
            smooth=self.smooth,
            smooth_in_time=self.calm,
        )

    def in_words(self) -> str:
        """What was chosen beside the recipe."""
        usual = StudioState.class_traits()
        chosen = {name: getattr(self, name) for name in OPTIONS}
        called = {name: {value: text for text, value in what} for name, (_, what) in OPTIONS.items()}
        return ", ".join(f"{OPTIONS[n][0]} {called[n][v]}" for n, v in chosen.items() if v != usual[n].default_value)


def refuse(chosen: StudioState, seen: Sequence[str]) -> None:
    """Raises:
    IfttnError: an option asks for what the head does not see, or for what another option excludes.
    """
    alone = "frames" if seen[0] == "rgb" else "motion"
    if chosen.motion != "drawn" and len(seen) < 2:
        raise IfttnError(f"the head {chosen.head} sees {alone} alone: leave the motion drawn, or choose another head")
    if chosen.start == "frame" and "rgb" not in seen:
        raise IfttnError(f"the head {chosen.head} sees {alone} alone: begin with noise, or choose another head")
    if chosen.start == "frame" and chosen.canvas == "waves":
        raise IfttnError("waves begin with noise: draw pixels to begin with a real frame")
