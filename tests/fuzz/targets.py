"""The table of what is fuzzed, with one row for each reader. A new reader needs a new row here and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import bundles
from huggingface_hub import ModelCard
from tokenizers import Tokenizer

from nezha_convert.checkpoint import TensorEntry
from nezha_convert.commands.push import push
from nezha_convert.errors import CheckpointError, HubError, MappingError, NezhaConvertError, UsageError
from nezha_convert.families.heads import HEADS
from nezha_convert.folder.record import ConvertedFolder
from nezha_convert.folder.trained import TrainedFolder
from nezha_convert.formats.archive import MAX_XZ_MEMORY
from nezha_convert.formats.keras.read import read_keras
from nezha_convert.formats.mindspore import is_mindspore, read_mindspore
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.formats.paddle import read_paddle
from nezha_convert.formats.protobuf import FormatError
from nezha_convert.formats.safetensors import read_safetensors
from nezha_convert.formats.tf_bundle.objects import names_in
from nezha_convert.formats.tf_bundle.read import read_bundle
from nezha_convert.formats.tf_v1 import read_v1
from nezha_convert.formats.torch.read import read_torch
from nezha_convert.mapping.averages import averages_of
from nezha_convert.mapping.config import architecture_of, decide_config, read_config
from nezha_convert.mapping.labels import read_labels
from nezha_convert.mapping.recognise import family_of
from nezha_convert.parity.oracle.bert_tokenizer import BertTokenizer, is_beside, markers_of
from nezha_convert.tokenizer.byte_bpe import spelled_out
from nezha_convert.tokenizer.make import make_tokenizer
from nezha_convert.tokenizer.wordpiece import (
    check_length,
    decide_added,
    decide_casing,
    decide_language,
    decide_rules,
    read_vocab,
    tokenizer_files,
)

from . import forked, seeds
from .broken_archives import archive_mutated
from .broken_bundles import mutated, resealed
from .broken_hdf5 import hdf5_mutated
from .broken_messages import message_mutated, v1_mutated
from .broken_pickles import pickle_mutated
from .mutations import (
    byte_bpe_mutated,
    flipped,
    json_mutated,
    lines_mutated,
    one_of,
    safetensors_mutated,
    torch_mutated,
)
from .seeds import FIXTURES, SEPARATOR
from .seeds import TOKENIZER_FILES as SETTINGS

__all__ = ["SEPARATOR", "TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """A reader and its inputs.

    Attributes:
        files: the names of the files into which SEPARATOR divides an input. If it has fewer, the last are missing.
        read: reads the folder of these files. Its result must fit into JSON.
        refusals: the errors by which it may refuse an input. Any other is a fault.
        seeds: sound inputs.
        mutate: breaks one of an input's files.
        memory: bytes that it may allocate whatever the input's size.
        only: the one file that is broken; empty for any.
    """

    files: tuple[str, ...]
    read: Callable[[Path], Any]
    refusals: tuple[type[NezhaConvertError], ...]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[Random, bytes], bytes]
    memory: int = 4 << 20
    only: str = ""

    def mutated(self, random: Random, data: bytes) -> bytes:
        """`data` with something wrong in one of its files."""
        parts = data.split(SEPARATOR)
        number = min(self.files.index(self.only), len(parts) - 1) if self.only else random.randrange(len(parts))
        if random.random() < 0.03:
            del parts[number]
        else:
            parts[number] = self.mutate(random, parts[number])
        return SEPARATOR.join(parts)


def _described(entries: dict[str, TensorEntry]) -> dict[str, list[Any]]:
    """Read every tensor, also after one was refused."""
    found, refused = {}, None
    for name, entry in entries.items():
        try:
            array = entry.read()
        except CheckpointError as error:
            refused = error
            continue
        assert (str(array.dtype), array.shape, array.nbytes) == (entry.dtype, entry.shape, entry.nbytes), name
        found[name] = [entry.dtype, entry.shape, hashlib.sha256(array.tobytes()).hexdigest()]
    if refused:
        raise refused
    return found


def _bundle(folder: Path) -> Any:
    return _described(read_bundle(folder / "model.ckpt")[1])


def _tensorflow_v1(folder: Path) -> Any:
    """The file as a shard beside one that has other parts of a seed's tensor, or else by itself."""
    file, other = folder / "model.ckpt-1", folder / "sound"
    other.write_bytes(seeds.tensorflow_v1_shard())
    try:
        return _described(read_v1(other, file))
    except CheckpointError:
        return _described(read_v1(file))


def _mindspore(folder: Path) -> Any:
    is_mindspore(folder / "model.ckpt")
    return _described(read_mindspore(folder / "model.ckpt"))


def _object_graph(folder: Path) -> Any:
    shapes = {f"layer_with_weights-{i}/{kind}/.ATTRIBUTES/VARIABLE_VALUE": (i, 4) for i in range(9) for kind in KINDS}
    try:
        names = names_in((folder / "graph").read_bytes(), shapes)
    except FormatError as error:
        raise CheckpointError(str(error)) from error
    assert len({*names.values()}) == len(shapes) == len(names)
    return names


KINDS = ("kernel", "bias", "beta", "gamma", "embeddings", "q_dense/kernel")


def _safetensors(folder: Path) -> Any:
    return _described(read_safetensors((folder / "model.safetensors",)))


def _torch(folder: Path) -> Any:
    file = folder / "pytorch_model.bin"
    entries, decisions, settings = read_torch((file,))
    averages = read_torch((file,), average=True)[0]
    told = [[d.field, d.value, d.reason] for d in decisions]
    return [_described(dict(entries)), told, settings, _described(dict(averages)), sorted(averages_of(entries))]


def _paddle(folder: Path) -> Any:
    return _described(read_paddle((folder / "model_state.pdparams",))[0])


def _keras(folder: Path) -> Any:
    with patch("nezha_convert.formats.keras.read._ask", forked.ask):
        return _described(read_keras(folder / "model.h5"))


_ARCHIVES = {b"PK": ".zip", b"\x1f\x8b": ".tar.gz", b"BZ": ".tar.bz2", b"\xfd7": ".tar.xz"}


def _archive(folder: Path) -> Any:
    """Open an archive under the name that its first bytes suggest. Only its temporary folder may be written."""
    packed = folder / "model"
    with open(packed, "rb") as file:
        packed = packed.rename(packed.with_suffix(_ARCHIVES.get(file.read(2), ".tar")))
    temporary = folder / "temporary"
    temporary.mkdir()
    with patch("tempfile.tempdir", str(temporary)):
        try:
            checkpoint = open_checkpoint(packed)
            (unpacked,) = temporary.iterdir()
            assert all(unpacked in file.resolve().parents for file in checkpoint.files)
            found = _described(dict(checkpoint.entries))
            del checkpoint
        finally:
            assert {path.name for path in folder.iterdir()} == {packed.name, "temporary"}
    assert not list(temporary.iterdir())
    return found


def _folder(folder: Path) -> Any:
    checkpoint = open_checkpoint(folder)
    assert all(file.parent == folder for file in checkpoint.files)
    return _described(dict(checkpoint.entries))


@cache
def _families() -> list[tuple[Any, dict[str, TensorEntry]]]:
    names = ("huawei-tf-ner", "huawei-torch-pretraining", "transformers-4.40.2-sequence-classification")
    found = [dict(open_checkpoint(FIXTURES / name).entries) for name in names]
    return [(family_of(entries), entries) for entries in found]


def _config_seeds() -> list[bytes]:
    _families()  # once, before anything is measured
    return seeds.config()


def _config(folder: Path) -> Any:
    path = folder / "config.json"
    raw = read_config(path, path)
    found = []
    for family, entries in _families():
        for name in ("pretraining", "sequence-classification", "token-classification"):
            try:
                config = decide_config(raw, family, HEADS[name], entries)
            except MappingError as error:
                found.append(error.message)
                continue
            assert json.loads(json.dumps(config.to_json({}, "float32"), allow_nan=False))
            found.append([config.fields, config.ignored, [decision.reason for decision in config.decisions]])
    return [found, architecture_of(raw)]


def _labels(folder: Path) -> Any:
    found = []
    for path in sorted(folder.iterdir()):
        labels = read_labels(path)
        assert len({*labels}) == len(labels)
        found += labels
    return found


def _vocab(folder: Path) -> Any:
    vocab = read_vocab(folder / "vocab.txt")
    lower, casing = decide_casing(vocab, None)
    rules, more = decide_rules(vocab)
    decisions = [d for d in (casing, decide_added(vocab), decide_language(vocab), *more) if d]
    written = tokenizer_files(vocab, lower, 512, rules)
    tokens = json.loads(written["tokenizer.json"])["model"]["vocab"]
    named = vocab.tokens if not rules else [token.strip() for token in vocab.tokens]
    assert {spelled_out(token) if rules else token: number for token, number in tokens.items()} == {
        token: number for number, token in enumerate(named)
    }
    check_length(vocab, len(vocab) + 1)
    return [len(vocab), rules, [[d.field, d.value, d.reason] for d in decisions]]


def _tokenizer(folder: Path) -> Any:
    """What is read is a tokenizer, and the reference can read the same files."""
    made = make_tokenizer(folder / "vocab.txt", {"vocab_size": 1000, "max_position_embeddings": 128})
    tokenizer = Tokenizer.from_str(made.files["tokenizer.json"].decode())
    ids = [tokenizer.encode(text).ids for text in ("hello 我们", "[MASK] Aé<s>x")]
    assert json.loads(made.files["tokenizer_config.json"])["tokenizer_class"]
    if is_beside(folder):
        markers_of(folder, True)
        if not any(d.field == "tokenizer" and d.value == "tokenizer.json" for d in made.decisions):
            BertTokenizer(folder / "vocab.txt", 1000).encode("hello 我们")
    return [ids, [[d.field, d.value, d.reason] for d in made.decisions]]


def _conversion(folder: Path) -> Any:
    found = ConvertedFolder(folder)
    files = [[file.name, file.sha256, digest] for file, digest in found.files()]
    for field in ("do_lower_case", "activation"):
        found.decision(field), found.origin(field)
    pushed = _pushed(folder)
    summary = json.loads(seeds.conversion()[0].split(SEPARATOR)[0])["parity"]
    found.keep(summary)
    assert not list(folder.glob(".*"))
    again = ConvertedFolder(folder)
    assert again.record["parity"] == summary
    found.check_source([folder / "config.json"])
    return [found.dtype, found.has_tokenizer, files, pushed]


def _training(folder: Path) -> Any:
    found = TrainedFolder(folder)
    return [found.title, found.summary, _pushed(folder)]


def _pushed(folder: Path) -> Any:
    """What `push` would send, also where the folder is not proved; the card must be one that the Hub's client reads."""
    pushed = push(folder, "owner/name", license="mit", force=True, dry_run=True)
    if not (folder / "README.md").exists():
        assert ModelCard(str(pushed.card)).data.license == "mit"
    with suppress(HubError, UsageError):
        push(folder, "owner/name", dry_run=True)
    return pushed.to_dict()


def _index_mutated(random: Random, data: bytes) -> bytes:
    """Break an index by its structure, any other file by its bytes."""
    return mutated(random, data)[1] if data[-8:] == bundles.MAGIC.to_bytes(8, "little") else flipped(random, data)


TARGETS: dict[str, Target] = {
    "bundle": Target(
        files=seeds.BUNDLE_FILES,
        read=_bundle,
        refusals=(CheckpointError,),
        seeds=seeds.bundle,
        mutate=_index_mutated,
    ),
    "tensorflow-v1": Target(
        files=("model.ckpt-1",),
        read=_tensorflow_v1,
        refusals=(CheckpointError,),
        seeds=seeds.tensorflow_v1,
        mutate=one_of(v1_mutated, v1_mutated, lambda random, data: resealed(flipped(random, data)), flipped),
    ),
    "object-graph": Target(
        files=("graph",),
        read=_object_graph,
        refusals=(CheckpointError,),
        seeds=seeds.object_graph,
        mutate=one_of(message_mutated, message_mutated, flipped),
    ),
    "mindspore": Target(
        files=("model.ckpt",),
        read=_mindspore,
        refusals=(CheckpointError,),
        seeds=seeds.mindspore,
        mutate=one_of(message_mutated, message_mutated, flipped),
    ),
    "safetensors": Target(
        files=("model.safetensors",),
        read=_safetensors,
        refusals=(CheckpointError,),
        seeds=seeds.safetensors,
        mutate=safetensors_mutated,
    ),
    "torch": Target(
        files=("pytorch_model.bin",),
        read=_torch,
        refusals=(CheckpointError, UsageError),
        seeds=lambda: [*seeds.torch(), *seeds.objects()],
        mutate=one_of(torch_mutated, torch_mutated, pickle_mutated, archive_mutated),
    ),
    "paddle": Target(
        files=("model_state.pdparams",),
        read=_paddle,
        refusals=(CheckpointError,),
        seeds=seeds.paddle,
        mutate=pickle_mutated,
    ),
    "keras": Target(
        files=("model.h5",),
        read=_keras,
        refusals=(CheckpointError,),
        seeds=seeds.keras,
        mutate=hdf5_mutated,
    ),
    "archive": Target(
        files=("model",),
        read=_archive,
        refusals=(CheckpointError, UsageError),
        seeds=seeds.archive,
        mutate=archive_mutated,
        memory=MAX_XZ_MEMORY + (4 << 20),
    ),
    "folder": Target(
        files=("model.safetensors.index.json", "a.safetensors", "b.safetensors", "config.json", "checkpoint"),
        read=_folder,
        refusals=(CheckpointError, UsageError),
        seeds=seeds.folder,
        mutate=one_of(json_mutated, flipped),
    ),
    "config": Target(
        files=("config.json",),
        read=_config,
        refusals=(CheckpointError, MappingError, UsageError),
        seeds=_config_seeds,
        mutate=json_mutated,
    ),
    "labels": Target(
        files=("labels.txt", "labels.json"),
        read=_labels,
        refusals=(UsageError,),
        seeds=seeds.labels,
        mutate=one_of(json_mutated, lines_mutated),
    ),
    "vocab": Target(
        files=("vocab.txt", "tokenizer.json", "added_tokens.json", "tokenizer_config.json"),
        read=_vocab,
        refusals=(MappingError,),
        seeds=seeds.vocab,
        mutate=one_of(json_mutated, lines_mutated),
    ),
    "byte-bpe": Target(
        files=("vocab.txt", "tokenizer.json", "added_tokens.json", "tokenizer_config.json"),
        read=_vocab,
        refusals=(MappingError,),
        seeds=seeds.byte_bpe,
        mutate=one_of(json_mutated, byte_bpe_mutated, byte_bpe_mutated),
    ),
    **{
        name: Target(
            files=("vocab.txt", *SETTINGS),
            read=_tokenizer,
            refusals=(MappingError,),
            seeds=seeds.tokenizer,
            mutate=json_mutated,
            only=file,
        )
        for name, file in (
            ("tokenizer-json", "tokenizer.json"),
            ("tokenizer-config", "tokenizer_config.json"),
            ("special-tokens", "special_tokens_map.json"),
        )
    },
    "conversion": Target(
        files=("conversion.json", "config.json", "README.md"),
        read=_conversion,
        refusals=(MappingError, UsageError),
        seeds=seeds.conversion,
        mutate=json_mutated,
    ),
    "training": Target(
        files=("training.json", "config.json", "README.md"),
        read=_training,
        refusals=(MappingError, UsageError),
        seeds=seeds.training,
        mutate=json_mutated,
    ),
}
