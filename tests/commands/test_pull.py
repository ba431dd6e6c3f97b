"""A pull fetches what a conversion needs, and an address of the Hub is a source of every command."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
from hub_fixtures import NAME, TF, process

from nezha_convert import HubError, convert, pull


def test_a_pull_fetches_one_kind_of_weights_and_what_belongs_to_them(run, server, folder, tmp_path):
    junk = {"pytorch_model.bin": b"x", "optimizer.pt": b"x", "tf_model.h5": b"x", "onnx/model.onnx": b"x"}
    server.create(NAME, {path.name: path.read_bytes() for path in folder.iterdir()} | junk)
    result = run("pull", f"hf://{NAME}", tmp_path / "here")
    assert result.code == 0
    assert {path.name for path in (tmp_path / "here").iterdir()} == {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        assert (tmp_path / "here" / path.name).read_bytes() == path.read_bytes()
    assert not server.count("GET .*(pytorch_model|optimizer|h5|onnx)")


def test_a_second_pull_downloads_nothing(run, server, folder):
    server.create(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    first = json.loads(run("pull", f"hf://{NAME}", "--json").out)
    server.requests.clear()
    assert json.loads(run("pull", f"hf://{NAME}", "--json").out) == first
    assert first["address"] == f"hf://{NAME}@{server.repositories[NAME].branches['main']}"
    assert not server.count("GET /owner/")


def test_a_download_over_the_limit_is_refused_before_it_begins(server, folder):
    server.create(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    nbytes = sum(path.stat().st_size for path in folder.iterdir())
    with pytest.raises(HubError, match=f"{nbytes:,} bytes to download, expected at most {nbytes - 1:,}"):
        pull(f"hf://{NAME}", endpoint=server.endpoint, max_bytes=nbytes - 1)
    assert not server.count("GET /owner/")
    assert sum(size for _, size in pull(f"hf://{NAME}", endpoint=server.endpoint, max_bytes=nbytes).files) == nbytes


def test_an_empty_token_is_none(server, folder):
    server.create(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    assert pull(f"hf://{NAME}", endpoint=server.endpoint, token="").folder.is_dir()


def test_a_revision_is_pulled_as_it_was(server, folder):
    repository = server.create(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    old = repository.branches["main"]
    repository.add("main", old, {"model.safetensors": b"new", "config.json": b"{}"}, "new")
    found = pull(f"hf://{NAME}@{old}", endpoint=server.endpoint)
    assert (found.folder / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert str(found.address) == f"hf://{NAME}@{old}"


def test_a_private_repository_is_pulled_with_its_token_alone(run, server, folder):
    server.create(NAME, {path.name: path.read_bytes() for path in folder.iterdir()}, private=True)
    assert run("pull", f"hf://{NAME}").code == 0
    stranger = run("pull", f"hf://{NAME}", token=None)
    assert stranger.code == 6 and "hf auth login" in stranger.err


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("hf://owner/nope", 6, "no such repository"),
        (f"hf://{NAME}@nope", 6, "no such repository, revision"),
        ("owner", 2, "hf://owner/name[@revision]"),
        ("hf://name", 2, "OWNER/NAME"),
        ("hf://owner/name@", 2, "hf://owner/name[@revision]"),
    ],
)
def test_an_address_that_leads_nowhere_is_told(run, server, address, code, words):
    server.create(NAME, {"model.safetensors": b"x"})
    result = run("pull", address)
    assert result.code == code and words in result.err


def test_a_repository_without_weights_is_6_and_says_what_it_holds(run, server):
    server.create(NAME, {"model.onnx": b"x", "config.json": b"{}"})
    result = run("pull", f"hf://{NAME}")
    assert result.code == 6 and "model.onnx" in result.err


def test_a_pull_into_a_folder_that_exists_changes_nothing(run, server, folder):
    server.create(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    result = run("pull", f"hf://{NAME}", folder)
    assert result.code == 5 and "exists already" in result.err


def test_in_offline_mode_the_cache_is_read_alone(server, folder, monkeypatch):
    server.create(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    there = pull(f"hf://{NAME}", endpoint=server.endpoint)
    server.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert pull(f"hf://{NAME}", endpoint=server.endpoint) == there
    with pytest.raises(HubError, match="not in the cache"):
        pull("hf://owner/other", endpoint=server.endpoint)
    assert not server.requests


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_in_offline_mode_a_cache_without_the_weights_is_told(run, server, folder, tmp_path, monkeypatch, name):
    """Another program fetched the config alone, or was stopped before the weights came."""
    server.create(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    cached = pull(f"hf://{NAME}", endpoint=server.endpoint).folder
    for path in cached.iterdir():
        if path.name != "config.json":
            path.unlink()
    if name.endswith("json"):
        (cached / name).write_text("{}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    result = run("pull", f"hf://{NAME}", tmp_path / "here")
    assert result.code == 6 and "no weights" in result.err and "config.json" in result.err
    assert "Unset HF_HUB_OFFLINE" in result.err
    assert not (tmp_path / "here").exists()


def test_an_address_of_the_hub_is_a_source_of_every_command(server, tmp_path):
    """Huawei's own files on the Hub: inspected, converted and verified by their address."""
    repository = server.create(NAME, {path.name: path.read_bytes() for path in TF.iterdir() if path.suffix != ".npz"})
    home, out = tmp_path / "home", tmp_path / "out"
    for command in (("inspect",), ("convert", out), ("verify", out)):
        done = process(server, "-m", "nezha_convert", command[0], f"hf://{NAME}", *command[1:], "--json", home=home)
        assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "conversion.json").read_text())
    assert report["source"] == f"hf://{NAME}@{repository.branches['main']}" and report["parity"]["passed"]
    convert(TF, tmp_path / "local")
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "local" / "model.safetensors").read_bytes()
    assert f'base_model: "{NAME}"' in (out / "README.md").read_text()
