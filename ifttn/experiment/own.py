"""Makes a user's own network a recipe: `ifttn train FILE.py:NAME`, where FILE.py has `NAME = OwnNetwork(...)`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from torch import nn

from ifttn.experiment.presets import OWN_SCHEDULES, Schedule
from ifttn.experiment.recipes import RECIPES, Recipe, Stage
from ifttn.model.peers.own import VideoNetwork
from ifttn.model.peers.table5 import OWN, Variant
from ifttn.vocabulary import IfttnError


@dataclass(frozen=True)
class OwnNetwork:
    """A user's own network and its training: one stage, on RGB."""

    network: Callable[[int], nn.Module]
    """Takes the number of actions and returns a module. The module maps (N, 3, T, H, W), normalised like ImageNet's
    images, to logits (N, A)."""
    frames: int
    """T. The network sees one frame from each of T equal spans of a video."""
    schedule: Schedule
    """The schedule at every preset."""
    size: int = 0
    """Side of the images in pixels; 0: the preset's."""
    last_map: str = ""
    """For class activation maps: the name of the submodule whose output (N, C, t, h, w) is averaged and classified; "":
    there are no maps."""
    classifier: str = ""
    """Name of the linear layer that classifies the average."""

    def register(self, name: str, source: str) -> None:
        """Register the network as the recipe `name`. Its runs name the network by `source`.

        Raises:
            IfttnError: another recipe has that name.
        """
        if name in RECIPES and RECIPES[name].peer != source:
            raise IfttnError(f"{source} cannot be a recipe of the name {name}, which another recipe has: rename it")
        OWN[source] = Variant(self._made, {"rgb": (1, 3)}, self.size)
        OWN_SCHEDULES[name] = self.schedule
        RECIPES[name] = Recipe(
            why=f"a user's own network: {source}",
            modalities=("rgb",),
            stages=(Stage(name, trains=("",), heads=("rgb",)),),
            peer=source,
            segments=self.frames,
        )

    def _made(self, actions: int) -> VideoNetwork:
        return VideoNetwork(self.network(actions), self.last_map, self.classifier)


def recipe_of(text: str) -> str:
    """The name of a recipe. For "FILE.py:NAME", the file is imported first, and its network NAME is registered.

    Only a file that the user names is imported, never a file that a run folder names.

    Raises:
        IfttnError: the file cannot be imported, or has no network of that name.
    """
    file, colon, name = text.rpartition(":")
    if not colon:
        return text
    path = Path(file).resolve()
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # the file may import its neighbours
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise IfttnError(f"{file} is no Python file")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is the user's and may raise anything
        raise IfttnError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    own = getattr(module, name, None)
    if not isinstance(own, OwnNetwork):
        found = [each for each, value in vars(module).items() if isinstance(value, OwnNetwork)]
        raise IfttnError(
            f"{file} has no network {name!r} (`{name} = OwnNetwork(...)`); it has {', '.join(found) or 'none'}"
        )
    own.register(name, f"{path.stem}:{name}")
    return name
