"""The Hub's client: addresses, what is fetched, and settings that its other users share."""

from __future__ import annotations

import huggingface_hub
import pytest
from hub_fixtures import CANARY, NAME

from nezha_convert import UsageError, push
from nezha_convert.hub import Address
from nezha_convert.hub.client import _needed


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ("pytorch_model.bin training_args.bin optimizer.pt scheduler.pt config.json", "pytorch_model.bin config.json"),
        ("pytorch_model.bin vocab.txt added_tokens.json special_tokens_map.json", None),
        ("m.ckpt.index m.ckpt.data-00000-of-00001 m.ckpt.meta checkpoint", None),
        ("x.bin model-00001-of-00001.safetensors model.safetensors.index.json vocab.txt tokenizer.json merges", None),
        (
            "pytorch_model-00001-of-00001.bin pytorch_model.bin.index.json bert_config.json events.out flax.msgpack",
            None,
        ),
        ("model.onnx optimizer.pt config.json", ""),
    ],
)
def test_what_is_fetched_of_a_repository(there, wanted):
    left = {"m.ckpt.meta", "x.bin", "merges", "events.out", "flax.msgpack"}
    expected = set(there.split()) - left if wanted is None else set(wanted.split())
    assert set(_needed(there.split())) == expected


def test_an_address_is_read_and_written_the_same():
    for text in ("hf://owner/name", "hf://owner/name@main", "hf://owner/name@refs/pr/1"):
        assert str(Address.parse(text)) == text
    with pytest.raises(UsageError):
        Address.parse("https://owner/name")


def test_each_large_file_has_its_bar_where_a_person_watches(server, folder, capfd):
    access = {"license": "mit", "token": CANARY, "endpoint": server.endpoint}
    push(folder, "owner/silent", **access)
    assert capfd.readouterr() == ("", "")
    server.large.clear()
    push(folder, NAME, bars=True, **access)
    assert "model.safetensors: 100%" in capfd.readouterr().err


def test_the_client_s_settings_are_its_user_s_again_afterwards(server, folder):
    before = huggingface_hub.constants.ENDPOINT
    push(folder, NAME, license="mit", token=CANARY, endpoint=server.endpoint)
    assert huggingface_hub.constants.ENDPOINT == before != server.endpoint
    assert not huggingface_hub.utils.are_progress_bars_disabled()
