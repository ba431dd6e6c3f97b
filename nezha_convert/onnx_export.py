"""A converted model as ONNX: one graph for every batch and length, measured against PyTorch before it counts.

The exporter is torch's newer one (`dynamo=True`): the older one writes the example's length into the graph, and a tied
decoder twice.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .errors import MappingError, UsageError
from .parity.converted import ConvertedModel
from .parity.folder import ConvertedFolder
from .parity.formulas import Array
from .parity.inputs import built_in_cases
from .parity.measure import TOLERANCES, Measurement
from .parity.oracle import HEADS
from .tensors import Decision

MODEL = "model.onnx"
"""The name under which optimum looks for a graph."""

OPSET = 18
"""The lowest that torch's exporter writes; onnxruntime reads it since 1.14."""

PRECISIONS = {
    "float32": "the model's own arithmetic",
    "float16": "weights and arithmetic in half precision but for the softmax; the outputs are float32 all the same",
    "int8": "dynamic quantization by onnxruntime: weights in 8 bits, activations when it runs",
}

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

OUTPUTS = {**HEADS, "encoder": ("last_hidden_state", "pooler_output")}
"""By head, under transformers' names: optimum looks for them."""

ONE_FILE = 1 << 30
"""Bytes of weights up to which they lie in the graph's own file. Protobuf ends at 2 GiB, and is built in memory."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_WEIGHTS = (".safetensors", ".safetensors.index.json")

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is being done)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """An output's distance from PyTorch in float32, over the built-in inputs.

    Attributes:
        relative_error: the largest error, as a part of the output's range.
        argmax_differs: the share of rows (along the last dimension) whose largest entry is another one.
    """

    output: str
    relative_error: float
    argmax_differs: float


@dataclass(frozen=True, slots=True)
class OnnxResult:
    """What was written: the files' names, and how exact the graph is."""

    files: tuple[str, ...]
    head: str
    precision: str
    opset: int
    measured: tuple[Measured, ...]
    decisions: tuple[Decision, ...]


def export_onnx(
    output: Path,
    stage: Path,
    *,
    precision: str = "float32",
    progress: Progress = lambda done, steps, what: None,
) -> OnnxResult:
    """Write the converted folder `output` into the empty folder `stage`, with a graph in place of its weights.

    The graph takes `INPUTS`, int64 [batch, length] (for multiple choice [batch, choices, length]) of any size, and
    gives the head's `OUTPUTS` in float32.

    Raises:
        UsageError: a package is missing, or there is no such precision.
        MappingError: `output` is no converted folder; or the graph's outputs are not PyTorch's: in float32 more than
            2e-5 of their range apart, otherwise not finite.
    """
    _check_request(precision)
    folder = ConvertedFolder(output)
    head = folder.record["head"]
    path = stage / MODEL

    progress(0, 5, "loading the model")
    model = ConvertedModel(output, folder.record["architecture"], head).model.float()
    progress(1, 5, "running PyTorch")
    cases = built_in_cases(folder.config, model.config.max_relative_position, head)
    expected = {name: _run_torch(model, head, case) for name, case in cases.items()}
    progress(2, 5, "writing the graph")
    with _quiet():
        _write(model, head, precision, path)
    progress(3, 5, "checking the graph")
    _check(path)
    progress(4, 5, "running onnxruntime")
    measured = _measure(path, head, precision, cases, expected)

    for file in folder.record["output_files"]:
        if not file["name"].endswith(_WEIGHTS):
            shutil.copyfile(output / file["name"], stage / file["name"])
    files = tuple(sorted(file.name for file in stage.iterdir()))
    decisions = (
        Decision("opset", OPSET, "the lowest that torch's exporter writes; onnxruntime reads it since 1.14"),
        Decision("precision", precision, PRECISIONS[precision]),
    )
    return OnnxResult(files, head, precision, OPSET, measured, decisions)


def _check_request(precision: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"{precision!r}: no precision of an ONNX graph; expected one of {', '.join(PRECISIONS)}")
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise UsageError(
            f"an export to ONNX needs {', '.join(missing)}, not installed here",
            hint='pip install "nezha-convert[onnx]"',
        )


def _write(model: Any, head: str, precision: str, path: Path) -> None:
    """The model as a graph in `path`; weights past `ONE_FILE` in a file beside it. Leaves the model in `precision`."""
    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        exact = path.with_name("float32.onnx")
        external = _export(model, head, exact)
        # Unsigned: processors without VNNI add pairs of unsigned by signed products in 16 bits, which overflow.
        quantize_dynamic(exact, path, weight_type=QuantType.QUInt8, use_external_data_format=external)
        for file in path.parent.glob(f"{exact.name}*"):  # the graph and, with large models, its weights
            file.unlink()
    else:
        _export(model.half() if precision == "float16" else model, head, path)


def _export(model: Any, head: str, path: Path) -> bool:
    """Write `model` as it is; whether its weights lie beside the graph."""
    import torch

    names = {0: "batch", 1: "choices", 2: "length"} if head == "multiple-choice" else {0: "batch", 1: "length"}
    # Sizes that differ, none of them 1; and three tensors: of one that came twice, the exporter would make one input.
    example = tuple(torch.ones((2, 3, 9)[-len(names) :], dtype=torch.long) for _ in INPUTS)
    with _relative_attention_for_onnx(model):
        program = torch.onnx.export(
            _named_outputs(model, head),
            example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=dict.fromkeys(INPUTS, names),
            input_names=INPUTS,
            output_names=OUTPUTS[head],
            verbose=False,
        )
    assert program is not None  # torch's signature is that of the older exporter too
    _forget_this_machine(program.model)
    external = sum(parameter.nbytes for parameter in model.parameters()) > ONE_FILE
    program.save(path, external_data=external)
    return external


def _named_outputs(model: Any, head: str) -> Any:
    """`model` as a module from `INPUTS` to a tuple of its `OUTPUTS`, in float32."""
    import torch

    class NamedOutputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> tuple[Any, ...]:
            outputs = self.model(input_ids, attention_mask, token_type_ids, return_dict=True)
            return tuple(outputs[name].float() for name in OUTPUTS[head])

    return NamedOutputs().eval()


@contextmanager
def _relative_attention_for_onnx(model: Any) -> Iterator[None]:
    """Let the model's encoder attend by `attention_by_buckets`, with its table as a constant."""
    from nezha import attention_nezha, modeling_nezha

    encoder = getattr(model, "nezha", model).encoder
    table = attention_nezha.relative_position_table(encoder.max_relative_position, encoder.head_size, dtype=model.dtype)
    chosen = modeling_nezha.choose_attention
    modeling_nezha.choose_attention = lambda *args, **options: (attention_by_buckets, table)
    try:
        yield
    finally:
        modeling_nezha.choose_attention = chosen


def attention_by_buckets(
    query: Any, key: Any, value: Any, table: Any, mask: Any = None, *, dropout: float = 0.0
) -> tuple[Any, None]:
    """`nezha.attention_nezha.relative_attention` by clipped distance, without a tensor [L, L, d].

    The scores of a query with all 2K + 1 rows of the table are one product, from which each key gathers its own. The
    other way round, a query's probabilities are summed by clipped distance into 2K + 1 buckets: a band of single keys,
    and at either end all that are K and more away. ONNX could add them up in one ScatterElements; onnxruntime takes
    longer for that, and other runtimes lack it.

    Shape:
        query, key, value: [B, H, L, d].
        table: [2K + 1, d].
        mask: boolean, broadcastable to [B, H, L, L].
        result: [B, H, L, d], and None where the reference has probabilities.
    """
    import torch

    batch, heads, length, size = query.shape
    clip = table.shape[0] // 2
    position = torch.arange(length, device=query.device)
    bucket = (position - position[:, None]).clamp(-clip, clip) + clip

    query = query * size**-0.5
    relative = (query @ table.T).gather(-1, bucket.expand(batch, heads, -1, -1))
    scores = (query @ key.transpose(-1, -2) + relative).float()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).to(value.dtype)

    near = position[:, None] + torch.arange(1 - clip, clip, device=query.device)
    inside = ((near >= 0) & (near < length)).to(weights.dtype)
    near = near.clamp(min=0).minimum(position[-1])
    buckets = (
        (weights * (bucket == 0).to(weights.dtype)).sum(-1, keepdim=True),
        weights.gather(-1, near.expand(batch, heads, -1, -1)) * inside,
        (weights * (bucket == 2 * clip).to(weights.dtype)).sum(-1, keepdim=True),
    )
    return weights @ value + torch.cat(buckets, -1) @ table, None


def _forget_this_machine(model: Any) -> None:
    """Remove what the exporter notes at every node: lines of source with their paths, names of modules."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _check(path: Path) -> None:
    """Raises MappingError unless the graph keeps to ONNX's rules, shapes included."""
    import onnx

    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise MappingError(f"{path.name}: torch's exporter wrote a graph that onnx refuses ({error})") from error


def _run_torch(model: Any, head: str, case: Mapping[str, Array]) -> dict[str, Array]:
    import torch

    with torch.inference_mode():
        outputs = _named_outputs(model, head)(*(torch.from_numpy(case[name]) for name in INPUTS))
    return {name: tensor.numpy() for name, tensor in zip(OUTPUTS[head], outputs, strict=True)}


def _measure(
    path: Path,
    head: str,
    precision: str,
    cases: Mapping[str, Mapping[str, Array]],
    expected: Mapping[str, Mapping[str, Array]],
) -> tuple[Measured, ...]:
    """Run the graph and compare.

    Raises:
        MappingError: it departs.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tolerance = TOLERANCES["float32"][0] if precision == "float32" else np.inf
    measurement = Measurement("PyTorch", "float32", tolerance)
    measurement.scale_to(list(expected.values()))
    for name, case in cases.items():
        feed = {given: case[given] for given in INPUTS}
        measurement.add(name, expected[name], dict(zip(OUTPUTS[head], session.run(OUTPUTS[head], feed), strict=True)))
    tensors = measurement.result().tensors
    if problems := tuple(
        f"{one.name}: {one.nonfinite:,} values not finite"
        if one.nonfinite
        else f"{one.name}: {one.relative_error:.1e} of its range, at {one.peak}; allowed {tolerance:g}"
        for one in tensors
        if not one.passed
    ):
        raise MappingError(
            f"{path.name}: in {precision}, onnxruntime does not compute what PyTorch computes; nothing was written",
            problems=problems,
            hint="Use another precision, or other releases of torch and onnxruntime.",
        )
    return tuple(Measured(one.name, one.relative_error, 1 - one.argmax_agreement) for one in tensors)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on what is not installed, and the quantizer's on what it could do first."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
