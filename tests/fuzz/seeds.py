"""Sound inputs for each target: from the fixtures, and small ones made by the formats' own writers."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import pickle
import tarfile
import zipfile
import zlib
from argparse import Namespace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bundles
import numpy as np
from mindspore_files import NAMES, value
from safetensors.numpy import load_file, save
from v1_tables import KINDS, v1_table

from nezha_convert.formats.paddle import write_paddle
from nezha_convert.formats.tensor import Tensor
from nezha_convert.parity.again.table import Message, read_records

from . import broken_hdf5, hostile

FIXTURES = Path(__file__).parents[2] / "fixtures"

SEPARATOR = b"\n--- next file ---\n"
"""Stands between the files of one input."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

BUNDLE_FILES = (
    "model.ckpt.index",
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.data-00000-of-00002",
    "model.ckpt.data-00001-of-00002",
)


def bundle() -> list[bytes]:
    seeds = []
    zeros = {name: np.zeros(shape, "f4") for name, shape in (("a", ()), ("a/b", (2, 3)), ("a/bias", (0, 4)), ("b", 9))}
    kinds = {f"of/{name}": np.ones((2, 2), name) for name in bundles.DTYPES}
    with TemporaryDirectory() as folder:
        prefix = Path(folder) / "model.ckpt"
        for tensors, shards in ((zeros, 1), (zeros, 2), (kinds, 1)):
            bundles.write_bundle(prefix, tensors.items(), shards, block_bytes=100)
            parts = [b"" for _ in BUNDLE_FILES]
            for number, name in enumerate(BUNDLE_FILES):
                if (Path(folder) / name).is_file():
                    parts[number] = (Path(folder) / name).read_bytes()
                    (Path(folder) / name).unlink()
            seeds.append(SEPARATOR.join(parts))
    real = (
        "huawei-tf-squad/model.ckpt-12345",
        "tf-partitioned/model.ckpt-12345",
        "bert4keras-objects/best_model.weights",
    )
    ends = ("index", "data-00000-of-00001")
    return [*seeds, *(SEPARATOR.join((FIXTURES / f"{one}.{end}").read_bytes() for end in ends) for one in real)]


def tensorflow_v1() -> list[bytes]:
    """TensorFlow's own file, and small ones with every type, packed and not, and with a tensor in parts."""
    kinds = {f"of/{name}": np.ones((2, 2), name) for name in KINDS}
    cuts = {"a": [(0, 2), (2, 1)]}
    small = {"a": np.arange(6, dtype="f4").reshape(3, 2), "b": np.array(7), "zeros": np.zeros(99, "f4")}
    made = [v1_table(kinds), *(v1_table(small, snappy=snappy, cuts=cuts) for snappy in (False, True))]
    made.append(v1_table({"shared": _SHARED}, boxes={"shared": [((0, 2), (0, 1))]}))
    return [*made, (FIXTURES / "tf-v1" / "model.ckpt-12345").read_bytes()]


_SHARED = np.arange(6, dtype="f4").reshape(3, 2)


def tensorflow_v1_shard() -> bytes:
    """The other parts of what the last seed but one has a part of."""
    return v1_table({"shared": _SHARED}, boxes={"shared": [((0, 2), (1, 1)), ((2, 1), (0, -1))]})


def object_graph() -> list[bytes]:
    """The graph of bert4keras' objects as TensorFlow wrote it, and one of an object without any."""
    index = FIXTURES / "bert4keras-objects" / "best_model.weights.index"
    place = Message(read_records(index.read_bytes())[b"_CHECKPOINTABLE_OBJECT_GRAPH"])
    text = index.with_suffix(".data-00000-of-00001").read_bytes()[place.number(4) :][: place.number(5)]
    return [text[text.index(b"\n", 6) :], bundles.message(1, b"")]


def mindspore() -> list[bytes]:
    """MindSpore's own file, and small ones with every type, a tensor in shares, and a checksum."""
    kinds = b"".join(value(f"of.{name}", np.ones((2, 2), name)) for name in NAMES)
    shares = b"".join(value("a", np.arange(3, dtype="f4"), share) for share in (b"\0\0\0\0\0", b"\0\x80?\0\0\0@"))
    sealed = shares + value("b", np.array(7)) + b"crc_num"
    sealed += zlib.crc32(sealed[:-7]).to_bytes(10, "big")
    return [kinds, shares, sealed, (FIXTURES / "mindspore-pretraining" / "bert_nezha.ckpt").read_bytes()]


def safetensors() -> list[bytes]:
    whole = load_file(FIXTURES / "transformers-4.40.2-pretraining" / "model.safetensors")
    small = dict(sorted(whole.items(), key=lambda item: item[1].nbytes)[:3])
    kinds = {"scalar": np.float32(1), "empty": np.zeros((0, 3), "i8"), "bools": np.ones(3, bool)}
    return [save(small, {"format": "pt"}), save({k: np.asarray(v) for k, v in kinds.items()}), save({})]


def torch() -> list[bytes]:
    import torch

    shared = torch.arange(6.0)
    states = [
        {"a": torch.ones(2, 3), "b": torch.arange(4)},
        {"ema": {"shadow": {"a": torch.ones(2, 3), "n": torch.tensor(1)}, "decay": 0.9}},
        {f"{side}.layer.0.w": torch.ones(2, 3) for side in ("model", "ema_model.module")},
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


def objects() -> list[bytes]:
    """Whole modules, objects beside a model, and pickles without a container of torch's."""
    import torch

    args = Namespace(hidden_size=2, num_attention_heads=1, num_hidden_layers=1, rate=1e-3)
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    found = []
    for content, protocol in ((module, 2), ({"model": module.state_dict(), "args": args, "best": np.float64(0.5)}, 4)):
        out = BytesIO()
        torch.save(content, out, pickle_protocol=protocol)
        found += [out.getvalue(), pickle.dumps(content, 4)]
    arrays = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.asfortranarray(np.ones((2, 3), ">f8"))}
    found += [pickle.dumps(arrays, protocol) for protocol in (0, 1, 2, 4, 5)]
    found += [pickle.dumps(module, protocol) for protocol in (0, 1)]
    return [*found, hostile.sound_joblib(), hostile.sound_tar(), hostile.zip64(hostile.state())]


def paddle() -> list[bytes]:
    """All protocols and forms of a tensor that PaddlePaddle has had, and a file of our writer."""
    array, scalar = np.arange(6, dtype="f4").reshape(2, 3), np.array(1.5, "f2")
    names = {"StructuredToParameterName@@": {"a": "linear_0.w_0"}}
    states: list[dict[str, Any]] = [
        {"a": array, "b": np.zeros((0, 3), "i8"), "c": scalar, **names},
        {"a": _Evaluated(array), "b": _Named(scalar), "c": np.asfortranarray(array[0]), "d": array.astype("u2")},
    ]
    found = [pickle.dumps(state, protocol) for state in states for protocol in (2, 3, 4, 5)]
    renamed = found[0].replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with TemporaryDirectory() as name:
        file = Path(name) / "model_state.pdparams"
        write_paddle(file, [Tensor("a", "float32", (2, 3), [array]), Tensor("b", "bfloat16", (3,), [np.ones(3, "u2")])])
        return [*found, renamed, file.read_bytes()]


class _Evaluated:
    """Is pickled like Paddle's DenseTensor."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> Any:
        return eval, ("data", {"data": self.array})


class _Named(_Evaluated):
    """Is pickled like a tensor of Paddle 2.1 and later."""

    def __reduce__(self) -> Any:
        return tuple, (("linear_0.w_0", self.array),)


def keras() -> list[bytes]:
    return [broken_hdf5.sound(layout) for layout in broken_hdf5.LAYOUTS]


def archive() -> list[bytes]:
    """A folder of two small files as each kind of archive."""
    members = {"model/model.safetensors": save({"a": np.ones((2, 3), "f4")}), "model/vocab.txt": b"[PAD]\n[UNK]\n"}
    zips = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        out = BytesIO()
        with zipfile.ZipFile(out, "w", method) as packed:
            for name, data in members.items():
                packed.writestr(zipfile.ZipInfo(name), data, method)
        zips.append(out.getvalue())
    tars = []
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=format) as tar:
            long = {} if format == tarfile.USTAR_FORMAT else {"long/" * 40 + "x": b"x"}
            for name, data in {**long, **members}.items():
                info = tarfile.TarInfo(name)
                info.size, info.pax_headers = len(data), {"comment": "x"}
                tar.addfile(info, BytesIO(data))
        tars.append(out.getvalue().rstrip(b"\0") + bytes(1024))
    compressed = [gzip.compress(tars[0], mtime=0), bz2.compress(tars[0]), lzma.compress(tars[0], preset=0)]
    return [*zips, *tars, *compressed]


def folder() -> list[bytes]:
    index = json.dumps({"metadata": {"total_size": 8}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}})
    shards = [save({name: np.ones(1, "f4")}) for name in "ab"]
    pointer = b'model_checkpoint_path: "model.safetensors"\n'
    return [
        SEPARATOR.join([index.encode(), *shards, config, pointer]) for config in (b"{}", b'{"model_type": "nezha"}')
    ]


def config() -> list[bytes]:
    full = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "problem_type": "regression", "hidden_act": "gelu"}
    full |= {
        "num_attention_heads": 2,
        "id2label": {"0": "a", "1": "b"},
        "classifier_dropout": None,
        "layer_norm_eps": 1,
    }
    found = {path.read_bytes() for path in sorted(FIXTURES.glob("*/*config.json"))}
    return [*sorted(found), b"{}", json.dumps(full).encode()]


def vocab() -> list[bytes]:
    vocab = (FIXTURES / "tokenization" / "vocab.txt").read_bytes()
    count = len(vocab.rstrip(b"\n").split(b"\n"))
    listed = [{"id": count, "content": "<e1>", "special": True}, {"id": 0, "content": "[PAD]", "special": True}]
    full = json.dumps({"added_tokens": listed}), json.dumps({"<e2>": count + 1}), json.dumps({"do_lower_case": False})
    return [vocab, b"\n".join(vocab.split(b"\n")[:200]), SEPARATOR.join([vocab, *(text.encode() for text in full)])]


def byte_bpe() -> list[bytes]:
    """The fixture; a few of its lines, with tokens of odd length; and Arabic ones with rules and added tokens."""
    whole = (FIXTURES / "byte-bpe" / "vocab.txt").read_bytes()
    special = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
    short = special + b"".join(b"%02X\n##%02X\n" % (byte, byte) for byte in range(0x41, 0x5B)) + b"E4B8\nE4B8AD\n##E5\n"
    arabic = special + b"".join(b"%s\n##%s\n" % (two, two) for two in (b"D8A7", b"D8A8", b"D98A", b"D8A7D984"))
    added = json.dumps({"added_tokens": [{"id": arabic.count(b"\n"), "content": "<e1>", "special": True}]}).encode()
    rules = json.dumps({"do_lower_case": True, "byte_bpe_rules": "bbpe"}).encode()
    return [whole, short, arabic, SEPARATOR.join([arabic, added, b"", rules])]


def tokenizer() -> list[bytes]:
    """The folders of transformers' files whose ids are recorded, each with all of the files."""
    folder = FIXTURES / "bert-tokenizer"
    vocab, cases = (folder / "vocab.txt").read_bytes(), json.loads((folder / "expected.json").read_bytes())["cases"]
    found = []
    for case in cases:
        files = {"special_tokens_map.json": {"mask_token": "[MASK]"}, "tokenizer_config.json": {}, **case["files"]}
        texts = (json.dumps(files[name]).encode() if name in files else b"{}" for name in TOKENIZER_FILES)
        found.append(SEPARATOR.join([vocab, *texts]))
    return found


def labels() -> list[bytes]:
    texts = (b"O\nB-PER\nI-PER\n", b'["O", "B"]'), (b"\xef\xbb\xbfa\r\nb", b'{"0": "O", "1": "B"}'), (b"a", b'{"O": 0}')
    return [SEPARATOR.join(text) for text in texts]


def conversion() -> list[bytes]:
    config, digest = _config()
    parity = {
        "passed": True,
        "failures": [],
        "comparisons": [
            {
                **{"reference": "the oracle", "arithmetic": "float64", "tolerance": 1e-6, "worst_error": 1e-7},
                **{"worst_tensor": "pooler", "worst_at": "[0, 1]"},
            }
        ],
        "tokenizer": {"reference": "the oracle", "texts": 9},
        "versions": {"torch": "2.13.0"},
        "verified": [{"name": "config.json", "nbytes": len(config), "sha256": digest}],
    }
    record = {
        **{"version": "0.1.0", "source": "model.ckpt", "family": "huawei-tf", "title": "Huawei's"},
        **{"head": "encoder", "architecture": "NezhaModel", "head_reason": "no head"},
        "source_files": [{"name": "config.json", "sha256": digest, "nbytes": 9}],
        "output_files": [{"name": "config.json", "sha256": digest, "nbytes": len(config)}],
        "decisions": [
            {"field": "do_lower_case", "value": True, "reason": "asked for on the command line"},
            {"field": "language", "value": "zh", "reason": "the vocabulary", "origin": "tensors"},
        ],
        "written": [{"target": "embeddings.word_embeddings.weight", "shape": [21128, 768]}],
        "dropped": [{"name": "global_step", "nbytes": 8, "reason": "optimizer"}],
        "numbers": {"tensors": [{"name": "nezha.pooler.dense.weight", "nan": 1, "infinite": 0, "overflow": 2}]},
        "parity": parity,
        "card": {"name": "README.md", "nbytes": 1, "sha256": digest},
    }
    bare = {name: value for name, value in record.items() if name not in ("numbers", "parity", "card")}
    card = b"---\nlicense: mit\n---\nmine\n"
    return [
        SEPARATOR.join((json.dumps(content).encode(), config, *more)) for content, *more in ((record,), (bare, card))
    ]


def training() -> list[bytes]:
    """A model that was trained from a converted one, and one that was trained from that."""
    config, digest = _config()
    file = {"name": "config.json", "sha256": digest, "nbytes": len(config)}
    converted = json.loads(conversion()[0].split(SEPARATOR)[0])
    base = {
        "source": "hf://owner/base@0123",
        "weights": [file],
        "doubts": [],
        "conversion": converted,
        "training": None,
    }
    record = {
        **{"version": "0.1.0", "date": "2026-11-28", "task": "text-classification", "language": "zh", "license": None},
        **{"head": "sequence-classification", "architecture": "NezhaForSequenceClassification"},
        "metrics": {"validation": {"accuracy": 0.95}},
        "data": [
            {"split": "train", "name": "ChnSenti", "files": [file], "rows": 1, "revision": None},
            {"split": "validation", "name": "owner/ChnSenti", "files": [], "rows": None, "revision": "0123"},
        ],
        "settings": {"learning_rate": 3e-5, "seed": 7},
        "versions": {"torch": "2.13.0"},
        "base": base,
        "output_files": [file],
    }
    twice = {**record, "base": {**base, "conversion": None, "training": record, "doubts": ["it was not compared"]}}
    return [SEPARATOR.join((json.dumps(content).encode(), config)) for content in (record, twice)]


def _config() -> tuple[bytes, str]:
    config = json.dumps(json.loads((FIXTURES / "huawei-tf-squad" / "bert_config.json").read_bytes())).encode()
    return config, hashlib.sha256(config).hexdigest()
