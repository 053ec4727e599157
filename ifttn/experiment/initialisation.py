"""Which weights each part of a network starts from, and what became of every one of them (paper section 3.4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ifttn.experiment.presets import Preset
from ifttn.experiment.recipes import Recipe
from ifttn.experiment.runs import Run
from ifttn.model.backbone import adapt_stem, imagenet_weights, local_weights
from ifttn.model.network import Scorer
from ifttn.vocabulary import IfttnError

TTN_LEAVES = ("conv1.", "bn1.", "layer1.")
"""TTN has levels 3..5 of a stream, and no stem."""
IMAGENET_LEAVES = ("fc.",)
"""ImageNet's thousand classes."""


@dataclass(frozen=True)
class Loaded:
    """What a part took, and from where."""

    part: str
    source: str
    taken: int
    """Tensors, of all that the part has."""
    left: tuple[str, ...]
    """Names of the source's tensors that have no place in the part."""
    averaged: bool
    """The first convolution is the mean over the source's channels."""

    def __str__(self) -> str:
        mean = ", the first convolution as its channels' mean" if self.averaged else ""
        modules = dict.fromkeys(".".join(key.split(".")[:1]) for key in self.left)
        left = f"; left: {', '.join(modules)} ({len(self.left)} tensors)" if self.left else ""
        return f"{self.part} from {self.source}: all its {self.taken} tensors taken{mean}{left}"


def load(
    part: nn.Module, weights: Mapping[str, Tensor], *, name: str, source: str, leaves: tuple[str, ...] = ()
) -> Loaded:
    """Give a part every weight that it has; a backbone's first convolution is made to fit its channels.

    Args:
        part: of a network.
        weights: by the names that the part gives them, and more.
        name: of the part.
        source: of the weights.
        leaves: prefixes of weights that may be left over.

    Raises:
        IfttnError: the part has a weight that the source has not, or in another shape, or the source has one that is
            neither taken nor expected to be left. Nothing was loaded then.
    """
    wanted, averaged = part.state_dict(), False
    # Files older than torch 0.4.1 do not count batches, and nothing of ours reads the count.
    counts = {key: tensor for key, tensor in wanted.items() if key.endswith("num_batches_tracked")}
    weights = {**{key: tensor for key, tensor in counts.items() if key not in weights}, **weights}
    if "conv1.weight" in wanted and "conv1.weight" in weights and weights["conv1.weight"].ndim == 4:
        channels = wanted["conv1.weight"].shape[1]
        averaged = weights["conv1.weight"].shape[1] != channels
        weights = adapt_stem(weights, channels)
    missing = [key for key in wanted if key not in weights]
    differing = [key for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    left = tuple(key for key in weights if key not in wanted)
    unexpected = [key for key in left if not key.startswith(leaves)] if leaves else list(left)
    for what, keys in (("lacks", missing), ("has in other shapes", differing), ("has and nobody takes", unexpected)):
        if keys:
            raise IfttnError(
                f"{name} does not fit {source}, which {what} {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''} "
                f"({len(keys)} of {len(wanted)} tensors)"
            )
    part.load_state_dict({key: weights[key] for key in wanted})
    return Loaded(name, source, len(wanted), left, averaged)


def from_imagenet(network: Scorer, backbone: str, file: Path | None) -> Loaded:
    """Give the spatial stream ImageNet's weights, from torchvision or a file."""
    if file:
        weights, source = local_weights(file, backbone)
    else:
        weights, source = imagenet_weights(backbone), f"torchvision's ImageNet weights of {backbone}"
    return load(network.streams["rgb"], weights, name="streams.rgb", source=source, leaves=IMAGENET_LEAVES)


def from_runs(network: Scorer, recipe: Recipe, runs: Mapping[str, Run]) -> list[Loaded]:
    """Give each part the weights of the finished run that its recipe says.

    Args:
        network: of that recipe.
        recipe: with its starts.
        runs: by name of recipe.
    """
    return [
        load(
            network.get_submodule(start.part),
            runs[start.recipe].weights(start.source),
            name=start.part,
            source=f"{start.source} of {start.recipe}",
            leaves=TTN_LEAVES if start.part.startswith("temporal.") and start.source.startswith("streams.") else (),
        )
        for start in recipe.starts_from
    ]


def wants_imagenet(recipe: Recipe, preset: Preset) -> bool:
    """A recipe of ours that starts from no other run, at a preset that starts from ImageNet."""
    return preset.pretrained and not (recipe.starts_from or recipe.peer)
