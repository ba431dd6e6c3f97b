"""The source's tensors and the files beside them, as one thing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import CheckpointError, MappingError
from .bundle import read_bundle, read_v1
from .files import BUNDLE, EXTRA, KERAS, MINDSPORE, PADDLE, SAFETENSORS, TORCH, V1, Files
from .keras_file import read_keras
from .mindspore_file import read_mindspore
from .paddle_file import read_paddle
from .safetensors_file import read_safetensors
from .tensor import Tensor
from .torch_file import read_torch

_WORDS = re.compile(
    r"(?P<prefix>(?:.*?[./])??)(?:"
    r"(?:(?:module|bert|nezha)\.)*embeddings\.word_embeddings\.weight|bert/embeddings/word_embeddings|"
    r"Embedding-Token/.*|bert\.bert_embedding_lookup\.embedding_table)"
)
"""The name of the table of words in each program, and what stands in front of it inside a larger model."""


_VARIABLE = "/ExponentialMovingAverage"
"""How the name of a variable's average ends in TensorFlow."""

_BESIDE = re.compile(r"(.*\.)?(?=[^.]*(ema|swa|avg|averaged|shadow))[^.]+\.(module\.)?", re.IGNORECASE)
"""The beginning of an average's names, in a module that holds the average beside the model."""


@dataclass(frozen=True, slots=True)
class Reread:
    """A source, read again.

    Attributes:
        path: the bundle's prefix, the index of the shards, or the file.
        files: every file that the tensors come from.
        entries: the model's tensors, without the prefix that a larger model puts in front of their names.
        everything: all tensors, by their whole names.
        holder: what must live as long as a tensor may be read.
    """

    path: Path
    files: tuple[Path, ...]
    entries: Mapping[str, Tensor]
    everything: Mapping[str, Tensor]
    holder: object = None


def reread(
    files: Files,
    dictionary: str | None,
    prefix: str | None,
    renamed: Iterable[tuple[str, str]] = (),
    averaged: bool = False,
) -> Reread:
    """Read `files`.

    Args:
        dictionary: the key of the model's dictionary in a wrapped file, if the user named it.
        prefix: the prefix of the model inside a larger one, if the user named it.
        renamed: beginnings of names, and what the user put in their place.
        averaged: the user wants the moving average of the weights.

    Raises:
        CheckpointError: a file cannot be read.
        MappingError: it is not clear which tensors are the model's.
    """
    holder: object = files.holder
    tensors: dict[str, Tensor] = {}
    try:
        if files.kind == BUNDLE:
            tensors = read_bundle(files.path)
        elif files.kind == V1:
            tensors = read_v1(files.weights)
        for file in files.weights:
            if files.kind == TORCH:
                tensors |= read_torch(file, dictionary, averaged)
            elif files.kind == PADDLE:
                tensors |= read_paddle(file)
            elif files.kind == KERAS:
                tensors, folder = read_keras(file)
                holder = (holder, folder)
            elif files.kind == MINDSPORE:
                tensors |= read_mindspore(file)
            elif files.kind not in (BUNDLE, V1):
                tensors |= read_safetensors(file)
    except (CheckpointError, MappingError):
        raise
    except Exception as error:  # libraries raise errors of many unrelated types for damaged files
        first_line = (str(error).strip() or "no more is said").splitlines()[0]
        raise CheckpointError(f"{files.path}: cannot be read a second time ({first_line})") from error
    beside = files.path.with_name(EXTRA)
    if files.kind == SAFETENSORS and beside.is_file():
        tensors = {**read_safetensors(beside), **tensors}
    for old, new in renamed:
        tensors = {
            new + name[len(old) :] if name == old or name.startswith((f"{old}.", f"{old}/")) else name: tensor
            for name, tensor in tensors.items()
        }
    model = _averaged(tensors) if averaged else tensors
    return Reread(files.path, files.files, _inside(files.path, model, prefix), tensors, holder)


def _averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, in which an average stands in the place of what it is the average of."""
    model = {name: one for name, one in tensors.items() if not name.endswith(_VARIABLE)}
    model |= {n.removesuffix(_VARIABLE): t for n, t in tensors.items() if n.endswith(_VARIABLE)}
    average: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if (match := _BESIDE.match(name)) and tensor.shape:
            average[name[match.end() :]] = model.pop(name)
    if not any(map(_WORDS.fullmatch, average)):
        return {**tensors, **model}
    for name in model:
        ends = (name[at:] for at in (0, *(dot.end() for dot in re.finditer(r"\.", name))))
        model[name] = next((average[end] for end in ends if end in average), model[name])
    return model


def _inside(path: Path, tensors: Mapping[str, Tensor], asked: str | None) -> dict[str, Tensor]:
    """The tensors under the model's prefix, without it; and a head's outside of a prefix that nobody asked for."""
    found = {match["prefix"] for match in map(_WORDS.fullmatch, tensors) if match}
    prefix = asked
    if prefix is None:
        if len(found - {""}) > 1 and "" not in found:
            raise MappingError(
                f"{path}: {len(found)} models stand in it, by the prefixes {', '.join(sorted(found))}",
                ways=tuple(("--prefix", prefix) for prefix in sorted(found)),
            )
        prefix = "" if "" in found else next(iter(found), "")
    inside = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    # A program that wraps the encoder has its head outside of the prefix.
    return inside if asked else {**{name: t for name, t in tensors.items() if not name.startswith(prefix)}, **inside}
