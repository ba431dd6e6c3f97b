"""Shared by the training scripts: arguments, loading the model, and a run of transformers' Trainer.

A script reads its data, makes a :class:`Task` and calls :func:`run`. The Trainer does everything else: mixed
precision (``--bf16``, ``--fp16``), gradient accumulation, many machines, ``--report_to tensorboard`` or ``wandb``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from submission import submission
from transformers import (
    EvalPrediction,
    HfArgumentParser,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.hf_argparser import HfArg
from transformers.trainer_utils import get_last_checkpoint
from tricks import Tricks, TricksTrainer

import nezha  # noqa: F401  registers NEZHA with the Auto classes
from nezha_convert import TrainingData, record_training
from nezha_convert.cli.console import Console
from nezha_convert.errors import NezhaConvertError, UsageError
from nezha_convert.folder.base import proof
from nezha_convert.folder.trained import to_prove

SPLITS = ("train", "dev", "test")


@dataclass
class Arguments(Tricks):
    """The model and the data: the arguments that every script has."""

    model: str = HfArg(help="a converted folder, or owner/name on the Hub")
    train: str | None = HfArg(default=None, help="file to train on")
    dev: str | None = HfArg(default=None, help="file to evaluate on after each epoch and at the end")
    test: str | None = HfArg(default=None, help="file to predict at the end; labels are optional")
    dataset: str | None = HfArg(
        default=None, help="a name for datasets.load_dataset; --train, --dev and --test are then names of its splits"
    )
    dataset_config: str | None = HfArg(default=None, help="the configuration of --dataset")
    max_length: int = HfArg(
        default=128, help="longest sequence in tokens, special ones included; NEZHA itself has no limit"
    )
    new_head: bool = HfArg(default=False, help="replace a head that the model has for other labels by a new one")
    data_name: str | None = HfArg(
        default=None, help="name of the data for the model's card; default: the name of its file or --dataset"
    )
    overwrite: bool = HfArg(default=False, help="train into a folder that already holds a model")


USUAL: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 32,
    "num_train_epochs": 3.0,
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
    "logging_steps": 0.02,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
}
"""The scripts' defaults where transformers has others. A number of steps under 1 is a share of all.

With the learning rate of 3e-5 and its linear decay, they are those of Huawei's run_classifier.py, run_classifier_ner.py
and run_squad.py, and of their optimizer.
"""


@dataclass
class Settings(TrainingArguments):
    """transformers' TrainingArguments, and what the scripts add to them."""

    output_dir: str | None = HfArg(
        default=None, help="folder for the model, metrics and checkpoints", aliases=["--output"]
    )
    learning_rate: float | None = HfArg(
        default=None, help="the highest learning rate; by default that of docs/training.md"
    )
    optimizer: str = HfArg(
        default="adamw", help="adamw, whose implementation --optim chooses; for large batches lamb or lamb-paper"
    )
    resume_from_checkpoint: str | None = HfArg(
        default=None, help="a checkpoint's folder, or last: the newest one in the output folder"
    )

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"--optimizer: expected one of {', '.join(OPTIMIZERS)}, found {self.optimizer!r}")
        if self.output_dir is None:
            raise UsageError("--output is missing", hint="Name a new folder for the model, --output my-model.")
        # On a machine without accelerator the Trainer has to be told so: it would take each process for the only one.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        try:
            super().__post_init__()
        except ValueError as error:  # options that exclude each other, or that this machine does not support
            raise UsageError(f"the Trainer's options: {error}", hint="--help says what each of them is.") from error
        check_processes(self.world_size)


def check_processes(known: int) -> None:
    """Refuse to train where a launcher started other processes than the `known` ones of the Trainer.

    Raises:
        UsageError: the processes would train apart.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != known:
        raise UsageError(
            f"the launcher started {started} processes, and the Trainer knows of {known}: "
            "each would train a model of its own",
            hint="Add --use_cpu to train on CPUs; on GPUs, check that torch.accelerator.is_available().",
        )


@dataclass(frozen=True)
class Task:
    """What a script passes to :func:`run`.

    Args:
        name: the head by transformers' name, ``text-classification``.
        data: tokenized rows by split ("train", "dev", "test"), in the form that the collator takes.
        collator: makes a batch of tensors from rows.
        metrics: makes named numbers from a split's name and the model's predictions for it.
        predictions: makes one JSON object a row from a split's name and the raw predictions; they are written to
            ``predictions.jsonl``.
        shrink: reduces a batch's logits and labels on the device to what `metrics` needs, which saves memory.
        rows: the number of examples of each split, for the card; an example may be several rows of `data`.
        loss: makes the loss from outputs, labels and the number of labels in an optimizer step; None means the model's.
        callbacks: more of the Trainer's.
        derived: whether the weights come from those of ``--model``; only then it is recorded as the base model.
    """

    name: str
    data: Mapping[str, Any]
    collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
    metrics: Callable[[str, EvalPrediction], dict[str, float]] | None = None
    predictions: Callable[[str, Any], Iterable[dict[str, Any]]] | None = None
    shrink: Callable[[Any, torch.Tensor], Any] | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    loss: Callable[..., torch.Tensor] | None = None
    callbacks: Sequence[TrainerCallback] = ()
    derived: bool = True


OPTIMIZERS: dict[str, Any] = {
    "adamw": None,
    "lamb": ("Lamb", 1.8e-4, 14_400),
    "lamb-paper": ("PaperLamb", 6.25e-4, 512),
}
"""For each name of --optimizer the class in lamb.py, a rate, and the sequences of a step for which it is.

The rates are NEZHA-base's (arXiv 1909.00204) and LAMB's own (1904.00962). For other batches they grow with the square
root of the size, as in LAMB's paper.
"""


def optimizer(settings: Settings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """The Trainer's ``optimizer_cls_and_kwargs``; None leaves it to --optim."""
    if not OPTIMIZERS[settings.optimizer]:
        return None
    import lamb  # imported here: it is slow to import, and most runs do not need it

    if settings.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise UsageError(
            "--optimizer lamb: expected whole tensors, whose norms LAMB needs, found FSDP, which shards them",
            hint="Start the script by torchrun, which is DDP, or take --optimizer adamw.",
        )
    options = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    # Huawei's epsilon: the Trainer's own default is AdamW's.
    options |= {"betas": (settings.adam_beta1, settings.adam_beta2), "eps": 1e-6}
    return getattr(lamb, OPTIMIZERS[settings.optimizer][0]), options


def _decide_rate(settings: Settings, usual: float) -> None:
    """The learning rate, where the command line has none: `usual` for AdamW, and for LAMB that of its batch."""
    if OPTIMIZERS[settings.optimizer]:
        _, rate, sequences = OPTIMIZERS[settings.optimizer]
        at_once = settings.train_batch_size * settings.world_size
        batch, large = at_once * settings.gradient_accumulation_steps, 512  # the smallest one in LAMB's paper
        usual = rate * (batch / sequences) ** 0.5
        if batch < large:
            say(f"--optimizer {settings.optimizer} is for steps of {large} sequences and more; these have {batch}.")
            say(f"next: --gradient_accumulation_steps {-(-large // at_once)}, or --optimizer adamw")
    settings.learning_rate = settings.learning_rate or usual


def parse(
    argv: Sequence[str] | None,
    description: str,
    arguments: type[Arguments],
    *,
    defaults: Mapping[str, Any] | None = None,
    best: str = "loss",
    rate: Callable[[Any], float] = lambda _: 3e-5,
) -> tuple[Any, Settings]:
    """The arguments of a script, and the settings of its Trainer.

    Args:
        argv: the command line without the script's name; None means that of the process.
        description: the text of ``--help``, with an example.
        arguments: the script's dataclass of arguments.
        defaults: the script's own defaults, instead of those of the two dataclasses.
        best: the dev metric by which ``--load_best_model_at_end`` chooses.
        rate: makes the learning rate of AdamW of the arguments, if the command line has none.
    """
    if int(transformers.__version__.split(".")[0]) < 5:
        raise UsageError(
            f"the training scripts need transformers 5, found {transformers.__version__}",
            hint="pip install -c constraints.txt -e '.[train]'",
        )
    argv = sys.argv[1:] if argv is None else argv
    parser = HfArgumentParser(
        (arguments, Settings),
        description=description,
        formatter_class=_Help,
        prog=Path(sys.argv[0]).name,
        allow_abbrev=False,
    )
    parser.set_defaults(**USUAL | dict(defaults or {}))
    if "--load_best_model_at_end" in argv or "--load-best-model-at-end" in argv:
        # Only then: once a metric is named, the Trainer keeps the best checkpoint, not the newest one to resume from.
        parser.set_defaults(metric_for_best_model=best)
    parsed, settings = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    _decide_rate(settings, rate(parsed))
    settings.resume_from_checkpoint = _checkpoint(parsed, settings)
    return parsed, settings


def _checkpoint(arguments: Arguments, settings: Settings) -> str | None:
    """The checkpoint to resume from, if any. An output folder that holds another run is refused."""
    output = Path(settings.output_dir)
    if arguments.train and Path(arguments.model).is_dir() and output.resolve() == Path(arguments.model).resolve():
        raise UsageError(f"--output {output} is the folder of --model", hint="Name another folder for the result.")
    newest = get_last_checkpoint(str(output)) if output.is_dir() else None
    if settings.resume_from_checkpoint == "last":
        if newest is None:
            raise UsageError(
                f"{output}: expected a checkpoint to resume from, found none", hint="Leave the option out."
            )
        return newest
    if settings.resume_from_checkpoint or arguments.overwrite:
        return settings.resume_from_checkpoint
    if newest or (output / "config.json").exists():
        raise UsageError(
            f"{output} holds a run already ({Path(newest).name if newest else 'config.json'})",
            hint="Go on by --resume_from_checkpoint last, train over it by --overwrite, or name another --output.",
        )
    return None


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the default of each option, and keeps the line breaks of the description."""


def main(script: Callable[[Sequence[str] | None], object]) -> int:
    """Run a script and return its exit code. An error becomes a message."""
    try:
        script(None)
    except NezhaConvertError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # every process meets the same error
            Console().error(error)
        return error.exit_code
    return 0


def say(text: str) -> None:
    """A line on stderr, by one process of each machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(text, file=sys.stderr)


def load_tokenizer(arguments: Arguments) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        UsageError: the model does not exist or has no fast tokenizer.
    """
    tokenizer = _loaded(transformers.AutoTokenizer, arguments, "a tokenizer")
    if not tokenizer.is_fast:
        raise UsageError(
            f"{arguments.model}: expected a tokenizer.json, found a slow {type(tokenizer).__name__}",
            hint="Convert the model again, nezha-convert writes it.",
        )
    return tokenizer


def load_model(
    auto: Any, arguments: Arguments, settings: Settings, *, labels: Sequence[str] | None = None, **options: Any
) -> PreTrainedModel:
    """The model with the head of an Auto class of transformers, in float32. ``--seed`` decides its new weights.

    Args:
        auto: the Auto class, such as ``AutoModelForSequenceClassification``.
        arguments, settings: those of the script.
        labels: names of the head's outputs in their order; config.json gets them as ``id2label``.
        options: fields of the config.

    Raises:
        UsageError: the model does not exist, or its head is for other labels.
    """
    if labels is not None:
        options |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    transformers.set_seed(settings.seed)
    options |= {"dtype": torch.float32, "ignore_mismatched_sizes": arguments.new_head, "output_loading_info": True}
    logging, shown = transformers.utils.logging, transformers.utils.logging.get_verbosity()
    logging.set_verbosity_error()  # its report of loading does not say what is meant to be so
    try:
        model, loaded = _loaded(auto, arguments, "a model", **options)
        _say_what_is_new(arguments, loaded)
        return model
    except RuntimeError as error:
        if "size" not in str(error) or arguments.new_head:
            raise
        raise UsageError(
            f"{arguments.model}: its head does not fit the data, which has {len(labels or ())} labels "
            f"({', '.join(list(labels or ())[:20])})",
            hint="Start from a pre-trained folder, or let the head start anew by --new_head.",
        ) from error
    finally:
        logging.set_verbosity(shown)


def _say_what_is_new(arguments: Arguments, loaded: Mapping[str, Any]) -> None:
    """Say which layers start from random numbers and which are not used.

    Raises:
        UsageError: some are random, and there is nothing to train them on.
    """

    def layers(keys: Iterable[str]) -> str:
        return ", ".join(sorted({key.rsplit(".", 1)[0] for key in keys}))

    new = layers([*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])])
    if new and not arguments.train:
        raise UsageError(
            f"{arguments.model}: expected a model that was trained for this task, found none of its {new}",
            hint="Train one by --train, or name the folder that a training wrote.",
        )
    unused = layers(loaded["unexpected_keys"])
    for names, what in ((new, "starts from random numbers and is trained"), (unused, "is not used in this task")):
        if names:
            say(f"note: {names} of {arguments.model} {what}")


def config_of(arguments: Arguments) -> transformers.PretrainedConfig:
    """The model's config."""
    return _loaded(transformers.AutoConfig, arguments, "a config.json")


def labels_of_model(arguments: Arguments) -> list[str]:
    """The names of the model's outputs, by number; empty if they are only LABEL_0, LABEL_1 and so on."""
    config = config_of(arguments)
    names = [str(config.id2label[i]) for i in range(len(config.id2label))]
    return [] if names == [f"LABEL_{i}" for i in range(len(names))] else names


def _checked_name(model: str) -> str:
    """The name for from_pretrained. A model that does not exist or is not converted gets a clear message."""
    name = model.removeprefix("hf://")
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(
                f"{model}: expected a converted folder, found no config.json in it",
                hint=f"nezha-convert convert {model} {folder.name or 'model'}-converted",
            )
    elif folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(
            f"--model {model}: expected a converted folder or owner/name of the Hub, found neither",
            hint="nezha-convert convert SOURCE FOLDER writes one.",
        )
    return name


def _loaded(auto: Any, arguments: Arguments, what: str, **options: Any) -> Any:
    """What one of transformers' Auto classes makes of the model."""
    name = _checked_name(arguments.model)
    try:
        return auto.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{arguments.model}: {what} of transformers cannot be loaded from it: {str(error).strip().splitlines()[0]}",
            hint="nezha-convert inspect says what it is; convert makes the folder that the scripts take.",
        ) from error


def run(
    task: Task, model: PreTrainedModel, tokenizer: Any, arguments: Arguments, settings: Settings
) -> dict[str, float]:
    """Train, evaluate and predict, each if there is data for it, and write the results.

    The output folder then holds the model and tokenizer, ``metrics.json``, ``trainer_state.json`` (the losses),
    ``predictions.jsonl`` of the test split, and the newest checkpoints.

    Returns:
        The content of metrics.json: ``train_loss``, and each metric as ``dev_NAME`` and ``test_NAME``.
    """
    data = task.data
    output = Path(settings.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    if "dev" not in data:
        settings.eval_strategy = transformers.IntervalStrategy.NO
    trainer = TricksTrainer(
        model,
        settings,
        tricks=arguments,
        callbacks=list(task.callbacks),
        data_collator=task.collator,
        train_dataset=data.get("train"),
        eval_dataset=data.get("dev"),
        processing_class=tokenizer,
        compute_loss_func=task.loss,
        compute_metrics=partial(task.metrics, "dev") if task.metrics else None,
        preprocess_logits_for_metrics=task.shrink,
        optimizer_cls_and_kwargs=optimizer(settings),
    )
    metrics: dict[str, float] = {}
    if "train" in data:
        if trainer.is_world_process_zero():
            _say_what_push_will(task, arguments)
        trained = trainer.train(resume_from_checkpoint=settings.resume_from_checkpoint)
        metrics |= trained.metrics
        trainer.save_model()
        trainer.save_state()
    if "dev" in data:
        metrics |= trainer.evaluate(metric_key_prefix="dev")
    if "test" in data:
        trainer.compute_metrics = partial(task.metrics, "test") if task.metrics else None
        predicted = trainer.predict(data["test"], metric_key_prefix="test")
        metrics |= predicted.metrics or {}
        if task.predictions and trainer.is_world_process_zero():
            rows = list(task.predictions("test", predicted.predictions))
            _write_rows(output / "predictions.jsonl", rows)
            _write_rows(output / "submission.json", submission(rows))
    if trainer.is_world_process_zero():
        _finish(task, trainer, arguments, settings, metrics)
    # A process that ends before its process group is closed may abort. The launcher would then end the first process
    # while it still writes.
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.num_processes > 1:
        # gloo's thread needs the GIL to drop the last tensor. torch 2.13 waits for that thread without releasing it.
        time.sleep(1)
    trainer.accelerator.end_training()
    return metrics


def _say_what_push_will(task: Task, arguments: Arguments) -> None:
    """Say before the training why its result could not be published."""
    if not task.derived:
        say("note: a model from scratch is not recorded, and `nezha-convert push` takes recorded ones")
    elif Path(arguments.model).is_dir():
        base = {"source": arguments.model, **proof(Path(arguments.model))}
        for doubt in base["doubts"]:
            say(f"note: `nezha-convert push` will refuse the result, since of {arguments.model} {doubt}")
        if base["doubts"]:
            say(f"next: {to_prove(base)}")


def _write_rows(path: Path, rows: Any) -> None:
    """JSON Lines of a list, one object of a dictionary, no file of None."""
    if rows is not None:
        rows = rows if isinstance(rows, list) else [rows]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _finish(task: Task, trainer: Trainer, arguments: Arguments, settings: Settings, metrics: dict[str, float]) -> None:
    """Write metrics.json and the record that `nezha-convert push` reads, on one process."""
    output = Path(settings.output_dir)
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", "utf-8")
    if "train" in task.data and task.derived:
        _record(task, arguments, settings, metrics)
    for name, value in metrics.items():
        print(f"{name:28} {value:.4f}" if isinstance(value, float) else f"{name:28} {value}")


RECORDED = (
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "num_train_epochs"),
    *("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "optimizer"),
    *("adam_beta1", "adam_beta2", "label_smoothing_factor", "bf16", "fp16", "seed"),
)
"""The settings that change what a training computes, for the model's card."""

MEASURED = re.compile(r"(train|dev|test)_(?!runtime|samples_per_second|steps_per_second|model_preparation_time)(\w+)")
"""Metrics of metrics.json that describe the model, not the machine."""


def _record(task: Task, arguments: Arguments, settings: Settings, metrics: Mapping[str, float]) -> None:
    """Write training.json, a card and the model's code, which `nezha-convert push` needs."""
    names = {split: "validation" if split == "dev" else split for split in SPLITS}  # the Hub's names of the splits
    by_split: dict[str, dict[str, float]] = {names[split]: {} for split in SPLITS if split in task.data}
    for name, number in metrics.items():
        if match := MEASURED.fullmatch(name):
            by_split[names[match[1]]][match[2]] = number
    values = {name: getattr(settings, name) for name in RECORDED}
    recorded = record_training(
        settings.output_dir,
        base=arguments.model,
        task=task.name,
        metrics={split: values for split, values in by_split.items() if values},
        data=[_data(arguments, split, names[split], task.rows.get(split)) for split in SPLITS if split in task.data],
        settings={name: getattr(value, "value", value) for name, value in values.items()}
        | {"max_length": arguments.max_length},
    )
    for doubt in recorded.doubts():
        say(f"note: `nezha-convert push` would refuse {recorded.path}: {doubt}")
    push = f"nezha-convert push {shlex.quote(str(recorded.path))} OWNER/NAME --license ID"
    say(f"next: {recorded.remedy if recorded.doubts() else push}")


def _data(arguments: Arguments, split: str, name: str, rows: int | None) -> TrainingData:
    """The source of a split: a file, the files of a folder or a pattern, or a data set of the Hub."""
    source = Path(arguments.dataset or getattr(arguments, split))
    if source.is_file():
        return TrainingData(name, arguments.data_name or source.name, (source,), rows)
    if source.is_dir():
        files = tuple(sorted(path for path in source.iterdir() if path.is_file()))
        return TrainingData(name, arguments.data_name or source.resolve().name, files, rows)
    if not arguments.dataset:
        return TrainingData(name, arguments.data_name or source.name, matching_files(str(source)), rows)
    return TrainingData(name, str(arguments.dataset), rows=rows)


def matching_files(pattern: str) -> tuple[Path, ...]:
    """The files that match a path or a pattern (``corpus/*.txt``, ``corpus/**/*.txt``), sorted by name."""
    return tuple(Path(name) for name in sorted(glob(pattern, recursive=True)) if Path(name).is_file())  # noqa: PTH207


def tokenized(rows: Sequence[dict[str, Any]], encode: Callable[[dict[str, list[Any]]], Any]) -> datasets.Dataset:
    """A data set in memory of what `encode` returns, applied to all rows in batches.

    Its column ``cut``, whether a text lost tokens, is counted, said and taken out.
    """
    table = datasets.Dataset.from_list(list(rows))
    table = table.map(encode, batched=True, remove_columns=table.column_names)
    if "cut" not in table.column_names:
        return table
    cut = sum(table["cut"])
    if cut:
        say(f"note: {cut} of {len(table)} texts are longer than --max_length and were cut")
    return table.remove_columns("cut")
