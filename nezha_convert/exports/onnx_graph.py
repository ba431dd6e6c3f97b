"""Writes a model as an ONNX graph that takes batches of any size and length.

It uses torch's newer exporter (`dynamo=True`): the older one fixes the example's length in the graph, and stores a tied
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
"""The lowest opset that torch's exporter writes, and the version of the file format that came with it.

Tried: onnxruntime 1.15.0 runs such graphs. In half precision 1.17.3 does and 1.16.3 does not.
"""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

OUTPUTS = {**HEADS, "encoder": ("last_hidden_state", "pooler_output")}
"""By head, the names of the outputs in transformers: optimum looks for them."""


def outputs_of(model: Any, head: str) -> tuple[str, ...]:
    """The head's `OUTPUTS` that `model` gives: an encoder may have no pooler."""
    return OUTPUTS[head] if head != "encoder" or model.pooler is not None else OUTPUTS[head][:1]


ONE_FILE = 1 << 30
"""Weights of up to this many bytes are in the graph's own file. Protobuf is limited to 2 GiB, and built in memory."""


def write_graph(model: Any, head: str, precision: str, path: Path) -> None:
    """Write the float32 `model` as a graph; weights past `ONE_FILE` go into a file beside it.

    The graph takes `INPUTS`, int64 [batch, length] (for multiple choice [batch, choices, length]) of any size, and
    gives its `outputs_of` in float32.

    Args:
        model: one of `nezha`'s, in evaluation mode. "float16" casts it to half precision in place.
        head: its head, a key of `OUTPUTS`.
        precision: "float32", "float16" or "int8".
        path: the file of the graph, in a folder of its own.

    Raises:
        MappingError: the model uses an operation that ONNX does not have.
    """
    with _silent_exporter():
        if precision == "int8":
            _export_int8(model, head, path)
        else:
            _export(model.half() if precision == "float16" else model, head, path)


def _export_int8(model: Any, head: str, path: Path) -> None:
    """Write `model` in float32, and make from that file one with weights in 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exact = path.with_name("float32.onnx")
    external = _export(model, head, exact)
    # Unsigned weights: without VNNI, processors add two unsigned by signed products in 16 bits, and these overflow.
    quantize_dynamic(exact, path, weight_type=QuantType.QUInt8, use_external_data_format=external)
    for file in path.parent.glob(f"{exact.name}*"):  # the graph and, for large models, its file of weights
        file.unlink()


def _export(model: Any, head: str, path: Path) -> bool:
    """Write `model` unchanged, and return whether its weights are in a file beside the graph."""
    import torch

    names = {0: "batch", 1: "choices", 2: "length"} if head == "multiple-choice" else {0: "batch", 1: "length"}
    # All sizes differ and none is 1, so that the exporter takes none for a constant. The tensors are three objects: of
    # one that is passed twice, the exporter would make a single input.
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
                output_names=outputs_of(model, head),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise MappingError(f"{type(model).__name__}: torch cannot export it to ONNX ({error})") from error
    assert program is not None  # None is what the older exporter returns
    program.model.ir_version = IR_VERSION
    _forget_this_machine(program.model)
    external = bool(sum(parameter.nbytes for parameter in model.parameters()) > ONE_FILE)
    program.save(path, external_data=external)
    return external


def named_outputs(model: Any, head: str) -> Any:
    """`model` as a module that takes `INPUTS` and returns a tuple of its `outputs_of` in float32."""
    import torch

    class NamedOutputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> tuple[Any, ...]:
            outputs = self.model(input_ids, attention_mask, token_type_ids, return_dict=True)
            return tuple(outputs[name].float() for name in outputs_of(model, head))

    return NamedOutputs().eval()


@contextmanager
def _relative_attention_for_onnx(model: Any) -> Iterator[None]:
    """Make the model's encoder use `attention_by_buckets`, with its table as a constant."""
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
    """The same as `nezha.attention_nezha.relative_attention`, without a tensor [L, L, d].

    For the scores, one product gives each query's scores with all 2K + 1 rows of the table; each key then gathers its
    own. For the values, a query's probabilities are summed by clipped distance into 2K + 1 buckets. The inner buckets
    have one key each; the two at the ends have all keys at distance K or more. ONNX could sum them with one
    ScatterElements, but onnxruntime is slower at that, and other runtimes lack it.

    Shape:
        query, key, value: [B, H, L, d].
        table: [2K + 1, d].
        mask: boolean, broadcastable to [B, H, L, L].
        result: [B, H, L, d]; and None, where the reference returns probabilities.
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
    """Remove what the exporter records at each node: lines of source code with their paths, names of modules."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """Silence the exporter's remarks on what is not installed, and the quantizer's on what could be done before."""
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
