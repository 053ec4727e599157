"""The network of a recipe at the size of a preset."""

from ifttn.experiment.presets import PRESETS, Preset
from ifttn.experiment.recipes import Recipe
from ifttn.model.network import NetworkSettings
from ifttn.model.peers.table5 import OWN
from ifttn.model.peers.trained import PeerSettings
from ifttn.vocabulary import IfttnError


def network_settings(recipe: Recipe, preset: Preset, actions: int) -> NetworkSettings:
    """The settings of a recipe's network at the size of a preset.

    Raises:
        IfttnError: the recipe's peer has no such size.
    """
    if recipe.peer is None:
        return NetworkSettings(
            actions, recipe.modalities, recipe.fusion, recipe.temporal, preset.backbone, preset.dropout
        )
    size = preset.peers or "small"
    if preset.peers is None and recipe.peer not in OWN:
        sized = ", ".join(name for name, row in PRESETS.items() if row.peers)
        raise IfttnError(f"no size of the peer {recipe.peer} fits this preset: choose from {sized}")
    return PeerSettings(actions, recipe.modalities, None, dropout=preset.dropout, peer=recipe.peer, size=size)
