"""Repeats the last layer that was traced, for all layers after it.

All layers of an encoder compute the same with other weights, and torch takes two seconds to trace one. So two are
traced. The first one cannot be repeated: with it, the graph computes what all layers share, such as the mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

TRACED = 2


@contextmanager
def traced_layers(encoder: Any) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Leave `encoder` its first `TRACED` layers, and give the weights of the others by their names in a layer."""
    layers = encoder.layer
    encoder.layer = layers[:TRACED]
    try:
        yield [layer.state_dict() for layer in layers[TRACED:]]
    finally:
        encoder.layer = layers


def repeat_last_layer(model: Any, path: str, weights: Sequence[Mapping[str, Any]]) -> None:
    """Add a copy of the last traced layer for each of `weights`; what used that layer's result uses the last copy's.

    Args:
        model: an `onnx_ir.Model`, not optimized yet. The two last outputs of its graph are what the last layer takes
            and returns; they are outputs no more.
        path: of the layers in the traced module, for the names of weights.
        weights: of each layer to add, by their names in a layer.
    """
    import onnx_ir
    from onnx_ir.passes.common import IdentityEliminationPass
    from onnx_ir.tensor_adapters import TorchTensor

    graph = model.graph
    # The encoder copies its result to contiguous memory: an Identity, which would be in each copy.
    IdentityEliminationPass()(model)
    returned, taken = graph.outputs.pop(), graph.outputs.pop()
    if not weights:
        return
    layer = _nodes_before(returned) - _nodes_before(taken)
    nodes = [node for node in graph if node in layer]
    start = f"{path}.{TRACED - 1}."
    own = {name.removeprefix(start): value for name, value in graph.initializers.items() if name.startswith(start)}
    assert own.keys() == weights[0].keys()  # one that is shared with another layer would be shared by all copies
    users, state, place = list(returned.uses()), returned, nodes[-1]
    for number, tensors in enumerate(weights, TRACED):
        copies = {taken: state}
        for name, tensor in tensors.items():
            weight = TorchTensor(tensor, f"{path}.{number}.{name}")
            copies[own[name]] = onnx_ir.val(weight.name, const_value=weight)
            graph.register_initializer(copies[own[name]])
        for node in nodes:
            inputs = [copies.get(value, value) for value in node.inputs]
            copy = onnx_ir.Node(
                *(node.domain, node.op_type, inputs, node.attributes.values()),
                num_outputs=len(node.outputs),
                version=node.version,
            )
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.shape, new.type, copies[old] = old.shape, old.type, new
            graph.insert_after(place, copy)
            place = copy
        state = copies[returned]
    for user, index in users:
        user.replace_input_with(index, state)
    for index, output in enumerate(graph.outputs):
        if output is returned:
            graph.outputs[index] = state


def _nodes_before(value: Any) -> set[Any]:
    """The nodes whose results `value` depends on."""
    found, waiting = set(), [value]
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            waiting += [one for one in node.inputs if one is not None]
    return found
