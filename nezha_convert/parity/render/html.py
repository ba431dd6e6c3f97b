"""A verification as one HTML page. It needs no network, follows the reader's theme, and contains its own JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from importlib.util import find_spec
from pathlib import Path

from ...errors import UsageError, pip_install
from ...files.given import path_of
from ...files.staging import write_file
from ...text import printable, printable_json
from ..charts import DARK, LIGHT, error_chart, histogram_chart, weights_chart
from ..report import ParityReport
from ..results import Comparison, shortened

CSS = f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
"""
CSS += """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 var(--letters); }
main { max-width: 1120px; margin: 0 auto; padding: 28px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 12px; }
header { margin-bottom: 20px; } p { margin: 0 0 10px; } p:last-child { margin-bottom: 0; }
.muted { color: var(--muted); }
.badge { display: inline-block; padding: 2px 12px; border-radius: 99px; font-weight: 650; color: var(--card);
  background: var(--good); vertical-align: middle; }
.failed .badge { background: var(--bad); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0; }
.fact, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.fact { padding: 12px 14px; } .fact b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.fact span { color: var(--muted); font-size: .85rem; }
section { padding: 16px; margin-bottom: 16px; min-width: 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 16px;
  align-items: start; margin-bottom: 16px; }
.pictures section { margin: 0; } .stack { display: grid; gap: 16px; min-width: 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
.bad { border-left: 4px solid var(--bad); } .note { border-left: 4px solid var(--note); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 500; white-space: nowrap; }
.numbers td, .numbers th { white-space: nowrap; font-variant-numeric: tabular-nums; }
.numbers td:first-child { position: sticky; left: 0; background: var(--card); }
tr:last-child td { border-bottom: 0; } tr.bad { border: 0; } tr.bad td { color: var(--bad); font-weight: 600; }
table:not(.numbers) td { overflow-wrap: anywhere; } td:first-child { min-width: 5.5em; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, monospace; overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 20px; } li { overflow-wrap: anywhere; margin-bottom: 4px; }
"""

_HEADINGS = ("tensor", "largest error", "of its range", "cosine distance", "same argmax", "peak", "found", "expected")


def check_html() -> None:
    """Raises UsageError if matplotlib is not installed. Call it before anything is computed."""
    if find_spec("matplotlib") is None:
        raise UsageError(
            "--html draws with matplotlib, which is not installed", hint=pip_install("'nezha-convert[html]'")
        )


def write_html(report: ParityReport, path: str | Path) -> None:
    """Write `report` as one web page, which needs no network and runs no script, as ``verify --html`` does.

    Args:
        report: what `verify` returned.
        path: the file to write; it is replaced whole.

    Returns:
        Nothing.

    Raises:
        UsageError: matplotlib is not installed.
        OutputError: the file cannot be written.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.verify("NEZHA-Base/", "nezha-base/")
        >>> nezha_convert.write_html(report, "parity.html")
    """
    check_html()
    write_file(path_of(path), page(report).encode())


def page(report: ParityReport) -> str:
    """The HTML of the page."""
    shown = next((comparison for comparison in report.comparisons if comparison.first_departs), report.comparisons[0])
    facts = {
        "largest error, of the tensor's range": number(shown.worst.relative_error),
        "allowed": f"{shown.tolerance:g}",
        "tensors compared": str(sum(len(comparison.tensors) for comparison in report.comparisons)),
        "values compared": f"{sum(t.values for c in report.comparisons for t in c.tensors):,}",
        "inputs": str(len(report.cases)),
        "texts tokenized": str(report.tokenizer.texts) if report.tokenizer else "no tokenizer",
    }
    outcome = "passed" if report.passed else "failed"
    title = f"{escape(report.output)}: parity {outcome}"
    data = printable_json(report.to_dict()).replace("<", "\\u003c")  # no text may end the script
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">',
        f"<style>{CSS}</style></head><body><main class={outcome}>",
        f'<header><h1>{escape(report.output)} <span class="badge">{outcome}</span></h1>',
        f'<p class="muted">{escape(report.architecture)} in {report.dtype}, converted from {escape(report.source)} '
        f"({escape(report.family)}), compared with {_listed(c.reference for c in report.comparisons)}.</p></header>",
        _messages("What failed", report.failures, "bad"),
        _messages("To know", report.warnings, "note"),
        _messages("Assumed", map(str, report.open_assumptions), "note"),
        '<div class="facts">',
        *(f'<div class="fact"><b>{value}</b><span>{label}</span></div>' for label, value in facts.items()),
        '</div><div class="pictures">',
        _section("Error, tensor by tensor", error_chart(report.comparisons)),
        _section("Weights, part by part", weights_chart(report.weights)),
        _section("Errors of all values", histogram_chart(report.comparisons)),
        f'<div class="stack">{_section("What was compared", _provenance(report))}{_tokenizer(report)}</div></div>',
        *map(_comparison, report.comparisons),
        _section("What the conversion decided", _rows(("field", "value", "why"), map(_decision, report.decisions))),
        _section("What it left out", _dropped(report)),
        f'</main><script type="application/json" id="report">{data}</script></body></html>\n',
    ]
    return printable("".join(parts), keep="\n\t")


def number(value: float) -> str:
    """An error in the format of the page."""
    return f"{value:.2e}"


def _comparison(comparison: Comparison) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    body = "".join(
        f"<tr{'' if tensor.passed else ' class=bad'}><td>{tensor.name}</td><td>{number(tensor.max_error)}</td>"
        f"<td>{number(tensor.relative_error)}</td><td>{number(tensor.cosine_distance)}</td>"
        f"<td>{tensor.argmax_agreement:.2%}</td><td>{escape(str(tensor.peak))}</td>"
        f"<td>{tensor.peak.found:.6g}</td><td>{tensor.peak.expected:.6g}</td></tr>"
        for tensor in comparison.tensors
    )
    table = (
        f'<p class="muted">Allowed: {comparison.tolerance:g} of a tensor\'s range. {escape(comparison.reason)}.</p>'
        f'<div class="scroll"><table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
    return _section(f"In {comparison.arithmetic}, against {escape(comparison.reference)}", table)


def _tokenizer(report: ParityReport) -> str:
    tokenizer = report.tokenizer
    if tokenizer is None:
        return ""
    casing = "lower-casing" if tokenizer.lower_case else "cased"
    text = f"<p>{tokenizer.texts} texts, {casing}, against {escape(tokenizer.reference)}: "
    text += f"{len(tokenizer.differing) or 'none'} {'differs' if len(tokenizer.differing) < 2 else 'differ'}.</p>"
    rows = (
        (escape(shortened(d.text)), str(d.at), escape(" ".join(d.found)), escape(" ".join(d.expected)))
        for d in tokenizer.differing
    )
    return _section("Tokenizer", text + _rows(("text", "token", "found", "expected"), rows))


def _decision(decision: Mapping[str, object]) -> tuple[str, str, str]:
    value = json.dumps(decision["value"], ensure_ascii=False)
    return f"<code>{escape(str(decision['field']))}</code>", escape(value), escape(str(decision["reason"]))


def _dropped(report: ParityReport) -> str:
    groups: dict[str, list[Mapping[str, object]]] = {}
    for tensor in report.dropped:
        groups.setdefault(str(tensor["reason"]), []).append(tensor)
    if not groups:
        return "<p>Nothing: every tensor of the source is used.</p>"
    rows = (
        (
            escape(reason),
            f"{len(tensors):,}",
            f"{sum(int(str(tensor['nbytes'])) for tensor in tensors) / 1e6:,.1f} MB",
            f"<code>{escape(str(tensors[0]['name']))}</code>{' ...' if len(tensors) > 1 else ''}",
        )
        for reason, tensors in groups.items()
    )
    return _rows(("why", "tensors", "size", "such as"), rows)


def _provenance(report: ParityReport) -> str:
    cases = ", ".join(f"{escape(case.name)}&nbsp;{list(case.shape)}" for case in report.cases)
    rows = [("inputs", cases)]
    rows += [("weights", f"{escape(file.name)}, SHA-256 <code>{file.sha256}</code>") for file in report.verified]
    rows += [("versions", ", ".join(f"{escape(name)}&nbsp;{escape(at)}" for name, at in report.versions.items()))]
    return _rows((), rows)


def _messages(title: str, messages: Iterable[str], kind: str) -> str:
    items = "".join(f"<li>{escape(message)}</li>" for message in messages)
    return f'<section class="{kind}"><h2>{title}</h2><ul>{items}</ul></section>' if items else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _rows(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table. Its cells are HTML already."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head and f"<thead><tr>{head}</tr></thead>"}<tbody>{body}</tbody></table></div>'


def _listed(names: Iterable[str]) -> str:
    return escape(", and ".join(names))
