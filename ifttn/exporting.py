"""The network of a run as a file that needs none of this package: torch.export's .pt2, or .onnx.

Bytes in, scores out: what is exported normalises its input, and has its batch normalisation folded. Shapes: N videos
(any number), K segments, C planes of a snippet, S pixels a side, A actions, V votes of a head.
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

TOLERANCE = 1e-3
"""By how much of its largest score the file may differ from the network."""
EXTRA = ("onnx", "onnxscript", "onnxruntime")


class Scorer(nn.Module):
    """Per modality of the network, in its order, bytes (N, K, C, S, S) -> late-fused scores (N, A), then the votes
    (N, V, A) of each head."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = folded(network).to(memory_format=torch.contiguous_format)  # a file has one order of memory
        self.modalities = network.settings.modalities
        self.outputs = ("scores", *(f"votes.{head}" for head in network.heads))

    def forward(self, *planes: Tensor) -> tuple[Tensor, ...]:
        """All of `outputs`."""
        output = self.network(dict(zip(self.modalities, planes, strict=True)))
        return late_fusion(output.logits), *output.votes.values()


def export(run: Run, path: Path) -> float:
    """Write the network of a finished run to `path`, .pt2 or .onnx; its actions stand in the file's metadata.

    Returns:
        By how much its outputs differ from the network's on random bytes, of another number of videos than it was
        traced with, in parts of the largest.

    Raises:
        IfttnError: another suffix, the extra `export` is not installed, or the two differ by more than TOLERANCE.
    """
    if path.suffix not in WRITERS:
        raise IfttnError(f"{path}: a network is exported to {' or '.join(WRITERS)}")
    network, preset = run.network(), run.preset()
    scorer = Scorer(network).eval()
    about = {
        "actions": json.dumps(run.asked["actions"]),
        "inputs": json.dumps({m: ["videos", preset.segments, MODALITIES[m].channels] for m in scorer.modalities}),
        "outputs": json.dumps(scorer.outputs),
    }
    size = (preset.segments, preset.size)
    content, answer = WRITERS[path.suffix](scorer, _bytes(scorer, 2, *size), about)
    asked = _bytes(scorer, 3, *size)
    with torch.inference_mode():
        expected = scorer(*asked)
        found = answer(asked)
    apart = max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, expected, strict=True))
    if not apart <= TOLERANCE:
        raise IfttnError(
            f"{path}: not written, since its scores differ from the network's by {apart:.1e} of the largest"
        )
    write_whole(path, content)
    return apart


def _bytes(scorer: Scorer, videos: int, segments: int, size: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(videos)
    return tuple(
        torch.randint(0, 256, (videos, segments, MODALITIES[m].channels, size, size), generator=generator).byte()
        for m in scorer.modalities
    )


Answer = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
"""What was written, read back."""


def traced(scorer: Scorer, example: tuple[Tensor, ...]) -> ExportedProgram:
    """torch.export's graph of it, for any number of videos."""
    shapes = ({0: Dim("videos", min=1)},) * len(example)
    with torch.no_grad():
        return torch.export.export(scorer, example, dynamic_shapes=(shapes,), strict=False)


def _pt2(scorer: Scorer, example: tuple[Tensor, ...], about: Mapping[str, str]) -> tuple[bytes, Answer]:
    content = io.BytesIO()
    torch.export.save(traced(scorer, example), content, extra_files=dict(about))
    content.seek(0)
    module = torch.export.load(content).module()
    return content.getvalue(), lambda asked: module(*asked)


def _onnx(scorer: Scorer, example: tuple[Tensor, ...], about: Mapping[str, str]) -> tuple[bytes, Answer]:
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise IfttnError(f"ONNX needs {', '.join(missing)}: install the extra, `pip install 'ifttn[export]'`")
    import onnx
    import onnxruntime

    program: Any = torch.onnx.export(
        traced(scorer, example),
        dynamo=True,
        input_names=list(scorer.modalities),
        output_names=list(scorer.outputs),
        external_data=False,
        verbose=False,
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, dict(about))
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def answer(asked: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = {name: x.numpy() for name, x in zip(scorer.modalities, asked, strict=True)}
        return tuple(torch.from_numpy(output) for output in session.run(None, given))

    return content, answer


WRITERS = {".pt2": _pt2, ".onnx": _onnx}
"""By suffix: a scorer, an example of its input and what to note -> the file's content, and what it answers."""
