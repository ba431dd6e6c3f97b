"""The one orchestrator: open -> recognise -> decide -> plan -> write -> check -> Report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .._version import __version__
from ..checkpoint import Checkpoint, Decision, TensorEntry, check_unchanged, state_of
from ..errors import CheckpointError, MappingError, NezhaConvertError, UsageError
from ..families import DECODER, MLM, TIES, Head
from ..families.rules import Drop, Table, Tie
from ..files.json import json_bytes
from ..files.staging import MARK, TRAINED, check_output, staged
from ..folder.card import CARD, render
from ..folder.report import FileRecord, Inspection, Report, TensorListing, Written
from ..folder.trained import TrainedFolder
from ..formats.open import open_checkpoint
from ..hub import local_source
from ..mapping.config import LABELLED, ConfigBuilder, architecture_of, read_config, read_labels
from ..mapping.plan import Plan, make_plan
from ..mapping.recognise import Inference, choose_head, family_of, foreign, infer_head
from ..tokenizer.wordpiece import (
    check_length,
    decide_added,
    decide_casing,
    decide_language,
    decide_rules,
    read_vocab,
    tokenizer_files,
)
from ..weights.numbers import TensorNumbers, add_up
from ..weights.write import WEIGHTS, Layout, Progress, lay_out, write_weights

MODEL_FILES = ("configuration_nezha.py", "attention_nezha.py", "modeling_nezha.py")
"""The model's own source, in every converted folder. `triton_nezha.py` stays out until it has run on a GPU."""

DEFAULT_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class _Survey:
    """A checkpoint, understood: everything that is known before the first tensor is read."""

    checkpoint: Checkpoint
    table: Table
    head: Head
    inference: Inference
    config: ConfigBuilder
    plan: Plan


def inspect(
    source: str | Path, *, config: str | Path | None = None, prefix: str | None = None, tensors: bool = False
) -> Inspection:
    """Tell what `source` is. No tensor is read, but for a decoder and what it may be tied to.

    Args:
        source: a folder, a TensorFlow prefix, any one file of a checkpoint, or an address of the Hub.
        config: the model's JSON, where it does not lie beside the weights.
        prefix: what stands in front of the model's names inside a larger model.
        tensors: list every tensor in `entries`.

    Raises:
        CheckpointError: there is nothing to read, or it is damaged.
        HubError: it cannot be downloaded.
        UsageError: there are several checkpoints.
    """
    checkpoint = open_checkpoint(local_source(source)[0])
    entries = checkpoint.entries
    table, inference, problems, hint = None, Inference((), ""), [], ""
    survey, training = None, ""
    where = checkpoint.path.parent
    try:
        table = family_of(entries, prefix)
        inference = infer_head(table, entries)
        _refuse_foreign(entries, None, prefix)
        raw = read_config(Path(config) if config else checkpoint.config, checkpoint.path)
        inference = infer_head(table, entries, architecture_of(raw))
        survey = _understand(
            checkpoint,
            table,
            inference,
            choose_head(inference.heads[0] if inference.heads else None, inference),
            raw,
            {},
        )
        training = TrainedFolder(where).summary if (where / TRAINED).is_file() else ""
        problems = list(survey.plan.problems())
        hint = f"nezha-convert {'push' if training else 'convert'} {source} {'OWNER/NAME' if training else 'OUTPUT'}"
        if problems:
            hint = "Name the right --config, or the right --head of convert."
        elif len(inference.heads) > 1 and not training:
            hint += f" --head {'|'.join(inference.heads)}"
    except (MappingError, CheckpointError, UsageError) as error:
        problems, hint = [error.message, *error.problems], error.hint
    optimizer = [entry for name, entry in entries.items() if table and _is_optimizer(table, name)]
    return Inspection(
        source=str(source),
        format=checkpoint.format,
        family=table.name if table else None,
        title=table.title if table else "no NEZHA that is known here",
        heads=inference.heads,
        reason=inference.reason,
        model=survey.config.fields if survey else {},
        decisions=tuple(survey.config.decisions) if survey else (),
        problems=tuple(problems),
        hint=hint,
        files=tuple(FileRecord(file.name, file.stat().st_size) for file in checkpoint.files),
        tensors=len(entries),
        nbytes=sum(entry.nbytes for entry in entries.values()),
        weight_nbytes=sum(step.entry.nbytes for step in survey.plan.steps) if survey else 0,
        optimizer_tensors=len(optimizer),
        optimizer_nbytes=sum(entry.nbytes for entry in optimizer),
        dropped=tuple(survey.plan.dropped) if survey else (),
        training=training,
        entries=tuple(TensorListing(e.name, e.dtype, e.shape) for e in entries.values()) if tensors else None,
    )


def convert(
    source: str | Path | Checkpoint,
    output: str | Path,
    *,
    source_name: str | None = None,
    decided: Sequence[Decision] = (),
    head: str | None = None,
    labels: str | Path | None = None,
    config: str | Path | None = None,
    vocab: str | Path | None = None,
    lower_case: bool | None = None,
    activation: str | None = None,
    max_relative_position: int | None = None,
    dtype: str | None = None,
    allow_overflow: bool = False,
    prefix: str | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    dry_run: bool = False,
    force: bool = False,
    progress: Any = None,
) -> Report:
    """Convert the checkpoint `source` into the folder `output`, which today's transformers loads.

    Args:
        source: a folder, a TensorFlow prefix, any one file of a checkpoint, an address of the Hub, or one that is open.
        output: the folder to write; it appears complete or not at all.
        source_name: what the report calls the source, instead of its own name.
        decided: decisions that led to this source, for the report.
        head: the kind of model (a name in ``mapping.tables.HEADS``); None takes what the tensors say.
        labels: names of the classifier's rows.
        config: the model's JSON, where it does not lie beside the weights.
        vocab: vocab.txt, where it does not lie beside the weights.
        lower_case: whether the tokenizer lower-cases; None lets the vocabulary say.
        activation: transformers' name of the activation, instead of the one decided.
        max_relative_position: clip distance, instead of the one decided.
        dtype: element type of the output's weights; None keeps the source's.
        allow_overflow: write finite values that `dtype` cannot hold as infinities, instead of refusing them.
        prefix: what stands in front of the model's names inside a larger model, whose other tensors are left out.
        max_shard_bytes: size past which weights are split.
        dry_run: end after the plan, writing nothing.
        force: replace `output` if it is a converted folder.
        progress: called with the bytes just done, from any thread; each byte is written once and hashed once.

    Raises:
        NezhaConvertError: see ``errors``; nothing is left behind.
    """
    begun = time.monotonic()
    output = Path(output)
    if not dry_run:
        check_output(output, force)
    if isinstance(source, Checkpoint):
        checkpoint, named = source, source.path.name
    else:
        path, named = local_source(source)
        checkpoint = open_checkpoint(path)
    keep_apart(checkpoint, output)
    config_path = Path(config) if config else checkpoint.config
    vocab_path = Path(vocab) if vocab else checkpoint.vocab
    labels_path = Path(labels) if labels else checkpoint.labels
    given = (*checkpoint.files, *(path for path in (config_path, vocab_path, labels_path) if path))
    seen = {path: state_of(path.stat()) for path in given if path.is_file()}
    raw = read_config(config_path, checkpoint.path)
    _refuse_foreign(checkpoint.entries, head, prefix)
    table = family_of(checkpoint.entries, prefix)
    inference = infer_head(table, checkpoint.entries, architecture_of(raw))
    chosen = choose_head(head, inference)
    if not labels and chosen.name not in LABELLED:
        labels_path = None
    options = {
        "activation": activation,
        "max_relative_position": max_relative_position,
        "labels": read_labels(labels_path) if labels_path else None,
    }
    survey = _understand(checkpoint, table, inference, chosen, raw, options)
    survey.plan.check()
    decisions = survey.config.decisions
    decisions[:0] = (*decided, *checkpoint.decisions, *_prefixed(table, prefix))
    files = _tokenizer(survey, vocab_path, lower_case)
    layout = lay_out(survey.plan.steps, dtype, max_shard_bytes)
    if dtype:
        decisions.append(Decision("dtype", dtype, "asked for on the command line"))
    files["config.json"] = json_bytes(survey.config.to_json(_common_dtype(layout)))
    files.update(model_files())
    if layout.index:
        files[f"{WEIGHTS}.index.json"] = layout.index

    sources = (*checkpoint.files, *(path for path in (config_path, vocab_path, labels_path) if path))
    hashes: dict[Path, str] = {}
    numbers: tuple[TensorNumbers, ...] = ()

    def report(folder: Path | None, card: FileRecord | None = None) -> Report:
        sizes = {name: size for name, _, size in layout.files} | {name: len(data) for name, data in files.items()}
        return Report(
            version=__version__,
            source=source_name or named,
            format=checkpoint.format,
            family=table.name,
            title=table.title,
            head=survey.head.name,
            architecture=survey.head.architecture,
            head_reason="asked for on the command line" if head else inference.reason,
            decisions=tuple(decisions),
            ignored_fields=survey.config.ignored,
            source_files=tuple(FileRecord(path.name, path.stat().st_size, hashes.get(path)) for path in sources),
            output_files=tuple(
                FileRecord(name, size, hashes.get(folder / name) if folder else None)
                for name, size in sorted(sizes.items())
            ),
            source_nbytes=sum(entry.nbytes for entry in checkpoint.entries.values()),
            weight_nbytes=sum(placed.nbytes for placed in layout.placed),
            optimizer_nbytes=sum(dropped.nbytes for dropped in survey.plan.dropped if dropped.optimizer),
            written=tuple(
                Written(p.step.entry.name, p.step.target, p.step.op.value, p.dtype, p.step.shape)
                for p in sorted(layout.placed, key=lambda p: p.step.target)
            ),
            dropped=tuple(survey.plan.dropped),
            tied=tuple(survey.plan.tied),
            numbers=add_up(numbers) if folder else None,
            card=card,
            output=str(output),
            dry_run=dry_run,
            seconds=time.monotonic() - begun,
        )

    if dry_run:
        return report(None)
    from ..files.progress import Counter

    progress = Counter(progress, sum(placed.nbytes for placed in layout.placed) + layout.nbytes).add
    with staged(output, force, layout.nbytes + sum(len(data) for data in files.values())) as stage:
        hashed, numbers = write_weights(stage, layout, sources, progress, allow_overflow)
        hashes.update(hashed)
        for path in sources:  # the hashes are of the bytes that were converted
            check_unchanged(path, seen[path])
        for name, data in files.items():
            (stage / name).write_bytes(data)
            hashes[stage / name] = sha256(data).hexdigest()
        card = render(report(stage).to_dict()).encode()
        (stage / CARD).write_bytes(card)
        done = report(stage, FileRecord(CARD, len(card), sha256(card).hexdigest()))
        (stage / MARK).write_bytes(done.to_json().encode())
    return done


def _understand(
    checkpoint: Checkpoint,
    table: Table,
    inference: Inference,
    head: Head,
    raw: Mapping[str, Any],
    options: Mapping[str, Any],
) -> _Survey:
    """Config and plan of `checkpoint` as `head`."""
    config = ConfigBuilder(raw, table, head, checkpoint.entries)
    untied = _untied(raw, table, head, checkpoint)
    config.build(**options, untied=untied)
    if untied and "tie_word_embeddings" not in raw:
        reason = f"the decoder differs from the word embeddings; {table.title} has a tensor for each"
        config.decisions.append(Decision("tie_word_embeddings", False, reason))
    over = _loaded_over(checkpoint, table) if MLM in head.parts else []
    over = [one for one in over if not untied or one[0].target != DECODER]  # the bias is one tensor even then
    for tie, name, other in over:
        reason = f"{name} differs from {other}; the original has one tensor for both and loads {name} last"
        config.decisions.append(Decision(tie.of, f"the values of {name}", reason))
    plan = make_plan(table, head, checkpoint.entries, config.dimensions(), untied, [tie for tie, _, _ in over])
    return _Survey(checkpoint, table, head, inference, config, plan)


def _untied(raw: Mapping[str, Any], table: Table, head: Head, checkpoint: Checkpoint) -> bool:
    """Whether the masked-LM decoder is a tensor of its own: as the JSON says, or if not as the program has it."""
    if "tie_word_embeddings" in raw or table.habits.tied or MLM not in head.parts:
        return raw.get("tie_word_embeddings") is False
    return any(tie.target == DECODER for tie, _, _ in _loaded_over(checkpoint, table))


def _loaded_over(checkpoint: Checkpoint, table: Table) -> list[tuple[Tie, str, str]]:
    """The ties whose two names both stand in the source, with different values; and these names."""
    by_target: dict[str, TensorEntry] = {}
    for name, entry in checkpoint.entries.items():
        found = table.find(name)
        if isinstance(found, tuple):
            by_target[found[1].target] = entry
    pairs = [(tie, by_target.get(tie.target), by_target.get(tie.of)) for tie in TIES]
    return [(tie, a.name, b.name) for tie, a, b in pairs if a and b and not _equal(a, b)]


def _equal(a: TensorEntry, b: TensorEntry) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return all(x.tobytes() == y.tobytes() for x, y in zip(a.blocks(), b.blocks(), strict=True))


def _refuse_foreign(entries: Mapping[str, TensorEntry], head: str | None, prefix: str | None) -> None:
    model = foreign({name: entry for name, entry in entries.items() if name.startswith(prefix or "")})
    if model and not (model.encoder_converts and head == "encoder"):
        raise MappingError(model.message, hint=model.hint)


def _prefixed(table: Table, asked: str | None) -> list[Decision]:
    if not table.prefix:
        return []
    reason = "asked for on the command line" if asked else "what stands in front of the names of the whole model"
    return [Decision("prefix", table.prefix, reason)]


def _is_optimizer(table: Table, name: str) -> bool:
    found = table.find(name)
    return isinstance(found, Drop) and found.optimizer


def keep_apart(checkpoint: Checkpoint, output: Path) -> None:
    """Raises UsageError if `output` is the checkpoint's own folder, or one that holds it."""
    folder = checkpoint.path.resolve().parent
    if output.resolve() in (folder, *folder.parents):
        raise UsageError(f"{output}: the output would replace the source", hint="Name another output.")


def _tokenizer(survey: _Survey, path: Path | None, lower_case: bool | None) -> dict[str, bytes]:
    decisions = survey.config.decisions
    if path is None:
        reason = "no vocab.txt beside the checkpoint; the folder is without a tokenizer. Add one with --vocab FILE"
        decisions.append(Decision("tokenizer", None, reason))
        return {}
    vocab = read_vocab(path)
    shorter = check_length(vocab, survey.config.fields["vocab_size"])
    if shorter:
        decisions.append(shorter)
    lower, casing = decide_casing(vocab, lower_case)
    rules, splitting = decide_rules(vocab)
    decisions += [casing, *splitting]
    decisions += [decision for decision in (decide_added(vocab), decide_language(vocab)) if decision]
    survey.config.fields.setdefault("pad_token_id", vocab.tokens.index("[PAD]"))
    return tokenizer_files(vocab, lower, survey.config.fields["max_position_embeddings"], rules)


def model_files() -> dict[str, bytes]:
    """The model's source files, found without importing it: that would load torch."""
    spec = find_spec("nezha")
    if spec is None or not spec.submodule_search_locations:
        raise NezhaConvertError(
            "the package nezha is not installed beside nezha_convert",
            hint="pip install --force-reinstall nezha-convert",
        )
    folder = Path(spec.submodule_search_locations[0])
    return {name: (folder / name).read_bytes() for name in MODEL_FILES}


def _common_dtype(layout: Layout) -> str:
    """The element type of most of the weights."""
    sizes: dict[str, int] = {}
    for placed in layout.placed:
        sizes[placed.dtype] = sizes.get(placed.dtype, 0) + placed.nbytes
    return max(sizes, key=lambda name: sizes[name])
