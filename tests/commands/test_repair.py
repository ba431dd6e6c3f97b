"""Copies as they lie on the Hub: each fault is found by name, and what is repaired computes what the original did."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from goldens import FIXTURES, GOLDENS, Golden, errors
from hub_server import hub
from safetensors.torch import load_file, save_file

import nezha  # noqa: F401 (the Auto classes know NEZHA by it)
from nezha_convert import MappingError, UsageError, convert, inspect, repair
from nezha_convert.checkpoint import TensorEntry
from nezha_convert.cli.app import main
from nezha_convert.families.heads import HEADS
from nezha_convert.formats.blocks import row_blocks
from nezha_convert.mapping.positions import Table, stored_clip

GOLDEN = {golden.name: golden for golden in GOLDENS}
PRETRAINING = GOLDEN["transformers-4.40.2-pretraining"]
WORDS, DECODER = "nezha.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(0x4E00 + i) for i in range(59))]


@pytest.fixture
def copy(tmp_path) -> Callable[..., Path]:
    """A good copy of a golden's model, with a vocabulary."""

    def copy(golden: Golden = PRETRAINING) -> Path:
        rows = inspect(golden.folder).model["vocab_size"]
        (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY[:rows]) + "\n", "utf-8")
        head = golden.head if golden.asked else None
        convert(golden.folder, tmp_path / "copy", head=head, vocab=tmp_path / "vocab.txt")
        return tmp_path / "copy"

    return copy


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Change the weights of a copy."""
    state = change(load_file(folder / "model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")


def config(folder: Path, **fields: object) -> None:
    """Set fields of config.json; None takes one out."""
    raw = json.loads((folder / "config.json").read_text()) | fields
    kept = {name: value for name, value in raw.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def as_transformers_built_it(length: int = 512, clip: int = 64, size: int = 16) -> torch.Tensor:
    """A layer's table of transformers 4.40.2, by its recipe: in float32, one row for every pair of positions."""
    distances = torch.arange(length)[None] - torch.arange(length)[:, None]
    index = distances.clamp(-clip, clip) + clip
    frequencies = torch.exp(torch.arange(0, size, 2).float() * (-torch.log(torch.tensor(10000.0)) / size))
    angles = torch.arange(2 * clip + 1).float()[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)[index]


def fat_buffers(folder: Path, table: torch.Tensor | None = None) -> None:
    raw = json.loads((folder / "config.json").read_text())
    size = raw["hidden_size"] // raw["num_attention_heads"]
    table = as_transformers_built_it(clip=raw["max_relative_position"], size=size) if table is None else table
    name = "nezha.encoder.layer.{}.attention.self.relative_positions_encoding.positions_encoding"
    tensors(folder, lambda s: s | {name.format(i): table.clone() for i in range(raw["num_hidden_layers"])})


def renamed(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: tensors(folder, lambda s: {name.replace(old, new): t for name, t in s.items()})


def wrapped(folder: Path) -> None:
    tensors(folder, lambda s: {f"module.{name}": t for name, t in s.items()})


def gamma_and_beta(folder: Path) -> None:
    for modern, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        renamed(modern, old)(folder)


def badly_deduplicated(folder: Path) -> None:
    """What the Hub's safetensors bot did: of two shared tensors it kept the first by name."""
    tensors(folder, lambda s: {DECODER if name == WORDS else name: t for name, t in s.items()})


def left_over(folder: Path) -> None:
    ids = {"nezha.embeddings.position_ids": torch.arange(512)[None]}
    tensors(folder, lambda s: s | ids)


def without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


FAULTS: dict[str, Callable[[Path], None]] = {
    "wrapped names": wrapped,
    "foreign prefix": renamed("nezha.", "bert."),
    "gamma and beta": gamma_and_beta,
    "fat position buffers": fat_buffers,
    "left-over buffers": left_over,
    "lost word embeddings": badly_deduplicated,
    "misspelt architecture": lambda folder: config(folder, architectures=["NeZhaForPreTraining"]),
    "wrong model type": lambda folder: config(folder, model_type="bert"),
    "missing model code": lambda folder: config(folder, auto_map=None),
    "missing tokenizer config": without("tokenizer_config.json", "tokenizer.json"),
}


def assert_equals_the_original(folder: Path, golden: Golden = PRETRAINING) -> None:
    auto = getattr(transformers, HEADS[golden.head].auto_class)
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for case, expected in golden.cases():
        for name, error in errors(golden, model.eval(), case, expected).items():
            assert error <= golden.tolerance, (case, name)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_named_and_repaired(copy, tmp_path, kind):
    FAULTS[kind](folder := copy())
    done = repair(folder, tmp_path / "repaired")
    assert [fault.kind for fault in done.faults] == [kind]
    assert_equals_the_original(tmp_path / "repaired")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "repaired")("一")["input_ids"] == [2, 5, 3]
    assert repair(tmp_path / "repaired").faults == ()


@pytest.mark.parametrize("kind", FAULTS)
def test_what_is_repaired_is_the_good_copy_again(copy, tmp_path, kind):
    good = copy()
    shutil.copytree(good, tmp_path / "bad")
    FAULTS[kind](tmp_path / "bad")
    repair(tmp_path / "bad", tmp_path / "repaired")
    for path in good.iterdir():
        if path.name not in ("conversion.json", "README.md"):
            assert (tmp_path / "repaired" / path.name).read_bytes() == path.read_bytes(), path.name


def test_all_faults_at_once_in_a_pickle_are_repaired(copy, tmp_path):
    folder = copy()
    last = ("wrapped names", "foreign prefix", "gamma and beta")  # names change after tensors were added by name
    for kind in sorted(FAULTS, key=lambda kind: kind in last):
        if kind == "wrapped names":
            continue
        FAULTS[kind](folder)
    wrapped(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    done = repair(folder, tmp_path / "repaired")
    assert {fault.kind for fault in done.faults} == set(FAULTS)
    assert_equals_the_original(tmp_path / "repaired")


@pytest.mark.parametrize("golden", GOLDENS, ids=str)
def test_a_good_copy_is_left_alone(copy, tmp_path, golden):
    folder = copy(golden)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = repair(folder, tmp_path / "repaired")
    assert done.faults == () and done.report is None
    assert not (tmp_path / "repaired").exists()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_copy_with_both_prefixes_becomes_one_with_one(copy, tmp_path):
    tensors(
        folder := copy(), lambda s: {n.replace("nezha.", "bert.") if ".layer.1." in n else n: t for n, t in s.items()}
    )
    assert [fault.kind for fault in repair(folder, tmp_path / "repaired").faults] == ["foreign prefix"]
    assert_equals_the_original(tmp_path / "repaired")


@pytest.mark.parametrize("name", [g.name for g in GOLDENS if g.family == "transformers"])
def test_what_transformers_saved_itself_lacks_the_code_alone(tmp_path, name):
    done = repair(GOLDEN[name].folder, tmp_path / "repaired")
    assert [fault.kind for fault in done.faults] == ["missing model code"]
    assert_equals_the_original(tmp_path / "repaired", GOLDEN[name])


# What cannot be repaired


@pytest.mark.parametrize("row", [0, 300, 511])
def test_a_table_of_positions_that_is_another_is_refused_by_its_row(copy, tmp_path, row):
    raw = json.loads(((folder := copy()) / "config.json").read_text())
    table = as_transformers_built_it(size=raw["hidden_size"] // raw["num_attention_heads"])
    table[row, 7, 3] += 1e-4
    fat_buffers(folder, table)
    with pytest.raises(MappingError, match=f"row {row} is not what the model computes"):
        repair(folder, tmp_path / "repaired")
    assert not (tmp_path / "repaired").exists()


def test_a_table_of_another_clip_distance_mends_the_config(copy, tmp_path):
    raw = json.loads(((folder := copy()) / "config.json").read_text())
    fat_buffers(folder, as_transformers_built_it(clip=32, size=raw["hidden_size"] // raw["num_attention_heads"]))
    faults = {fault.kind: fault for fault in repair(folder, tmp_path / "repaired").faults}
    assert "clipped at 32" in faults["wrong clip distance"].found
    assert json.loads((tmp_path / "repaired" / "config.json").read_text())["max_relative_position"] == 32


@pytest.mark.parametrize("size", [8, 64, 128])
@pytest.mark.parametrize("clip", [1, 32, 64, 127, 512])
def test_a_table_that_was_built_in_float32_passes_and_a_change_ten_times_as_large_does_not(clip, size):
    def check(table: torch.Tensor) -> None:
        stream = partial(row_blocks, table.numpy())
        entry = TensorEntry("table", "float32", tuple(table.shape), table.nbytes, stream)
        assert stored_clip([Table(entry, "*")], 64) == clip

    table = as_transformers_built_it(length=2 * clip + 3, clip=clip, size=size)
    check(table)
    table[-1, 0, 0] += 10 * 2 * clip * 2.0**-23
    with pytest.raises(MappingError, match=f"row {2 * clip + 2} "):
        check(table)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_table_in_half_precision_is_compared_to_its_rounding(copy, dtype):
    raw = json.loads(((folder := copy()) / "config.json").read_text())
    size = raw["hidden_size"] // raw["num_attention_heads"]
    fat_buffers(folder, as_transformers_built_it(size=size).to(dtype))
    assert [fault.kind for fault in repair(folder).faults] == ["fat position buffers"]


def test_word_embeddings_that_are_lost_and_not_tied_are_refused(copy):
    badly_deduplicated(folder := copy())
    config(folder, tie_word_embeddings=False)
    with pytest.raises(MappingError, match="not tied"):
        repair(folder)


def test_a_copy_that_lacks_a_weight_is_not_called_good(copy):
    tensors(folder := copy(), lambda s: {n: t for n, t in s.items() if n != "nezha.pooler.dense.bias"})
    with pytest.raises(MappingError) as error:
        repair(folder)
    assert "missing: nezha.pooler.dense.bias" in error.value.problems


def test_a_tensor_that_stands_there_twice_is_refused(copy):
    name = "encoder.layer.0.output.dense.bias"
    tensors(folder := copy(), lambda s: s | {f"bert.{name}": s[f"nezha.{name}"] + 1})
    with pytest.raises(MappingError, match=f"bert.{name} and nezha.{name} both are nezha.{name}"):
        repair(folder)


def test_a_checkpoint_of_huawei_s_tensorflow_code_is_converted_and_not_repaired():
    with pytest.raises(UsageError) as error:
        repair(FIXTURES / "huawei-tf-pretraining")
    assert "nezha-convert convert" in error.value.hint


# The tokenizer


def test_the_copy_s_own_casing_stays(copy, tmp_path):
    folder = copy()
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"do_lower_case": False}
    del settings["tokenizer_class"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    repair(folder, tmp_path / "repaired")
    assert json.loads((tmp_path / "repaired" / "tokenizer_config.json").read_text())["do_lower_case"] is False


def test_a_vocabulary_inside_of_tokenizer_json_is_taken_from_there(copy, tmp_path):
    folder = copy()
    without("vocab.txt", "tokenizer_config.json")(folder)
    repair(folder, tmp_path / "repaired")
    assert (tmp_path / "repaired" / "vocab.txt").read_text("utf-8").split() == VOCABULARY


@pytest.mark.parametrize("files", ["vocab.txt tokenizer.json", "vocab.txt added_tokens.json", "tokenizer.json"])
def test_tokens_that_were_added_to_the_vocabulary_are_never_lost(copy, tmp_path, files):
    fat_buffers(folder := copy())
    whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    without("vocab.txt", "tokenizer.json", "tokenizer_config.json")(folder)
    del whole["model"]["vocab"][VOCABULARY[63]]
    whole["added_tokens"].append(whole["added_tokens"][0] | {"id": 63, "content": "<new>"})
    contents = {
        "vocab.txt": "\n".join(VOCABULARY[:63]),
        "tokenizer.json": json.dumps(whole),
        "added_tokens.json": '{"<new>": 63}',
    }
    for name in files.split():
        (folder / name).write_text(contents[name], "utf-8")
    repair(folder, tmp_path / "repaired")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "repaired")
    assert tokenizer("一<new>")["input_ids"] == [2, 5, 63, 3]


# Records


def test_every_repair_is_in_the_record_and_on_the_card(copy, tmp_path):
    fat_buffers(folder := copy())
    (fault,) = repair(folder, tmp_path / "repaired").faults
    record = json.loads((tmp_path / "repaired" / "conversion.json").read_text())
    (kept,) = (d for d in record["decisions"] if d["field"].startswith("repaired"))
    assert (kept["field"], kept["value"], kept["reason"]) == (f"repaired: {fault.kind}", fault.found, fault.repair)
    assert "fat position buffers" in (tmp_path / "repaired" / "README.md").read_text()


def test_the_command_says_what_is_wrong_and_writes_nothing_unless_told_where(copy, tmp_path, capsys):
    fat_buffers(folder := copy())
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as exit:
        main(["repair", str(folder)])
    out = capsys.readouterr().out
    assert exit.value.code == 0 and sorted(tmp_path.iterdir()) == before
    assert "fat position buffers" in out and f"nezha-convert repair {folder} OUTPUT" in out


def test_the_command_says_that_a_good_one_is_left_alone(copy, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["repair", str(copy())])
    assert exit.value.code == 0 and "left alone" in capsys.readouterr().out


def test_the_output_is_never_the_copy_itself(copy):
    fat_buffers(folder := copy())
    with pytest.raises(UsageError, match="would replace the source"):
        repair(folder, folder, force=True)


# On the Hub


@pytest.fixture
def server(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    with hub("hf_token") as server:
        yield server


def test_a_pull_request_describes_each_repair_and_leaves_main_and_the_card_as_they_were(copy, server, tmp_path):
    fat_buffers(folder := copy())
    config(folder, model_type="bert")
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": b"theirs"}
    repository = server.create("owner/name", files)
    access = {"endpoint": server.endpoint, "token": "hf_token"}
    done = repair("hf://owner/name", create_pr=True, **access)
    assert done.pushed.pull_request == f"{server.endpoint}/owner/name/discussions/1"
    request = repository.history("refs/pr/1")[0]
    assert [fault.kind for fault in done.faults] == ["fat position buffers", "wrong model type"]
    for fault in done.faults:
        assert fault.kind in request.description and fault.repair in request.description
    assert repository.history()[0].files["model.safetensors"] == files["model.safetensors"]
    assert request.files["README.md"] == b"theirs"

    repaired = tmp_path / "repaired"
    repair("hf://owner/name@refs/pr/1", repaired, **access)
    assert not repaired.exists()  # nothing is wrong with the pull request
    repaired.mkdir()
    for name, data in request.files.items():
        (repaired / name).write_bytes(data)
    assert_equals_the_original(repaired)


def test_a_good_copy_gets_no_pull_request(copy, server):
    repository = server.create("owner/name", {path.name: path.read_bytes() for path in copy().iterdir()})
    done = repair("hf://owner/name", create_pr=True, endpoint=server.endpoint, token="hf_token")
    assert done.faults == () and done.pushed is None and list(repository.branches) == ["main"]


def test_a_pull_request_needs_a_repository(copy):
    with pytest.raises(UsageError, match="needs a repository"):
        repair(copy(), create_pr=True)
