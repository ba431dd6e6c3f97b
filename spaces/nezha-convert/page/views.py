"""Results as HTML. Each text of a checkpoint, an error or the Hub passes `_text`, which leaves no markup."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .questions import SOURCE, Way, arguments
from .words import WORDS, say

LONGEST = 600
"""The most characters of one text of a stranger's; the rest is in conversion.json."""

MANY = 20
"""The most rows of one kind."""

Row = tuple[str, str]
"""A label, a key of the words; and a cell, which is HTML."""

_OWN = r"/(?:given/?|out/|hub/hub/\S*?snapshots/[^/\s]+/?|tmp/[^/\s]+/(?:files/)?)?"
"""What is left out of a path besides the visitor's folder itself."""


class View:
    """Shows results in one language to one visitor.

    Args:
        language: "en" or "zh".
        folder: the visitor's private folder, whose path is left out of what is shown.
    """

    def __init__(self, language: str, folder: Path | None = None) -> None:
        self.language, self._folder = language, folder

    def say(self, key: str, **values: object) -> str:
        """The page's own words, as HTML."""
        return escape(say(self.language, key, **values))

    def note(self, key: str, kind: str = "note", **values: object) -> str:
        """A line of the page's own words in a box; `kind` is "note", "good" or "bad"."""
        return f'<div class="nc-box nc-{kind}" role="status">{self.say(key, **values)}</div>'

    def progress(self, done: int, total: int, what: str, nbytes: int = 0) -> str:
        """How far a job has come."""
        stage, _, detail = what.partition(" ")
        name = self.say(stage if stage in WORDS else "working")
        facts = [f"{done / total:.0%}" if total else "", self._text(detail, 80)]
        facts += [self.say("on_disk", size=size(nbytes))] if nbytes and not total else []
        width, kind = (f"{min(done / total, 1):.1%}", "") if total else ("100%", " nc-unknown")
        return (
            f'<div class="nc-box nc-progress" role="status"><b>{name}</b> {" · ".join(filter(None, facts))}'
            f'<div class="nc-bar{kind}"><i style="width:{width}"></i></div></div>'
        )

    def files(self, paths: Sequence[Path]) -> str:
        """What was uploaded."""
        sizes = {path.name: path.stat().st_size for path in paths}
        listed = "".join(f"<li>{self._text(name)} <small>{size(nbytes)}</small></li>" for name, nbytes in sizes.items())
        head = self.say("uploaded", size=size(sum(sizes.values())))
        return f'<div class="nc-box">{head}<ul>{listed}</ul></div>' if sizes else ""

    def found(self, found: Mapping[str, Any]) -> str:
        """What the source is, what was decided and what is assumed; or the refusal."""
        inspection, plan, refusal = found["inspection"], found["plan"], found["refusal"]
        parts = [f"<h3>{self._text(re.sub(r'(?<=@[0-9a-f]{10})[0-9a-f]{30}$', '', found['name']))}</h3>"]
        if inspection:
            parts.append(self._facts(inspection, plan))
        if refusal:
            parts.append(self.refusal(refusal))
        elif plan:
            parts += [self._assumed(plan["assumptions"]), self._decided(plan["decisions"])]
        if reasons := self.say("english_reasons"):
            parts.append(f'<p class="nc-small">{reasons}</p>')
        return "".join(parts)

    def refusal(self, refusal: Mapping[str, Any]) -> str:
        """An error of the public API, as `to_dict` has it: what it is, and what helps."""
        kind, title = ("note", "question") if refusal["ways"] else ("bad", "refused")
        problems = self._list(refusal["problems"])
        hint = self._text(refusal["hint"]) if refusal["hint"] and not refusal["ways"] else ""
        helps = f"<p><b>{self.say('next')}</b>: {hint}</p>" if hint else ""
        message = self._text(refusal["message"], 2000)
        return f'<div class="nc-box nc-{kind}"><b>{self.say(title)}</b><p>{message}</p>{problems}{helps}</div>'

    def answers(self, ways: Iterable[Way]) -> list[tuple[str, str]]:
        """The choices of a question, as a radio button takes them: what is shown, and its number."""
        return [(self._answer(way), str(number)) for number, way in enumerate(ways)]

    def outcome(self, made: Mapping[str, Any]) -> str:
        """The verdict of a verification and what was written."""
        parity, report = made["parity"], made["report"]
        kind, title = ("good", "passed") if parity["passed"] else ("bad", "failed")
        verdict = self._text(parity["verdict"], 2000)
        rows = [("problem", self._text(one)) for one in parity["failures"][:MANY]]
        rows += [("warning", self._text(one)) for one in parity["warnings"][:MANY]]
        rows += [("believed", self._text(one)) for one in parity["assumed"][:MANY]]
        auto, name = made["loaded_by"], Path(made["folder"]).name
        code = f"from transformers import {auto}\n\nmodel = {auto}.from_pretrained({name!r}, trust_remote_code=True)"
        files = [f"{file['name']} ({size(file['nbytes'])})" for file in report["output_files"]]
        return (
            f'<div class="nc-box nc-{kind}"><b>{self.say(title)}</b><p>{verdict}</p></div>{self._table(rows)}'
            f'<p class="nc-label">{self.say("load")}</p><pre class="nc-code">{self._text(code)}</pre>'
            f"{self._folded(self.say('files') + f' ({len(files)})', self._list(files))}"
        )

    def parity(self, page: str) -> str:
        """The parity page in a frame without scripts, forms or an origin."""
        return f'<iframe class="nc-parity" sandbox="" title="{self.say("parity")}" srcdoc="{escape(page)}"></iframe>'

    def proposed(self, pushed: Mapping[str, Any]) -> str:
        """Where the pull request is."""
        if not pushed["pull_request"]:
            return self.note("nothing_new")
        url = self._text(pushed["pull_request"], 2000)
        if re.match(r"https?://", pushed["pull_request"]):  # a server could send a link that is a script
            url = f'<a href="{url}" target="_blank" rel="noopener noreferrer">{url}</a>'
        return f'<div class="nc-box nc-good"><b>{self.say("proposed")}</b> {url}</div>'

    def _facts(self, inspection: Mapping[str, Any], plan: Mapping[str, Any] | None) -> str:
        heads, reason = inspection["heads"], inspection["reason"]
        if plan:
            heads, reason = [plan["head"]], plan["head_reason"]
        rows = [
            ("family", self._text(inspection["title"])),
            ("format", self._text(inspection["format"])),
            ("head", f"<b>{self._text(' / '.join(heads) or '?')}</b> {self._text(reason and f'({reason})')}"),
        ]
        model = inspection["model"]
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "max_relative_position")
        if model:
            known = [f"{name} {model[name]}" for name in (*names, "hidden_act") if name in model]
            rows.append(("sizes", self._text(", ".join(known))))
        dropped, kept = (plan or inspection)["dropped"], (plan or inspection)["kept"]
        used = len(plan["written"]) if plan else inspection["tensors"] - len(dropped) - len(kept)
        counts = {"used": used, "dropped": len(dropped), "kept": len(kept), "all": inspection["tensors"]}
        if model:
            rows.append(("tensors", self.say("tensors_said", size=size(inspection["nbytes"]), **counts)))
        else:
            rows.append(("tensors", f"{inspection['tensors']}, {size(inspection['nbytes'])}"))
        reasons = Counter(tensor["reason"] for tensor in dropped)
        rows += [("dropped", f"{count}: {self._text(why)}") for why, count in reasons.most_common(MANY)]
        rows += [("kept", self._text(", ".join(one.get("target") or one["name"] for one in kept)))] if kept else []
        return self._table(rows)

    def _assumed(self, assumptions: Sequence[Mapping[str, Any]]) -> str:
        if not assumptions:
            return self.note("nothing_assumed", "good")
        listed = self._list(f"{one['name']}: {one['text']}" for one in assumptions)
        return f'<div class="nc-box nc-note"><b>{self.say("assumed")}</b>{listed}</div>'

    def _decided(self, decisions: Sequence[Mapping[str, Any]]) -> str:
        head = "".join(f"<th>{self.say(key)}</th>" for key in ("field", "value", "why", "origin"))
        body = "".join(
            f"<tr><td>{self._text(one['field'])}</td>"
            f"<td>{self._text('–' if one['value'] is None else one['value'])}</td>"
            f"<td>{self._text(one['reason'])}</td><td>{self.say('origin.' + one['origin'])}</td></tr>"
            for one in decisions
        )
        table = f'<div class="nc-scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        return self._folded(f"{self.say('decided')} ({len(decisions)})", table, opened=True)

    def _answer(self, way: Way) -> str:
        """A way in words. A radio button shows it as text, not as HTML."""
        ((name, value),) = arguments([way]).items()
        given = value[0].partition("=")[0] if name == "rename" else str(value)
        given = self._inside(given) if name in (SOURCE, "config") else given
        if f"head.{given}" in WORDS and name == "head":
            return f"{given}: {say(self.language, f'head.{given}')}"
        return say(self.language, f"answer.{name}", value=given) if f"answer.{name}" in WORDS else " ".join(way)

    def _inside(self, text: str) -> str:
        """`text` without the paths of the visitor's folder."""
        return re.sub(re.escape(str(self._folder)) + _OWN, "", text) if self._folder else text

    def _text(self, text: object, longest: int = LONGEST) -> str:
        """A stranger's text as HTML."""
        plain = self._inside(str(text))
        return escape(plain if len(plain) <= longest else f"{plain[:longest]} …")

    def _list(self, texts: Iterable[str]) -> str:
        shown = [*texts]
        more = f"<li>… + {len(shown) - MANY}</li>" if len(shown) > MANY else ""
        return "<ul>" + "".join(f"<li>{self._text(one)}</li>" for one in shown[:MANY]) + more + "</ul>" if shown else ""

    def _table(self, rows: Iterable[Row]) -> str:
        body = "".join(f"<tr><th>{self.say(label)}</th><td>{cell}</td></tr>" for label, cell in rows)
        return f'<table class="nc-facts"><tbody>{body}</tbody></table>' if body else ""

    @staticmethod
    def _folded(title: str, content: str, opened: bool = False) -> str:
        return f"<details{' open' if opened else ''}><summary>{title}</summary>{content}</details>"


def size(nbytes: float) -> str:
    """Bytes for a person, in powers of 1000.

    Example:
        >>> size(999), size(1_234_000), size(2_000_000_000)
        ('999 bytes', '1.23 MB', '2 GB')
    """
    if nbytes < 1000:
        return f"{nbytes:.0f} bytes"
    power = min(int(math.log10(nbytes)) // 3, 3)
    return f"{nbytes / 1000**power:.3g} {('', 'kB', 'MB', 'GB')[power]}"
