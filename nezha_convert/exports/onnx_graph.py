"""The graph of a model in ONNX, one for every batch and length.

The exporter is torch's newer one (`dynamo=True`): the older one writes the example's length into the graph, and a tied
decoder twice.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import MappingError
from ..parity.oracle.model import HEADS

OPSET, IR_VERSION = 18, 8
"""The lowest opset that torch's exporter writes, in the file format of its time.

Tried: onnxruntime 1.15.0 runs them, in half precision 1.17.3 does and 1.16.3 does not.
"""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

OUTPUTS = {**HEADS, "encoder": ("last_hidden_state", "pooler_output")}
"""By head, under transformers' names: optimum looks for them."""

ONE_FILE = 1 << 30
"""Bytes of weights up to which they lie in the graph's own file. Protobuf ends at 2 GiB, and is built in memory."""


def write_graph(model: Any, head: str, precision: str, path: Path) -> None:
    """Write the float32 `model` as a graph; weights past `ONE_FILE` go into a file beside it.

    The graph takes `INPUTS`, int64 [batch, length] (for multiple choice [batch, choices, length]) of any size, and
    gives the head's `OUTPUTS` in float32.

    Args:
        model: one of `nezha`'s, in evaluation mode; "float16" turns it into half precision.
        head: what it is, a key of `OUTPUTS`.
        precision: "float32", "float16" or "int8".
        path: the graph's, in a folder of its own.

    Raises:
        MappingError: the model has a function that ONNX does not.
    """
    with _quiet():
        if precision == "int8":
            _export_int8(model, head, path)
        else:
            _export(model.half() if precision == "float16" else model, head, path)


def _export_int8(model: Any, head: str, path: Path) -> None:
    """Write `model` in float32, then from it with weights in 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exact = path.with_name("float32.onnx")
    external = _export(model, head, exact)
    # Unsigned: processors without VNNI add pairs of unsigned by signed products in 16 bits, which overflow.
    quantize_dynamic(exact, path, weight_type=QuantType.QUInt8, use_external_data_format=external)
    for file in path.parent.glob(f"{exact.name}*"):  # the graph and, with large models, its weights
        file.unlink()


def _export(model: Any, head: str, path: Path) -> bool:
    """Write `model` as it is; whether its weights lie beside the graph."""
    import torch

    names = {0: "batch", 1: "choices", 2: "length"} if head == "multiple-choice" else {0: "batch", 1: "length"}
    # Sizes that differ, none of them 1; and three tensors: of one that came twice, the exporter would make one input.
    example = tuple(torch.ones((2, 3, 9)[-len(names) :], dtype=torch.long) for _ in INPUTS)
    with _relative_attention_for_onnx(model):
        try:
            program = torch.onnx.export(
                named_outputs(model, head),
                example,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dict.fromkeys(INPUTS, names),
                input_names=INPUTS,
                output_names=OUTPUTS[head],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise MappingError(f"{type(model).__name__}: torch cannot export it to ONNX ({error})") from error
    assert program is not None  # torch's signature is that of the older exporter too
    program.model.ir_version = IR_VERSION
    _forget_this_machine(program.model)
    external = bool(sum(parameter.nbytes for parameter in model.parameters()) > ONE_FILE)
    program.save(path, external_data=external)
    return external


def named_outputs(model: Any, head: str) -> Any:
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
    from nezha.attention_nezha import relative_position_table

    encoder = getattr(model, "nezha", model).encoder
    table = relative_position_table(encoder.max_relative_position, encoder.head_size, dtype=model.dtype)
    modeling: Any = import_module("nezha.modeling_nezha")
    chosen = modeling.choose_attention
    modeling.choose_attention = lambda *args, **options: (attention_by_buckets, table)
    try:
        yield
    finally:
        modeling.choose_attention = chosen


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
