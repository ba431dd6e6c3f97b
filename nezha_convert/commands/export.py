"""`export`: a converted folder becomes another program's own files, or an ONNX graph."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._version import __version__
from ..checkpoint import Decision
from ..errors import OutputError, UsageError
from ..exports.plan import ExportPlan, plan_export, understand_converted, watched
from ..families import PROGRAMS
from ..families.heads import POOLER
from ..files.given import path_of
from ..files.hashing import sha256
from ..files.progress import Counter, Progress
from ..files.staging import EXPORTED, check_output, staged
from ..folder.report import FileRecord, Written
from ..formats.open import open_checkpoint
from ..formats.tensor import Tensor, raw
from ..hub import local_source
from ..weights.write import Advance
from .convert import keep_apart

if TYPE_CHECKING:
    from ..exports.onnx import Measured


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An export: what was read, decided, written; export.json is its JSON.

    Attributes:
        version: of nezha-convert.
        source: the converted folder's name.
        to: the program's name, as --to takes it.
        title: the program in words.
        head: the kind of model, as `convert` takes it.
        loaded_by: what loads the folder in that program.
        decisions: what was decided, each with its reason.
        source_files, output_files: what was read and written, with sizes and hashes.
        weight_nbytes: bytes of the weights.
        output: the folder that was written.
        dry_run: whether nothing was written.
        seconds: how long it took.
        written: each tensor with what it was made of, "zeros" where the model has no such tensor; none of a graph.
        measured: for a graph, how far its outputs are from PyTorch's; elsewhere no number changes.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.export("nezha-base/", "paddle/", "paddle", dry_run=True, accept_activation=True)
        >>> report.title, report.dry_run
        ('PaddleNLP', True)
    """

    version: str
    source: str
    to: str
    title: str
    head: str
    loaded_by: str
    decisions: tuple[Decision, ...]
    written: tuple[Written, ...]
    source_files: tuple[FileRecord, ...]
    output_files: tuple[FileRecord, ...]
    weight_nbytes: int
    measured: tuple[Measured, ...] = ()
    output: str = ""
    dry_run: bool = False
    seconds: float = 0.0

    @classmethod
    def of(cls, plan: ExportPlan, source: str, to: str, target: Path, dry_run: bool) -> ExportReport:
        """The report of an export that is planned, before anything is written."""
        pooled = POOLER in plan.model.survey.head.parts or not plan.model.survey.head.bare
        options = "" if pooled else ", add_pooling_layer=False"
        return cls(
            version=__version__,
            source=source,
            to=to,
            title=plan.program.family.title,
            head=plan.model.head,
            loaded_by=plan.program.loaded_by.format(folder=target, options=options),
            decisions=plan.decisions,
            written=tuple(
                Written(step.entry.name, step.target, step.op.value, plan.dtype(step), step.shape)
                for step in plan.steps
            ),
            source_files=_records(plan.model.survey.checkpoint.files),
            output_files=(),
            weight_nbytes=plan.nbytes,
            output=str(target),
            dry_run=dry_run,
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as ``--json`` prints it."""
        return asdict(self)

    def to_json(self) -> str:
        """export.json: without what differs from run to run, so that equal sources give equal folders."""
        content = self.to_dict()
        for name in ("output", "dry_run", "seconds", "loaded_by"):
            del content[name]
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def export(
    output: str | Path,
    target: str | Path,
    to: str,
    *,
    accept_activation: bool = False,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the converted folder `output` into the folder `target` as the program `to` has it.

    Args:
        output: a converted folder, or a folder that ``save_pretrained`` wrote of its model; or an address of the Hub.
        target: the folder to write; it appears complete, read back and compared, or not at all.
        to: "huawei-tf", "huawei-torch", "transformers-4", "paddle" or "bert4torch".
        accept_activation: go on where the program has another GELU than the model; the report says what it changes.
        dry_run: end after the plan, writing nothing.
        force: replace `target` if it is an exported folder.
        progress: told of the bytes done; each byte is written once and read back once.

    Returns:
        What was read, decided and written. The folder's export.json is its JSON.

    Raises:
        UsageError: there is no such program, or `output` is no converted folder.
        MappingError: the program cannot hold the model, or would compute other numbers; every reason at once.
        OutputError: `target` exists or cannot be written. After every error nothing is left behind.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.export("nezha-base/", "again/", "huawei-tf").loaded_by
        '--init_checkpoint again/model.ckpt --bert_config_file again/bert_config.json'
    """
    begun, target = time.monotonic(), path_of(target)
    if to not in PROGRAMS:
        graph = f"nezha_convert.export_graph({str(output)!r}, {str(target)!r})" if to == "onnx" else ""
        raise UsageError(f"--to {to}: no such program; expected one of {', '.join(PROGRAMS)}", hint=graph)
    if not dry_run:
        check_output(target, force, EXPORTED)
    path, name = local_source(output)
    model = understand_converted(open_checkpoint(path))
    keep_apart(model.survey.checkpoint, target)
    plan = plan_export(PROGRAMS[to], model, accept_activation)
    report = ExportReport.of(plan, name, to, target, dry_run)
    if not dry_run:
        with staged(target, force, 2 * plan.nbytes + sum(map(len, plan.files.values())), EXPORTED) as stage:
            counter = Counter(progress, 2 * plan.nbytes)
            sent: dict[str, str] = {}
            plan.program.write(stage / plan.program.weights, _recorded(plan.tensors(counter.add), sent))
            for file, data in plan.files.items():
                (stage / file).parent.mkdir(parents=True, exist_ok=True)
                (stage / file).write_bytes(data)
            _check(stage, target, plan, sent, counter.add)
            report = _complete(stage, report)
    return replace(report, seconds=time.monotonic() - begun)


def export_graph(
    output: str | Path,
    target: str | Path,
    *,
    precision: str = "float32",
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the converted folder `output` into the folder `target` as an ONNX graph.

    Args:
        output, target, dry_run, force: as in `export`.
        precision: "float32", "float16", or "int8" for weights of eight bits.
        progress: told of the steps done.

    Returns:
        What was written, and how far the outputs of onnxruntime are from PyTorch's.

    Raises:
        UsageError: `precision` is another one, `output` is no converted folder, or a library of the extra `onnx` is
            not installed.
        MappingError: the graph does not compute what the model computes.
        OutputError: `target` exists or cannot be written. After every error nothing is left behind.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.export_graph("nezha-base/", "graph/", dry_run=True).to
        'onnx'
    """
    from ..exports.onnx import MODEL, export_onnx, plan_onnx

    begun, target = time.monotonic(), path_of(target)
    if not dry_run:
        check_output(target, force, EXPORTED)
    path, name = local_source(output)
    checkpoint = open_checkpoint(path)
    keep_apart(checkpoint, target)
    folder, decisions = plan_onnx(path, precision)
    report = ExportReport(
        version=__version__,
        source=name,
        to="onnx",
        title="ONNX",
        head=folder.record["head"],
        loaded_by=f"onnxruntime.InferenceSession('{target / MODEL}')",
        decisions=decisions,
        written=(),
        source_files=_records(checkpoint.files),
        output_files=(),
        weight_nbytes=sum(entry.nbytes for entry in checkpoint.entries.values()),
        output=str(target),
        dry_run=dry_run,
    )
    if not dry_run:
        with staged(target, force, 2 * report.weight_nbytes, EXPORTED) as stage:
            result = export_onnx(path, stage, precision=precision, progress=progress)
            report = replace(report, head=result.head, decisions=result.decisions, measured=result.measured)
            report = _complete(stage, report)
    return replace(report, seconds=time.monotonic() - begun)


def _records(files: Iterable[Path]) -> tuple[FileRecord, ...]:
    return tuple(FileRecord(file.name, file.stat().st_size) for file in files)


def _complete(stage: Path, report: ExportReport) -> ExportReport:
    """Write the report into `stage`, with the hash of every file that is there."""
    written = sorted(file for file in stage.rglob("*") if file.is_file())
    files = tuple(FileRecord(str(file.relative_to(stage)), file.stat().st_size, sha256(file)) for file in written)
    report = replace(report, output_files=files)
    (stage / EXPORTED).write_bytes(report.to_json().encode())
    return report


def _recorded(tensors: Iterable[Tensor], sent: dict[str, str]) -> Iterator[Tensor]:
    """`tensors` on their way to a writer; the SHA-256 of what it took of each goes into `sent`."""

    def blocks(tensor: Tensor) -> Iterator[np.ndarray]:
        digest = hashlib.sha256()
        for block in tensor.blocks:
            digest.update(raw(block))
            yield block
        sent[tensor.name] = digest.hexdigest()

    for tensor in tensors:
        yield tensor._replace(blocks=blocks(tensor))


def _check(stage: Path, target: Path, plan: ExportPlan, sent: Mapping[str, str], advance: Advance) -> None:
    """Read the files as the program's own are read, and compare names, types, shapes and every bit with what was sent.

    Raises:
        OutputError: something is not as it was planned.
    """
    found = dict(open_checkpoint(stage).entries)
    for step in plan.steps:
        dtype, entry = plan.dtype(step), found.pop(step.target, None)
        planned = (dtype, step.shape, sent.get(step.target))
        if entry is None or planned != (entry.dtype, entry.shape, sha256(map(raw, watched(entry.blocks(), advance)))):
            raise OutputError(
                f"{target}: {step.target} does not read back as it was written",
                hint="The disk or memory is at fault: check them, and export again.",
            )
    if found:
        raise OutputError(f"{target}: it holds {', '.join(sorted(found)[:4])} besides what was written")
