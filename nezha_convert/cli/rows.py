"""What a person sees of a result. For each type of result, one function yields its parts from top to bottom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TypeAlias

from ..text import duration, quoted

if TYPE_CHECKING:  # each command imports its own
    from ..batches.results import BatchReport, RowResult
    from ..checkpoint import Decision
    from ..commands.check import Checked
    from ..commands.diff import Difference
    from ..commands.env import Environment
    from ..commands.export import ExportReport
    from ..commands.inspect import Inspection
    from ..commands.repair import Repair
    from ..folder.report import FileRecord, Report
    from ..folder.trained import TrainedFolder
    from ..hub import Pulled, Pushed
    from ..mapping.plan import Dropped
    from ..parity.report import ParityReport
    from ..parity.results import Comparison

SHOWN = 20
"""Problems in the text of a result or error; ``--json`` has all."""

Row = tuple[str, str]
"""A label and a text; neighbouring rows form one table."""

Part: TypeAlias = "Row | str | Comparison"
"""A row, a line of its own, or a table of numbers."""

Result: TypeAlias = (
    "Inspection | Report | Difference | ParityReport | Checked | Pushed | Pulled | Repair | ExportReport"
    " | TrainedFolder | Environment | BatchReport"
)
"""What a command returns. Its `to_dict()` is the document of ``--json``."""


def parts(result: Result) -> Iterator[Part]:
    """The parts of `result`, in the order to show them."""
    return _PARTS[type(result).__name__](result)


def size(nbytes: int) -> str:
    """Bytes for a person, in powers of 1000."""
    from rich.filesize import decimal

    return decimal(nbytes)


def _inspection(inspection: Inspection) -> Iterator[Part]:
    heads = inspection.heads
    yield "source", f"{inspection.source} ({inspection.format})"
    yield "files", _sizes(inspection.files)
    yield "family", inspection.title
    yield "head", f"{' or '.join(heads)}: {inspection.reason}" if heads else "unknown"
    if inspection.training:
        yield "trained", inspection.training
    yield "model", inspection.sizes
    for where, fields in inspection.settings.items():
        yield "holds", f"{where}: {shorten(', '.join(f'{name}={value}' for name, value in fields.items()), 300)}"
    yield (
        "tensors",
        f"{inspection.tensors:,} of {size(inspection.nbytes)}: {size(inspection.weight_nbytes)} weights kept, "
        f"{size(inspection.optimizer_nbytes)} optimizer state in {inspection.optimizer_tensors:,}",
    )
    yield from _dropped(inspection.dropped)
    yield from _kept([tensor.name for tensor in inspection.kept])
    yield from _decided(inspection.decisions)
    problems = inspection.problems
    yield from _first("problem", problems, more=("", f"and {len(problems) - SHOWN} more problems; --json has all"))
    for line in inspection.hint.splitlines():
        yield "next", line
    for tensor in inspection.entries or ():
        yield f"{tensor.name}  {tensor.dtype}  {list(tensor.shape)}"


def _report(report: Report) -> Iterator[Part]:
    yield "source", f"{report.source}: {report.title}"
    yield "head", f"{report.head}: {report.head_reason}"
    used, dropped, tied = len(report.written), len(report.dropped), len(report.tied)
    yield "tensors", f"{used:,} used, {dropped:,} dropped, {tied:,} tied"
    yield "saved", f"{size(report.source_nbytes - report.weight_nbytes)} of {size(report.source_nbytes)}"
    yield from _dropped(report.dropped)
    yield from _kept([tensor.target for tensor in report.kept])
    yield from _decided(report.decisions)
    if report.ignored_fields:
        yield "ignored", f"fields of the config that change no output: {', '.join(report.ignored_fields)}"
    for assumption in report.assumptions:
        yield "assumed", str(assumption)
    if report.numbers:
        warnings = report.numbers.warnings
        yield "numbers", report.numbers.summary
        more = f"and {len(warnings) - SHOWN} more; conversion.json has all"
        yield from _first("warning", warnings, more=("warning", more))
    if report.dry_run:
        yield "output", f"would write {size(report.weight_nbytes)} of weights to {report.output}; nothing was written"
        return
    yield "output", f"{report.output} ({size(sum(file.nbytes for file in report.output_files))})"
    yield "checked", "every tensor read back and equal bit by bit; hashes are in conversion.json"
    yield "time", f"{report.seconds:.1f} s"


def _difference(difference: Difference) -> Iterator[Part]:
    from ..commands.diff import EQUAL

    for tensor in difference.tensors:
        if tensor.verdict == EQUAL:
            continue
        shapes, dtypes = map(str, map(list, tensor.shapes)), dict.fromkeys(tensor.dtypes)
        line = f"{tensor.name}  {tensor.verdict}: {' and '.join(shapes)} {' and '.join(dtypes)}"
        if tensor.count:
            line += f", {tensor.count:,} elements by up to {tensor.largest:.3g}, {tensor.relative:.3g} of the range"
        yield line
    names = (difference.a, difference.b)
    for side, name, family, others in zip("ab", names, difference.families, difference.left_out, strict=True):
        no_weights = "1 name is no weight" if others == 1 else f"{others:,} names are no weights"
        yield side, f"{name}: {family}; {no_weights}"
    for side, decisions in zip("ab", difference.decisions, strict=True):
        yield from ((label, f"{side}: {text}") for label, text in _decided(decisions))
    for side, unknown in zip("ab", difference.unknown, strict=True):
        texts = [f"only in {side}, in no table of its family: {name}" for name in unknown]
        more = f"and {len(unknown) - SHOWN} more in {side}; --json has all"
        yield from _first("unknown", texts, more=("unknown", more))
    counts = Counter(tensor.verdict for tensor in difference.tensors)
    yield "tensors", ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items())
    yield "verdict", "the same" if difference.same else "DIFFERENT"


def _parity(report: ParityReport) -> Iterator[Part]:
    yield from report.comparisons
    yield "source", f"{report.source}: {report.read}"
    yield "output", f"{report.output}: {report.architecture} in {report.dtype}"
    yield "inputs", ", ".join(f"{case.name} {list(case.shape)}" for case in report.cases)
    tokenizer = report.tokenizer
    if tokenizer:
        compared = f"{tokenizer.texts} texts against {tokenizer.reference}, {len(tokenizer.differing)} differ"
    yield "tokenizer", compared if tokenizer else "none in the output"
    for warning in report.warnings:
        yield "warning", warning
    for failure in report.failures:
        yield "problem", failure
    yield "time", f"{report.seconds:.1f} s"
    yield "verdict", "passed" if report.passed else "FAILED"
    for one in report.open_assumptions:
        yield "assumed", str(one)


def _checked(checked: Checked) -> Iterator[Part]:
    for folder in checked.folders:
        yield "folder", f"{folder.folder}: {folder.record} names {_files(folder.files)} of {size(folder.nbytes)}"
        for problem in folder.problems:
            yield "problem", problem
        if folder.hint:
            yield "next", folder.hint
    if checked.others:
        yield "passed over", f"{_files(checked.others)}, in no folder with a record"
    yield "verdict", "as recorded" if checked.same else "CHANGED"


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def _pushed(pushed: Pushed) -> Iterator[Part]:
    for file in pushed.files:
        yield file.state, f"{file.name} ({size(file.nbytes)})"
    for name in pushed.left_out:
        yield "left out", f"{name}: not of the record"
    for doubt in pushed.doubts:
        yield "warning", doubt
    if not pushed.dry_run:
        yield from _commit(pushed)
        return
    yield pushed.repo_id, "nothing was sent; its card would be:" if pushed.card else "nothing was sent"
    if pushed.card:
        yield ""
        yield from pushed.card.removesuffix("\n").split("\n")


def _trained(trained: TrainedFolder) -> Iterator[Part]:
    yield "recorded", str(trained.path)
    yield "model", trained.summary
    doubts = trained.doubts()
    for doubt in doubts:
        yield "not proved", doubt
    yield "next", trained.remedy if doubts else f"nezha-convert push {quoted(trained.path)} OWNER/NAME"


def _pulled(pulled: Pulled) -> Iterator[Part]:
    for name, nbytes in pulled.files:
        yield "file", f"{name} ({size(nbytes)})"
    yield "address", str(pulled.address)
    yield "folder", str(pulled.folder)
    yield "next", f"nezha-convert inspect {quoted(pulled.folder)}"


def _repair(repair: Repair) -> Iterator[Part]:
    yield "source", repair.source
    yield from _decided(repair.decisions)
    for fault in repair.faults:
        yield "problem", f"{fault.kind}: {fault.found}"
        yield "repair", fault.repair
    if not repair.faults:
        yield "verdict", "nothing is wrong with it; it was left alone"
    if repair.report:
        yield "output", f"{repair.report.output}: every tensor read back and equal bit by bit"
    if repair.pushed:
        yield from _commit(repair.pushed)
    if repair.faults and not (repair.report or repair.pushed):
        targets = "OUTPUT, or --create-pr" if repair.source.startswith("hf://") else "OUTPUT"
        yield "next", f"nezha-convert repair {quoted(repair.source)} {targets}"


def _export(report: ExportReport) -> Iterator[Part]:
    yield "source", f"{report.source}: {report.head}"
    yield "program", report.title
    yield from _decided(report.decisions)
    if report.written:
        zeros = sum(tensor.source == "zeros" for tensor in report.written)
        yield "tensors", f"{len(report.written):,} of {size(report.weight_nbytes)}, {zeros:,} of them zeros"
    if report.dry_run:
        yield "output", f"would be {report.output}; nothing was written"
        return
    yield "output", f"{report.output}: {_sizes(report.output_files)}"
    for m in report.measured:
        error, differs = f"{m.relative_error:.1e} of its range", f"argmax differs in {m.argmax_differs:.1%}"
        yield "checked", f"{m.output}: {error} from PyTorch, {differs}"
    if not report.measured:
        yield "checked", "every tensor read back and equal bit by bit; hashes are in export.json"
    yield "time", f"{report.seconds:.1f} s"
    yield "load", report.loaded_by


def _environment(environment: Environment) -> Iterator[Part]:
    yield "nezha-convert", f"{environment.version} in {environment.folder}"
    yield "python", environment.python
    yield "platform", environment.platform
    for name, version in environment.packages.items():
        yield name, version or "not installed"
    yield "supported", environment.supported
    for problem in environment.problems:
        yield "problem", problem
    if environment.hint:
        yield "next", environment.hint


def _batch(report: BatchReport) -> Iterator[Part]:
    yield "batch", f"{report.manifest} to {report.output}, on {report.where}"
    if report.skipped:
        yield "skipped", f"{len(report.skipped):,} without weights: {shorten(', '.join(report.skipped), 200)}"
    open_rows = report.open
    to_do = {row.number for row in open_rows}
    right = [row for row in report.rows if row.number not in to_do]
    for row in right[:SHOWN]:
        yield row.outcome, f"{row.source} -> {row.output}{_about_row(row)}"
    if len(right) > SHOWN:
        yield "...", f"and {len(right) - SHOWN:,} more that are right or planned; report.json and --json have all"
    for row in open_rows[:SHOWN]:
        yield row.outcome, f"{row.source}: {row.reason}"
        if row.hint:
            yield "", row.hint
        for command in row.commands:
            yield "next", command
    if len(open_rows) > SHOWN:
        yield (
            "...",
            f"and {len(open_rows) - SHOWN:,} more that need a decision or failed; report.json and --json have all",
        )
    yield "rows", f"{len(report.rows):,}: {', '.join(f'{n:,} {what}' for what, n in report.counts.items())}"
    resumed = sum(row.resumed for row in report.rows)
    if resumed:
        yield "before", f"{resumed:,} of them in an earlier run"
    if report.estimate:
        one = report.estimate
        yield "would take", f"about {duration(one.seconds)} for {one.rows:,} rows; {one.rates}"
        yield "would write", f"about {size(one.output_nbytes)}, after {size(one.download_nbytes)} of downloads"
        yield "output", "nothing was written"
        return
    yield "time", duration(report.seconds)


def _about_row(row: RowResult) -> str:
    """What else there is to say of a row that is right."""
    if row.reason:
        return f": {row.reason}"
    error = "" if row.worst_error is None else f", largest error {row.worst_error:.1e}"
    assumed = f", {len(row.assumed)} assumed" if row.assumed else ""
    return f": {row.head} ({row.family}){error}{assumed}{f', {row.pushed}' if row.pushed else ''}"


_PARTS: dict[str, Callable[[Any], Iterator[Part]]] = {
    "BatchReport": _batch,
    "Checked": _checked,
    "Difference": _difference,
    "Environment": _environment,
    "ExportReport": _export,
    "Inspection": _inspection,
    "ParityReport": _parity,
    "Pulled": _pulled,
    "Pushed": _pushed,
    "Repair": _repair,
    "Report": _report,
    "TrainedFolder": _trained,
}


def _first(label: str, texts: Sequence[str], *, more: Row) -> Iterator[Row]:
    """The first rows; `more` is the last one if there are others."""
    for text in texts[:SHOWN]:
        yield label, text
    if len(texts) > SHOWN:
        yield more


def _sizes(files: Iterable[FileRecord]) -> str:
    return ", ".join(f"{file.name} ({size(file.nbytes)})" for file in files)


def _commit(pushed: Pushed) -> Iterator[Row]:
    if pushed.created:
        yield "created", pushed.url
    if pushed.pull_request:
        yield "pull request", pushed.pull_request
    else:
        yield "commit", f"{pushed.url}/commit/{pushed.commit}" if pushed.commit else "none: nothing changed"


def _kept(names: Sequence[str]) -> Iterator[Row]:
    """What has no place in the model."""
    from ..formats.safetensors import EXTRA

    if names:
        listed = ", ".join(names)
        yield "kept", f"{len(names):,} in {EXTRA}, beside the model: {listed[:200]}{'...' if listed[200:] else ''}"


def _dropped(dropped: Iterable[Dropped]) -> Iterator[Row]:
    sizes_by_reason: dict[str, list[int]] = {}
    for tensor in dropped:
        sizes_by_reason.setdefault(tensor.reason, []).append(tensor.nbytes)
    for reason, sizes in sizes_by_reason.items():
        yield "dropped", f"{len(sizes):,} ({size(sum(sizes))}): {reason}"


def _decided(decisions: Iterable[Decision]) -> Iterator[Row]:
    for d in decisions:
        yield "decided", str(d)
