"""A batch of videos, as a loader hands it to the network."""

from dataclasses import dataclass, replace

from jaxtyping import Int, UInt8
from torch import Tensor


@dataclass
class Batch:
    """Videos as bytes, so that little crosses to the device."""

    inputs: dict[str, UInt8[Tensor, "N K C H W"]]
    """Per modality. All come from one index draw and one augmentation a video."""
    labels: Int[Tensor, " N"]
    names: list[str]
    crops: Int[Tensor, "N 3"] | None = None
    """Height, width and mirroring of each video's crop, where it has still to be fitted (`augmentation.fit_on_device`);
    it lies in the first rows and columns of its planes."""

    def pin_memory(self) -> "Batch":
        """Called by a loader, so that the bytes can go to the device while it computes."""
        inputs = {modality: x.pin_memory() for modality, x in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels.pin_memory())
