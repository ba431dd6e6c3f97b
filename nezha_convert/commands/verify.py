"""`verify`: run a converted model and independent computations of its source on the same inputs, and compare."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from ..files.given import path_of, texts_of
from ..files.progress import Progress
from ..folder.record import ConvertedFolder
from ..parity.assumed import check_accepted, list_assumptions
from ..parity.beside import compare_extras
from ..parity.compare import compare_model
from ..parity.converted import LoadedModel, load_tokenizer, need_torch
from ..parity.inputs import built_in_cases, check_memory, grouped, list_texts, text_cases
from ..parity.measure import check_dtype
from ..parity.report import ParityReport
from ..parity.source import read_source
from ..parity.tokenizer import compare_tokenizers
from ..parity.verdict import folder_warnings, list_failures, wrong_labels


def verify(
    source: str | Path,
    output: str | Path,
    *,
    config: str | Path | None = None,
    vocab: str | Path | None = None,
    labels: str | Path | Sequence[str] | None = None,
    texts: str | Path | Sequence[str] | None = None,
    original: str | None = None,
    tolerance: float | None = None,
    assume: Sequence[str] = (),
    record: bool = True,
    progress: Progress | None = None,
) -> ParityReport:
    """Compare the converted folder `output` with its `source`, tensor by tensor.

    Args:
        source: what `output` was converted from: a folder, a TensorFlow prefix, any file of a checkpoint, hf://owner/name.
        output: the converted folder.
        config, vocab, labels: the files that were given to the conversion, if they are not beside the source; or the
            list of labels. A published model's name stands in the record.
        texts: a file with one text a line, or the texts, compared besides the built-in inputs; a tab separates a pair.
        original: run the original program too: a clone of Huawei's repository, or "transformers==4.40.2".
        tolerance: the largest error allowed as a part of each tensor's range, instead of the element type's own.
        assume: names of assumptions to accept; the report does not show them to a person, but keeps them.
        record: write the outcome into the output's conversion.json. Nothing else in the folder changes.
        progress: called with (steps done, steps in all, what is being done), before and after every step.

    Returns:
        What was compared, how far apart it is, and the verdict.

    Raises:
        UsageError: torch or transformers is not installed, the texts or the original cannot be used, a name of
            `assume` is of nothing that is assumed, or the machine has too little memory.
        CheckpointError: the source cannot be read.
        MappingError: `output` is not a conversion of `source`, or its model cannot be loaded.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.verify("NEZHA-Base/", "nezha-base/")
        >>> assert report.passed, report.verdict
    """
    begun = time.monotonic()
    _check_tolerance(tolerance)
    need_torch("verify runs the converted model, which")
    folder = _folder(path_of(output), record)
    lines = list_texts(texts, folder, source)
    opened = read_source(source, folder, config, vocab, labels)
    assumed = list_assumptions(folder, opened)
    check_accepted(accepted := texts_of(assume), assumed)
    check_dtype(folder)
    files = folder.files()
    changed = [(file, written) for file, written in files if file.sha256 != written]
    tokenizer = load_tokenizer(folder.path) if folder.has_tokenizer else None
    tokens = compare_tokenizers(folder, tokenizer, opened, lines, original)
    built_in = built_in_cases(folder.config, opened.clip, folder.head)
    cases = built_in | text_cases(lines, tokenizer, folder.head)
    check_memory(cases, folder.config)
    model = LoadedModel(folder.path, folder.architecture, folder.head)
    groups = grouped(cases, len(built_in))
    compared = compare_model(
        model, opened, groups, folder.dtype, original=original, tolerance=tolerance, progress=progress
    )
    weights = model.statistics()
    report = ParityReport.of(
        folder,
        cases=cases,
        comparisons=compared.comparisons,
        tokenizer=tokens.parity,
        changed=tuple(file.name for file, _ in changed),
        failures=list_failures(
            changed,
            (tokens.casing, wrong_labels(folder, opened.labels), *compare_extras(folder, opened.checkpoint)),
            compared.comparisons,
            tokens.parity,
            weights,
        ),
        warnings=(*folder_warnings(folder), *tokens.warnings, *compared.warnings),
        assumed=assumed,
        accepted=accepted,
        weights=weights,
        verified=tuple(file for file, _ in files if file.name.endswith(".safetensors")),
        seconds=time.monotonic() - begun,
        read=opened.checkpoint.path.name,
    )
    if record:
        folder.keep(report.summary())
    return report


def _folder(path: Path, record: bool) -> ConvertedFolder:
    """The converted folder at `path`, which can keep the outcome if it is to."""
    folder = ConvertedFolder(path)
    if record:
        folder.check_keep()
    return folder


def _check_tolerance(tolerance: float | None) -> None:
    """Raises UsageError unless it is a number over 0, or None."""
    if tolerance is not None and not (isinstance(tolerance, (int, float)) and tolerance > 0):
        raise UsageError(f"--tolerance {tolerance!r}: expected a number over 0")
