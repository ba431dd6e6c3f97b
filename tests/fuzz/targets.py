"""The table of what is fuzzed: one row a reader. A new reader is a new row; everything else takes it from here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import bundles
import numpy as np
from safetensors.numpy import load_file, save

from nezha_convert.config import ConfigBuilder, architecture_of, read_config, read_labels
from nezha_convert.errors import CheckpointError, MappingError, NezhaConvertError, UsageError
from nezha_convert.mapping.recognise import family_of
from nezha_convert.mapping.tables import HEADS
from nezha_convert.parity.folder import ConvertedFolder
from nezha_convert.readers import open_checkpoint
from nezha_convert.readers.safetensors import read_safetensors
from nezha_convert.readers.tf_bundle import read_bundle
from nezha_convert.readers.torch_pickle import read_torch
from nezha_convert.tensors import TensorEntry
from nezha_convert.tokenizer import decide_added, decide_casing, decide_language, read_vocab, tokenizer_files

from .broken_bundles import mutated
from .mutations import (
    flipped,
    json_mutated,
    lines_mutated,
    one_of,
    safetensors_mutated,
    torch_mutated,
)

FIXTURES = Path(__file__).parents[2] / "fixtures"

SEPARATOR = b"\n--- next file ---\n"
"""Between the files of one input."""


@dataclass(frozen=True)
class Target:
    """What is read, and how.

    Attributes:
        files: names of the files that an input is divided into at each SEPARATOR; missing ones are not there.
        read: reads the folder of these files; what it gives must be fit to be written as JSON.
        refusals: the errors that say what is wrong with such an input. Any other is a fault.
        seeds: sound inputs.
        mutate: one of an input's files -> the same with something wrong.
    """

    files: tuple[str, ...]
    read: Callable[[Path], Any]
    refusals: tuple[type[NezhaConvertError], ...]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[Random, bytes], bytes]

    def mutated(self, random: Random, data: bytes) -> bytes:
        """`data` with something wrong in one of its files."""
        parts = data.split(SEPARATOR)
        number = random.randrange(len(parts))
        if random.random() < 0.03:
            del parts[number]
        else:
            parts[number] = self.mutate(random, parts[number])
        return SEPARATOR.join(parts)


def _described(entries: dict[str, TensorEntry]) -> dict[str, list[Any]]:
    """Every tensor read; one that is refused hides none of the others."""
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


def _safetensors(folder: Path) -> Any:
    return _described(read_safetensors((folder / "model.safetensors",)))


def _torch(folder: Path) -> Any:
    return _described(read_torch((folder / "pytorch_model.bin",))[0])


def _folder(folder: Path) -> Any:
    checkpoint = open_checkpoint(folder)
    assert all(file.parent == folder for file in checkpoint.files)
    return _described(dict(checkpoint.entries))


@cache
def _families() -> list[tuple[Any, dict[str, TensorEntry]]]:
    names = ("huawei-tf-ner", "huawei-torch-pretraining", "transformers-4.40.2-sequence-classification")
    found = [dict(open_checkpoint(FIXTURES / name).entries) for name in names]
    return [(family_of(entries), entries) for entries in found]


def _config(folder: Path) -> Any:
    path = folder / "config.json"
    raw = read_config(path, path)
    found = []
    for table, entries in _families():
        for name in ("pretraining", "sequence-classification", "token-classification"):
            builder = ConfigBuilder(raw, table, HEADS[name], entries)
            try:
                builder.build()
            except MappingError as error:
                found.append(error.message)
                continue
            builder.dimensions()
            assert json.loads(json.dumps(builder.to_json("float32"), allow_nan=False))
            found.append([builder.fields, builder.ignored, [decision.reason for decision in builder.decisions]])
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
    decisions = [d for d in (casing, decide_added(vocab), decide_language(vocab)) if d]
    written = tokenizer_files(vocab, lower, 512)
    tokens = json.loads(written["tokenizer.json"])["model"]["vocab"]
    assert tokens == {token: number for number, token in enumerate(vocab.tokens)}
    return [len(vocab), [[d.field, d.value, d.reason] for d in decisions]]


def _conversion(folder: Path) -> Any:
    found = ConvertedFolder(folder)
    files = [[file.name, file.sha256, digest] for file, digest in found.files()]
    for field in ("do_lower_case", "activation"):
        found.decision(field), found.asked_for(field)
    found.keep({"passed": True})
    assert not list(folder.glob(".*"))
    again = ConvertedFolder(folder)
    assert again.record["parity"] == {"passed": True}
    found.check_source([folder / "config.json"])
    return [found.dtype, found.has_tokenizer, files]


def _bundle_seeds() -> list[bytes]:
    seeds = []
    zeros = {name: np.zeros(shape, "f4") for name, shape in (("a", ()), ("a/b", (2, 3)), ("a/bias", (0, 4)), ("b", 9))}
    kinds = {f"of/{name}": np.ones((2, 2), name) for name in bundles.DTYPES}
    with TemporaryDirectory() as folder:
        prefix = Path(folder) / "model.ckpt"
        for tensors, shards in ((zeros, 1), (zeros, 2), (kinds, 1)):
            bundles.write_bundle(prefix, tensors.items(), shards, block_bytes=100)
            parts = [b"" for _ in _BUNDLE_FILES]
            for number, name in enumerate(_BUNDLE_FILES):
                if (Path(folder) / name).is_file():
                    parts[number] = (Path(folder) / name).read_bytes()
                    (Path(folder) / name).unlink()
            seeds.append(SEPARATOR.join(parts))
    real = FIXTURES / "huawei-tf-squad" / "model.ckpt-12345"
    index, data = (Path(f"{real}.{end}").read_bytes() for end in ("index", "data-00000-of-00001"))
    return [*seeds, SEPARATOR.join([index, data])]


def _safetensors_seeds() -> list[bytes]:
    whole = load_file(FIXTURES / "transformers-4.40.2-pretraining" / "model.safetensors")
    small = dict(sorted(whole.items(), key=lambda item: item[1].nbytes)[:3])
    kinds = {"scalar": np.float32(1), "empty": np.zeros((0, 3), "i8"), "bools": np.ones(3, bool)}
    return [save(small, {"format": "pt"}), save({k: np.asarray(v) for k, v in kinds.items()}), save({})]


def _torch_seeds() -> list[bytes]:
    import torch

    shared = torch.arange(6.0)
    states = [
        {"a": torch.ones(2, 3), "b": torch.arange(4)},
        {
            "a": shared[:4].view(2, 2),
            "b": shared[2:],
            "c": torch.ones(2, dtype=torch.bfloat16),
            "d": torch.tensor(True),
        },
    ]
    seeds = []
    for state in states:
        for zipped in (True, False):
            out = BytesIO()
            torch.save(state, out, _use_new_zipfile_serialization=zipped)
            seeds.append(out.getvalue())
    return seeds


def _folder_seeds() -> list[bytes]:
    index = json.dumps({"metadata": {"total_size": 8}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}})
    shards = [save({name: np.ones(1, "f4")}) for name in "ab"]
    pointer = b'model_checkpoint_path: "model.safetensors"\n'
    return [
        SEPARATOR.join([index.encode(), *shards, config, pointer]) for config in (b"{}", b'{"model_type": "nezha"}')
    ]


def _config_seeds() -> list[bytes]:
    _families()  # once, and outside of what is measured
    full = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "problem_type": "regression", "hidden_act": "gelu"}
    full |= {
        "num_attention_heads": 2,
        "id2label": {"0": "a", "1": "b"},
        "classifier_dropout": None,
        "layer_norm_eps": 1,
    }
    found = {path.read_bytes() for path in sorted(FIXTURES.glob("*/*config.json"))}
    return [*sorted(found), b"{}", json.dumps(full).encode()]


def _vocab_seeds() -> list[bytes]:
    vocab = (FIXTURES / "tokenization" / "vocab.txt").read_bytes()
    count = len(vocab.rstrip(b"\n").split(b"\n"))
    listed = [{"id": count, "content": "<e1>", "special": True}, {"id": 0, "content": "[PAD]", "special": True}]
    full = json.dumps({"added_tokens": listed}), json.dumps({"<e2>": count + 1}), json.dumps({"do_lower_case": False})
    return [vocab, b"\n".join(vocab.split(b"\n")[:200]), SEPARATOR.join([vocab, *(text.encode() for text in full)])]


def _labels_seeds() -> list[bytes]:
    texts = (b"O\nB-PER\nI-PER\n", b'["O", "B"]'), (b"\xef\xbb\xbfa\r\nb", b'{"0": "O", "1": "B"}'), (b"a", b'{"O": 0}')
    return [SEPARATOR.join(text) for text in texts]


def _conversion_seeds() -> list[bytes]:
    config = json.dumps(json.loads((FIXTURES / "huawei-tf-squad" / "bert_config.json").read_bytes()))
    digest = hashlib.sha256(config.encode()).hexdigest()
    record = {
        **{"source": "model.ckpt", "family": "huawei-tf", "head": "encoder", "architecture": "NezhaModel"},
        "source_files": [{"name": "config.json", "sha256": digest, "nbytes": 9}],
        "output_files": [{"name": "config.json", "sha256": digest}],
        "decisions": [{"field": "do_lower_case", "value": True, "reason": "asked for on the command line"}],
        "dropped": [{"name": "global_step", "nbytes": 8, "reason": "optimizer"}],
        "numbers": {"tensors": [{"name": "nezha.pooler.dense.weight", "nan": 1, "infinite": 0, "overflow": 2}]},
    }
    return [SEPARATOR.join((json.dumps(record).encode(), config.encode()))]


_BUNDLE_FILES = (
    "model.ckpt.index",
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.data-00000-of-00002",
    "model.ckpt.data-00001-of-00002",
)


def _index_mutated(random: Random, data: bytes) -> bytes:
    """An index by its structure; any other file by its bytes."""
    return mutated(random, data)[1] if data[-8:] == bundles.MAGIC.to_bytes(8, "little") else flipped(random, data)


TARGETS: dict[str, Target] = {
    "bundle": Target(
        files=_BUNDLE_FILES,
        read=_bundle,
        refusals=(CheckpointError,),
        seeds=_bundle_seeds,
        mutate=_index_mutated,
    ),
    "safetensors": Target(
        files=("model.safetensors",),
        read=_safetensors,
        refusals=(CheckpointError,),
        seeds=_safetensors_seeds,
        mutate=safetensors_mutated,
    ),
    "torch": Target(
        files=("pytorch_model.bin",),
        read=_torch,
        refusals=(CheckpointError,),
        seeds=_torch_seeds,
        mutate=torch_mutated,
    ),
    "folder": Target(
        files=("model.safetensors.index.json", "a.safetensors", "b.safetensors", "config.json", "checkpoint"),
        read=_folder,
        refusals=(CheckpointError, UsageError),
        seeds=_folder_seeds,
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
        seeds=_labels_seeds,
        mutate=one_of(json_mutated, lines_mutated),
    ),
    "vocab": Target(
        files=("vocab.txt", "tokenizer.json", "added_tokens.json", "tokenizer_config.json"),
        read=_vocab,
        refusals=(MappingError,),
        seeds=_vocab_seeds,
        mutate=one_of(json_mutated, lines_mutated),
    ),
    "conversion": Target(
        files=("conversion.json", "config.json"),
        read=_conversion,
        refusals=(MappingError,),
        seeds=_conversion_seeds,
        mutate=json_mutated,
    ),
}
