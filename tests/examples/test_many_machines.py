"""The commands of docs/training.md, "Many machines", with two processes on the CPU; and a run that was killed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path

import classify
import pretrain
import pytest
import training
import warm_python
from goldens import FIXTURES, HELPERS
from safetensors.torch import load_file

import nezha
from nezha_convert import convert
from nezha_convert.errors import UsageError

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5
COMMON = shlex.split(
    "--max_length 32 --max_steps 6 --logging_steps 1 --learning_rate 1e-3 --dataloader_num_workers 0 --report_to none"
    " --use_cpu"
)
TRAINING = {"train.tsv": "ChnSentiCorp/train.tsv", "corpus.txt": "corpus/train.txt"}


def documented(word: str) -> list[str]:
    """The one command of the section with this word, in words."""
    section = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").split("\n## Many machines\n")[1]
    section = section.split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.S)
    commands = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    (command,) = (command for command in commands if re.search(word, command))
    return shlex.split(command)


def here(command: list[str], model: Path, output: Path) -> list[str]:
    """What Python is given for a documented command, with the small model and the small data."""
    programs = {
        "torchrun": ["-m", "torch.distributed.run"],
        "accelerate": ["-m", "accelerate.commands.accelerate_cli"],
        "python": [],
    }
    replaced = {"nezha-base": str(model), "sentiment": str(output), "my-nezha": str(output)}
    replaced |= {name: str(FIXTURES / "training" / file) for name, file in TRAINING.items()}
    return [*programs[command[0]], *(replaced.get(word, word) for word in command[1:]), *COMMON]


def launch(command: list[str]) -> warm_python.Done:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return warm_python.run(command, cwd=ROOT, env=environment)


def finished(command: list[str]) -> str:
    ran = launch(command)
    assert ran.returncode == 0, f"{shlex.join(command)}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def arguments_of(command: list[str]) -> list[str]:
    """What follows the script."""
    (script,) = (i for i, word in enumerate(command) if re.fullmatch(r"examples/\w+\.py", word))
    return command[script + 1 :]


def losses(output: Path) -> list[float]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def assert_same_run(output: Path, expected: Path) -> None:
    """The same losses and final weights, but for the biases of keys.

    Those change no probability. Their gradients are rounding, of which AdamW makes steps as long as any.
    """
    assert len(losses(output)) == 6
    assert losses(output) == pytest.approx(losses(expected), rel=TOLERANCE)
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


def test_two_processes_of_ddp_train_as_one_with_twice_the_batch(model, tmp_path):
    command = here(documented("^torchrun --nproc"), model, tmp_path / "two")
    finished([*command, "--batch-size", "4"])
    classify.train([*arguments_of(here(documented("^torchrun --nproc"), model, tmp_path / "one")), "--batch-size", "8"])
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_two_processes_of_fsdp2_train_as_one_that_accumulates_their_batches(model, tmp_path):
    """With tied word embeddings, and layers that are sharded and checkpointed each for itself."""
    two = here(documented("^accelerate launch --config.*--num_processes 2"), model, tmp_path / "two")
    two.insert(two.index("examples/pretrain.py"), str(HELPERS / "shard_on_cpu.py"))
    printed = finished([*two, "--batch-size", "4"])
    sharded = [line.split()[1:] for line in printed.splitlines() if line.startswith("sharded ")]
    by_process = [["NezhaLayer"], ["NezhaLayer"], ["Embedding", "Linear"], ["NezhaForMaskedLM"]]
    assert sorted(sharded) == sorted(2 * by_process)

    one = here(documented("^accelerate launch --config.*--num_processes 2"), model, tmp_path / "one")
    pretrain.train([*arguments_of(one), "--batch-size", "4", "--gradient_accumulation_steps", "2"])
    assert_same_run(tmp_path / "two", tmp_path / "one")
    read, loading = nezha.NezhaForMaskedLM.from_pretrained(tmp_path / "two", output_loading_info=True)
    assert not any(loading.values()), loading
    assert read.cls.predictions.decoder.weight is read.get_input_embeddings().weight


def test_accumulated_batches_in_bfloat16_with_checkpointed_layers(model, tmp_path):
    command = here(documented("--gradient_accumulation_steps 4 --bf16"), model, tmp_path / "output")
    classify.train([*arguments_of(command), "--max_steps", "2"])
    assert len(losses(tmp_path / "output")) == 2
    assert all(0 < loss < 2 for loss in losses(tmp_path / "output"))


def test_lamb_is_refused_where_fsdp_shards_the_tensors(model, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="LAMB needs"):
        training.OPTIMIZERS["lamb"](training.Settings(output_dir=str(tmp_path), use_cpu=True))


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path):
    """With dropout and shuffled data: the states of all generators come back."""
    model = converted(tmp_path / "nezha")
    options = shlex.split("--batch-size 8 --max_steps 6 --save_strategy steps --save_steps 2")
    command = [*here(documented("^torchrun --nproc"), model, tmp_path / "killed"), *options]
    script = command[command.index("examples/classify.py") :]
    killed = launch([str(HELPERS / "kill_at.py"), "5", *script])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    resume = arguments_of(here(documented("--resume_from_checkpoint"), model, tmp_path / "killed"))
    classify.train([*resume, *options])

    classify.train([*arguments_of([*here(documented("^torchrun --nproc"), model, tmp_path / "whole"), *options])])
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole"))
    assert all((tensor == theirs[name]).all() for name, tensor in ours.items())
