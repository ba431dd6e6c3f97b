"""What the docstrings of the public names say: arguments, shapes, what is returned, what is raised, an example.

Run as a program it prints the table: `python tests/helpers/docstrings.py`.

Looked at are the public names of `nezha` and `nezha_convert`, and of nezha's models `forward` and `generate`: the other
methods there are those that transformers asks of every model, and documents.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KINDS = ("arguments", "shapes", "returns", "raises", "example")
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example):$", re.MULTILINE)
NO_ARGUMENTS = ("self", "cls", "return")
Wanted = Iterator[tuple[str, str, bool]]
"""Kind, what of it, and whether it is there."""


def sections(doc: str | None) -> dict[str, str]:
    """The sections of a docstring, by title."""
    parts = SECTION.split(inspect.cleandoc(doc or ""))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section: str) -> dict[str, str]:
    """The names of a section, each with its text."""
    entries = re.findall(r"^    (\S[^:\n]*?): (.*(?:\n     .*|\n)*)", section, re.MULTILINE)
    return {name.strip(" *"): text for names, text in entries for name in names.split(",")}


def objects() -> Iterator[tuple[str, Any]]:
    """Every public name, and the methods that are looked at."""
    import nezha
    import nezha_convert

    for package in (nezha, nezha_convert):
        for name in package.__all__:
            if not name.startswith("__"):
                public = getattr(package, name)
                yield f"{package.__name__}.{name}", public
                for method in ("forward", "generate") if package is nezha else ():
                    if method in vars(public):
                        yield f"{package.__name__}.{name}.{method}", getattr(public, method)


def wanted(public: Any) -> Wanted:
    """What the docstring of `public` has to say."""
    said = sections(public.__doc__)
    names = documented(said.get("Args", "")) | documented(said.get("Attributes", ""))
    for name, annotation in arguments(public).items():
        yield "arguments", name, bool(names.get(name, "").strip())
        if re.search(r"\bTensor\b", annotation) and "int" not in annotation:  # a tensor or a number is a number
            yield "shapes", name, "[" in names.get(name, "")
    if not inspect.isclass(public):
        yield "returns", "", bool(said.get("Returns", "").strip())
        yield "raises", "", bool(documented(said.get("Raises", "")))
        for field in fields_of_output(public):
            lines = [line for line in said.get("Returns", "").split("\n    *") if f"`{field}`" in line]
            yield "shapes", field, any("[" in line for line in lines)
    yield "example", "", ">>> " in said.get("Example", "")


def arguments(public: Any) -> dict[str, str]:
    """The arguments of a call, with their annotations; of a dataclass its fields, of an exception its base's."""
    function: Callable[..., Any] = inspect.unwrap(public.__init__ if inspect.isclass(public) else public)
    written = function.__code__.co_filename == inspect.getfile(public) or not dataclasses.is_dataclass(public)
    if not written:  # by the decorator
        return {field.name: str(field.type) for field in dataclasses.fields(public)}
    found = inspect.signature(function).parameters.values()
    return {one.name: str(one.annotation) for one in found if one.name not in NO_ARGUMENTS}


def fields_of_output(public: Any) -> list[str]:
    """The fields with which a model's `forward` makes its output, but the loss, of which the text gives the formula."""
    made = re.findall(
        r"return (\w+Output\w*)\(\n(.*?)\n        \)", inspect.getsource(inspect.unwrap(public)), re.DOTALL
    )
    return [name for _, text in made for name in re.findall(r"^            (\w+)=", text, re.MULTILINE)
            if name != "past_key_values"]  # fmt: skip


def count() -> tuple[dict[str, list[int]], list[str]]:
    """By kind, how many are there and how many are wanted; and those that are missing."""
    table, missing = {kind: [0, 0] for kind in KINDS}, []
    for name, public in objects():
        for kind, what, there in wanted(public):
            table[kind][0] += there
            table[kind][1] += 1
            if not there:
                missing.append(f"{name}: {kind} {what}".strip())
    return table, missing


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2])]
    table, missing = count()
    for kind, (there, asked) in table.items():
        print(f"{kind:10} {there:4} of {asked:4}  {there / asked:.0%}")
    print(*missing, sep="\n")
    sys.exit(bool(missing))
