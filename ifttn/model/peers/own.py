"""A user's network: any module that maps videos to logits, as a peer with one head.

Shapes: N videos, T frames of a video, S = N*T, C channels, H x W pixels, h x w cells, A actions.
"""

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from ifttn.model.network import undisturbed
from ifttn.model.peers.streams import VideoStreams
from ifttn.vocabulary import IfttnError


class OwnStream(nn.Module):
    """Applies a module to the frames of videos."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Float[Tensor, "S 3 H W"], segments: int) -> Float[Tensor, "N A"]:
        """Normalised frames -> one vote for each video."""
        return self.module(images.unflatten(0, (-1, segments)).transpose(1, 2).contiguous())


class VideoNetwork(VideoStreams):
    """The network, with the weights and the dropout of the module.

    Args:
        module: it maps (N, 3, T, H, W), normalised like ImageNet's images, to (N, A).
        last_map: name of the part of `module` whose output (N, C, t, h, w) is averaged and then classified, or "".
        classifier: name of the linear layer that classifies the average.

    Raises:
        IfttnError: the module has no part with this name.
    """

    foldable = False  # the module may compute its parts in another order than that of their definition

    def __init__(self, module: nn.Module, last_map: str = "", classifier: str = "") -> None:
        super().__init__({"rgb": OwnStream(module)})
        self.last_map, self.classifier = last_map, classifier
        parts = dict(module.named_modules())
        for name in (last_map, classifier):
            if name not in parts:
                raise IfttnError(f"the module has no part {name!r}: it has {', '.join(dict(module.named_children()))}")

    def activation_maps(
        self, video: Num[Tensor, "N T 3 H W"], actions: Int[Tensor, "N B"]
    ) -> Float[Tensor, "N t B h w"]:
        """Class activation maps (Zhou et al. 2016): the mean of a map, plus the classifier's bias, is the logit.

        Args:
            video: frames in 0..255.
            actions: B actions for each video.

        Raises:
            IfttnError: the network has no `last_map`, or the classifier does not read the average of this map.
        """
        if not self.last_map:
            raise IfttnError("this network has no exact maps, because it does not name `last_map` and `classifier`")
        module, kept = self.get_submodule("streams.rgb.module"), list[Tensor]()
        hook = module.get_submodule(self.last_map).register_forward_hook(lambda *call: kept.append(call[-1]))
        try:
            with undisturbed(self), torch.no_grad():
                logits = self({self.modalities[0]: video}).logits["rgb"].gather(1, actions)
        finally:
            hook.remove()
        weight, bias = (module.get_parameter(f"{self.classifier}.{name}")[actions] for name in ("weight", "bias"))
        maps = torch.einsum("nbc,ncthw->ntbhw", weight, kept[0]).detach()
        if not torch.allclose(maps.mean((1, 3, 4)) + bias, logits, rtol=1e-3, atol=1e-3):
            raise IfttnError(f"{self.classifier} does not read the average of {self.last_map}: there are no exact maps")
        return maps
