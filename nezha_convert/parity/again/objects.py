"""The names of an object-based checkpoint of TensorFlow, found a second time: from each layer down to its variables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from .keras_file import in_order
from .table import Message

_LAYER = re.compile(r".*layer_with_weights-\d+")
_BESIDE = re.compile(r"layer-\d+|_?(layers|weights|keras_api|.*variables|.*trainable_weights|.*losses)")
_DEEPEST = 5


class _Node:
    """An object of the graph: its children by name, and its value's key and name if it has one."""

    def __init__(self, data: bytes) -> None:
        message = Message(data)
        children = [Message(part) for part in message.parts(1)]
        self.children = {b"".join(one.parts(2)).decode(): one.number(1) for one in children}
        attributes = [Message(part) for part in message.parts(2)]
        self.values = [(b"".join(one.parts(3)).decode(), b"".join(one.parts(2)).decode()) for one in attributes]


def names_of(graph: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The name of each tensor by its key: LAYER/PATH in a layer of Keras, else the variable's own name, else its path.

    Args:
        graph: the graph of objects (TrackableObjectGraph: nodes 1).
        shapes: by key.
    """
    nodes = [_Node(part) for part in Message(graph).parts(1)]
    full = {key: name for node in nodes for key, name in node.values}
    often = Counter(full.values())
    names = {}
    for key in shapes:
        path, own = key.split("/.ATTRIBUTES/")[0], full.get(key, "")
        plain = (
            own
            and often[own] == 1
            and not own.startswith("Variable")
            and not path.startswith(("optimizer", "keras_api/"))
        )
        names[key] = own if plain and ".OPTIMIZER_SLOT" not in key else f"optimizer/{path}" if "SLOT" in path else path
    layers = list(_layers(nodes))
    nameless = [layer for layer in layers if not any("/" in full[key] for key in layer.values())]
    ordered = _ordered([{path: shapes[key] for path, key in layer.items() if key in shapes} for layer in nameless])
    titles = {id(layer): title for layer, title in zip(nameless, ordered, strict=True)}
    for layer in layers:
        for path, key in layer.items():
            title = titles.get(id(layer)) or "/".join(full[key].split("/")[: -path.count("/") - 1])
            names[key] = f"{title}/{path}"
    denses = {name.split("/")[0] for name in names.values() if re.match(r"dense(_\d+)?/", name)}
    if len(denses) == 1:
        names = {key: re.sub(r"^dense_\d+/", "dense/", name) for key, name in names.items()}
    return names


def _layers(nodes: list[_Node]) -> Iterator[dict[str, str]]:
    """The values of each layer, by their path in it: those that are found first keep theirs."""
    numbered = [
        (int(name.rpartition("-")[2]), child)
        for node in nodes
        for name, child in node.children.items()
        if _LAYER.fullmatch(name)
    ]
    tops = {child for _, child in numbered}
    taken: set[str] = set()
    for _, top in sorted(set(numbered)):
        found: dict[str, str] = {}
        level = {"": top}
        for _ in range(_DEEPEST):
            for path, number in level.items():
                for key, _ in nodes[number].values:
                    if key not in taken and ".OPTIMIZER_SLOT" not in key:
                        taken.add(key)
                        found[path.lstrip("/")] = key
            level = {
                f"{path}/{name}": child
                for path, number in level.items()
                for name, child in nodes[number].children.items()
                if child not in tops and not _BESIDE.fullmatch(name)
            }
        if found:
            yield found


def _ordered(layers: list[dict[str, tuple[int, ...]]]) -> list[str]:
    """bert4keras' names of layers that have none, from their weights."""
    words = next((layer["embeddings"] for layer in layers if "embeddings" in layer), ())
    kinds: list[str] = []
    for layer in layers:
        if "embeddings" in layer:
            kind = "embedding" if layer["embeddings"][-1] == words[-1] else "relative_position_embedding"
        elif "gamma" in layer or "beta" in layer:
            kind = "layer_normalization" if "gamma" in layer else "scale_offset"
        elif "q_dense/kernel" in layer or "i0_dense/kernel" in layer:
            kind = "multi_head_attention" if "q_dense/kernel" in layer else "feed_forward"
        else:
            kind = "dense"
        before = sum(re.fullmatch(rf"{kind}(_\d+)?", other) is not None for other in kinds)
        kinds.append(f"{kind}_{before}" if before else kind)
    first = {kind: next(iter(layer.values())) for kind, layer in zip(kinds, layers, strict=True)}
    names = in_order(first, kinds)
    return [names.get(kind, kind) for kind in kinds]
