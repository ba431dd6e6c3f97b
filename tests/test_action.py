"""The action: its scripts run here, a swapped projection fails and is named, and no input is ever run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from action_runner import Ended, Runner, outputs_of
from hub_fixtures import TF
from reader import INSTALL, SYSTEM, clone
from swapped import swap

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
RUNS = [step for step in ACTION["runs"]["steps"] if "run" in step]


def runner_in(folder: Path, action: Path) -> Runner:
    """A runner whose Python makes environments by links, of what the lock files name and nothing else."""
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(INSTALL))} "$@"\n')
    python.chmod(0o755)
    environment = {
        **{"PATH": os.pathsep.join(SYSTEM), "HOME": str(folder), "LANG": "C.UTF-8"},
        **{"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")},
    }
    (folder / "runner temp").mkdir()
    return Runner(action, folder / "runner temp", {"python": {"python-path": str(python)}}, environment)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Runner, Ended]:
    """A runner on which the action was installed from its own commit, and how that went."""
    folder = tmp_path_factory.mktemp("runner")
    runner = runner_in(folder, clone(folder / "action"))
    shutil.copytree(ROOT / ".ci", runner.action / ".ci")
    (folder / "work").mkdir()
    ended = runner.run(folder / "work", {"source": "NEZHA"}, only=("lock", "install"))
    assert ended.code == 0, ended.log
    return runner, ended


@pytest.fixture
def workspace(tmp_path) -> Path:
    """A job's folder: a checkpoint in a folder with blanks and Chinese characters in its name."""
    (tmp_path / "work").mkdir()
    shutil.copytree(TF, tmp_path / "work" / "源 模型")
    return tmp_path / "work"


def verify(installed: tuple[Runner, Ended], workspace: Path, **inputs: str) -> Ended:
    runner, _ = installed
    named = {name.replace("_", "-"): value for name, value in inputs.items()}
    return runner.run(workspace, {"source": "源 模型", **named}, only=("verify",))


def test_it_installs_what_is_locked_and_the_package_of_its_own_commit(installed):
    runner, ended = installed
    assert "is no release yet; it is built from this action's own commit" in ended.log
    assert re.fullmatch("[0-9a-f]{64}", ended.steps["lock"]["hash"])
    packages = {path.name for path in next(runner.temp.glob("nezha-convert/lib/python*/site-packages")).iterdir()}
    assert {"torch", "transformers", "matplotlib", "h5py", "numpy"} <= packages
    assert not {"pytest", "ray", "gradio", "datasets", "tensorflow"} & packages


def test_what_it_leaves_to_other_actions_is_pinned_and_said(installed, workspace):
    _, ended = installed
    skipped = [re.search(r"(\S+)@[0-9a-f]{40} runs on GitHub alone", one) for one in ended.skipped]
    assert [one[1] for one in skipped if one] == [
        *("actions/setup-python", "actions/cache", "actions/upload-artifact"),
    ]
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    for step in ACTION["runs"]["steps"]:
        if step.get("uses", "actions/cache").partition("@")[0] != "actions/cache":
            assert step["uses"] in release  # one commit of each in all workflows
    assert "update-environment" in ACTION["runs"]["steps"][0]["with"]  # later steps keep their own Python


def test_without_an_output_the_source_is_converted_and_proved(installed, workspace):
    ended = verify(installed, workspace)
    assert ended.code == 0, ended.log
    assert ended.outputs["verdict"] == "passed" and "verdict    passed" in ended.log
    assert Path(ended.outputs["output"], "model.safetensors").is_file()
    assert "parity passed" in Path(ended.outputs["report"]).read_text("utf-8")
    assert ended.summary.startswith("## output: parity passed\n") and "| layer_1 |" in ended.summary
    (upload,) = [one for one in ended.skipped if "upload-artifact" in one]
    assert ended.outputs["report"] in upload and ended.outputs["junit"] in upload
    assert [path.name for path in workspace.iterdir()] == ["源 模型"]  # nothing is left in the job's folder


def test_a_swapped_projection_fails_and_is_named_in_the_log_the_summary_and_junit(installed, workspace, folder):
    swap(Path(shutil.move(folder, workspace / "out 模型")))
    shutil.copy(TF / "bert_config.json", workspace / "my config.json")
    files = {"html": "页 面.html", "junit": "test results.xml"}
    ended = verify(installed, workspace, output="out 模型", arguments="--config 'my config.json' --no-record", **files)
    assert ended.code == 1 and ended.outputs["verdict"] == "failed"
    assert "verdict    FAILED" in ended.log and "problem    first departs layer_1: " in ended.log
    (annotation,) = re.findall(r"^::error title=nezha-convert::(.+)$", ended.log, re.MULTILINE)
    assert annotation.startswith("first departs layer_1: ")
    assert ended.summary.startswith("## out 模型: parity FAILED\n") and "| **layer_1** |" in ended.summary
    cases = ElementTree.parse(workspace / "test results.xml").iter("testcase")
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert failed[0] == "layer_1" and "embeddings" not in failed and "layer_0" not in failed
    assert "first departs layer_1" in (workspace / "页 面.html").read_text("utf-8")
    assert ended.outputs["report"] == "页 面.html" and "upload-artifact" in ended.skipped[-1]


HOSTILE = (
    "$(touch hacked)",
    "`touch hacked`",
    "; touch hacked",
    '"; touch hacked; "',
    "'; touch hacked; '",
    "a\ntouch hacked",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_input_is_ever_run(text, installed, workspace):
    names = ("source", "output", "tolerance", "arguments", "convert-arguments", "html", "junit")
    runner, _ = installed
    for some in (names, ("arguments",)):
        ended = runner.run(workspace, {"source": "源 模型", "output": "none", **dict.fromkeys(some, text)}, ("verify",))
        assert ended.code not in (0, 1) and ended.outputs["verdict"] == "error", ended.log
    assert runner.run(workspace, {"source": "源 模型", "version": text}, ("install",)).code == 2
    assert [path.name for path in workspace.iterdir()] == ["源 模型"] and not list(runner.temp.rglob("hacked"))


@pytest.mark.parametrize("text", ["--help", "--version", "-h"])
def test_an_input_that_looks_like_an_option_is_a_name(text, installed, workspace):
    ended = verify(installed, workspace, source=text, output="none")
    assert ended.outputs["verdict"] == "error" and "Usage:" not in ended.log


def test_what_cannot_be_compared_is_an_error_and_says_why(installed, workspace):
    ended = verify(installed, workspace, output="nothing here")
    assert ended.code == 4 and ended.outputs["verdict"] == "error"
    assert ended.summary.startswith("## nezha-convert: nothing was compared\n\n    error: nothing here: no conversion")
    assert "\n::error title=nezha-convert::nothing here: no conversion.json" in ended.log
    assert "next: Convert it first" in ended.log


def test_a_quote_without_its_end_is_an_error(installed, workspace):
    ended = verify(installed, workspace, output="none", arguments="--texts 'a")
    assert ended.code == 2 and "cannot be split into words (No closing quotation)" in ended.log


def test_a_name_in_the_log_is_no_command_to_the_runner(installed, workspace):
    ended = verify(installed, workspace, output="none", source="::add-mask::1", arguments="--junit '::add-mask::2/a'")
    (token,) = re.findall(r"^::stop-commands::([0-9a-f]{32})$", ended.log, re.MULTILINE)
    before, _, rest = ended.log.partition(f"::stop-commands::{token}\n")
    between, ends, after = rest.partition(f"::{token}::\n")
    assert ends and between and before == "" and not re.search(r"^::(?!error title=)", after, re.MULTILINE)
    assert token not in ended.summary


def test_an_artifact_without_a_name_is_not_uploaded(installed, workspace):
    ended = verify(installed, workspace, output="none", artifact="")
    assert "not due" in ended.skipped[-1]


def test_a_release_that_the_lock_does_not_know_is_refused(installed, workspace):
    runner, _ = installed
    ended = runner.run(workspace, {"source": "x", "version": "99.1"}, ("install",))
    assert ended.code == 2 and "version 99.1: no hash of it in .ci/releases.lock" in ended.log


def test_a_release_is_installed_by_its_hash(installed, workspace, tmp_path):
    """pip's stand-in refuses a line without a hash, as pip does."""
    runner, _ = installed
    own = Path(shutil.copytree(runner.action, tmp_path / "action", symlinks=True))
    with open(own / ".ci" / "releases.lock", "a") as file:
        file.write(f"nezha-convert==0.0.9 --hash=sha256:{'0' * 64}\n")
    (tmp_path / "other").mkdir()
    other = runner_in(tmp_path / "other", own)
    ended = other.run(workspace, {"source": "x", "version": "0.0.9"}, ("install",))
    assert ended.code == 0 and "built from" not in ended.log, ended.log
    assert (other.temp / "nezha-convert.release").read_text().startswith("nezha-convert==0.0.9 --hash=")


def test_no_script_holds_an_expression_and_every_input_is_used():
    text = (ROOT / "action.yml").read_text("utf-8")
    assert len(RUNS) == 3 and not any("${{" in step["run"] for step in RUNS)
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(ACTION["inputs"])
    assert all(one["description"] for part in ("inputs", "outputs") for one in ACTION[part].values())
    assert "eval" not in text.replace("evaluate", "")


def test_outputs_are_read_as_the_runner_reads_them():
    assert outputs_of("a=b=c\nd<<END\n1\n\n2\nEND\n") == {"a": "b=c", "d": "1\n\n2"}
