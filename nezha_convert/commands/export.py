"""The way back: a converted folder as another program's own files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._version import __version__
from ..checkpoint import Decision
from ..errors import OutputError, UsageError
from ..exports.plan import ConvertedModel, WayBack, watched
from ..families.programs import PROGRAMS
from ..files.staging import check_output, staged
from ..folder import record as folder
from ..folder.report import FileRecord, Written
from ..formats.open import open_checkpoint
from ..formats.tensor import Tensor, raw
from ..hub import local_source
from ..weights.write import Progress
from .convert import keep_apart

if TYPE_CHECKING:
    from ..exports.onnx import Measured

MARK = "export.json"
"""The report in every exported folder."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An export: what was read, decided, written; export.json is its JSON.

    Attributes:
        source: the converted folder's name.
        to: the program's name, as --to takes it; title: in words.
        loaded_by: what loads the folder in that program.
        written: each tensor with what it was made of, "zeros" where the model has no such tensor; none of a graph.
        measured: for a graph, how far its outputs are from PyTorch's; elsewhere no number changes.
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
    progress: Any = None,
) -> ExportReport:
    """Write the converted folder `output` into the folder `target` as the program `to` has it.

    Args:
        output: a converted folder, or a folder that ``save_pretrained`` wrote of its model; or an address of the Hub.
        target: the folder to write; it appears complete, read back and compared, or not at all.
        to: a name in ``programs.PROGRAMS``.
        accept_activation: go on where the program has another GELU than the model; the report says what it changes.
        dry_run: end after the plan, writing nothing.
        force: replace `target` if it is an exported folder.
        progress: called with the bytes just done; each byte is written once and read back once.

    Raises:
        UsageError: there is no such program, or `output` is no converted folder.
        MappingError: the program cannot hold the model, or would compute other numbers; every reason at once.
        NezhaConvertError: see ``errors``; nothing is left behind.
    """
    begun = time.monotonic()
    target = Path(target)
    if to not in PROGRAMS:
        raise UsageError(f"--to {to}: no such program; expected one of {', '.join(PROGRAMS)}")
    if not dry_run:
        check_output(target, force, MARK)
    path, named = local_source(output)
    model = ConvertedModel(open_checkpoint(path))
    keep_apart(model.checkpoint, target)
    way = WayBack(PROGRAMS[to], model)
    way.check(accept_activation)
    files = way.files()
    sizes = {step.target: step.entry.nbytes for step in way.steps}
    hashes: dict[Path, str] = {}

    def report(written: Path | None) -> ExportReport:
        return ExportReport(
            version=__version__,
            source=named,
            to=to,
            title=way.program.table.title,
            head=model.head.name,
            loaded_by=way.program.loaded_by.format(folder=target),
            decisions=tuple(way.decisions),
            written=tuple(
                Written(step.entry.name, step.target, step.op.value, way.dtype(step), step.shape) for step in way.steps
            ),
            source_files=tuple(FileRecord(file.name, file.stat().st_size) for file in model.checkpoint.files),
            output_files=tuple(
                FileRecord(file.name, file.stat().st_size, hashes.get(file))
                for file in (sorted(written.iterdir()) if written else ())
            ),
            weight_nbytes=sum(sizes.values()),
            output=str(target),
            dry_run=dry_run,
            seconds=time.monotonic() - begun,
        )

    if dry_run:
        return report(None)
    total = sum(sizes.values())
    from ..files.progress import Counter

    progress = Counter(progress, 2 * total).add
    with staged(target, force, 2 * total + sum(len(data) for data in files.values()), MARK) as stage:
        sent: dict[str, bytes] = {}
        way.program.write(stage / way.program.weights, _recorded(way.tensors(progress), sent))
        for name, data in files.items():
            (stage / name).write_bytes(data)
        _check(stage, target, way, sent, progress)
        for file in stage.iterdir():
            hashes[file] = folder.sha256(file)
        done = report(stage)
        (stage / MARK).write_bytes(done.to_json().encode())
    return done


def export_graph(
    output: str | Path,
    target: str | Path,
    *,
    precision: str = "float32",
    dry_run: bool = False,
    force: bool = False,
    progress: Any = None,
) -> ExportReport:
    """Write the converted folder `output` into the folder `target` as an ONNX graph.

    Args:
        output, target, dry_run, force: as in `export`.
        precision: one of ``onnx_export.PRECISIONS``.
        progress: called with (steps done, steps, what).

    Raises:
        NezhaConvertError: as ``onnx_export.export_onnx``; nothing is left behind.
    """
    from ..exports.onnx import MODEL, export_onnx, plan_onnx

    progress = progress or (lambda done, steps, what: None)

    begun = time.monotonic()
    target = Path(target)
    if not dry_run:
        check_output(target, force, MARK)
    path, named = local_source(output)
    checkpoint = open_checkpoint(path)
    keep_apart(checkpoint, target)
    nbytes = sum(entry.nbytes for entry in checkpoint.entries.values())

    def report(
        head: str, decisions: tuple[Decision, ...], files: Iterable[Path] = (), measured: tuple[Measured, ...] = ()
    ) -> ExportReport:
        return ExportReport(
            version=__version__,
            source=named,
            to="onnx",
            title="ONNX",
            head=head,
            loaded_by=f"onnxruntime.InferenceSession('{target / MODEL}')",
            decisions=decisions,
            written=(),
            source_files=tuple(FileRecord(file.name, file.stat().st_size) for file in checkpoint.files),
            output_files=tuple(FileRecord(file.name, file.stat().st_size, folder.sha256(file)) for file in files),
            weight_nbytes=nbytes,
            measured=measured,
            output=str(target),
            dry_run=dry_run,
            seconds=time.monotonic() - begun,
        )

    if dry_run:
        planned, decisions = plan_onnx(path, precision)
        return report(planned.record["head"], decisions)
    with staged(target, force, 2 * nbytes, MARK) as stage:
        result = export_onnx(path, stage, precision=precision, progress=progress)
        done = report(result.head, result.decisions, sorted(stage.iterdir()), result.measured)
        (stage / MARK).write_bytes(done.to_json().encode())
    return done


def _recorded(tensors: Iterable[Tensor], sent: dict[str, bytes]) -> Iterator[Tensor]:
    """`tensors` on their way to a writer; the SHA-256 of what it took of each goes into `sent`."""

    def blocks(tensor: Tensor) -> Iterator[np.ndarray]:
        digest = sha256()
        for block in tensor.blocks:
            digest.update(raw(block))
            yield block
        sent[tensor.name] = digest.digest()

    for tensor in tensors:
        yield tensor._replace(blocks=blocks(tensor))


def _check(stage: Path, target: Path, way: WayBack, sent: Mapping[str, bytes], progress: Progress) -> None:
    """Read the files as the program's own are read, and compare names, types, shapes and every bit with what was sent.

    Raises:
        OutputError: something is not as it was planned.
    """
    found = dict(open_checkpoint(stage).entries)
    for step in way.steps:
        dtype, entry = way.dtype(step), found.pop(step.target, None)
        planned = (dtype, step.shape, sent.get(step.target))
        if entry is None or planned != (entry.dtype, entry.shape, _digest(watched(entry.blocks(), progress))):
            raise OutputError(
                f"{target}: {step.target} does not read back as it was written",
                hint="The disk or memory is at fault: check them, and export again.",
            )
    if found:
        raise OutputError(f"{target}: it holds {', '.join(sorted(found)[:4])} besides what was written")


def _digest(blocks: Iterable[np.ndarray]) -> bytes:
    digest = sha256()
    for block in blocks:
        digest.update(raw(block))
    return digest.digest()
