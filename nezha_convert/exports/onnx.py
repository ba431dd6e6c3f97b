"""Exports a converted folder as an ONNX graph, and compares the graph in onnxruntime with PyTorch."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..checkpoint import Decision, Origin
from ..errors import CPU_INDEX, MappingError, UsageError, pip_install
from ..files.progress import Counter, Progress
from ..folder.record import RecordedFolder
from ..folder.trained import recorded_folder
from ..parity.converted import LoadedModel, need_torch
from ..parity.inputs import built_in_cases
from ..parity.measure import TOLERANCES, Measurement
from ..parity.oracle.formulas import Array
from .onnx_graph import INPUTS, OPSET, OUTPUTS, named_outputs, write_graph

MODEL = "model.onnx"
"""The name under which optimum looks for a graph."""

PRECISIONS = {
    "float32": "the model's own arithmetic",
    "float16": "half precision but for the softmax, outputs float32 all the same; onnxruntime runs it since 1.17",
    "int8": "dynamic quantization by onnxruntime: weights in 8 bits, activations when it runs",
}

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_WEIGHTS = (".safetensors", ".safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Measured:
    """An output's distance from PyTorch in float32, over the built-in inputs.

    Attributes:
        relative_error: the largest error, as a part of the output's range.
        argmax_differs: the part of the rows (last dimension) whose largest entry is at another place.
    """

    output: str
    relative_error: float
    argmax_differs: float


@dataclass(frozen=True, slots=True)
class OnnxResult:
    """The names of the files that were written, and how exact the graph is."""

    files: tuple[str, ...]
    head: str
    precision: str
    opset: int
    measured: tuple[Measured, ...]
    decisions: tuple[Decision, ...]


def export_onnx(
    output: Path, stage: Path, *, precision: str = "float32", progress: Progress | None = None
) -> OnnxResult:
    """Write the converted folder `output` into the empty folder `stage`, with a graph in place of its weights.

    Args:
        precision: one of `PRECISIONS`.
        progress: called with (steps done, steps in all, what is being done).

    Raises:
        UsageError: a package is missing, or there is no such precision.
        MappingError: `output` is no converted folder; or the graph's outputs are not PyTorch's: in float32 more than
            2e-5 of their range apart, otherwise not finite.
    """
    folder, decisions = plan_onnx(output, precision)
    head, path = folder.head, stage / MODEL
    counter = Counter(progress, 5, "loading the model")

    counter.add(0)
    model = LoadedModel(output, folder.architecture, head).model.float()
    counter.add(1, "running PyTorch")
    cases = built_in_cases(folder.config, model.config.max_relative_position, head)
    expected = {name: _run_torch(model, head, case) for name, case in cases.items()}
    counter.add(1, "writing the graph")
    write_graph(model, head, precision, path)
    counter.add(1, "checking the graph")
    _check(path)
    counter.add(1, "running onnxruntime")
    measured = _measure(path, head, precision, cases, expected)
    counter.add()

    for file in folder.record["output_files"]:
        if not file["name"].endswith(_WEIGHTS):
            shutil.copyfile(output / file["name"], stage / file["name"])
    files = tuple(sorted(file.name for file in stage.iterdir()))
    return OnnxResult(files, head, precision, OPSET, measured, decisions)


def plan_onnx(output: Path, precision: str) -> tuple[RecordedFolder, tuple[Decision, ...]]:
    """The folder to export and the decisions, before the model is loaded.

    Raises:
        UsageError: a package is missing, or there is no such precision.
        MappingError: `output` has no record.
    """
    _check_request(precision)
    decisions = (
        Decision(
            "opset", OPSET, "the lowest that torch's exporter writes; onnxruntime reads it since 1.15", Origin.DEFAULT
        ),
        Decision("precision", precision, PRECISIONS[precision], Origin.ASKED),
    )
    return recorded_folder(output), decisions


def _check_request(precision: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"{precision!r}: no precision of an ONNX graph; expected one of {', '.join(PRECISIONS)}")
    need_torch("an export to ONNX", "onnx")
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise UsageError(
            f"an export to ONNX needs {', '.join(missing)}, not installed here",
            hint=pip_install(f"'nezha-convert[onnx]' {CPU_INDEX}"),
        )


def _check(path: Path) -> None:
    """Raises MappingError unless the graph, its shapes included, follows the rules of ONNX."""
    import onnx

    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise MappingError(f"{path.name}: torch's exporter wrote a graph that onnx refuses ({error})") from error


def _run_torch(model: Any, head: str, case: Mapping[str, Array]) -> dict[str, Array]:
    import torch

    with torch.inference_mode():
        outputs = named_outputs(model, head)(*(torch.from_numpy(case[name]) for name in INPUTS))
    return {name: tensor.numpy() for name, tensor in zip(OUTPUTS[head], outputs, strict=True)}


def _run_onnx(
    path: Path, head: str, cases: Mapping[str, Mapping[str, Array]]
) -> Iterator[tuple[str, dict[str, Array]]]:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for name, case in cases.items():
            arrays = session.run(OUTPUTS[head], {key: case[key] for key in INPUTS})
            yield name, dict(zip(OUTPUTS[head], arrays, strict=True))
    except Exception as error:  # onnxruntime's errors share no narrower class
        raise MappingError(f"{path.name}: onnxruntime cannot run the graph ({error})") from error


def _measure(
    path: Path,
    head: str,
    precision: str,
    cases: Mapping[str, Mapping[str, Array]],
    expected: Mapping[str, Mapping[str, Array]],
) -> tuple[Measured, ...]:
    """Run the graph and compare its outputs with `expected`, those of PyTorch.

    Raises:
        MappingError: they are too far apart.
    """
    tolerance = TOLERANCES["float32"][0] if precision == "float32" else math.inf
    measurement = Measurement("PyTorch", "float32", tolerance)
    measurement.scale_to(list(expected.values()))
    for name, outputs in _run_onnx(path, head, cases):
        measurement.add(name, expected[name], outputs)
    tensors = measurement.result().tensors
    problems = tuple(
        f"{tensor.name}: {tensor.nonfinite:,} values not finite"
        if tensor.nonfinite
        else f"{tensor.name}: {tensor.relative_error:.1e} of its range, at {tensor.peak}; allowed {tolerance:g}"
        for tensor in tensors
        if not tensor.passed
    )
    if problems:
        raise MappingError(
            f"{path.name}: in {precision}, onnxruntime does not compute what PyTorch computes; nothing was written",
            problems=problems,
            hint="Use another precision, or other releases of torch and onnxruntime.",
        )
    return tuple(Measured(tensor.name, tensor.relative_error, 1 - tensor.argmax_agreement) for tensor in tensors)
