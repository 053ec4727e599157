"""Loads the weights that each part of a network starts from, and reports which were loaded (paper section 3.4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import RECIPES, Recipe
from ifttn.experiment.runs import Run
from ifttn.experiment.work import Work
from ifttn.model.backbone import adapt_stem, imagenet_weights, local_weights
from ifttn.model.network import Scorer
from ifttn.vocabulary import MODALITIES, IfttnError

TTN_LEAVES = ("conv1.", "bn1.", "layer1.")
"""Weights of a stream that TTN does not have: TTN is its levels 3..5."""
MOTION = tuple(name for name, modality in MODALITIES.items() if modality.is_motion)
"""Modalities with planes x, y, x, y, ..."""
IMAGENET_LEAVES = ("fc.",)
"""The classifier of ImageNet's thousand classes."""
ABOVE_LEVEL_2 = ("layer2.", "layer3.", "layer4.")
"""Weights that a backbone of levels 1 and 2 alone does not have."""


@dataclass(frozen=True)
class Loaded:
    """The weights that a part was given, and their source."""

    part: str
    source: str
    taken: int
    """The number of tensors that were loaded. They are all tensors of the part."""
    left: tuple[str, ...]
    """Names of the source's tensors that were not used, because the part does not have them."""
    averaged: bool
    """Whether the first convolution is the mean over the input channels of the source's first convolution."""
    by_axis: bool
    """Whether each filter of this mean sees either x or y of the motion."""

    def __str__(self) -> str:
        mean = ", the first convolution as its channels' mean" if self.averaged else ""
        mean += ", each filter for x or for y" if self.by_axis else ""
        modules = dict.fromkeys(".".join(key.split(".")[:1]) for key in self.left)
        left = f"; left: {', '.join(modules)} ({len(self.left)} tensors)" if self.left else ""
        return f"{self.part} from {self.source}: all its {self.taken} tensors taken{mean}{left}"


def load(
    part: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    name: str,
    source: str,
    leaves: tuple[str, ...] = (),
    by_axis: bool = False,
) -> Loaded:
    """Load all weights of a part. The first convolution of a backbone is adapted to the number of channels.

    Args:
        part: a part of a network.
        weights: name in the part -> tensor. There may be more tensors than the part has.
        name: the name of the part, for messages.
        source: the source of the weights, for messages.
        leaves: prefixes of the names of tensors that the part need not have.
        by_axis: if the first convolution is averaged, let each filter see either x or y of the motion.

    Raises:
        IfttnError: a weight of the part is missing or has another shape, or the source has a weight that is neither
            loaded nor named by `leaves`. In this case nothing was loaded.
    """
    wanted, averaged = part.state_dict(), False
    # Files older than torch 0.4.1 have no count of batches, and our code does not read it.
    counts = {key: tensor for key, tensor in wanted.items() if key.endswith("num_batches_tracked")}
    weights = {**{key: tensor for key, tensor in counts.items() if key not in weights}, **weights}
    if "conv1.weight" in wanted and "conv1.weight" in weights and weights["conv1.weight"].ndim == 4:
        channels = wanted["conv1.weight"].shape[1]
        averaged = weights["conv1.weight"].shape[1] != channels
        weights = adapt_stem(weights, channels, by_axis)
    missing = [key for key in wanted if key not in weights]
    differing = [key for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    left = tuple(key for key in weights if key not in wanted)
    unexpected = [key for key in left if not key.startswith(leaves)] if leaves else list(left)
    for what, keys in (("lacks", missing), ("has in other shapes", differing), ("also has", unexpected)):
        if keys:
            raise IfttnError(
                f"{name} does not fit {source}, which {what} {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''} "
                f"({len(keys)} of {len(wanted)} tensors)"
            )
    part.load_state_dict({key: weights[key] for key in wanted})
    return Loaded(name, source, len(wanted), left, averaged, averaged and by_axis)


def from_imagenet(network: Scorer, backbone: str, file: Path | None, part: str = "streams.rgb") -> Loaded:
    """Load ImageNet's weights into a part, the spatial stream or a peer's backbone, from torchvision or a file."""
    if file:
        weights, source = local_weights(file, backbone)
    else:
        weights, source = imagenet_weights(backbone), f"torchvision's ImageNet weights of {backbone}"
    module = network.get_submodule(part)
    leaves = IMAGENET_LEAVES + (() if hasattr(module, "layer2") else ABOVE_LEVEL_2)
    return load(module, weights, name=part, source=source, leaves=leaves)


def from_runs(network: Scorer, recipe: Recipe, runs: Mapping[str, Run], by_axis: bool) -> list[Loaded]:
    """Load the weights of each part from the finished run that the recipe names.

    Args:
        network: the network of that recipe.
        recipe: names the source of each part.
        runs: recipe -> run.
        by_axis: see `load`. It applies to motion streams.
    """
    return [
        load(
            network.get_submodule(start.part),
            runs[start.recipe].weights(start.source),
            name=start.part,
            source=f"{start.source} of {start.recipe}",
            leaves=TTN_LEAVES if start.part.startswith("temporal.") and start.source.startswith("streams.") else (),
            by_axis=by_axis and start.part.removeprefix("streams.") in MOTION,
        )
        for start in recipe.starts_from
    ]


def initialise(network: Scorer, work: Work, name: str) -> list[Loaded]:
    """Load the weights that each part starts from (paper section 3.4), and return what was loaded.

    At a preset that starts from ImageNet, a recipe that starts from no other run takes ImageNet's weights.
    """
    recipe, preset = RECIPES[name], PRESETS[work.preset]
    if preset.pretrained and not recipe.starts_from:
        file = work.machine.imagenet
        return [from_imagenet(network, preset.backbone, file, part) for part in network.pretrained]
    runs = {needed: work.trained(needed) for needed in recipe.needs}
    return from_runs(network, recipe, runs, preset.stem == "by axis")
