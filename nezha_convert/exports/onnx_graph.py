"""Writes a model as an ONNX graph that takes batches of any size and length.

It uses torch's newer exporter (`dynamo=True`): the older one fixes the example's length in the graph, and stores a tied
decoder twice.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import MappingError
from ..formats.tf_bundle.write import message_start
from ..parity.oracle.model import HEADS
from .onnx_layers import repeat_last_layer, traced_layers

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
"""Weights of up to this many bytes are in the graph's own file, since readers of protobuf take at most 2 GiB."""


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
    encoder = getattr(model, "nezha", model).encoder
    module = named_outputs(model, head, with_states=True)
    (layers,) = (name for name, child in module.named_modules() if child is encoder.layer)
    with _relative_attention_for_onnx(model, encoder), traced_layers(encoder) as others:
        try:
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dict.fromkeys(INPUTS, names),
                input_names=INPUTS,
                output_names=(*outputs_of(model, head), "taken_by_layer", "returned_by_layer"),
                optimize=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise MappingError(f"{type(model).__name__}: torch cannot export it to ONNX ({error})") from error
    assert program is not None  # None is what the older exporter returns
    repeat_last_layer(program.model, layers, others)
    for name, output in zip(outputs_of(model, head), program.model.graph.outputs, strict=True):
        output.name = name
    program.optimize()
    program.model.ir_version = IR_VERSION
    _forget_this_machine(program.model)
    external = bool(sum(parameter.nbytes for parameter in model.parameters()) > ONE_FILE)
    if external:
        program.save(path, external_data=True)
    else:
        _save_in_one_file(program.model, path)
    return external


def _save_in_one_file(model: Any, path: Path) -> None:
    """Write the graph, then its weights one after another. As one protobuf they would be in memory three times.

    Protobuf joins the parts of a message that a file has twice: here the field `graph` of the model, whose
    `initializer`s add up.
    """
    import onnx
    import onnx_ir

    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    model.graph.initializers.clear()
    graph, initializer = onnx.ModelProto.GRAPH_FIELD_NUMBER, onnx.GraphProto.INITIALIZER_FIELD_NUMBER
    with path.open("wb") as file:
        file.write(onnx_ir.to_proto(model).SerializeToString())
        for name, tensor in weights.items():
            content = tensor.tobytes()
            start = onnx.TensorProto(name=name, data_type=tensor.dtype, dims=tensor.shape.numpy()).SerializeToString()
            start += message_start(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, len(content))
            for field in (initializer, graph):
                start = message_start(field, len(start) + len(content)) + start
            file.write(start)
            file.write(content)


def named_outputs(model: Any, head: str, *, with_states: bool = False) -> Any:
    """`model` as a module that takes `INPUTS` and returns a tuple of its `outputs_of` in float32.

    With states, it also returns what its last layer takes and returns.
    """
    import torch

    class NamedOutputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> tuple[Any, ...]:
            inputs = (input_ids, attention_mask, token_type_ids)
            outputs = self.model(*inputs, output_hidden_states=with_states, return_dict=True)
            states = outputs.hidden_states[-2:] if with_states else ()
            return (*(outputs[name].float() for name in outputs_of(model, head)), *states)

    return NamedOutputs().eval()


@contextmanager
def _relative_attention_for_onnx(model: Any, encoder: Any) -> Iterator[None]:
    """Make the encoder use `attention_by_buckets`, with the table as a constant and one set of buckets."""
    from nezha.attention_nezha import relative_position_table

    table = relative_position_table(encoder.max_relative_position, encoder.head_size, dtype=model.dtype)
    modeling: Any = import_module("nezha.modeling_nezha")
    chosen = modeling.choose_attention
    modeling.choose_attention = lambda own, length, *args, **options: (attention_by_buckets, Buckets.of(table, length))
    try:
        yield
    finally:
        modeling.choose_attention = chosen


@dataclass(frozen=True)
class Buckets:
    """Which of the 2K + 1 rows of the table a query and a key meet at; all layers share it.

    Attributes:
        table: [2K + 1, d].
        of_key: [L L], for each query and key, where among L (2K + 1) scores theirs is.
        near: [L (2K - 1)], for each query and inner row, where among L L keys its key is; `inside`, [L, 2K - 1], is 1
            where the sequence has that key.
        right: [L, L], 1 where a key is K or more tokens after the query; else 0.
    """

    table: Any
    of_key: Any
    near: Any
    inside: Any
    right: Any

    @classmethod
    def of(cls, table: Any, length: Any) -> Buckets:
        """The buckets of sequences of `length` tokens."""
        import torch

        rows = table.shape[0]
        clip = rows // 2
        key = torch.arange(length, device=table.device)
        query = key[:, None]
        row = (key - query).clamp(-clip, clip) + clip
        near = query + torch.arange(1 - clip, clip, device=table.device)
        return cls(
            table,
            (query * rows + row).flatten(),
            (query * length + near.clamp(min=0).minimum(key[-1])).flatten(),
            ((near >= 0) & (near < length)).to(table.dtype),
            (row == 2 * clip).to(table.dtype),
        )


def attention_by_buckets(
    query: Any, key: Any, value: Any, buckets: Buckets, mask: Any = None, *, dropout: float = 0.0
) -> tuple[Any, None]:
    """The same as `nezha.attention_nezha.relative_attention`, without a tensor [L, L, d].

    For the scores, one product gives each query's scores with all 2K + 1 rows of the table; each key then gathers its
    own, for all heads at once, which lie side by side for this. For the values, R[0] is added to each, and R - R[0] is
    left, which is zero for keys K or more tokens before the query. Each inner row has one key, whose probability is
    gathered; the last row has all keys K or more tokens after the query, whose probabilities are summed.

    Indices are of one dimension, as ONNX's Gather takes them: GatherElements needs one of 8 bytes for each score. The
    mask is added, since onnxruntime takes five times as long to select by it.

    Shape:
        query, key, value: [B, H, L, d].
        buckets: of sequences of L tokens.
        mask: boolean, broadcastable to [B, H, L, L].
        result: [B, H, L, d]; and None, where the reference returns probabilities.
    """
    import torch

    batch, heads, length, size = query.shape
    query = query * size**-0.5
    with_rows = query.permute(2, 0, 1, 3).flatten(1, 2) @ buckets.table.T
    relative = with_rows.transpose(1, 2).flatten(0, 1).index_select(0, buckets.of_key)
    scores = (query @ key.transpose(-1, -2) + relative.T.reshape(batch, heads, length, length)).float()
    if mask is not None:
        # The lowest finite value swallows a score, so a query without keys attends to all equally.
        scores = scores + (~mask).float() * torch.finfo(scores.dtype).min
    weights = scores.softmax(-1).to(value.dtype)
    near = weights.flatten(-2).index_select(-1, buckets.near).unflatten(-1, buckets.inside.shape) * buckets.inside
    after = (weights * buckets.right).sum(-1, keepdim=True)
    first = buckets.table[0]
    return weights @ (value + first) + torch.cat((near, after), -1) @ (buckets.table[1:] - first), None


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
