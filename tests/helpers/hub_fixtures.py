"""Fixtures of tests that push and pull: a Hub on loopback, a proved folder, and a way to run a command.

tests/conftest.py makes the fixtures known to all tests.
"""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import warm_python
from hub_server import Hub, hub

CANARY = "hf_" + "CanaryCanaryCanaryCanary"
TF = Path(__file__).parents[2] / "fixtures" / "huawei-tf-pretraining"
NAME = "owner/nezha-tiny"
PUSH = ("--license", "apache-2.0")


@pytest.fixture(scope="session")
def verified(tmp_path_factory) -> Path:
    """A converted folder whose parity is proved. It is shared: copy it (`folder`) to change it."""
    from nezha_convert import convert, verify

    folder = tmp_path_factory.mktemp("verified") / "nezha-tiny"
    convert(TF, folder)
    assert verify(TF, folder).passed
    return folder


@pytest.fixture
def folder(verified, tmp_path) -> Path:
    return Path(shutil.copytree(verified, tmp_path / "nezha-tiny"))


@pytest.fixture
def server(tmp_path, monkeypatch) -> Hub:
    """A Hub with an owner, its own cache, and a client that does not wait between retries."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub(CANARY) as server:
        yield server


@pytest.fixture
def run(capfd, server):
    """Run a command of the owner's; its exit code, stdout and stderr, none of which holds the token."""
    from nezha_convert.cli.app import main

    Result = namedtuple("Result", "code out err")

    def run(*arguments: object, token: str | None = CANARY, endpoint: str | None = None) -> Result:
        given = ["--token", token] if token else []
        with pytest.raises(SystemExit) as exit:
            main([*map(str, arguments), *given, "--endpoint", endpoint or server.endpoint])
        captured = capfd.readouterr()
        assert CANARY not in captured.out + captured.err
        return Result(exit.value.code, captured.out, captured.err)

    return run


def pushed(server: Hub, name: str = NAME, branch: str = "main") -> dict[str, bytes]:
    """What the repository holds."""
    return server.repositories[name].history(branch)[0].files


def commits(server: Hub, name: str = NAME) -> int:
    """How many commits were made since the repository was created."""
    return len(server.repositories[name].commits) - 1


def process(server: Hub, *arguments: object, home: Path, **environment: str) -> warm_python.Done:
    """A process of its own whose Hub is the server."""
    settings = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    return warm_python.run(arguments, env=kept | settings | environment, cwd=home.parent)
