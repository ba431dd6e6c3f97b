"""The commands of docs/training.md, "Many machines", word for word, with two processes; and a run that was killed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import classify
import datasets
import pretrain
import pytest
import torch
import training
import warm_python
from goldens import FIXTURES, HELPERS
from safetensors.torch import load_file

import nezha
from nezha_convert import convert
from nezha_convert.errors import UsageError

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5
PROGRAMS = {
    "torchrun": ["-m", "torch.distributed.run"],
    "accelerate": ["-m", "accelerate.commands.accelerate_cli"],
    "python": [],
}


def documented(word: str, **variables: str) -> list[str]:
    """The one command of the section with this word, in words, with its variables."""
    section = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").split("\n## Many machines\n")[1]
    section = section.split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.S)
    commands = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    (command,) = (command for command in commands if re.search(word, command))
    return shlex.split(string.Template(command).substitute(variables))


def environment(**more: str) -> dict[str, str]:
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, "PYTHONPATH": str(ROOT), **quiet, **more}


@contextmanager
def the_port():
    """The documented port is one for the whole machine, and so for all workers of pytest."""
    with (Path(tempfile.gettempdir()) / "nezha-port-29500").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def finished(*commands: list[str], cwd: Path, **more: str) -> str:
    """What the first command prints; the others run beside it."""
    environ = environment(**more)
    with the_port():
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        beside = [
            subprocess.Popen([sys.executable, *PROGRAMS[program], *words], cwd=cwd, env=environ, **options)
            for program, *words in commands[1:]
        ]
        program, *words = commands[0]
        ran = warm_python.run([*PROGRAMS[program], *words], cwd=cwd, env=environ)
        for process in beside:
            if ran.returncode:
                process.kill()
            printed, _ = process.communicate(timeout=120)
            assert ran.returncode or process.returncode == 0, printed
    assert ran.returncode == 0, f"{shlex.join(commands[0])}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def arguments_of(command: list[str], output: str) -> list[str]:
    """What follows the script, with another output."""
    (script,) = (i for i, word in enumerate(command) if re.fullmatch(r"examples/\w+\.py", word))
    arguments = command[script + 1 :]
    arguments[arguments.index("--output") + 1] = output
    return arguments


def logged(output: Path, what: str) -> list[float]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry[what] for entry in history if what in entry]


def assert_same_run(output: Path, expected: Path) -> None:
    """The same losses, gradients' norms and final weights, but for the biases of keys.

    Those change no probability. Their gradients are rounding, of which AdamW makes steps as long as any.
    """
    assert len(logged(output, "loss")) >= 3
    for what in ("loss", "grad_norm"):
        assert logged(output, what) == pytest.approx(logged(expected, what), rel=TOLERANCE)
    weights, others = load_file(output / "model.safetensors"), load_file(expected / "model.safetensors")
    worst = {
        name: ((weights[name] - other).abs().max() / other.abs().max()).item()
        for name, other in others.items()
        if not name.endswith("key.bias")
    }
    assert max(worst.values()) < TOLERANCE, worst


def converted(folder: Path, **config) -> Path:
    convert(FIXTURES / "huawei-tf-pretraining", folder, vocab=FIXTURES / "training" / "vocab.txt")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A converted folder, without dropout: its draws differ from process to process."""
    rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"), 0.0)
    return converted(tmp_path_factory.mktemp("model") / "nezha", **rates)


@pytest.fixture(scope="module")
def home(model, tmp_path_factory) -> Iterator[Path]:
    """The folder that the commands are for; they run in it."""
    home = tmp_path_factory.mktemp("home")
    (home / "nezha-base").symlink_to(model)
    (home / "examples").symlink_to(ROOT / "examples")
    rows = (FIXTURES / "training" / "ChnSentiCorp" / "train.tsv").read_text("utf-8").splitlines(keepends=True)
    (home / "train.tsv").write_text("".join(rows[:65]), "utf-8")
    sentences = (FIXTURES / "training" / "corpus" / "train.txt").read_text("utf-8").split()
    documents = ["\n".join([*sentences[start:], *sentences[:start]]) for start in range(0, len(sentences), 2)]
    (home / "corpus.txt").write_text("\n\n".join(documents), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield home


@pytest.fixture(scope="module")
def pretrained(home) -> Path:
    """By one process that accumulates the batches of two."""
    command = documented("^accelerate launch --config.*--num_processes 2")
    pretrain.train([*arguments_of(command, "one"), "--gradient_accumulation_steps", "2"])
    return home / "one"


def assert_same_pretraining(home: Path, pretrained: Path) -> None:
    assert_same_run(home / "further", pretrained)
    read, loading = nezha.NezhaForMaskedLM.from_pretrained(home / "further", output_loading_info=True)
    assert not any(loading.values()), loading
    assert read.cls.predictions.decoder.weight is read.get_input_embeddings().weight
    shutil.rmtree(home / "further")


def assert_sharded(printed: str, processes: int) -> None:
    sharded = [line.split()[1:] for line in printed.splitlines() if line.startswith("sharded ")]
    by_process = [["NezhaLayer"], ["NezhaLayer"], ["Embedding", "Linear"], ["NezhaForMaskedLM"]]
    assert sorted(sharded) == sorted(processes * by_process)


def sharding(folder: Path) -> dict[str, str]:
    """An environment in which FSDP2 shards on CPUs."""
    (folder / "sitecustomize.py").symlink_to(HELPERS / "shard_on_cpu.py")
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


def test_two_processes_of_ddp_train_as_one_with_twice_the_batch(home):
    command = documented("^torchrun --nproc")
    finished(command, cwd=home)
    classify.train([*arguments_of(command, "whole"), "--per_device_train_batch_size", "64"])
    assert_same_run(home / "sentiment", home / "whole")


def test_two_processes_of_fsdp2_train_as_one_that_accumulates_their_batches(home, pretrained, tmp_path):
    """With tied word embeddings, and layers that are sharded and checkpointed each for itself."""
    command = documented("^accelerate launch --config.*--num_processes 2")
    assert_sharded(finished(command, cwd=home, **sharding(tmp_path)), 2)
    assert_same_pretraining(home, pretrained)


def test_two_machines_of_ddp_train_as_one_process(home, pretrained):
    own = {"MASTER_ADDR": "127.0.0.1", "GPUS": "1"}
    finished(*(documented("^torchrun --nnodes", MACHINE_RANK=rank, **own) for rank in "01"), cwd=home)
    assert_same_pretraining(home, pretrained)


def test_two_machines_of_fsdp2_train_as_one_process(home, pretrained, tmp_path):
    own = {"MASTER_ADDR": "127.0.0.1", "PROCESSES": "2"}
    commands = [documented("^accelerate.*--num_machines", MACHINE_RANK=rank, **own) for rank in "01"]
    assert_sharded(finished(*commands, cwd=home, **sharding(tmp_path)), 1)
    assert_same_pretraining(home, pretrained)


def test_processes_that_would_train_apart_are_refused(tmp_path, monkeypatch):
    one = training.Settings(output_dir=str(tmp_path))
    assert one.use_cpu != torch.accelerator.is_available() and one.world_size == 1
    checked = []
    monkeypatch.setattr(training, "check_processes", checked.append)
    training.Settings(output_dir=str(tmp_path))
    assert checked == [1]
    monkeypatch.undo()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="2 processes, and the Trainer knows of 1") as caught:
        training.check_processes(1)
    assert "--use_cpu" in caught.value.hint
    training.check_processes(2)


def test_accumulated_batches_in_bfloat16_with_checkpointed_layers(home):
    command = documented("--gradient_accumulation_steps 4 --bf16")
    classify.train([*arguments_of(command, "accumulated"), "--max_steps", "2"])
    assert len(logged(home / "accumulated", "loss")) == 2
    assert all(0 < loss < 2 for loss in logged(home / "accumulated", "loss"))


def test_lamb_is_refused_where_fsdp_shards_the_tensors(model, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="LAMB needs"):
        training.optimizer(training.Settings(output_dir=str(tmp_path), optimizer="lamb"))


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(home, tmp_path):
    """With dropout and shuffled data: the states of all generators come back."""
    options = shlex.split("--max_steps 6 --save_strategy steps --save_steps 2")
    options += ["--model", str(converted(tmp_path / "nezha"))]
    resume = [*arguments_of(documented("--resume_from_checkpoint"), "killed"), *options]
    script = ["examples/classify.py", *(word for word in resume if word not in ("--resume_from_checkpoint", "last"))]
    killed = warm_python.run([HELPERS / "kill_at.py", "5", *script], cwd=home, env=environment())
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (home / "killed" / "model.safetensors").exists()
    classify.train(resume)

    classify.train([*script[1:], "--output", "unharmed"])
    assert logged(home / "killed", "loss") == logged(home / "unharmed", "loss")
    ours, theirs = (load_file(home / name / "model.safetensors") for name in ("killed", "unharmed"))
    assert all((tensor == theirs[name]).all() for name, tensor in ours.items())
