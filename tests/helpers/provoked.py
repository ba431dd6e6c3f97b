"""Commands that are refused, each with what a user has before it: `REFUSED`."""

from __future__ import annotations

import json
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import message
from goldens import FIXTURES
from refusals import User
from safetensors.numpy import load_file, save_file
from v1_tables import v1_table

TORCH = FIXTURES / "huawei-torch-pretraining"
SQUAD = FIXTURES / "huawei-tf-squad"
VOCAB = FIXTURES / "training" / "vocab.txt"
REFUSED: dict[str, Callable[[World], list[str]]] = {}


class World:
    """The folder in which a case is made, and what a user would put where a hint leaves a word open."""

    def __init__(self, folder: Path, made: Path) -> None:
        self.folder, self._made = folder, made
        self.out = folder / "输出 of'mine"
        self.user = User(folder / "more")
        self.user.folder.mkdir()
        self.user.values = {
            **{
                "--config": str(TORCH / "bert_config.json"),
                "--vocab": str(VOCAB),
                "--labels": str(self.text("a\nb\n")),
            },
            **{"--texts": str(self.text("我们\n")), "--activation": "gelu", "--license": "mit", "--head": "encoder"},
            **{"--tokenizer": "wordpiece", "--html": str(folder / "x.html"), "--dtype": "float32"},
            **{"SOURCE": str(TORCH), "BASE": str(made / "base"), "OWNER/NAME": "owner/name"},
        }

    def text(self, content: str | bytes, name: str = "") -> Path:
        """A file of `content`."""
        path = self.folder / (name or f"file {len(list(self.folder.iterdir()))}.txt")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def source(self, fixture: str | Path = TORCH, name: str = "来源 of'mine") -> Path:
        """A copy of a fixture's files."""
        folder = self.folder / name
        skip = shutil.ignore_patterns("expected.npz")
        return Path(shutil.copytree(FIXTURES / fixture, folder, ignore=skip, dirs_exist_ok=True))

    def of(self, content: Any, config: bool = True, name: str = "model.pt") -> Path:
        """A source whose file holds `content`."""
        folder = self.folder / "来源 of'mine"
        folder.mkdir(exist_ok=True)
        if config:
            shutil.copy(TORCH / "bert_config.json", folder)
        torch.save(content, folder / name)
        return folder

    def configured(self, **fields: Any) -> Path:
        """A source whose config says something else."""
        folder = self.source()
        path = folder / "bert_config.json"
        config = {name: value for name, value in {**json.loads(path.read_text()), **fields}.items() if value != "none"}
        path.write_text(json.dumps(config))
        return folder

    def vocabulary(self, content: str | bytes) -> Path:
        folder = self.source()
        (folder / "vocab.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    def converted(self, name: str = "base") -> Path:
        """A copy of a converted folder."""
        return Path(shutil.copytree(self._made / name, self.folder / f"转换 {name}"))


def refused(case: Callable[[World], list[str]]) -> Callable[[World], list[str]]:
    """A case: it makes what is refused, and returns the command that a user types."""
    assert case.__name__ not in REFUSED
    REFUSED[case.__name__] = case
    return case


def state() -> dict[str, torch.Tensor]:
    return torch.load(TORCH / "pytorch_model.bin", weights_only=True)


def encoder() -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state().items() if name.startswith("bert.")}


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


# Sources that are not there, or no checkpoints


@refused
def nothing_there(world: World) -> list[str]:
    return ["convert", str(world.folder / "不在"), str(world.out)]


@refused
def no_checkpoint(world: World) -> list[str]:
    return ["inspect", str(world.text("nothing", "x.bin2"))]


@refused
def empty_folder(world: World) -> list[str]:
    (world.folder / "empty").mkdir()
    return ["convert", str(world.folder / "empty"), str(world.out)]


@refused
def unfinished_download(world: World) -> list[str]:
    (world.folder / "s").mkdir()
    return ["convert", str(world.text(b"PK", "s/pytorch_model.bin.crdownload")), str(world.out)]


@refused
def unfinished_in_folder(world: World) -> list[str]:
    (world.folder / "s").mkdir()
    world.text(b"PK", "s/pytorch_model.bin.downloading")
    return ["inspect", str(world.folder / "s")]


@refused
def several_steps(world: World) -> list[str]:
    source = world.source(SQUAD)
    (source / "checkpoint").unlink()
    for file in list(source.glob("model.ckpt-12345.*")):
        shutil.copy(file, source / file.name.replace("12345", "20000"))
    return ["convert", str(source), str(world.out)]


@refused
def several_steps_in_verify(world: World) -> list[str]:
    return ["diff", several_steps(world)[1], str(world.converted("squad"))]


@refused
def prefix_without_its_step(world: World) -> list[str]:
    return ["convert", str(world.source(SQUAD) / "model.ckpt"), str(world.out)]


@refused
def prefix_without_its_step_in_diff(world: World) -> list[str]:
    return ["diff", str(world.converted("squad")), str(world.source(SQUAD) / "model.ckpt")]


@refused
def several_folders(world: World) -> list[str]:
    for name in ("fold 0", "折 1"):
        world.source(SQUAD, f"folds/{name}")
    return ["export", str(world.folder / "folds"), str(world.out), "--to", "huawei-tf"]


@refused
def part_of_a_bundle(world: World) -> list[str]:
    return ["inspect", str(world.source(SQUAD)), "--part", "model"]


@refused
def archive_of_two(world: World) -> list[str]:
    with zipfile.ZipFile(world.folder / "两个.zip", "w") as archive:
        for folder in ("a", "b"):
            archive.write(TORCH / "pytorch_model.bin", f"{folder}/pytorch_model.bin")
    return ["convert", str(world.folder / "两个.zip"), str(world.out)]


@refused
def archive_of_nothing(world: World) -> list[str]:
    with zipfile.ZipFile(world.folder / "none.zip", "w") as archive:
        archive.writestr("readme.md", "")
    return ["convert", str(world.folder / "none.zip"), str(world.out)]


@refused
def archive_cut_short(world: World) -> list[str]:
    whole = shutil.make_archive(str(world.folder / "whole"), "gztar", SQUAD)
    return ["convert", str(world.text(Path(whole).read_bytes()[:-2000], "cut.tar.gz")), str(world.out)]


@refused
def archive_with_a_link(world: World) -> list[str]:
    with tarfile.open(world.folder / "link.tar", "w") as archive:
        link = tarfile.TarInfo("pytorch_model.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return ["inspect", str(world.folder / "link.tar")]


@refused
def archive_that_leads_out(world: World) -> list[str]:
    with zipfile.ZipFile(world.folder / "out.zip", "w") as archive:
        archive.writestr("../x.bin", "")
    return ["inspect", str(world.folder / "out.zip")]


# Damaged files


@refused
def index_of_nothing(world: World) -> list[str]:
    return ["inspect", str(world.text("{}", "model.safetensors.index.json"))]


@refused
def shard_that_is_missing(world: World) -> list[str]:
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    return ["inspect", str(world.text(json.dumps(index), "model.safetensors.index.json"))]


@refused
def shard_outside(world: World) -> list[str]:
    index = {"weight_map": {"a": "../x.safetensors"}}
    return ["inspect", str(world.text(json.dumps(index), "model.safetensors.index.json"))]


@refused
def data_without_index(world: World) -> list[str]:
    source = world.source(SQUAD)
    (source / "model.ckpt-12345.index").unlink()
    return ["convert", str(source), str(world.out)]


@refused
def index_without_data(world: World) -> list[str]:
    source = world.source(SQUAD)
    (source / "model.ckpt-12345.data-00000-of-00001").unlink()
    return ["convert", str(source), str(world.out)]


@refused
def data_cut_short(world: World) -> list[str]:
    source = world.source(SQUAD)
    data = source / "model.ckpt-12345.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-100])
    return ["convert", str(source), str(world.out)]


@refused
def damaged_data(world: World) -> list[str]:
    source = world.source(SQUAD)
    flipped(source / "model.ckpt-12345.data-00000-of-00001", 5000)
    return ["convert", str(source), str(world.out)]


@refused
def damaged_index(world: World) -> list[str]:
    source = world.source(SQUAD)
    flipped(source / "model.ckpt-12345.index", 50)
    return ["inspect", str(source)]


@refused
def damaged_v1(world: World) -> list[str]:
    whole = v1_table({"a": np.ones((2, 3), "f4")})
    return ["inspect", str(world.text(whole[:20] + b"!" + whole[21:], "model.ckpt-5"))]


@refused
def missing_v1_shard(world: World) -> list[str]:
    source = world.source("tf-v1-sharded")
    (source / "model.ckpt-12345-00001-of-00002").unlink()
    return ["convert", str(source), str(world.out)]


@refused
def text_in_v1(world: World) -> list[str]:
    source = world.source("tf-v1")
    (source / "model.ckpt-12345").write_bytes(v1_table({"a": np.ones((2, 3), "f4")}, kind=7))
    return ["convert", str(source), str(world.out)]


@refused
def damaged_zip(world: World) -> list[str]:
    source = world.of(encoder())
    data = (source / "model.pt").read_bytes()
    (source / "model.pt").write_bytes(data[: len(data) // 2])
    return ["convert", str(source), str(world.out)]


@refused
def a_list_of_numbers(world: World) -> list[str]:
    return ["convert", str(world.of([1, 2])), str(world.out)]


@refused
def an_empty_dictionary(world: World) -> list[str]:
    return ["convert", str(world.of({})), str(world.out)]


@refused
def a_sparse_tensor(world: World) -> list[str]:
    return ["convert", str(world.of(encoder() | {"x": torch.eye(3).to_sparse()})), str(world.out)]


@refused
def a_quantized_module(world: World) -> list[str]:
    return ["convert", str(world.of(quantized())), str(world.out)]


def quantized() -> dict[str, Any]:
    """The state of a module with the names of an encoder, quantized dynamically, and its word embeddings."""
    layer = torch.nn.Sequential()
    layer.add_module("query", torch.nn.Linear(4, 4))
    torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    found = torch.ao.quantization.quantize_dynamic(layer, {torch.nn.Linear}).state_dict()
    names = {f"bert.encoder.layer.0.attention.self.{name}": value for name, value in found.items()}
    return {"bert.embeddings.word_embeddings.weight": torch.ones(3, 4), **names}


@refused
def a_program_of_torchscript(world: World) -> list[str]:
    file = world.folder / "脚本 of'mine.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(file))
    return ["inspect", str(file)]


@refused
def a_frozen_graph(world: World) -> list[str]:
    return ["inspect", str(world.text(message(1, message(1, b"output_bias") + message(2, b"Const")), "图 of'mine.pb"))]


@refused
def no_hdf5(world: World) -> list[str]:
    return ["inspect", str(world.text("text", "model.h5"))]


@refused
def damaged_hdf5(world: World) -> list[str]:
    source = world.source("bert4keras-pretraining")
    data = (source / "best_model.weights").read_bytes()
    (source / "best_model.weights").write_bytes(data[:3000])
    return ["inspect", str(source)]


@refused
def paddle_of_no_arrays(world: World) -> list[str]:
    return ["inspect", str(world.text(b"\x80\x02]q\x00.", "model_state.pdparams"))]


@refused
def damaged_safetensors(world: World) -> list[str]:
    return ["inspect", str(world.text(struct.pack("<Q", 9) + b"{}", "model.safetensors"))]


@refused
def safetensors_of_another_type(world: World) -> list[str]:
    header = json.dumps({"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}).encode()
    return ["inspect", str(world.text(struct.pack("<Q", len(header)) + header + b"0", "model.safetensors"))]


# What is in them


@refused
def no_nezha(world: World) -> list[str]:
    return ["convert", str(world.of({"x.weight": torch.ones(2)})), str(world.out)]


@refused
def a_bert(world: World) -> list[str]:
    position = {"bert.embeddings.position_embeddings.weight": torch.ones(4, 32)}
    return ["convert", str(world.of(encoder() | position)), str(world.out)]


@refused
def two_models(world: World) -> list[str]:
    both = {f"{side}{name[4:]}": value for side in ("teacher", "student") for name, value in encoder().items()}
    return ["convert", str(world.of(both)), str(world.out)]


@refused
def two_models_in_diff(world: World) -> list[str]:
    return ["diff", two_models(world)[1], str(world.converted("plain"))]


@refused
def two_dictionaries(world: World) -> list[str]:
    return ["convert", str(world.of({"model": encoder(), "ema": encoder(), "epoch": 3})), str(world.out)]


@refused
def two_dictionaries_in_diff(world: World) -> list[str]:
    return ["diff", two_dictionaries(world)[1], str(world.converted("plain"))]


@refused
def two_dictionaries_in_repair(world: World) -> list[str]:
    return ["repair", two_dictionaries(world)[1], str(world.out)]


@refused
def no_such_part(world: World) -> list[str]:
    return ["convert", *two_dictionaries(world)[1:], "--part", "optimizer"]


@refused
def a_head_of_another_name(world: World) -> list[str]:
    layer = {"fc.weight": torch.ones(5, 32), "fc.bias": torch.ones(5)}
    return ["convert", str(world.of(encoder() | layer)), str(world.out)]


@refused
def a_head_that_is_not_there(world: World) -> list[str]:
    return ["convert", str(world.source()), str(world.out), "--head", "question-answering"]


@refused
def renamed_to_nothing(world: World) -> list[str]:
    return ["convert", str(world.source()), str(world.out), "--rename", "fc=classifier"]


@refused
def renamed_to_what_is_there(world: World) -> list[str]:
    rename = "cls.seq_relationship=cls.predictions"
    return ["convert", str(world.source()), str(world.out), "--rename", rename]


@refused
def whole_numbers(world: World) -> list[str]:
    name = "bert.pooler.dense.weight"
    return ["convert", str(world.of(state() | {name: state()[name].to(torch.int8)})), str(world.out)]


@refused
def a_table_of_zeros(world: World) -> list[str]:
    tables = {
        "bert.encoder.layer.0.attention.self.relative_positions_encoding.positions_encoding": torch.zeros(8, 8, 8)
    }
    return ["convert", str(world.of(state() | tables)), str(world.out)]


@refused
def a_layer_that_is_missing(world: World) -> list[str]:
    return ["convert", str(world.of({n: t for n, t in state().items() if "layer.0.output" not in n})), str(world.out)]


@refused
def an_overflow(world: World) -> list[str]:
    name = "bert.pooler.dense.bias"
    return ["convert", str(world.of(state() | {name: state()[name] + 1e6})), str(world.out), "--dtype", "float16"]


# Configs and labels


@refused
def no_config(world: World) -> list[str]:
    return ["convert", str(world.of(state(), config=False)), str(world.out)]


@refused
def no_config_in_inspect(world: World) -> list[str]:
    return ["diff", str(world.converted()), str(world.of({n: t for n, t in encoder().items() if "pooler" in n}, False))]


@refused
def no_config_in_repair(world: World) -> list[str]:
    return ["repair", str(world.of(state(), config=False)), str(world.out)]


@refused
def no_config_in_export(world: World) -> list[str]:
    folder = world.converted()
    (folder / "config.json").unlink()
    return ["export", str(folder), str(world.out), "--to", "huawei-torch"]


@refused
def a_config_that_is_no_json(world: World) -> list[str]:
    source = world.source()
    (source / "bert_config.json").write_text("{")
    return ["convert", str(source), str(world.out)]


@refused
def a_config_that_is_a_list(world: World) -> list[str]:
    source = world.source()
    (source / "bert_config.json").write_text("[]")
    return ["convert", str(source), str(world.out)]


@refused
def no_number_of_heads(world: World) -> list[str]:
    return ["convert", str(world.configured(num_attention_heads="none")), str(world.out)]


@refused
def a_text_for_a_number(world: World) -> list[str]:
    return ["convert", str(world.configured(num_attention_heads="four")), str(world.out)]


@refused
def heads_that_do_not_divide(world: World) -> list[str]:
    return ["convert", str(world.configured(num_attention_heads=5)), str(world.out)]


@refused
def an_activation_of_another(world: World) -> list[str]:
    return ["convert", str(world.configured(hidden_act="mish")), str(world.out)]


@refused
def padding_past_the_end(world: World) -> list[str]:
    return ["convert", str(world.configured(pad_token_id=10**6)), str(world.out)]


@refused
def a_padding_that_is_a_text(world: World) -> list[str]:
    return ["convert", str(world.configured(pad_token_id="a")), str(world.out)]


@refused
def a_word_that_no_nezha_computes(world: World) -> list[str]:
    source = world.source("paddlenlp-pretraining")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "use_relative_position": False}))
    world.user.values["--config"] = str(FIXTURES / "paddlenlp-pretraining" / "config.json")
    return ["convert", str(source), str(world.out)]


@refused
def rows_that_are_masked_in_another_way(world: World) -> list[str]:
    return ["convert", str(world.configured(masked_rows="x")), str(world.out)]


@refused
def labels_of_another_number(world: World) -> list[str]:
    source = world.source("huawei-torch-classifier")
    return ["convert", str(source), str(world.out), "--labels", str(world.text("a\n" * 9))]


@refused
def labels_of_a_model_without(world: World) -> list[str]:
    return ["convert", str(world.source()), str(world.out), "--labels", str(world.text("a\n"))]


@refused
def labels_that_are_no_text(world: World) -> list[str]:
    source = world.source("huawei-torch-classifier")
    return ["convert", str(source), str(world.out), "--labels", str(world.text(b"\xff\xff"))]


# Vocabularies


@refused
def a_vocabulary_that_is_no_text(world: World) -> list[str]:
    return ["convert", str(world.vocabulary(b"\xff\xfe\xff")), str(world.out)]


@refused
def a_token_twice(world: World) -> list[str]:
    return ["convert", str(world.vocabulary(VOCAB.read_text("utf-8") + "\n我\n我\n")), str(world.out)]


@refused
def a_vocabulary_that_is_too_long(world: World) -> list[str]:
    more = "".join(f"[w{i}]\n" for i in range(10_000))
    return ["convert", str(world.vocabulary(VOCAB.read_text("utf-8") + "\n" + more)), str(world.out)]


@refused
def a_vocabulary_without_specials(world: World) -> list[str]:
    return ["convert", str(world.vocabulary("a\nb\n")), str(world.out)]


@refused
def a_vocabulary_that_is_not_there(world: World) -> list[str]:
    return ["convert", str(world.source()), str(world.out), "--vocab", str(world.folder / "none.txt")]


@refused
def settings_of_a_tokenizer_that_are_no_json(world: World) -> list[str]:
    source = world.vocabulary(VOCAB.read_bytes())
    (source / "tokenizer_config.json").write_text("{")
    return ["convert", str(source), str(world.out)]


@refused
def a_tokenizer_that_is_no_json(world: World) -> list[str]:
    source = world.vocabulary(VOCAB.read_bytes())
    (source / "tokenizer.json").write_text("{")
    return ["convert", str(source), str(world.out)]


@refused
def a_setting_that_cannot_be_carried(world: World) -> list[str]:
    source = world.vocabulary(VOCAB.read_bytes())
    (source / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": "maybe", "do_basic_tokenize": False}))
    return ["convert", str(source), str(world.out)]


@refused
def casing_of_a_tokenizer_of_its_own(world: World) -> list[str]:
    folder = world.converted()
    return ["convert", str(folder), str(world.out), "--cased"]


# Outputs


@refused
def an_output_that_exists(world: World) -> list[str]:
    world.out.mkdir()
    shutil.copytree(world.converted(), world.out, dirs_exist_ok=True)
    return ["convert", str(world.source()), str(world.out)]


@refused
def an_output_of_somebody_s(world: World) -> list[str]:
    world.out.mkdir()
    (world.out / "thesis.tex").touch()
    return ["convert", str(world.source()), str(world.out)]


@refused
def an_output_of_somebody_s_by_force(world: World) -> list[str]:
    return [*an_output_of_somebody_s(world), "--force"]


@refused
def an_output_over_the_source(world: World) -> list[str]:
    source = world.source()
    return ["convert", str(source), str(source), "--force"]


@refused
def an_export_over_the_folder(world: World) -> list[str]:
    folder = world.converted()
    return ["export", str(folder), str(folder), "--to", "huawei-torch"]


@refused
def an_export_that_exists(world: World) -> list[str]:
    world.out.mkdir()
    (world.out / "export.json").touch()
    return ["export", str(world.converted()), str(world.out), "--to", "huawei-torch"]


@refused
def an_export_over_a_conversion(world: World) -> list[str]:
    return ["export", str(world.converted()), str(world.converted("squad")), "--to", "huawei-torch"]


@refused
def an_export_of_a_source(world: World) -> list[str]:
    return ["export", str(world.source()), str(world.out), "--to", "huawei-torch"]


@refused
def an_export_of_another_gelu(world: World) -> list[str]:
    return ["export", str(world.converted()), str(world.out), "--to", "huawei-tf"]


@refused
def an_export_of_a_head_that_it_lacks(world: World) -> list[str]:
    convert_head = world.converted("squad")
    return ["export", str(convert_head), str(world.out), "--to", "bert4keras"]


@refused
def a_graph_of_another_program(world: World) -> list[str]:
    return ["export", str(world.converted()), str(world.out), "--to", "huawei-tf", "--int8"]


@refused
def an_activation_for_a_graph(world: World) -> list[str]:
    return ["export", str(world.converted()), str(world.out), "--to", "onnx", "--accept-activation"]


# Proofs


@refused
def a_proof_without_a_source(world: World) -> list[str]:
    return ["verify", str(world.folder / "不在"), str(world.converted())]


@refused
def a_proof_of_no_folder(world: World) -> list[str]:
    return ["verify", str(world.source()), str(world.folder / "none")]


@refused
def a_proof_of_a_source(world: World) -> list[str]:
    source = world.source()
    return ["verify", str(source), str(source)]


@refused
def a_proof_by_another_source(world: World) -> list[str]:
    return ["verify", str(world.source("huawei-torch-mlm-rel127")), str(world.converted())]


@refused
def a_proof_without_a_vocabulary(world: World) -> list[str]:
    return ["verify", str(world.source()), str(world.converted())]


@refused
def a_proof_without_a_config(world: World) -> list[str]:
    source = world.source()
    (source / "bert_config.json").unlink()
    return ["verify", str(source), str(world.converted("plain"))]


@refused
def a_proof_with_an_assumption_of_nothing(world: World) -> list[str]:
    return ["verify", str(world.source()), str(world.converted("plain")), "--assume", "luck"]


@refused
def a_proof_on_no_texts(world: World) -> list[str]:
    source = world.source()
    shutil.copy(VOCAB, source)
    return ["verify", str(source), str(world.converted()), "--texts", str(world.text(""))]


@refused
def a_proof_on_texts_without_a_tokenizer(world: World) -> list[str]:
    source, folder = world.source(), world.converted("plain")
    return ["verify", str(source), str(folder), "--texts", str(world.text("我们\n"))]


@refused
def a_proof_by_no_clone(world: World) -> list[str]:
    (world.folder / "clone").mkdir()
    return ["verify", str(world.source()), str(world.converted("plain")), "--original", str(world.folder / "clone")]


@refused
def a_proof_that_cannot_be_written(world: World) -> list[str]:
    path = world.folder / "没有 of'mine" / "x.xml"
    world.user.values["mkdir"] = str(path.parent)
    return ["verify", str(world.source()), str(world.converted("plain")), "--junit", str(path)]


@refused
def a_record_that_is_no_json(world: World) -> list[str]:
    folder = world.converted("plain")
    (folder / "conversion.json").write_text("{")
    return ["verify", str(world.source()), str(folder)]


@refused
def a_record_of_another_form(world: World) -> list[str]:
    folder = world.converted("plain")
    (folder / "conversion.json").write_text("{}")
    return ["verify", str(world.source()), str(folder)]


@refused
def a_folder_without_its_config(world: World) -> list[str]:
    folder = world.converted("plain")
    (folder / "config.json").unlink()
    return ["verify", str(world.source()), str(folder)]


@refused
def weights_of_another_model(world: World) -> list[str]:
    folder = world.converted("plain")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("nezha.pooler.dense.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return ["verify", str(world.source()), str(folder)]


@refused
def a_trained_folder(world: World) -> list[str]:
    folder = world.folder / "训练"
    folder.mkdir()
    (folder / "training.json").write_text("{}")
    return ["verify", str(world.source()), str(folder)]


# The Hub


@refused
def no_address(world: World) -> list[str]:
    return ["pull", "https://example.org/x"]


@refused
def no_name(world: World) -> list[str]:
    return ["push", str(world.converted()), "a/b/c"]


@refused
def not_in_the_cache(world: World) -> list[str]:
    return ["pull", "hf://owner/nothing-of-this-name"]


@refused
def a_pull_into_what_exists(world: World) -> list[str]:
    world.out.mkdir()
    return ["pull", "hf://owner/name", str(world.out)]


@refused
def a_push_without_a_proof(world: World) -> list[str]:
    return ["push", str(world.converted("plain")), "owner/name", "--license", "mit", "--dry-run"]


@refused
def a_push_without_a_license(world: World) -> list[str]:
    return ["push", str(world.converted("proved")), "owner/name", "--dry-run"]


@refused
def a_push_of_another_license(world: World) -> list[str]:
    return ["push", str(world.converted("proved")), "owner/name", "--dry-run", "--license", "mine"]


@refused
def a_push_of_no_folder(world: World) -> list[str]:
    return ["push", str(world.source()), "owner/name", "--dry-run"]


@refused
def a_card_that_is_a_link(world: World) -> list[str]:
    folder = world.converted("proved")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(world.text("secret"))
    return ["push", str(folder), "owner/name", "--dry-run", "--license", "mit"]


@refused
def a_card_that_is_no_yaml(world: World) -> list[str]:
    folder = world.converted("proved")
    (folder / "README.md").write_text("---\na: [\n---\n")
    return ["push", str(folder), "owner/name", "--dry-run", "--license", "mit"]


# Repairs


@refused
def a_pull_request_for_a_folder(world: World) -> list[str]:
    return ["repair", str(world.source()), "--create-pr"]


@refused
def a_repair_of_a_sound_source(world: World) -> list[str]:
    return ["repair", str(world.source(SQUAD)), str(world.out)]


@refused
def a_tensor_by_two_names(world: World) -> list[str]:
    name = "bert.pooler.dense.bias"
    source = world.of(state() | {f"nezha{name[4:]}": state()[name]})
    return ["repair", str(source), str(world.out)]


@refused
def a_repair_of_settings_that_are_no_json(world: World) -> list[str]:
    folder = world.converted()
    (folder / "tokenizer.json").write_text("{")
    return ["repair", str(folder), str(world.out)]


@refused
def a_repair_into_what_exists(world: World) -> list[str]:
    folder = world.converted()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NeZhaForPreTraining"]}))
    world.out.mkdir()
    return ["repair", str(folder), str(world.out)]
