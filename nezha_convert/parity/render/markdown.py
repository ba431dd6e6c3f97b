"""A verification as Markdown, for the summary of a CI job or the text of a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...files.given import path_of
from ...files.staging import write_file
from ...text import printable
from ..report import ParityReport
from ..results import Comparison, TensorParity

_SYNTAX = re.compile(r"[\\`*\[\]<>&|#~!:@${}^]|(?<=www)\.")
"""What Markdown or HTML could read as more than text: marks, links, tags, mentions, formulas."""

_HEADINGS = ("tensor", "largest error", "of its range", "cosine distance", "same argmax", "peak", "found", "expected")


def write_markdown(report: ParityReport, path: str | Path) -> None:
    """Write `report` as Markdown, with a table of every tensor, as ``verify --markdown`` does.

    Args:
        report: what `verify` returned.
        path: the file to write; it is replaced whole.

    Returns:
        Nothing.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.verify("NEZHA-Base/", "nezha-base/")
        >>> nezha_convert.write_markdown(report, "parity.md")
    """
    write_file(path_of(path), "\n".join(_lines(report)).encode() + b"\n")


def _lines(report: ParityReport) -> Iterator[str]:
    yield f"## {text(report.output)}: parity {'passed' if report.passed else 'FAILED'}"
    yield ""
    yield f"{report.architecture} in {report.dtype}, converted from {text(report.source)} ({text(report.family)})."
    yield from _listed("What failed", report.failures)
    yield from _listed("To know", report.warnings)
    yield from _listed("Assumed", map(str, report.open_assumptions))
    for comparison in report.comparisons:
        yield from _table(comparison)
    if report.tokenizer:
        yield ""
        yield f"Tokenizer: {report.tokenizer.texts} texts, {len(report.tokenizer.differing)} differ."


def _listed(title: str, messages: Iterable[str]) -> Iterator[str]:
    items = [f"- {text(message)}" for message in messages]
    if items:
        yield from ("", f"**{title}**", "", *items)


def _table(comparison: Comparison) -> Iterator[str]:
    yield ""
    yield (
        f"In {comparison.arithmetic}, against {text(comparison.reference)}; allowed is {comparison.tolerance:g} of a "
        "tensor's range:"
    )
    yield ""
    yield _row(_HEADINGS)
    yield _row(("---", *("---:",) * 4, "---", *("---:",) * 2))
    for tensor in comparison.tensors:
        cells = _cells(tensor)
        yield _row(cells if tensor.passed else [f"**{cell}**" for cell in cells])


def _cells(tensor: TensorParity) -> list[str]:
    return [
        text(tensor.name),
        *(f"{number:.2e}" for number in (tensor.max_error, tensor.relative_error, tensor.cosine_distance)),
        f"{tensor.argmax_agreement:.2%}",
        text(str(tensor.peak)),
        *(f"{number:.6g}" for number in (tensor.peak.found, tensor.peak.expected)),
    ]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def text(words: str) -> str:
    """`words` as Markdown that shows them as they are, in a line or in a cell."""
    return _SYNTAX.sub(lambda found: f"&#{ord(found[0])};", printable(words))
