"""`repair`: say what is wrong with a copy on the Hub, and convert the same tensors by their right names."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint, Decision, Origin, TensorEntry
from ..errors import CheckpointError, MappingError, UsageError
from ..families import HUAWEI_TF, HUAWEI_TORCH, TRANSFORMERS, TRANSFORMERS_BASE
from ..families.heads import HEADS, TIES
from ..families.rules import Drop
from ..files.given import path_of
from ..files.json import optional_object
from ..files.locks import TemporaryFolder
from ..files.progress import Progress
from ..files.staging import MARK
from ..folder.report import Report
from ..formats.open import open_checkpoint
from ..hub import Address, Hub, Pushed, is_address, local_source
from ..mapping.config import AUTO_MAP, architecture_of, read_config
from ..mapping.positions import Table, config_clip, stored_clip
from ..tokenizer.byte_bpe import PREFIX, spelled_out
from ..tokenizer.settings import FILES
from .convert import convert

_FAMILIES = (TRANSFORMERS, HUAWEI_TORCH, TRANSFORMERS_BASE)
_WORDS, _DECODER = TIES[0].of, TIES[0].target
_POOLER = "nezha.pooler.dense.weight"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a copy: its short name, what was found, and what repairs it."""

    kind: str
    found: str
    repair: str


@dataclass(frozen=True, slots=True)
class Repair:
    """What was found, and what was done about it.

    Attributes:
        source: what was looked at.
        faults: empty for a copy that is as it should be; nothing is written then.
        decisions: how the checkpoint was found, where there was a choice: the step, the file.
        report: the conversion that wrote the repaired folder.
        pushed: the pull request.

    Example:
        >>> import nezha_convert
        >>> [fault.title for fault in nezha_convert.repair("nezha-base/").faults]
        []
    """

    source: str
    faults: tuple[Fault, ...]
    report: Report | None = None
    pushed: Pushed | None = None
    decisions: tuple[Decision, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The repair as ``--json`` prints it."""
        return asdict(self)


def repair(
    source: str | Path,
    output: str | Path | None = None,
    *,
    create_pr: bool = False,
    force: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    bars: bool = False,
    progress: Progress | None = None,
) -> Repair:
    """Tell what is wrong with the PyTorch or safetensors copy `source`, and repair it.

    Args:
        source: a folder, a file of a checkpoint, or an address of the Hub.
        output: the folder to write the repaired copy to; it appears complete or not at all. None writes none.
        create_pr: open a pull request with the repaired files at the address `source`.
        force: replace `output` if it is a converted folder.
        token, endpoint, bars: as in ``push``.
        progress: as in ``convert``.

    Returns:
        The faults that were found, and what was written or pushed.

    Raises:
        CheckpointError: the copy cannot be read.
        MappingError: it has a fault that cannot be repaired without guessing.
        UsageError: it is of Huawei's TensorFlow code, or a pull request was asked for and it is not on the Hub.
        HubError: the Hub refused or failed.
        OutputError: `output` exists or cannot be written.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.repair("hf://owner/name", "repaired/").report.architecture
        'NezhaForMaskedLM'
    """
    copy = _opened(source, create_pr, endpoint, token, bars)
    checkpoint, faults = diagnose(copy.checkpoint)
    with TemporaryFolder() as temporary:
        options: dict[str, Any] = {
            "source_name": copy.name,
            "decided": [Decision(f"repaired: {f.kind}", f.found, f.repair, Origin.TENSORS) for f in faults],
            "vocab": _vocabulary(checkpoint, temporary),
            "lower_case": _tokenizer_config(checkpoint).get("do_lower_case"),
        }
        convert(checkpoint, temporary / "out", dry_run=True, **options)  # what cannot be loaded is not called good
        if not faults or (output is None and not create_pr):
            return Repair(str(source), faults, decisions=checkpoint.decisions)
        folder = path_of(output) if output is not None else temporary / "out"
        report = convert(checkpoint, folder, force=force, progress=progress, **options)
        pushed = _propose(copy, folder, report, faults) if create_pr else None
    return Repair(str(source), faults, report if output is not None else None, pushed, checkpoint.decisions)


@dataclass(frozen=True, slots=True)
class _Copy:
    """What is to be repaired: the checkpoint, its name, and where on the Hub it came from, if it did."""

    checkpoint: Checkpoint
    name: str
    hub: Hub | None = None
    address: Address | None = None


def _opened(source: str | Path, create_pr: bool, endpoint: str | None, token: str | None, bars: bool) -> _Copy:
    if is_address(source):
        hub, address = Hub(endpoint, token, bars), Address.parse(str(source))
        pulled = hub.fetch(address)
        return _Copy(open_checkpoint(pulled.source), str(pulled.address), hub, address)
    if create_pr:
        raise UsageError(
            f"{source}: a pull request needs a repository to go to",
            hint="Name it: nezha-convert repair hf://owner/name --create-pr",
        )
    path, name = local_source(source)
    return _Copy(open_checkpoint(path), name)


def _propose(copy: _Copy, folder: Path, report: Report, faults: Iterable[Fault]) -> Pushed:
    """Open a pull request with the repaired files. Its README.md stays as its owner wrote it."""
    assert copy.hub and copy.address  # `_opened` refuses a pull request for anything else
    names = (*(file.name for file in report.output_files), MARK)
    return copy.hub.commit(
        copy.address.repo_id,
        {name: folder / name for name in names},
        message=f"Repair {', '.join(fault.kind for fault in faults)}",
        description="\n".join(f"* **{f.kind}**: {f.found}. {f.repair}." for f in faults),
        revision=copy.address.revision,
        create_pr=True,
    )


def diagnose(checkpoint: Checkpoint) -> tuple[Checkpoint, tuple[Fault, ...]]:
    """`checkpoint` with its tensors under their right names, and everything that is wrong with it.

    Raises:
        CheckpointError: it has no readable config.
        MappingError: a stored table of positions is not what the model computes, the word embeddings are lost, or a
            tensor is there twice.
        UsageError: it is of Huawei's TensorFlow code.
    """
    raw = read_config(checkpoint.config, checkpoint.path)
    names = checkpoint.entries
    if any(HUAWEI_TF.match(name) for name in names if name.startswith("bert/")):
        raise UsageError(
            f"{checkpoint.path}: this is a checkpoint of {HUAWEI_TF.title}, not a damaged copy",
            hint="nezha-convert convert SOURCE OUTPUT",
        )
    entries = _renamed(names)
    named = {
        "wrapped names": [name for name in names if name.startswith("module.")],
        "foreign prefix": [name for name in names if HUAWEI_TORCH.unwrapped(name).startswith("bert.")],
        "gamma and beta": [name for name in names if name.endswith((".gamma", ".beta"))],
    }
    repairs = {
        "wrapped names": "the prefix module. of a training program is taken off",
        "foreign prefix": "the prefix bert. becomes nezha., under which transformers looks for them",
        "gamma and beta": "they become weight and bias, the names since 2019",
    }
    faults = [Fault(kind, _count(found), repairs[kind]) for kind, found in named.items() if found]
    faults += _left_over_tables(names, raw)
    if _WORDS not in entries and _DECODER in entries:
        entries[_WORDS] = _rebuilt(checkpoint, entries[_DECODER], raw)
        what = "the word embeddings are missing, so that an encoder or a classifier would load random ones"
        faults.append(
            Fault("lost word embeddings", what, f"rebuilt from {entries[_DECODER].name}, to which they are tied")
        )
    faults += _config_faults(raw, entries)
    folder = checkpoint.path.parent
    faults += [fault for check in (_code_fault, _tokenizer_fault) if (fault := check(folder, raw))]
    return replace(checkpoint, entries=entries), tuple(faults)


def _renamed(names: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """The tensors by the names that transformers looks for. A name that no family knows stays as it is.

    Raises:
        MappingError: two tensors claim one name, as when a copy holds both prefixes.
    """
    renamed: dict[str, TensorEntry] = {}
    for name, entry in names.items():
        match = next((match for family in _FAMILIES if (match := family.match(name))), None)
        target = match.rule.target if match else name
        if target in renamed:
            raise MappingError(
                f"{renamed[target].name} and {name} both are {target}; which one is the model's cannot be told",
                hint="Take the wrong one out of the file, and repair again.",
            )
        renamed[target] = entry
    return renamed


def _left_over_tables(names: Mapping[str, TensorEntry], raw: Mapping[str, Any]) -> Iterable[Fault]:
    meanings = ((entry, TRANSFORMERS.find(name)) for name, entry in names.items())
    drops = [(entry, drop) for entry, drop in meanings if isinstance(drop, Drop)]
    tables = [Table(entry, drop.pattern, drop.trained) for entry, drop in drops if drop.positions]
    small = [entry.name for entry, drop in drops if not drop.positions]
    stated = config_clip(raw, 64)
    clip = stored_clip(tables, stated)
    if tables:
        nbytes = sum(table.entry.nbytes for table in tables)
        what = f"{len(tables)} stored tables of positions, {nbytes:,} bytes"
        yield Fault(
            "fat position buffers", what, "left out: equal to what the model computes, to the rounding of float32"
        )
    if clip not in (None, stated):
        what = f"max_relative_position is {stated}, the stored tables of positions are clipped at {clip}"
        yield Fault("wrong clip distance", what, f"it becomes {clip}, with which the model was trained")
    if small:
        yield Fault("left-over buffers", _count(small), "left out: the model makes them itself")


def _rebuilt(checkpoint: Checkpoint, decoder: TensorEntry, raw: Mapping[str, Any]) -> TensorEntry:
    if raw.get("tie_word_embeddings") is False:
        raise MappingError(
            f"{checkpoint.path}: the word embeddings are missing, and {decoder.name} is not tied to them",
            hint="Look for an older revision or a pytorch_model.bin of the same repository.",
        )
    return decoder


def _config_faults(raw: Mapping[str, Any], entries: Iterable[str]) -> Iterable[Fault]:
    architecture, known = architecture_of(raw), {head.architecture for head in HEADS.values()}
    if architecture not in known:
        said = f"architectures names {architecture!r}" if architecture else "architectures names no class"
        yield Fault("misspelt architecture", said, "written anew, as the tensors say")
    if raw.get("model_type") != "nezha":
        what = f"model_type is {raw.get('model_type')!r}, which is another model or none"
        yield Fault("wrong model type", what, 'it becomes "nezha"')
    if architecture == HEADS["encoder"].architecture and raw.get("add_pooling_layer", True) and _POOLER not in entries:
        what = "there is no pooler, and the config does not say so: AutoModel would make one with random weights"
        yield Fault("missing pooler", what, "the config says that there is none: add_pooling_layer is false")


def _code_fault(folder: Path, raw: Mapping[str, Any]) -> Fault | None:
    """No transformers since 5.0 knows NEZHA: a copy without its code does not load."""
    given = raw.get("auto_map")
    given = given if isinstance(given, dict) else {}
    missing = [name for name in AUTO_MAP if name not in given]
    # "owner/name--module.Class" is code of another repository, which transformers fetches from there.
    modules = {str(target).partition(".")[0] + ".py" for target in given.values() if "--" not in str(target)}
    absent = sorted(module for module in modules if not (folder / module).is_file())
    if not missing and not absent:
        return None
    said = [f"auto_map lacks {len(missing)} of {len(AUTO_MAP)} classes"] if missing else []
    said += [f"{', '.join(absent)} not there"] if absent else []
    return Fault("missing model code", "; ".join(said), "the model's files and a full auto_map are added")


def _tokenizer_fault(folder: Path, raw: Mapping[str, Any]) -> Fault | None:
    """transformers 5 finds no tokenizer by vocab.txt alone."""
    present = [name for name in ("vocab.txt", "tokenizer.json") if (folder / name).is_file()]
    if not present or _read_settings(folder / "tokenizer_config.json").get("tokenizer_class"):
        return None
    what = f"{' and '.join(present)} without a tokenizer_config.json that names a class"
    return Fault("missing tokenizer config", what, "the tokenizer's files are written from its vocabulary")


def _tokenizer_config(checkpoint: Checkpoint) -> dict[str, Any]:
    return _read_settings(checkpoint.path.parent / "tokenizer_config.json")


def _vocabulary(checkpoint: Checkpoint, temporary: Path) -> Path | None:
    """vocab.txt beside the weights, or one made of tokenizer.json: transformers 5 saves no other."""
    whole = _read_settings(checkpoint.path.parent / "tokenizer.json")
    if checkpoint.vocab or not whole:
        return checkpoint.vocab
    model = whole.get("model", {})
    ids = model.get("vocab", {})
    lines = sorted(ids, key=ids.__getitem__)
    if model.get("continuing_subword_prefix") == PREFIX:  # a byte BPE's tokens have other names there
        added = {token.get("content") for token in whole.get("added_tokens", ())}
        lines = [token if token in added else spelled_out(token) for token in lines]
    path = temporary / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in lines), "utf-8", newline="\n")
    # The converter looks beside the vocabulary for added tokens and for what the tokenizer was told.
    for name in FILES:
        if (checkpoint.path.parent / name).is_file():
            shutil.copyfile(checkpoint.path.parent / name, temporary / name)
    return path


def _read_settings(path: Path) -> dict[str, Any]:
    """A tokenizer's file of settings; empty if it is not there."""
    try:
        return optional_object(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: not a JSON file ({error})", hint="Remove it, and repair again.") from error


def _count(names: list[str]) -> str:
    return f"{len(names):,} tensors, such as {names[0]}" if len(names) > 1 else names[0]
