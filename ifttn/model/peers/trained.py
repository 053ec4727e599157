"""A peer as the study trains and scores it: a `Scorer`.

Shapes: N videos, K segments, S = N*K snippets, H x W pixels, A actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ifttn.model.backbone import Pyramid
from ifttn.model.network import Head, Network, NetworkSettings, Output, Scorer
from ifttn.model.peers.streams import Streams, consensus, standardise
from ifttn.model.peers.table5 import TRAINED, Setup
from ifttn.vocabulary import IfttnError


@dataclass(frozen=True)
class PeerSettings(NetworkSettings):
    """Which peer, and how large; of what our network is made of it has the actions and the modalities, and where
    it is small the dropout of "rgb": the papers' own is for wide layers.

    Raises:
        IfttnError: the peer has no such size.
    """

    peer: str = ""
    """A name of TRAINED."""
    size: str = "embedded"
    """Or "paper"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.setup

    @property
    def setup(self) -> Setup:
        """The network and the side of its images."""
        peer = TRAINED.get(self.peer)
        found = peer and {"paper": peer.setup, "embedded": peer.embedded}.get(self.size)
        if found is None:
            raise IfttnError(f"{self.peer} is not trained at size {self.size!r}: choose from {', '.join(TRAINED)}")
        return found


class PeerNetwork(Scorer):
    """The streams of a peer. Of most, what `pyramids` gives is the votes of snippets, and to read is to average them;
    OFF reads the votes of pairs from the features of its base.

    Weights start as He et al. (ICCV 2015) draw them, those of votes small: without batch normalisation a signal would
    not come through the layers else.
    """

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__()
        self.settings, self.size = settings, settings.setup.size
        network = settings.setup.network(settings.actions)
        assert isinstance(network, Streams)
        self.streams, self.heads, self.kind = network.streams, network.heads, type(network)
        for stream in self.streams.values():
            layers = [m for m in stream.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)]
            for layer in [layer for layer in layers if not isinstance(layer, Head)]:  # a head draws its own
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            if not isinstance(layers[-1], Head):
                nn.init.normal_(layers[-1].weight, std=0.01)
        if settings.size == "embedded":
            for module in self.streams.modules():
                if isinstance(module, nn.Dropout):
                    module.p = settings.dropout["rgb"]

    def pyramids(self, inputs: Mapping[str, Tensor]) -> dict[str, Pyramid]:
        """Per modality, (N, K, C, H, W) in 0..255 -> per stream, what it makes of S snippets one by one."""
        made: dict[str, Pyramid] = {}
        for (name, stream), modality in zip(self.streams.items(), self.settings.modalities, strict=True):
            images = standardise(inputs[modality].flatten(0, 1), name)
            if images.shape[-1] != self.size:  # C3D's are half as large as others', of the same field of view
                images = functional.interpolate(images, size=(self.size, self.size), mode="area")
            made[name] = self.kind.look(stream, images)
        return made

    def read(self, pyramids: Mapping[str, Pyramid], segments: int) -> Output:
        """The mean of the votes, of snippets or of pairs; of what is there for the loss alone, while training."""
        votes, videos = {}, next(iter(next(iter(pyramids.values())).values())).shape[0] // segments
        for (name, stream), seen in zip(self.streams.items(), pyramids.values(), strict=True):
            votes |= self.kind.votes(name, stream, seen, segments)
        said = votes if self.training else {head: votes[head] for head in self.scoring}
        return consensus({head: vote.unflatten(0, (videos, -1)) for head, vote in said.items()})

    @property
    def scoring(self) -> tuple[str, ...]:
        """Heads that score."""
        return tuple(head for head in self.heads if "." not in head)


def settings_of(row: Mapping[str, Any]) -> NetworkSettings:
    """From what `dataclasses.asdict` made of them."""
    return (PeerSettings if "peer" in row else NetworkSettings)(**row)


def build(settings: NetworkSettings) -> Scorer:
    """Our network or a peer, weights drawn at random."""
    return PeerNetwork(settings) if isinstance(settings, PeerSettings) else Network(settings)
