"""The peers that the study trains, and the network for any settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ifttn.model.folding import channels_last
from ifttn.model.network import Head, Network, NetworkSettings, Scorer
from ifttn.model.peers.streams import Streams
from ifttn.model.peers.table5 import OWN, TRAINED, Variant
from ifttn.vocabulary import IfttnError


@dataclass(frozen=True)
class PeerSettings(NetworkSettings):
    """The name and size of a peer. Of the other settings, a peer uses the actions and the modalities. At size "small"
    it also uses the dropout of "rgb", because the dropout of its paper is too strong for narrow layers.

    Raises:
        IfttnError: the peer is not trained, or has no such size.
    """

    peer: str = ""
    """A name of TRAINED or of OWN. The networks of OWN use neither the size nor the dropout of the preset."""
    size: str = "small"
    """A name of PEER_SIZES."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.variant

    @property
    def variant(self) -> Variant:
        """The peer at this size."""
        if self.peer in OWN:
            return OWN[self.peer]
        if ":" in self.peer:
            file, name = self.peer.split(":")
            raise IfttnError(
                f"the network {name} is made by {file}.py, which is imported only if you name it: give "
                f"{file}.py:{name} to `ifttn train` or `ifttn test` instead of a recipe"
            )
        if self.peer not in TRAINED:
            raise IfttnError(f"{self.peer} is not trained: choose from {', '.join(TRAINED)}")
        return TRAINED[self.peer].at(self.size)


def settings_of(row: Mapping[str, Any]) -> NetworkSettings:
    """The settings from a dictionary of `dataclasses.asdict`."""
    return (PeerSettings if "peer" in row else NetworkSettings)(**row)


def build_network(settings: NetworkSettings) -> Scorer:
    """Our network or a peer, with random weights."""
    if not isinstance(settings, PeerSettings):
        return Network(settings)
    network = cast(Streams, settings.variant.network(settings.actions))
    network.settings, network.modalities, network.size = settings, settings.modalities, settings.variant.size
    if settings.peer in OWN:
        return network
    for stream in network.streams.values():
        _draw_weights(stream)
    channels_last(network)
    if settings.size == "small":
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = settings.dropout["rgb"]
    return network


def _draw_weights(stream: nn.Module) -> None:
    """Draw weights as He et al. (ICCV 2015) do. With PyTorch's default weights, the signal vanishes in networks without
    batch normalisation. The last layer gets small weights, so that votes start small."""
    layers = [module for module in stream.modules() if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear)]
    for layer in layers:
        if not isinstance(layer, Head):  # a head draws its own weights
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if not isinstance(layers[-1], Head):
        nn.init.normal_(layers[-1].weight, std=0.01)
