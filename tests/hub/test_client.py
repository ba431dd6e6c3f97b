"""The Hub's client: addresses, what is fetched, and settings that its other users share."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import huggingface_hub
import pytest
from hub_fixtures import CANARY, NAME

from nezha_convert import UsageError, pull, push
from nezha_convert.errors import HubError
from nezha_convert.hub import Address, client
from nezha_convert.hub.client import _needed, within


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
        ("bert_nezha.ckpt config.json vocab.txt", None),
        ("model.safetensors extra.safetensors config.json conversion.json", None),
        ("pytorch_model.bin extra.safetensors config.json", None),
        ("extra.safetensors config.json", ""),
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


# A server that never comes to an end


@pytest.fixture(params=["in its headers", "in its answer", "in silence"])
def dripping(request):
    """The address of a server that sends a byte twice a second."""
    listening = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve(connection):
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            if request.param == "in its answer":
                connection.sendall(b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
            while not done.wait(0.5):
                if request.param != "in silence":
                    connection.sendall(b"x")

    def accept():
        while not done.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    done.set()
    listening.close()


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_a_server_that_drips_does_not_hold_the_command(verb, dripping, folder, server, monkeypatch):
    monkeypatch.setattr(client, "_PATIENCE", 1.5)
    begun = time.monotonic()
    with pytest.raises(
        HubError, match=r"cannot be reached, or the connection broke off \(TimeoutError: no whole answer"
    ):
        if verb == "pull":
            pull(f"hf://{NAME}", token=CANARY, endpoint=dripping)
        else:
            push(folder, NAME, license="mit", token=CANARY, endpoint=dripping)
    assert time.monotonic() - begun < 15


def test_the_time_is_in_proportion_to_the_bytes(monkeypatch):
    monkeypatch.setattr(client, "_PATIENCE", 0.05)
    assert within(lambda: time.sleep(0.3) or "done", 1 << 20) == "done"
    with pytest.raises(TimeoutError, match="no whole answer in 0 seconds"):
        within(lambda: time.sleep(0.3))


def test_what_the_client_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        within(lambda: 1 // 0)
