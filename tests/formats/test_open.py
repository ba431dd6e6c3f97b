"""open_checkpoint: a folder, a prefix or any file leads to the same checkpoint. In doubt it does not guess."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import write_bundle
from safetensors.numpy import save_file

from nezha_convert.checkpoint import Contents, TensorEntry
from nezha_convert.errors import CheckpointError, UsageError
from nezha_convert.formats import open as opening
from nezha_convert.formats.open import FORMATS, Format, open_checkpoint

FIXTURES = Path(__file__).parents[2] / "fixtures"
ONE = {"w": np.ones(2, "f4")}


def bundle(folder: Path, name: str, shards: int = 1) -> Path:
    write_bundle(folder / name, [("w", np.ones(2, "f4")), ("v", np.ones(3, "f4"))], shards)
    return folder / name


def pickled(path: Path, names: str = "w") -> Path:
    torch.save({name: torch.ones(2) for name in names}, path)
    return path


def sharded(folder: Path, suffix: str = ".safetensors") -> Path:
    """Two shards and their index."""
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names = [f"{stem}-{i:05d}-of-00002{suffix}" for i in (1, 2)]
    for tensor, name in zip("ab", names, strict=True):
        if suffix == ".safetensors":
            save_file({tensor: np.ones(2, "f4")}, folder / name)
        else:
            pickled(folder / name, tensor)
    return indexed(folder / f"{stem}{suffix}.index.json", dict(zip("ab", names, strict=True)))


def indexed(path: Path, weight_map: object) -> Path:
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


# Every way to name a checkpoint


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("named", ["", "m.ckpt-5", "m.ckpt-5.index", "m.ckpt-5.data-00000-of-0000{n}"])
def test_a_bundle_opens_by_its_folder_its_prefix_and_each_of_its_files(named: str, shards: int, tmp_path: Path) -> None:
    bundle(tmp_path, "m.ckpt-5", shards)
    found = open_checkpoint(tmp_path / named.format(n=shards))
    assert (found.format, found.path) == ("tensorflow-bundle", tmp_path / "m.ckpt-5")
    assert len(found.files) == 1 + shards
    assert sorted(found.entries) == ["v", "w"]


def test_a_bundle_opens_by_any_of_its_data_files(tmp_path: Path) -> None:
    bundle(tmp_path, "m.ckpt-5", 3)
    for number in range(3):
        found = open_checkpoint(tmp_path / f"m.ckpt-5.data-{number:05d}-of-00003")
        assert len(found.files) == 4


def test_a_source_may_be_a_string(tmp_path: Path) -> None:
    bundle(tmp_path, "m.ckpt")
    assert open_checkpoint(str(tmp_path)).path == tmp_path / "m.ckpt"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "nezha.pth"])
@pytest.mark.parametrize("by_folder", [True, False])
def test_a_torch_file_opens_by_its_folder_and_its_name(name: str, by_folder: bool, tmp_path: Path) -> None:
    file = pickled(tmp_path / name)
    found = open_checkpoint(tmp_path if by_folder else file)
    assert (found.format, found.path, found.files) == ("torch", file, (file,))


@pytest.mark.parametrize("by_folder", [True, False])
def test_a_safetensors_file_opens_by_its_folder_and_its_name(by_folder: bool, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(ONE, file)
    found = open_checkpoint(tmp_path if by_folder else file)
    assert (found.format, found.path, found.files) == ("safetensors", file, (file,))


@pytest.mark.parametrize("suffix, format", [(".safetensors", "safetensors"), (".bin", "torch")])
def test_a_sharded_checkpoint_opens_whole_by_folder_index_and_each_shard(
    suffix: str, format: str, tmp_path: Path
) -> None:
    index = sharded(tmp_path, suffix)
    shards = sorted(tmp_path.glob(f"*{suffix}"))
    for source in (tmp_path, index, *shards):
        found = open_checkpoint(source)
        assert (found.format, found.path, found.files) == (format, index, (index, *shards))
        assert sorted(found.entries) == ["a", "b"]


@pytest.mark.parametrize(
    "fixture", sorted(p.name for p in FIXTURES.iterdir() if re.match("huawei|transformers", p.name))
)
def test_every_fixture_opens_by_its_folder_with_its_config(fixture: str) -> None:
    found = open_checkpoint(FIXTURES / fixture)
    assert len(found.entries) > 30
    assert found.config == FIXTURES / fixture / ("bert_config.json" if fixture.startswith("huawei") else "config.json")


def test_opening_reads_no_tensor(tmp_path: Path) -> None:
    bundle(tmp_path, "m.ckpt")
    data = tmp_path / "m.ckpt.data-00000-of-00001"
    data.write_bytes(bytes(data.stat().st_size))
    found = open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="checksum"):
        found.entries["w"].read()


# The checkpoint file of TensorFlow

POINTERS = {
    "a name": "m.ckpt-2",
    "a path of another machine": "/cache/user/output/m.ckpt-2",
    "a path of a Windows machine": r"C:\\Users\\me\\out\\m.ckpt-2",
    "a path of a Windows machine, not escaped": r"C:\Users\me\m.ckpt-2",
    "a relative path": "out/m.ckpt-2",
}


@pytest.mark.parametrize("pointer", POINTERS.values(), ids=POINTERS)
def test_the_checkpoint_file_chooses_one_of_several_by_its_last_name(pointer: str, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        bundle(tmp_path, f"m.ckpt-{number}")
    (tmp_path / "checkpoint").write_text(
        f'model_checkpoint_path: "{pointer}"\nall_model_checkpoint_paths: "/x/m.ckpt-1"\n'
        f'all_model_checkpoint_paths: "{pointer}"\nall_model_checkpoint_timestamps: 1.5\n'
    )
    assert open_checkpoint(tmp_path).path == tmp_path / "m.ckpt-2"


@pytest.mark.parametrize(
    "content",
    ['model_checkpoint_path: "m.ckpt-9"\n', "", "nonsense", b"\xff\xfe", 'all_model_checkpoint_paths: "m.ckpt-1"\n'],
)
def test_a_checkpoint_file_that_names_nothing_here_does_no_harm(content: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(content if isinstance(content, bytes) else content.encode())
    bundle(tmp_path, "m.ckpt-1")
    assert open_checkpoint(tmp_path).path == tmp_path / "m.ckpt-1"
    bundle(tmp_path, "m.ckpt-2")
    with pytest.raises(UsageError, match=r"it holds 2 checkpoints: m\.ckpt-1, m\.ckpt-2"):
        open_checkpoint(tmp_path)


def test_a_folder_without_a_checkpoint_file_opens_its_only_bundle(tmp_path: Path) -> None:
    bundle(tmp_path, "bert_model.ckpt")
    assert open_checkpoint(tmp_path).path == tmp_path / "bert_model.ckpt"


# Several, none, and what is no model


def test_several_candidates_are_listed_and_not_guessed(tmp_path: Path) -> None:
    bundle(tmp_path, "m.ckpt-1")
    pickled(tmp_path / "pytorch_model.bin")
    save_file(ONE, tmp_path / "model.safetensors")
    with pytest.raises(UsageError) as caught:
        open_checkpoint(tmp_path)
    assert "it holds 3 checkpoints: m.ckpt-1, model.safetensors, pytorch_model.bin" in str(caught.value)
    names = ("m.ckpt-1", "model.safetensors", "pytorch_model.bin")
    assert caught.value.ways == tuple((str(tmp_path / name),) for name in names)


def test_the_usual_name_wins_over_other_files_of_pytorch_and_the_choice_is_told(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "best.pt", "features.bin"):
        pickled(tmp_path / name)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path.name == "pytorch_model.bin"
    assert [(d.field, d.value) for d in checkpoint.decisions] == [("file", "pytorch_model.bin")]
    assert "best.pt, features.bin" in checkpoint.decisions[0].reason


def test_a_folder_with_one_checkpoint_folder_in_it_means_that_and_its_own_config(tmp_path: Path) -> None:
    for name in ("ckpt", "logs"):
        (tmp_path / name).mkdir()
    pickled(tmp_path / "ckpt" / "best.pth")
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.path.name, checkpoint.config) == ("best.pth", tmp_path / "config.json")
    assert ("folder", "ckpt") in {(d.field, d.value) for d in checkpoint.decisions}


def test_what_a_trainer_leaves_beside_a_model_is_no_candidate(tmp_path: Path) -> None:
    pickled(tmp_path / "pytorch_model.bin")
    for name in ("optimizer.pt", "optimizer.bin", "scheduler.pt", "training_args.bin", "scaler.pt", "rng_state_0.pth"):
        (tmp_path / name).write_bytes(b"no torch file at all")
    assert open_checkpoint(tmp_path).path == tmp_path / "pytorch_model.bin"


def test_a_folder_of_nothing_but_a_trainers_files_holds_no_checkpoint(tmp_path: Path) -> None:
    pickled(tmp_path / "optimizer.pt")
    with pytest.raises(CheckpointError, match=r"no checkpoint in it.*found optimizer\.pt"):
        open_checkpoint(tmp_path)


def test_such_a_file_still_opens_by_its_own_name(tmp_path: Path) -> None:
    assert open_checkpoint(pickled(tmp_path / "optimizer.pt")).format == "torch"


def test_folders_inside_are_no_candidates(tmp_path: Path) -> None:
    (tmp_path / "old.bin").mkdir()
    (tmp_path / "old.index").mkdir()
    pickled(tmp_path / "pytorch_model.bin")
    assert open_checkpoint(tmp_path).path == tmp_path / "pytorch_model.bin"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint in it.*found nothing at all") as caught:
        open_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_crowded_folder_without_a_checkpoint_is_not_listed_without_end(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"note-{number}.txt").touch()
    with pytest.raises(CheckpointError, match="no checkpoint in it") as caught:
        open_checkpoint(tmp_path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "name", ["nothing", "no.bin", "no.safetensors", "no.index", "no.safetensors.index.json", "no/model.ckpt-1"]
)
def test_what_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder") as caught:
        open_checkpoint(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "Name a folder" in caught.value.hint


def test_a_data_file_without_its_index_is_refused(tmp_path: Path) -> None:
    bundle(tmp_path, "m.ckpt")
    (tmp_path / "m.ckpt.index").unlink()
    for source in (tmp_path, tmp_path / "m.ckpt.data-00000-of-00001"):
        with pytest.raises(CheckpointError, match=r"m\.ckpt\.index: not there"):
            open_checkpoint(source)


@pytest.mark.parametrize("name", ["README.md", "model.msgpack", "model.onnx"])
def test_a_file_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(CheckpointError, match=f"{name}: not a checkpoint of a known format"):
        open_checkpoint(tmp_path / name)


def test_tensorflows_pointer_alone_means_its_folder_which_holds_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("x")
    with pytest.raises(CheckpointError, match="no checkpoint in it"):
        open_checkpoint(tmp_path / "checkpoint")


def test_an_address_of_the_hub_is_no_file_here() -> None:
    with pytest.raises(CheckpointError, match="sijunhe/nezha-cn-base: no such file or folder"):
        open_checkpoint("hf://sijunhe/nezha-cn-base")


# Indexes of shards


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("name", ["../secret{}", "/etc/secret{}", "sub/secret{}", "..", "."])
def test_a_shard_outside_of_the_folder_is_refused(name: str, suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path, folder / "sub"):
        if suffix == ".safetensors":
            save_file(ONE, path / "secret.safetensors")
        else:
            pickled(path / "secret.bin")
    index = indexed(folder / f"model{suffix}.index.json", {"w": name.format(suffix)})
    with pytest.raises(CheckpointError, match=r"index\.json: shard .* lies outside of its folder; refused"):
        open_checkpoint(index)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    for source in (tmp_path, index, tmp_path / "model-00001-of-00002.safetensors"):
        with pytest.raises(CheckpointError, match=r"shard 'model-00002-of-00002\.safetensors' is not there"):
            open_checkpoint(source)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": null}',
        "[" * 9**5,
    ],
    ids=range(10),
)
def test_an_index_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: not an index of shards"):
        open_checkpoint(tmp_path)


def test_an_index_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"index\.json: .*no shard"):
        open_checkpoint(indexed(tmp_path / "model.safetensors.index.json", {}))


def test_a_file_of_its_own_beside_an_index_opens_alone(tmp_path: Path) -> None:
    sharded(tmp_path)
    save_file(ONE, tmp_path / "other.safetensors")
    assert open_checkpoint(tmp_path / "other.safetensors").files == (tmp_path / "other.safetensors",)
    with pytest.raises(UsageError, match=r"model\.safetensors\.index\.json, other\.safetensors"):
        open_checkpoint(tmp_path)


# What lies beside it


def test_companions_are_found_beside_the_weights(tmp_path: Path) -> None:
    bundle(tmp_path, "m.ckpt")
    for name in ("bert_config.json", "vocab.txt", "labels.txt"):
        (tmp_path / name).write_text("{}")
    for source in (tmp_path, tmp_path / "m.ckpt", tmp_path / "m.ckpt.index"):
        found = open_checkpoint(source)
        assert found.config == tmp_path / "bert_config.json"
        assert found.vocab == tmp_path / "vocab.txt"
        assert found.labels == tmp_path / "labels.txt"


def test_companions_may_be_missing(tmp_path: Path) -> None:
    bundle(tmp_path, "m.ckpt")
    found = open_checkpoint(tmp_path)
    assert (found.config, found.vocab, found.labels) == (None, None, None)


CONFIGS = {
    ("bert_config.json", "config.json"): "bert_config.json",
    ("config.json", "my_config.json"): "config.json",
    ("bert_config_nezha_large_cn.json",): "bert_config_nezha_large_cn.json",
    ("my_config.json", "tokenizer_config.json", "generation_config.json"): "my_config.json",
    ("tokenizer_config.json",): None,
    ("a_config.json", "b_config.json"): None,
}


@pytest.mark.parametrize("field", ["model_type", "architectures"])
def test_transformers_own_config_goes_before_huaweis_beside_its_own_weights(field: str, tmp_path: Path) -> None:
    (tmp_path / "bert_config.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({field: "nezha"}))
    torch.save({"weight": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert open_checkpoint(tmp_path / "pytorch_model.bin").config == tmp_path / "config.json"
    bundle(tmp_path, "m.ckpt")
    assert open_checkpoint(tmp_path / "m.ckpt").config == tmp_path / "bert_config.json"


@pytest.mark.parametrize("names, expected", CONFIGS.items())
def test_the_config_is_the_one_of_the_model(names: tuple[str, ...], expected: str | None, tmp_path: Path) -> None:
    bundle(tmp_path, "m.ckpt")
    for name in names:
        (tmp_path / name).write_text("{}")
    assert open_checkpoint(tmp_path).config == (tmp_path / expected if expected else None)


# Links and names


def test_a_shard_that_links_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    index = sharded(folder)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.rename(tmp_path / "outside")
    shard.symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match=r"shard 'model-00002-of-00002.safetensors' is a link out of its folder"):
        open_checkpoint(index)


def test_shards_that_are_links_of_the_hubs_cache_are_read(tmp_path: Path) -> None:
    folder, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    index = sharded(folder)
    for shard in folder.glob("*.safetensors"):
        shard.rename(blobs / shard.name)
        shard.symlink_to(Path("../../blobs") / shard.name)
    assert sorted(open_checkpoint(index).entries) == ["a", "b"]


@pytest.mark.parametrize("name", ["x" * 300, "哪" * 90])
def test_a_shard_whose_name_is_longer_than_any_file_s_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        open_checkpoint(indexed(tmp_path / "model.safetensors.index.json", {"a": name}))


# The table of formats


def test_a_line_in_the_table_makes_a_format_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens by its folder, its file and an index, and the messages name it."""

    def read(files: tuple[Path, ...]) -> Contents:
        names = [name for file in files for name in file.read_text().split()]
        return Contents({name: TensorEntry(name, "float32", (), 4, lambda limit: iter(())) for name in names})

    made_up = Format("made-up", (".made-up",), read)
    monkeypatch.setattr(opening, "_BY_SUFFIX", {**opening._BY_SUFFIX, ".made-up": made_up})
    (tmp_path / "1.made-up").write_text("a b")
    for source in (tmp_path, tmp_path / "1.made-up"):
        found = open_checkpoint(source)
        assert (found.format, found.files, sorted(found.entries)) == ("made-up", (tmp_path / "1.made-up",), ["a", "b"])
    (tmp_path / "2.made-up").write_text("c")
    index = indexed(tmp_path / "model.made-up.index.json", {"a": "1.made-up", "b": "1.made-up", "c": "2.made-up"})
    for source in (tmp_path, index, tmp_path / "1.made-up"):
        assert sorted(open_checkpoint(source).entries) == ["a", "b", "c"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"\*\.made-up"):
        open_checkpoint(tmp_path / "empty")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "nothing")
    assert ".made-up file" in caught.value.hint


def test_no_two_formats_claim_a_suffix() -> None:
    suffixes = [suffix for format in FORMATS for suffix in format.suffixes]
    assert len(suffixes) == len(set(suffixes))


# What is told by its content


def test_files_without_a_model_are_passed_over_and_named(tmp_path: Path) -> None:
    from argparse import Namespace

    file = pickled(tmp_path / "best.model")
    for name, content in (
        ("args.bin", Namespace(lr=1)),
        ("labels.pkl", ["a", "b"]),
        ("logits.pt", torch.ones(2, 2)),
        ("map.pth", {"a": 1}),
        ("optimizer.pt", {"state": {0: {"exp_avg": torch.ones(2, 2)}}}),
    ):
        torch.save(content, tmp_path / name)
    found = open_checkpoint(tmp_path)
    assert found.path == file
    assert [(d.field, d.value) for d in found.decisions] == [
        ("passed over", "args.bin, labels.pkl, logits.pt, map.pth, optimizer.pt")
    ]


def test_a_model_of_any_name_is_asked_about_beside_another(tmp_path: Path) -> None:
    pickled(tmp_path / "best.pkl")
    pickled(tmp_path / "last.bin")
    with pytest.raises(UsageError, match=r"it holds 2 checkpoints: best\.pkl, last\.bin"):
        open_checkpoint(tmp_path)
    pickled(tmp_path / "pytorch_model.bin")
    found = open_checkpoint(tmp_path)
    assert found.path.name == "pytorch_model.bin" and found.decisions[0].reason.endswith("best.pkl, last.bin")


def test_a_damaged_file_is_not_passed_over(tmp_path: Path) -> None:
    pickled(tmp_path / "best.pt")
    damaged = pickled(tmp_path / "last.pt")
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(UsageError, match="it holds 2 checkpoints"):
        open_checkpoint(tmp_path)


UNFINISHED = ("last.bin.downloading", "a.crdownload", "b.part", "c.incomplete")


def test_downloads_that_were_not_finished_are_named_and_not_read(tmp_path: Path) -> None:
    file = pickled(tmp_path / "pytorch_model.bin")
    for name in UNFINISHED:
        pickled(tmp_path / name)
        with pytest.raises(CheckpointError, match="a download that was not finished"):
            open_checkpoint(tmp_path / name)
    begun = pickled(tmp_path / "model.pt")
    (tmp_path / "model.pt.aria2").touch()  # aria2 has begun it under its own name
    with pytest.raises(CheckpointError, match="a download that was not finished"):
        open_checkpoint(begun)
    found = open_checkpoint(tmp_path)
    names = ", ".join(sorted([*UNFINISHED, "model.pt", "model.pt.aria2"]))
    assert (found.path, [(d.field, d.value) for d in found.decisions]) == (file, [("unfinished", names)])
    file.unlink()
    with pytest.raises(CheckpointError, match=f"the download of {names} was not finished"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["checkpoint", "graph.pbtxt", "labels.txt", "training.json", "m.ckpt-2.meta"])
def test_a_file_beside_the_weights_means_their_folder(name: str, tmp_path: Path) -> None:
    bundle(tmp_path, "m.ckpt-2")
    (tmp_path / name).write_text("{}")
    assert open_checkpoint(tmp_path / name).path == tmp_path / "m.ckpt-2"


def test_the_graph_of_a_step_means_that_step(tmp_path: Path) -> None:
    for number in (1, 2):
        bundle(tmp_path, f"m.ckpt-{number}")
        (tmp_path / f"m.ckpt-{number}.meta").touch()
    assert open_checkpoint(tmp_path / "m.ckpt-1.meta").path == tmp_path / "m.ckpt-1"
