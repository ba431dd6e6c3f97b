"""The source of a converted folder, read a second time, for the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import Origin
from ..errors import CheckpointError, UsageError
from ..files.given import path_of
from ..folder.record import ConvertedFolder
from ..hub import local_source
from .again.config_file import labels_of, published, read_json_object
from .again.files import TORCH, Files, find_config, find_files
from .again.source import Reread, reread
from .again.torch_file import config_in
from .oracle.dialects import dialect_of


@dataclass(frozen=True, slots=True)
class Source:
    """A source as the references read it.

    Attributes:
        checkpoint: its tensors, without what a larger model puts in front of their names.
        config: its own JSON, unchanged.
        vocab: the vocabulary that the folder's tokenizer was made from; None when the folder has no tokenizer.
        labels: the names of the classifier's rows; None where the source has none.
    """

    checkpoint: Reread
    config: Mapping[str, Any]
    vocab: Path | None
    labels: list[str] | None = None

    @property
    def program(self) -> str:
        """The program that wrote the source, as the oracle recognises it."""
        return dialect_of(self.checkpoint.entries, self.config).name

    @property
    def clip(self) -> int:
        """The largest distance that the source's attention tells apart, unless a stored table says another."""
        dialect = dialect_of(self.checkpoint.entries, self.config)
        return dialect.clip or int(self.config.get("max_relative_position", 64))


def read_source(
    source: str | Path,
    folder: ConvertedFolder,
    config: str | Path | None,
    vocab: str | Path | None,
    labels: str | Path | Sequence[str] | None = None,
) -> Source:
    """Read `source` once more and check by its hashes that `folder` was converted from it.

    Args:
        config, vocab, labels: the JSON, the vocabulary and the names of labels, where they are not beside the source.

    Raises:
        UsageError: the folder has a tokenizer, and its vocabulary is neither named nor beside the source.
        CheckpointError: the source cannot be read.
        MappingError: `folder` is not a conversion of it.
    """
    files = find_files(local_source(source)[0], {file["name"] for file in folder.record["source_files"]})
    asked = published(Path(config).as_posix() if config else _asked(folder, "config") or "")
    config_path = None if asked else path_of(config) if config else find_config(files)
    raw = asked if asked or config_path or files.kind != TORCH else config_in(files.weights[0])
    if config_path is None and raw is None:
        raise CheckpointError(f"{files.path}: no JSON of the model beside it", hint="Name it: --config FILE")
    # transformers 5 writes a tokenizer.json and no vocab.txt.
    vocab_path = path_of(vocab) if vocab else _beside(files, "vocab.txt") or _beside(files, "tokenizer.json")
    if folder.has_tokenizer and vocab_path is None:
        raise UsageError(
            f"{folder.path}: its tokenizer was made from a vocabulary that is not beside {source}",
            hint="Name the one that it was converted with: --vocab FILE",
        )
    used_vocab = vocab_path if folder.has_tokenizer else None
    rows = len(folder.config.get("id2label") or ())
    named = None if labels is None or isinstance(labels, (str, Path)) else list(labels)
    given = path_of(labels) if isinstance(labels, (str, Path)) else None
    labels_path = (given or _beside(files, "labels.txt")) if rows else None
    folder.check_source((*files.files, *filter(None, (config_path, used_vocab, given))))
    raw = read_json_object(config_path) if config_path else raw or {}
    renamed = [d["value"].partition("=")[::2] for d in folder.record["decisions"] if d["field"] == "renamed"]
    averaged = folder.origin("average") is Origin.ASKED
    again = reread(files, _asked(folder, "tensors read from"), _asked(folder, "prefix"), renamed, averaged)
    return Source(again, raw, used_vocab, (named or labels_of(raw, labels_path, rows)) if rows else None)


def _asked(folder: ConvertedFolder, field: str) -> str | None:
    """What the user asked the conversion for. A choice of the conversion's own would be compared with itself."""
    return str(folder.decision(field)) if folder.origin(field) is Origin.ASKED else None


def _beside(files: Files, name: str) -> Path | None:
    return next((folder / name for folder in files.folders if (folder / name).is_file()), None)
