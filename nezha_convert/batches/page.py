"""The report of a batch as one HTML page. It needs no network, follows the theme, and contains its own JSON."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from ..files.staging import write_file
from ..parity.render.html import CSS
from ..text import duration, printable, printable_json
from .results import CONVERTED, DECISION, FAILED, FOREIGN, PLANNED, VERIFIED, BatchReport, RowResult

_COLORS = {VERIFIED: "good", CONVERTED: "good", DECISION: "note", FAILED: "bad", FOREIGN: "muted", PLANNED: "muted"}
_OWN = """
.rows td { vertical-align: middle; } .rows td:first-child { min-width: 2.5em; color: var(--muted); }
.state { white-space: nowrap; font-weight: 600; } .state.good { color: var(--good); } .state.bad { color: var(--bad); }
.state.note { color: var(--note); } .state.muted { color: var(--muted); }
.state.good::before { content: "\\2713\\a0"; } .state.bad::before { content: "\\2717\\a0"; }
.state.note::before { content: "?\\a0"; } .state.bad, .state.note { border: 0; }
pre { margin: 6px 0 0; padding: 8px 10px; background: var(--band); border-radius: 6px; overflow-x: auto;
  font: .85rem/1.45 ui-monospace, SFMono-Regular, Menlo, monospace; }
article { padding: 12px 0; border-top: 1px solid var(--line); } article:first-of-type { border: 0; padding-top: 0; }
article h3 { margin: 0 0 4px; font-size: 1rem; overflow-wrap: anywhere; } article p { overflow-wrap: anywhere; }
@media (max-width: 600px) {
  .rows thead { display: none; } .rows tr { display: block; padding: 8px 0; border-bottom: 1px solid var(--line); }
  .rows td { display: inline-block; border: 0; padding: 0 10px 0 0; } .rows td:nth-child(2) { display: block; }
}
"""


def write_page(report: BatchReport, path: Path) -> None:
    """Write the page to the file `path`.

    Raises:
        OutputError: the file cannot be written.
    """
    write_file(path, page(report).encode())


def page(report: BatchReport) -> str:
    """The HTML of the page."""
    outcome = "passed" if report.right else "failed"
    badge = "all right" if report.right else f"{len(report.open):,} to look at"
    title = f"{escape(report.manifest)}: {badge}"
    data = printable_json(report.to_dict()).replace("<", "\\u003c")  # no text may end the script
    facts = {name: f"{count:,}" for name, count in report.counts.items()}
    facts |= {"rows": f"{len(report.rows):,}", "on the clock": duration(report.seconds)}
    facts["written"] = f"{sum(row.output_nbytes for row in report.rows) / 1e6:,.1f} MB"
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">',
        f"<style>{CSS}{_OWN}</style></head><body><main class={outcome}>",
        f'<header><h1>{escape(report.manifest)} <span class="badge">{badge}</span></h1>',
        f'<p class="muted">A batch of nezha-convert {escape(report.version)} into {escape(report.output)}, on '
        f"{escape(report.where)}.</p></header>",
        '<div class="facts">',
        *(f'<div class="fact"><b>{value}</b><span>{escape(label)}</span></div>' for label, value in facts.items()),
        "</div>",
        _open("Needs a decision", (row for row in report.rows if row.outcome == DECISION), "note"),
        _open("Failed", (row for row in report.rows if row.outcome == FAILED), "bad"),
        f"<section><h2>Rows</h2>{_table(report.rows)}</section>",
        f'</main><script type="application/json" id="report">{data}</script></body></html>\n',
    ]
    return printable("".join(parts), keep="\n\t")


def _open(title: str, rows: Iterable[RowResult], kind: str) -> str:
    """The rows of which somebody has to do something, each with its commands."""
    articles = "".join(
        f"<article><h3>{row.number}. {escape(row.source)}</h3><p>{escape(row.reason)}</p>"
        f'<p class="muted">{escape(row.hint)}</p>{_commands(row)}</article>'
        for row in rows
    )
    return f'<section class="{kind}"><h2>{title}</h2>{articles}</section>' if articles else ""


def _commands(row: RowResult) -> str:
    return f"<pre>{escape(chr(10).join(row.commands))}</pre>" if row.commands else ""


def _table(rows: Iterable[RowResult]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("", "source", "outcome", "model", "largest error", "seconds"))
    body = "".join(
        f"<tr><td>{row.number}</td><td>{escape(row.source)}</td>"
        f'<td><span class="state {_COLORS[row.outcome]}">{row.outcome}</span></td>'
        f"<td>{escape(' '.join(filter(None, (row.head, row.family and f'({row.family})'))) or row.reason)}</td>"
        f"<td>{'' if row.worst_error is None else f'{row.worst_error:.1e}'}</td>"
        f"<td>{f'{sum(row.seconds.values()):.1f}' if row.seconds else ''}</td></tr>"
        for row in rows
    )
    return f'<div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
