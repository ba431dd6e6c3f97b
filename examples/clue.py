"""CLUE's data sets: rows that are no columns yet become columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datafiles
from datafiles import Row

BLANK = re.compile("#idiom[0-9]+#")


def csl(fields: dict[str, Any]) -> dict[str, Any]:
    """CSL: an abstract, and keywords that may all be its own."""
    return {**fields, "text": fields["abst"], "pair": "；".join(fields["keyword"])}


def wsc(fields: dict[str, Any]) -> dict[str, Any]:
    """CLUEWSC: a text in which the noun is marked as _noun_ and the pronoun as [pronoun]."""
    text, target = fields["text"], fields["target"]
    spans = [(target[f"span{n}_index"], target[f"span{n}_text"], marks) for n, marks in ((1, "__"), (2, "[]"))]
    for start, words, marks in sorted(spans, reverse=True):
        text = text[:start] + marks[0] + words + marks[1] + text[start + len(words) :]
    return {**fields, "text": text}


def cluener(fields: dict[str, Any]) -> dict[str, Any]:
    """CLUENER: a text with {type: {entity: [[first, last]]}} becomes characters and BIO tags."""
    if "tokens" in fields:
        return fields
    tags = ["O"] * len(fields["text"])
    for kind, entities in fields.get("label", {}).items():
        for first, last in (span for spans in entities.values() for span in spans):
            tags[first : last + 1] = [f"B-{kind}", *[f"I-{kind}"] * (last - first)]
    return {**fields, "tokens": list(fields["text"]), "ner_tags": tags}


SHAPES: dict[str, tuple[set[str], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "csl": ({"abst", "keyword"}, csl),
    "wsc": ({"target", "text"}, wsc),
    "cluener": ({"text"}, cluener),
}
"""For a data set by its columns, what makes the columns that the scripts read."""


def columns(row: Row, *shapes: str) -> Row:
    """A row with the columns of the first of the `shapes` that fits it, or as it is.

    Raises:
        UsageError: it has the columns, and not what belongs into them.
    """
    for needed, make in (SHAPES[shape] for shape in shapes):
        if isinstance(row.fields, dict) and needed <= set(row.fields):
            try:
                return Row(row.where, make(row.fields))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                expected = f"the form of CLUE's {make.__name__}"
                raise datafiles.wrong(row.where, expected, f"{error!r}", f"{make.__doc__}") from error
    return row


def chid(item: Row, path: Path) -> Iterator[Row]:
    """ChID: each blank of a passage is a question, whose choices are the candidates; answers are in a file beside it.

    The text is cut around the blank, so that a long passage does not lose it. Other blanks stay empty.
    """
    answers_file = path.with_name(f"{path.stem}_answer.json")
    answers = datafiles.whole_json(answers_file) if answers_file.is_file() else {}
    for passage in item.fields["content"]:
        for blank in BLANK.finditer(passage):
            before, after = (BLANK.sub("", part) for part in (passage[: blank.start()], passage[blank.end() :]))
            columns = {"id": blank[0], "context": f"{before[-100:]}[MASK]{after[:100]}", "question": ""}
            columns |= {"choices": item.fields["candidates"]}
            yield Row(f"{item.where}, {blank[0]}", columns | ({"answer": answers[blank[0]]} if answers else {}))
