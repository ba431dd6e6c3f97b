"""`convert`: a checkpoint becomes a folder that today's transformers loads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint, Decision
from ..errors import CheckpointError, UsageError
from ..files.given import nbytes_of_size, one_of, pairs_of, path_of, texts_of
from ..files.hashing import sha256
from ..files.json import json_bytes
from ..files.progress import Counter, Progress
from ..files.staging import MARK, check_output, staged
from ..files.state import State, check_unchanged, state_of
from ..folder.card import CARD, conversion_card
from ..folder.model_code import model_files
from ..folder.report import FileRecord, Report
from ..formats.modules import modules_beside
from ..formats.open import open_checkpoint
from ..hub import local_source
from ..mapping.labels import given_labels
from ..mapping.survey import Asked, Survey, understand
from ..tokenizer.make import Tokenizer, make_tokenizer
from ..tokenizer.settings import FILES, vocabulary_in
from ..tokenizer.wordpiece import KINDS
from ..weights.numbers import Numbers, add_up
from ..weights.write import WEIGHTS, Layout, element_type, lay_out, write_weights

DEFAULT_SHARD_BYTES = 5_000_000_000

_KEEPS_SPACES = ("transformers", "paddle")
"""Families whose programs take a line of the vocabulary as it is. Huawei's `load_vocab`, and the others', strip it."""


def convert(
    source: str | Path | Checkpoint,
    output: str | Path,
    *,
    source_name: str | None = None,
    decided: Sequence[Decision] = (),
    head: str | None = None,
    labels: str | Path | Sequence[str] | Mapping[Any, Any] | None = None,
    config: str | Path | None = None,
    vocab: str | Path | None = None,
    lower_case: bool | None = None,
    tokenizer: str | None = None,
    activation: str | None = None,
    max_relative_position: int | None = None,
    dtype: Any = None,
    allow_overflow: bool = False,
    prefix: str | None = None,
    part: str | None = None,
    average: bool = False,
    drop: Sequence[str] = (),
    rename: str | Mapping[str, str] | Sequence[str | tuple[str, str]] = (),
    max_shard_bytes: int | str = DEFAULT_SHARD_BYTES,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Convert the checkpoint `source` into the folder `output`, which today's transformers loads.

    Args:
        source: a folder, a TensorFlow prefix, any one file of a checkpoint, an address of the Hub, or one that is open.
        output: the folder to write; it appears complete or not at all.
        source_name: what the report calls the source, instead of its own name.
        decided: decisions that led to this source, for the report.
        head: the kind of model: "encoder", "pretraining", "masked-lm", "causal-lm", "prefix-lm",
            "next-sentence-prediction", "sequence-classification", "multiple-choice", "token-classification" or
            "question-answering"; None takes what the tensors say.
        labels: names of the classifier's rows: a file of them, a list, or a dictionary of ids and names.
        config: the model's JSON, where it does not lie beside the weights; or, where it is lost, the published model
            that has its sizes: "huawei/nezha-cn-base", "huawei/nezha-cn-large", "huawei/nezha-base-wwm",
            "huawei/nezha-large-wwm", "huawei/nezha-en-base" or "huawei/nezha-base-vocab-100503".
        vocab: vocab.txt, where it does not lie beside the weights.
        lower_case: whether the tokenizer lower-cases; None lets the vocabulary say.
        tokenizer: "wordpiece" or "byte-bpe", whatever the vocabulary looks like.
        activation: transformers' name of the activation, instead of the one decided.
        max_relative_position: clip distance, instead of the one decided.
        dtype: element type of the output's weights: "float32", "float16" or "bfloat16", or torch's or NumPy's type of
            this name; None keeps the source's.
        allow_overflow: write finite values that `dtype` cannot hold as infinities, instead of refusing them.
        prefix: what stands in front of the model's names inside a larger model, whose other tensors are left out.
        part: which dictionary of tensors of a PyTorch file, by its keys joined by dots ("ema.shadow").
        average: take the moving average of the weights that lies beside them.
        drop: globs of tensors to leave out. What is not in the model, and not left out, is kept beside it.
        rename: tensors' and layers' names, and the names by which they are known here: {"fc": "classifier"}, or
            "fc=classifier".
        max_shard_bytes: size past which weights are split, as a number of bytes or a text such as "2GB".
        dry_run: end after the plan, writing nothing.
        force: replace `output` if it is a converted folder.
        progress: told of the bytes done; each byte is written once and hashed once.

    Returns:
        What was read, decided, written, left out and measured. The folder's conversion.json is its JSON.

    Raises:
        UsageError: an argument is not as described here, or the checkpoint may be two things.
        CheckpointError: the source is missing, unreadable or corrupt.
        MappingError: its tensors, config or vocabulary do not make a NEZHA, or `dtype` cannot hold its values.
        OutputError: `output` exists or cannot be written. After every error nothing is left behind.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.convert("NEZHA-Base/", "converted/")
        >>> report.architecture, report.family
        ('NezhaForPreTraining', 'huawei-tf')
        >>> sorted(file.name for file in report.output_files)[:3]
        ['attention_nezha.py', 'config.json', 'configuration_nezha.py']
    """
    begun, output = time.monotonic(), path_of(output)
    if not dry_run:
        check_output(output, force)
    checkpoint, name = _opened(source, output, part, average)
    vocab_file = path_of(vocab) if vocab else checkpoint.vocab or vocabulary_in(checkpoint.path.parent)
    config_file, (labels_file, names) = path_of(config) if config else None, _labels(labels)
    modules = modules_beside(checkpoint.path.parent)
    states = _states(checkpoint, config_file, vocab_file, labels_file, *modules.sources)
    changes = texts_of(drop), pairs_of(rename)
    asked = Asked(head, config_file, labels_file, activation, max_relative_position, prefix, *changes, average, names)
    survey = understand(checkpoint, asked)
    survey.plan.check()
    made = _tokenizer(survey, vocab_file, lower_case, tokenizer)
    layout = lay_out(survey.plan.steps, element_type(dtype), nbytes_of_size(max_shard_bytes), survey.plan.kept)
    files = {**modules.contents(), **_files(survey, made, layout)}
    sources = [*_sources(survey, vocab_file, made), *modules.sources]
    report = Report.of(
        survey,
        layout,
        source=(source_name or name).encode(errors="backslashreplace").decode(),  # half surrogates are not UTF-8
        decisions=(*decided, *survey.decisions, *made.decisions, *layout.decisions, *modules.decisions),
        assumptions=(*survey.assumptions, *made.assumptions),
        source_files=sources,
        output=output,
        files=files,
        dry_run=dry_run,
    )
    if not dry_run:
        with staged(output, force, layout.nbytes + sum(map(len, files.values()))) as stage:
            counter = Counter(progress, sum(placed.nbytes for placed in layout.placed) + layout.nbytes)
            hashes, numbers = write_weights(stage, layout, sources, counter.add, allow_overflow)
            _check_unchanged(sources, states)
            report = _complete(stage, report, files, [hashes[path] for path in sources], hashes, add_up(numbers))
    return replace(report, seconds=time.monotonic() - begun)


def _check_unchanged(sources: Sequence[Path], states: Mapping[Path, State]) -> None:
    """Raises CheckpointError if a source changed meanwhile: the hashes are of the bytes that were converted."""
    for path in sources:
        check_unchanged(path, states[path])


def _labels(labels: str | Path | Sequence[str] | Mapping[Any, Any] | None) -> tuple[Path | None, tuple[str, ...]]:
    """The file of labels, or the labels themselves."""
    if labels is None or isinstance(labels, (str, Path)):
        return (path_of(labels) if labels else None), ()
    return None, given_labels(labels)


def _opened(source: str | Path | Checkpoint, output: Path, part: str | None, average: bool) -> tuple[Checkpoint, str]:
    """The checkpoint, which does not lie in `output`, and its name."""
    if isinstance(source, Checkpoint):
        checkpoint, name = source, source.path.name
    else:
        path, name = local_source(source)
        checkpoint = open_checkpoint(path, part, average)
    keep_apart(checkpoint, output)
    return checkpoint, name


def keep_apart(checkpoint: Checkpoint, output: Path) -> None:
    """Raises UsageError if `output` is the checkpoint's own folder, or one that holds it."""
    folder = checkpoint.path.resolve().parent
    if output.resolve() in (folder, *folder.parents):
        raise UsageError(f"{output}: the output would replace the source", hint="Name another output.")


def _sources(survey: Survey, vocab: Path | None, tokenizer: Tokenizer) -> list[Path]:
    """Every file that was read: the weights, and what lies beside them."""
    beside = (survey.config_file, vocab, survey.labels_file, *tokenizer.sources)
    read = [*survey.checkpoint.files, *dict.fromkeys(filter(None, beside))]
    for path in read:
        if any("\ud800" <= character <= "\udfff" for character in path.name):
            raise CheckpointError(
                f"{path}: its name is not UTF-8, so no record can hold it and verify could not find it again",
                hint="Rename the file, then run the same command again.",
            )
    return read


def _states(
    checkpoint: Checkpoint, config: Path | None, vocab: Path | None, labels: Path | None, *modules: Path
) -> dict[Path, State]:
    """The state of every file that may be read, so that a change during the conversion is noticed."""
    of_tokenizer = [vocab.parent / name for name in FILES] if vocab else []
    paths = (*checkpoint.files, checkpoint.config, checkpoint.labels, config, vocab, labels, *of_tokenizer, *modules)
    return {path: state_of(path.stat()) for path in paths if path and path.is_file()}


def _tokenizer(survey: Survey, vocab: Path | None, lower_case: bool | None, kind: str | None) -> Tokenizer:
    one_of("--tokenizer", kind, KINDS)
    one_of("lower_case", lower_case, (True, False))
    folder = survey.checkpoint.path.parent
    return make_tokenizer(vocab, survey.config.fields, lower_case, kind=kind, strip=_strips(survey), beside=folder)


def _strips(survey: Survey) -> bool:
    """Whether the source's program strips the lines of its vocabulary."""
    return survey.family.name not in _KEEPS_SPACES


def _files(survey: Survey, tokenizer: Tokenizer, layout: Layout) -> dict[str, bytes]:
    """What the folder holds besides the weights, the card and the report."""
    config = survey.config.to_json(tokenizer.fields, layout.dtype)
    index = {f"{WEIGHTS}.index.json": layout.index} if layout.index else {}
    return {**tokenizer.files, "config.json": json_bytes(config), **model_files(), **index}


def _complete(
    stage: Path,
    report: Report,
    files: Mapping[str, bytes],
    source_hashes: Sequence[str],
    hashes: Mapping[Path, str],
    numbers: Numbers,
) -> Report:
    """Write what belongs beside the weights in `stage`; the report with every hash."""
    for name, data in files.items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).write_bytes(data)
    written = {path.name: digest for path, digest in hashes.items() if path.parent == stage}
    report = report.done(source_hashes, written | {name: sha256(data) for name, data in files.items()}, numbers)
    card = conversion_card(report.to_dict()).encode()
    (stage / CARD).write_bytes(card)
    report = replace(report, card=FileRecord(CARD, len(card), sha256(card)))
    (stage / MARK).write_bytes(report.to_json().encode())
    return report
