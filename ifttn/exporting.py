"""Exports the network of a run to a file that does not need this package: .pt2 (torch.export) or .onnx.

The exported network takes bytes and returns scores. It normalises its input, and its batch normalisation is folded.

Shapes: N videos (any number), K segments, C planes of a snippet, S pixels a side, A actions, V votes of a head.
"""

import io
import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ifttn.experiment.runs import Run
from ifttn.experiment.scores import late_fusion
from ifttn.files import write_whole
from ifttn.model.folding import folded
from ifttn.model.network import Network
from ifttn.vocabulary import MODALITIES, IfttnError

LARGEST_DIFFERENCE = 1e-3
"""Largest allowed difference between the outputs of the file and of the network, relative to the largest output."""
EXTRA = ("onnx", "onnxscript", "onnxruntime")


class ExportedNetwork(nn.Module):
    """Bytes (N, K, C, S, S) of each modality, in the network's order -> late-fused scores (N, A), then the votes
    (N, V, A) of each head."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = folded(network).to(memory_format=torch.contiguous_format)  # a file has only this memory layout
        self.modalities = network.settings.modalities
        self.outputs = ("scores", *(f"votes.{head}" for head in network.heads))

    def forward(self, *planes: Tensor) -> tuple[Tensor, ...]:
        """All values named in `outputs`."""
        output = self.network(dict(zip(self.modalities, planes, strict=True)))
        return late_fusion(output.logits), *output.votes.values()

    def random_bytes(self, videos: int, segments: int, size: int) -> tuple[Tensor, ...]:
        """Random bytes of the shape of the input."""
        generator = torch.Generator().manual_seed(videos)
        return tuple(
            torch.randint(0, 256, (videos, segments, MODALITIES[m].channels, size, size), generator=generator).byte()
            for m in self.modalities
        )


Written = tuple[bytes, Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]]
"""The content of a file, and the network that is read back from it, as a function."""


def export(run: Run, path: Path) -> float:
    """Write the network of a finished run to `path` (.pt2 or .onnx), with its actions in the metadata of the file.

    Returns:
        The largest difference between the outputs of the file and of the network, relative to the largest output. Both
        get the same random bytes. Their number of videos differs from the example for the graph.

    Raises:
        IfttnError: the suffix is unknown, the extra `export` is not installed, or the outputs differ by more than
            LARGEST_DIFFERENCE.
    """
    if path.suffix not in WRITERS:
        raise IfttnError(f"{path}: a network is exported to {' or '.join(WRITERS)}")
    preset, network = run.preset(), ExportedNetwork(run.network()).eval()
    metadata = {
        "actions": json.dumps(run.identity["actions"]),
        "inputs": json.dumps({m: ["videos", preset.segments, MODALITIES[m].channels] for m in network.modalities}),
        "outputs": json.dumps(network.outputs),
    }
    size = (preset.segments, preset.size)
    content, read_back = WRITERS[path.suffix](network, network.random_bytes(2, *size), metadata)
    inputs = network.random_bytes(3, *size)
    with torch.inference_mode():
        expected, found = network(*inputs), read_back(inputs)
    difference = max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, expected, strict=True))
    if not difference <= LARGEST_DIFFERENCE:
        raise IfttnError(
            f"{path}: not written, because its scores differ from the network's by {difference:.1e} of the largest"
        )
    write_whole(path, content)
    return difference


def traced(network: ExportedNetwork, example: tuple[Tensor, ...]) -> ExportedProgram:
    """The graph of torch.export, for any number of videos."""
    shapes = ({0: Dim("videos", min=1)},) * len(example)
    with torch.no_grad():
        return torch.export.export(network, example, dynamic_shapes=(shapes,), strict=False)


def _pt2(network: ExportedNetwork, example: tuple[Tensor, ...], metadata: Mapping[str, str]) -> Written:
    content = io.BytesIO()
    torch.export.save(traced(network, example), content, extra_files=dict(metadata))
    content.seek(0)
    module = torch.export.load(content).module()
    return content.getvalue(), lambda inputs: module(*inputs)


def _onnx(network: ExportedNetwork, example: tuple[Tensor, ...], metadata: Mapping[str, str]) -> Written:
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise IfttnError(f"ONNX needs {', '.join(missing)}: install the extra, `pip install 'ifttn[export]'`")
    import onnx
    import onnxruntime

    program: Any = torch.onnx.export(
        traced(network, example),
        dynamo=True,
        input_names=list(network.modalities),
        output_names=list(network.outputs),
        external_data=False,
        verbose=False,
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, dict(metadata))
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def read_back(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        arrays = {name: x.numpy() for name, x in zip(network.modalities, inputs, strict=True)}
        return tuple(torch.from_numpy(output) for output in session.run(None, arrays))

    return content, read_back


WRITERS = {".pt2": _pt2, ".onnx": _onnx}
"""Suffix -> function: network, example of its input, metadata -> content of the file, and the network read back."""
