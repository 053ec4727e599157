"""A peer as the study trains and scores it: it answers to all that `Network` does.

Shapes: N videos, K segments, S = N*K snippets, H x W pixels, A actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ifttn.model.backbone import Pyramid
from ifttn.model.network import Network, NetworkSettings, Output
from ifttn.model.peers.streams import Streams, consensus, standardise
from ifttn.model.peers.table5 import PEERS, Setup
from ifttn.vocabulary import IfttnError

VOTE = 5
"""The one level of a peer's pyramid: its votes, as maps of one cell."""


@dataclass(frozen=True)
class PeerSettings(NetworkSettings):
    """Which peer, and how large; of what our network is made of it has the actions and the modalities, and where
    it is small the dropout of "rgb": the papers' own is for wide layers.

    Raises:
        IfttnError: the peer has no such size.
    """

    peer: str = ""
    """A name of PEERS."""
    size: str = "embedded"
    """Or "paper"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.setup

    @property
    def setup(self) -> Setup:
        """The network and the side of its images."""
        peer = PEERS[self.peer]
        found = {"paper": peer.setup, "embedded": peer.embedded}.get(self.size)
        if found is None or not peer.trainable:
            trainable = ", ".join(name for name, each in PEERS.items() if each.trainable)
            raise IfttnError(f"{self.peer} is not trained at size {self.size!r}: choose from {trainable}")
        return found


class PeerNetwork(Network):
    """Streams whose snippets vote by themselves. What `pyramids` gives of one is its votes, and to read is to average.

    Weights start as He et al. (ICCV 2015) draw them, those of votes small: without batch normalisation a signal would
    not come through the layers else.
    """

    def __init__(self, settings: PeerSettings) -> None:
        nn.Module.__init__(self)
        self.settings, self.size, self.fusion = settings, settings.setup.size, None
        network = settings.setup.network(settings.actions)
        assert isinstance(network, Streams)
        self.streams, self.temporal, self.heads = network.streams, nn.ModuleDict(), nn.ModuleDict()
        for stream in self.streams.values():
            layers = [m for m in stream.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)]
            for layer in layers:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
            nn.init.normal_(layers[-1].weight, std=0.01)
        if settings.size == "embedded":
            for module in self.streams.modules():
                if isinstance(module, nn.Dropout):
                    module.p = settings.dropout["rgb"]

    def pyramids(self, inputs: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """Per modality, (N, K, C, H, W) in 0..255 -> per stream, its votes of S snippets."""
        votes = {}
        for (name, stream), modality in zip(self.streams.items(), self.settings.modalities, strict=True):
            images = standardise(inputs[modality].flatten(0, 1), name)
            if images.shape[-1] != self.size:  # C3D's are half as large as others', of the same field of view
                images = functional.interpolate(images, size=(self.size, self.size), mode="area")
            votes[name] = {VOTE: stream(images)[:, :, None, None]}
        return votes

    def read(self, pyramids: Mapping[str, Pyramid], segments: int) -> Output:
        """The mean of the votes."""
        return consensus(
            {name: levels[VOTE][..., 0, 0].unflatten(0, (-1, segments)) for name, levels in pyramids.items()}
        )


def settings_of(row: Mapping[str, Any]) -> NetworkSettings:
    """From what `dataclasses.asdict` made of them."""
    return (PeerSettings if "peer" in row else NetworkSettings)(**row)


def build(settings: NetworkSettings) -> Network:
    """Our network or a peer, weights drawn at random."""
    return PeerNetwork(settings) if isinstance(settings, PeerSettings) else Network(settings)
