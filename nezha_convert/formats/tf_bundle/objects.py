"""The names of an object-based checkpoint, which tf.keras writes and `tf.train.Checkpoint`.

Its keys are paths through the program's objects, such as ``layer_with_weights-4/q_dense/kernel/.ATTRIBUTES/
VARIABLE_VALUE``, and its graph of objects (tensorflow/core/protobuf/trackable_object_graph.proto) holds the name of
each variable. A tensor is called

- ``LAYER/PATH/KIND`` in a layer of Keras, as in "Transformer-0-FeedForward/o_dense/kernel". The layer's name begins
  the variable's. Where variables have none, bert4keras' order of layers gives it;
- by the variable's name where no layer holds it and no other has that name;
- ``optimizer/...`` in an optimizer; and by its path otherwise, as Keras' metrics are.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..keras.contents import layers_in_order, lone_dense
from ..protobuf import FormatError, fields, span

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The key of the graph."""

_END, _SLOT = "/.ATTRIBUTES/", "/.OPTIMIZER_SLOT/"
_NAMELESS = re.compile(r"Variable(_\d+)?")
_LAYER = re.compile(r"layer_with_weights-(\d{1,6})")
_LISTS = re.compile(r"layer-\d+|_?(layers|weights|variables|(non_)?trainable_(weights|variables)|keras_api|\w+_losses)")
"""Objects that Keras keeps beside a layer's own, which lead to the same variables by other ways."""

Layer = tuple[tuple[int, ...], int]
"""The number of a layer after those of the models that it lies in, and the number of its object."""


class _Object(NamedTuple):
    """Its children by the names that their parent gives them, and its values: (key, the variable's name)."""

    children: dict[str, int]
    values: list[tuple[str, str]]


def names_in(graph: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The name of each tensor by its key.

    Args:
        graph: a TrackableObjectGraph.
        shapes: the shapes of all tensors by key.

    Raises:
        FormatError: `graph` is none.
    """
    objects = list(_objects(graph))
    full = {key: name for one in objects for key, name in one.values}
    counted = Counter(full.values())
    layers: dict[Layer, dict[str, str]] = {}
    for layer, path, key in _in_layers(objects):
        if key in shapes:
            layers.setdefault(layer, {})[path] = key
    names = {key: _plain(key, full.get(key, ""), counted) for key in shapes}
    titles = _titles(layers, full, shapes)
    for layer, keys in layers.items():
        names |= {key: f"{titles[layer]}/{path}" for path, key in keys.items()}
    twice = Counter(names.values())
    return {key: name if twice[name] == 1 else key for key, name in names.items()}


def _objects(graph: bytes) -> Iterator[_Object]:
    """TrackableObjectGraph: nodes 1 (children 1: node_id 1, local_name 2; attributes 2: full_name 2, key 3)."""
    for number, node in fields(graph):
        if number != 1:
            continue
        children, values = dict[str, int](), []
        for kind, value in fields(graph, *span(node)):
            if kind in (1, 2):
                content = dict(fields(graph, *span(value)))
                texts = {
                    number: graph[slice(*place)].decode("utf-8", "replace")
                    for number, place in content.items()
                    if not isinstance(place, int)
                }
                if kind == 2:
                    values.append((texts.get(3, ""), texts.get(2, "")))
                    continue
                child = content.get(1, 0)
                if not isinstance(child, int):
                    raise FormatError("an object of its graph has no number")
                children[texts.get(2, "")] = child
        yield _Object(children, values)


def _in_layers(objects: list[_Object]) -> Iterator[tuple[Layer, str, str]]:
    """(layer, path of objects in it, key) of each value in a layer of Keras, by the shortest path."""
    seen = {0}
    queue: deque[tuple[int, Layer, str]] = deque([(0, ((), 0), "")])
    while queue:
        number, layer, path = queue.popleft()
        if number >= len(objects):
            raise FormatError(f"its graph names object {number} of {len(objects)}")
        inside = bool(layer[0])
        yield from ((layer, path, key) for key, _ in objects[number].values if inside and _SLOT not in key)
        for name, child in objects[number].children.items():
            match = _LAYER.fullmatch(name)
            if child in seen or _LISTS.fullmatch(name):
                continue
            seen.add(child)
            if match:
                queue.append((child, ((*layer[0], int(match[1])), child), ""))
            else:  # of a layer; or outside of layers, where a model may be that has some
                queue.append((child, layer, f"{path}/{name}" if inside and path else name))


def _titles(
    layers: Mapping[Layer, Mapping[str, str]], full: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[Layer, str]:
    """The name of each layer: how its variables' names begin; else that of bert4keras' order; else its number."""
    titles: dict[Layer, str] = {}
    nameless: dict[Layer, dict[str, tuple[int, ...]]] = {}
    for layer, keys in sorted(layers.items()):
        begins = {full[key].rsplit("/", path.count("/") + 1)[0] for path, key in keys.items() if "/" in full[key]}
        titles[layer] = begins.pop() if len(begins) == 1 else "/".join(f"layer_with_weights-{n}" for n in layer[0])
        if not any("/" in full[key] for key in keys.values()):
            nameless[layer] = {path: shapes[key] for path, key in keys.items()}
    titles |= _ordered(nameless)
    dense = lone_dense(titles.values())
    return {layer: dense[title] for layer, title in titles.items()}


def _ordered(layers: Mapping[Layer, Mapping[str, tuple[int, ...]]]) -> dict[Layer, str]:
    """bert4keras' names of layers, given in their order with their weights' shapes, that have none."""
    words = next((weights["embeddings"] for weights in layers.values() if "embeddings" in weights), ())
    counts = Counter[str]()
    numbered: dict[str, Layer] = {}
    for layer, weights in layers.items():
        kind = _kind(weights, words)
        numbered[f"{kind}_{counts[kind]}" if counts[kind] else kind] = layer
        counts[kind] += 1
    if "embedding" not in numbered:
        return {}
    names = layers_in_order({kind: next(iter(layers[layer].values())) for kind, layer in numbered.items()})
    return {numbered[kind]: name for kind, name in names.items() if kind in numbered}


def _kind(weights: Mapping[str, tuple[int, ...]], words: tuple[int, ...]) -> str:
    """The class of a layer, as Keras spells it, by its weights."""
    if "q_dense/kernel" in weights:
        return "multi_head_attention"
    if "i0_dense/kernel" in weights:
        return "feed_forward"
    if set(weights) == {"embeddings"}:
        return "embedding" if weights["embeddings"][-1:] == words[-1:] else "relative_position_embedding"
    if set(weights) == {"beta", "gamma"}:
        return "layer_normalization"
    return "dense" if "kernel" in weights else "scale_offset" if set(weights) == {"beta"} else "other"


def _plain(key: str, full: str, counted: Mapping[str, int]) -> str:
    """The name of a tensor that no layer holds."""
    path = key.split(_END)[0]
    if _SLOT in path:
        variable, slot = path.split(_SLOT, 1)
        return f"{slot}/{variable}" if slot.startswith("optimizer") else f"optimizer/{slot}/{variable}"
    nameless = not full or _NAMELESS.fullmatch(full) or counted[full] != 1
    return path if nameless or path.startswith(("optimizer", "keras_api/")) else full
