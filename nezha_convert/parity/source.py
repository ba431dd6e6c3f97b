"""The source of a converted folder: its tensors and its JSON, read a second time for the references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint
from ..errors import UsageError
from ..folder.record import ConvertedFolder
from ..formats.open import open_checkpoint
from ..hub import local_source
from ..mapping.config import read_config
from .oracle.dialects import dialect_of


@dataclass(frozen=True, slots=True)
class Source:
    """A source as the references read it.

    Attributes:
        checkpoint: its tensors, without the prefix that the conversion removed from their names.
        config: its own JSON, unchanged.
        vocab: the vocabulary that the folder's tokenizer was made from; None when the folder has no tokenizer.
    """

    checkpoint: Checkpoint
    config: Mapping[str, Any]
    vocab: Path | None

    @property
    def program(self) -> str:
        """The program that wrote the source, as the oracle recognises it."""
        return dialect_of(self.checkpoint.entries, self.config).name

    @property
    def clip(self) -> int:
        """The largest distance that the source's attention tells apart."""
        return int(self.config.get("max_relative_position", 64))


def read_source(
    source: str | Path, folder: ConvertedFolder, config: str | Path | None, vocab: str | Path | None
) -> Source:
    """Open `source` and check by its hashes that `folder` was converted from it.

    Args:
        config, vocab: the JSON and the vocabulary, where they are not beside the source.

    Raises:
        UsageError: the folder has a tokenizer, and its vocabulary is neither named nor beside the source.
        CheckpointError: the source cannot be read.
        MappingError: `folder` is not a conversion of it.
    """
    checkpoint = _without_prefix(open_checkpoint(local_source(source)[0]), folder.decision("prefix") or "")
    config_path = Path(config) if config else checkpoint.config
    vocab_path = Path(vocab) if vocab else checkpoint.vocab
    if vocab_path is None and (whole := checkpoint.path.parent / "tokenizer.json").is_file():
        vocab_path = whole  # transformers 5 writes no vocab.txt beside it
    raw = read_config(config_path, checkpoint.path)
    if folder.has_tokenizer and vocab_path is None:
        raise UsageError(
            f"{folder.path}: its tokenizer was made from a vocabulary that is not beside {source}",
            hint="Name the one that it was converted with: --vocab FILE",
        )
    used_vocab = vocab_path if folder.has_tokenizer else None
    folder.check_source((*checkpoint.files, *filter(None, (config_path, used_vocab))))
    return Source(checkpoint, raw, used_vocab)


def _without_prefix(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """The tensors whose names begin with `prefix`, under the rest of their names."""
    kept = {name[len(prefix) :]: entry for name, entry in checkpoint.entries.items() if name.startswith(prefix)}
    return replace(checkpoint, entries=kept)
