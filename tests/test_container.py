"""The Dockerfile installs what is locked, as nobody in particular, and sends the builder nothing else."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
IGNORED = (ROOT / ".dockerignore").read_text("utf-8").split("\n")


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction and its words, with continued lines joined."""
    lines = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).split("\n"):
        if line.strip():
            instruction, _, words = line.partition(" ")
            yield instruction, words.strip()


STEPS = [*steps(DOCKERFILE)]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """The stages by name: what each is based on, and its steps."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for instruction, words in STEPS:
        if instruction == "FROM":
            base, _, name = words.partition(" AS ")
            found[name] = (base, [])
        elif found:
            found[[*found][-1]][1].append((instruction, words))
    return found


def commands() -> list[list[str]]:
    """Each command of each RUN, in words."""
    runs = [words for instruction, words in STEPS if instruction == "RUN"]
    return [shlex.split(command) for words in runs for command in words.split(" && ")]


def test_the_base_is_a_slim_python_of_one_minor_version_and_one_debian():
    (base,) = (words.partition("=")[2] for instruction, words in STEPS if words.startswith("PYTHON="))
    assert re.fullmatch(r"python:3\.1\d-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
    version = re.findall(r"3\.\d+", base)[0]
    assert f"Python :: {version}" in (ROOT / "pyproject.toml").read_text("utf-8")
    bases = {base for base, _ in stages().values()}
    assert bases == {"${PYTHON}", "build", "runtime"}


def test_every_file_from_the_index_comes_by_its_hash_but_for_torch():
    installs = [words for words in commands() if words[0] == "pip" and "install" in words]
    assert len(installs) == 4
    for words in installs:
        assert "--no-deps" in words
        if words[-1] == ".":
            assert "--no-build-isolation" in words
        elif words[-1] == "torch":
            assert "--index-url" in words and words[words.index("-c") + 1] == "constraints.txt"
        else:
            assert {"--require-hashes", "--only-binary"} < {*words} and words[-1].endswith(".lock")


def locked(name: str) -> dict[str, set[str]]:
    """The hashes of each line of a lock file."""
    blocks = re.findall(r"^(\S+==\S+)(.*(?:\n .*)*)\n", (ROOT / ".ci" / name).read_text("utf-8"), re.MULTILINE)
    return {line: set(re.findall("sha256:[0-9a-f]{64}", rest)) for line, rest in blocks}


def test_the_core_s_lock_is_a_part_of_the_lock_file_without_torch():
    core, whole = locked("requirements-core.lock"), locked("requirements.lock")
    assert {"numpy", "tokenizers", "huggingface-hub", "hatchling"} <= {line.partition("==")[0] for line in core}
    assert {line: hashes for line, hashes in core.items() if hashes != whole.get(line)} == {}
    assert not {line.partition("==")[0] for line in core} & {"torch", "transformers", "gradio", "ray"}


def test_what_builds_the_package_does_not_stay():
    gone = [words[words.index("--yes") + 1 :] for words in commands() if "uninstall" in words]
    assert len(gone) == 2 and gone[0] == gone[1] and "hatchling" in gone[0]
    assert {line.partition("==")[0] for line in locked("requirements-core.lock")} >= {*gone[0]}


def test_the_builder_gets_what_is_copied_and_nothing_else():
    copied = [
        name
        for instruction, words in STEPS
        if instruction == "COPY" and "--from" not in words
        for name in words.split()[:-1]
    ]
    kept = [line[1:] for line in IGNORED if line.startswith("!")]
    assert sorted(kept) == sorted(copied) and IGNORED[1] == "*"
    assert all((ROOT / name).exists() for name in copied)
    assert any(fnmatchcase("nezha/__pycache__", line) for line in IGNORED)


@pytest.mark.parametrize("name", ["core", "torch"])
def test_an_image_runs_the_tool_as_a_user_without_rights_or_files(name):
    base, own = stages()[name]
    assert base == "runtime" and [instruction for instruction, _ in own] == ["COPY"]
    settings = dict(stages()["runtime"][1])
    assert settings["USER"] == "10001:10001" and settings["ENTRYPOINT"] == '["nezha-convert"]'
    assert "RUN" not in settings, "what runs in an image that is delivered leaves its files there"
    for variable in ("HOME", "HF_HOME", "MPLCONFIGDIR"):
        assert re.search(rf"\b{variable}=/tmp\b", settings["ENV"]), "the only place that may be written"
    assert [*stages()][-1] == "core", "what is built where no target is named"


def test_continuous_integration_builds_both_and_runs_them_without_a_network():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    assert {"run": ".ci/container"} in workflow["jobs"]["container"]["steps"]
    script = ROOT / ".ci" / "container"
    assert os.access(script, os.X_OK) and subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text("utf-8")
    assert "--network none --read-only" in text and "-lt 250000000" in text


def test_the_documents_run_an_image_without_a_network_on_a_read_only_root():
    for page in ("docs/container.md", "docs/zh/container.md"):
        lines = re.findall(r"^docker run (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
        assert len(lines) >= 3
        local = [line for line in lines if "hf://" not in line]
        assert all("--network none --read-only" in line for line in local) and len(local) >= 3


@pytest.mark.skipif(not os.environ.get("NEZHA_CONTAINER"), reason="NEZHA_CONTAINER=1 builds the images with docker")
def test_the_images_are_built_and_run():
    assert shutil.which("docker"), "docker is not installed"
    subprocess.run([ROOT / ".ci" / "container"], check=True)
