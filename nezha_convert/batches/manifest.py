"""Manifests: a file of rows (CSV or JSON Lines), a folder of folders, or a search on the Hub. All become rows."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import NezhaConvertError, UsageError
from ..files.given import in_utf8, path_of
from ..hub import SCHEME, Address, Hub, is_address
from .columns import known_columns, read_value
from .row import Row, check_apart, derived_names, is_remote, joined, placed

TABLES, LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")
"""How manifests' names end."""

LARGEST = 256 << 20
"""Bytes of a manifest: a million rows. A larger file is no manifest, but a checkpoint of that name."""

_NO_WEIGHTS = {
    *(".json", ".jsonl", ".txt", ".md", ".py", ".pyc", ".pbtxt", ".log", ".csv", ".tsv", ".html", ".xml", ".yml"),
    *(".yaml", ".png", ".svg", ".jpg", ".ipynb", ".sh", ".lock", ".npz"),
}
"""How the names of files end that are no weights. A folder of these alone is no row."""

_NEZHA_TYPES = ("nezha", "bert")
"""What a config's model_type says of a NEZHA: old copies say "bert"."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A row of a manifest as it stands there: its place, and the values by column."""

    place: str
    values: Mapping[str, Any]
    known: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says.

    Attributes:
        name: what it is called.
        rows: its rows.
        skipped: folders that are no row, since no weights are in them.
    """

    name: str
    rows: tuple[Row, ...]
    skipped: tuple[str, ...] = ()


def read_manifest(
    given: str | None,
    output: str,
    *,
    family: str | None = None,
    limit: int | None = None,
    defaults: Mapping[str, Any] | None = None,
    push: str | None = None,
    hub: Hub | None = None,
) -> Manifest:
    """The rows of the manifest `given`.

    Args:
        given: a .csv or .jsonl file, a folder of folders, hf://OWNER/* or hf://OWNER/PREFIX*; None with `family`.
        output: the folder, or the address of one, in which rows have their outputs.
        family: look for this tag on the Hub instead.
        limit: the most models of a search.
        defaults: values of the columns that a row leaves empty.
        push: the owner to push to, or OWNER/{name}, of rows that do not say; {name} is that of the row's output.
        hub: who searches.

    Raises:
        UsageError: it cannot be read, or says what no column can; `problems` names each row and column.
        HubError: the search failed.
    """
    given, family = given or None, family or None  # an empty text, as of a variable that is not set, is neither
    if (given is None) == (family is None):
        raise UsageError(
            "expected a manifest or --family, and not both",
            hint="nezha-convert batch models.csv --output converted; or, of the Hub: "
            "nezha-convert batch --family nezha --output converted",
        )
    base, skipped = Path(), list[str]()
    searching = family is not None or (given or "").startswith(SCHEME)
    if limit is not None and not searching:
        raise UsageError(f"--limit {limit}: of a search on the Hub, and {given} is none", hint="Leave it out.")
    if searching:
        name = given or f"family {family}"
        cells = list(_searched(given, family, limit, hub or Hub()))
    else:
        path = path_of(str(given))
        name = str(given)
        if path.is_dir():
            cells, skipped = _folders(path, output)
        else:
            base, cells = path.parent, _file(path)
    if not cells:
        raise UsageError(f"{name}: no row in it{_nothing(skipped)}", hint="A row is a checkpoint: name one at least.")
    asked = _Asked(output, base, _defaults(defaults or {}), _template(push))
    return Manifest(name, _rows(name, cells, asked), tuple(skipped))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What holds for all rows: where outputs go, what paths are relative to, values by column, and where to push."""

    output: str
    base: Path
    defaults: Mapping[str, Any]
    push: str


def _template(push: str | None) -> str:
    """The repository of a row, with {name} in it; empty where nothing is pushed."""
    if push is None:
        return ""
    template = push if "/" in push else f"{push}/{{name}}"
    try:
        Address.parse(template.replace("{name}", "x"))
    except UsageError as error:
        raise UsageError(f"--push {push}: expected OWNER or OWNER/{{name}}") from error
    if "{name}" not in template:
        raise UsageError(f"--push {push}: every row would be pushed there; expected OWNER or OWNER/{{name}}")
    return template


def _nothing(skipped: Sequence[str]) -> str:
    return f"; {len(skipped)} folders have no weights, such as {skipped[0]}" if skipped else ""


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    problems, values = list[str](), dict[str, Any]()
    for name, value in given.items():
        key = _column(name)
        if key in ("source", "output"):
            problems.append(f"--set {name}={value}: each row has its own; expected an option")
            continue
        try:
            values[key] = read_value(key, value, Path())
        except NezhaConvertError as error:
            problems.append(f"--set {name}={value}: {error.message}")
    if problems:
        raise UsageError(problems[0], problems=tuple(problems), hint=f"Columns: {known_columns()}")
    return values


def _rows(name: str, cells: Sequence[Cells], asked: _Asked) -> tuple[Row, ...]:
    """Each row read; every problem of every row in one error."""
    problems, rows = list[str](), list[Row]()
    for number, each in enumerate(cells, 1):
        row, said = _row(number, each, asked)
        problems += said
        rows.append(row)
    if not problems:
        rows = _with_outputs(rows, asked)
        problems = check_apart(rows)
    if problems:
        raise UsageError(
            f"{name}: {len(problems)} problem{'s' if len(problems) > 1 else ''}; nothing was written",
            problems=tuple(problems),
            hint="Correct the manifest or the options, then run the batch again.",
        )
    return tuple(rows)


def _row(number: int, cells: Cells, asked: _Asked) -> tuple[Row, list[str]]:
    """A row, and what is wrong with it."""
    options, said = dict(asked.defaults), list[str]()
    source, output, place = "", "", f"row {number} ({cells.place})"
    for column, value in cells.values.items():
        try:
            match column:
                case "source":
                    source = _source(value, asked.base)
                case "output":
                    output = placed(asked.output, str(value))
                case _:
                    options[column] = read_value(column, value, asked.base)
        except NezhaConvertError as error:
            said.append(f"{place}, column {column!r}: {error.message}")
    if "source" not in cells.values:
        said.append(f"{place}, column 'source': empty; expected a path or an address of the Hub")
    if options.get("create_pr") and "push" not in options and source and is_address(source):
        options["push"] = Address.parse(source).repo_id
    if not said:
        said += [f"{place}, {problem}" for problem in _disagreements(options, asked.push)]
    return Row(number, place, source, output, options, cells.known), said


def _disagreements(options: Mapping[str, Any], template: str) -> Iterator[str]:
    """What a row's values say against each other."""
    pushes = "push" in options or template
    if options.get("create_pr") and not pushes:
        yield "column 'push': empty, but a pull request is asked for; expected OWNER/NAME"
    if pushes and options.get("verify") is False:
        yield "column 'verify': false, but only a proved folder is pushed"
    if pushes and options.get("card", True) and "license" not in options:
        yield "column 'license': empty, but the row is pushed, and no license is assumed; such as apache-2.0"


def _with_outputs(rows: Sequence[Row], asked: _Asked) -> list[Row]:
    """The rows with outputs, of the source's names where none is given, and with the repositories to push to."""
    names = iter(derived_names([row.source for row in rows if not row.output]))
    rows = [row if row.output else replace(row, output=joined(asked.output, next(names))) for row in rows]
    if not asked.push:
        return list(rows)
    return [
        replace(row, options={"push": asked.push.replace("{name}", PurePosixPath(row.output).name), **row.options})
        for row in rows
    ]


def _source(value: Any, base: Path) -> str:
    """A source: beside the manifest, unless it is an address of the Hub or a whole path."""
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{value!r:.80}: expected a path or an address of the Hub")
    text = value.strip()
    if text.startswith((SCHEME, "https://", "http://")):
        return str(Address.parse(text))
    path = path_of(base / path_of(text))
    if is_address(text) and not path.exists() and not path.parent.exists():
        return str(Address.parse(text))
    plain = str(path)  # without a "./" that the manifest has
    return f"./{plain}" if plain.startswith("-") or is_address(plain) else plain


def _column(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _file(path: Path) -> list[Cells]:
    if path.suffix.lower() not in (*TABLES, *LINES):
        what = "no such file or folder" if not path.exists() else "not a manifest"
        raise UsageError(
            f"{path}: {what}; expected a folder of folders, a .csv or .jsonl file, or hf://OWNER/*",
            hint="One checkpoint is converted by nezha-convert convert SOURCE OUTPUT."
            if path.exists()
            else "Check its name.",
        )
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path}: {path.stat().st_size:,} bytes; a manifest has at most {LARGEST:,}")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = in_utf8(path, "the manifest").replace("; then add the manifest", "; then run it on")
        raise UsageError(f"{path}: not UTF-8 (byte {error.start})", hint=hint or "Save it as UTF-8.") from error
    except OSError as error:
        raise UsageError(f"{path}: not readable ({error.strerror or error})", hint="Check its name.") from error
    if path.suffix.lower() in LINES:
        return list(_json_lines(path, text))
    return list(_table(path, text, "\t" if path.suffix.lower() == ".tsv" else ","))


def _table(path: Path, text: str, delimiter: str) -> Iterator[Cells]:
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    problems, found = list[str](), list[Cells]()
    begun = 0
    try:
        for cells in reader:
            line, begun = begun + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _header(path, cells)
                continue
            if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
                problems.append(f"line {line}: {len(cells)} values, but {len(columns)} columns")
            if any(cell.strip() for name, cell in zip(columns, cells, strict=False) if not name):
                problems.append(f"line {line}: a value in a column without a name")
            values = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name and cell.strip()}
            found.append(Cells(f"line {line}", values))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: no CSV ({error})", hint="Correct this line.") from error
    if problems:
        raise UsageError(
            f"{path}, {problems[0]}",
            problems=tuple(problems),
            hint="Quote a value that has a comma in it, and name each column.",
        )
    yield from found


def _header(path: Path, cells: Iterable[str]) -> list[str]:
    names = [_column(cell) for cell in cells]
    if "source" not in names:
        raise UsageError(
            f"{path}: its first line has no column 'source'; it has {', '.join(map(repr, names[:8]))}",
            hint=f"The first line names the columns: {known_columns()}",
        )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise UsageError(f"{path}: two columns are called {twice[0]!r}", hint="Name each column once.")
    return names


def _json_lines(path: Path, text: str) -> Iterator[Cells]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}, line {number}: no JSON ({error})", hint="Correct this line.") from error
        if not isinstance(pairs, _Pairs):
            raise UsageError(f"{path}, line {number}: no JSON object", hint='Such as {"source": "NEZHA-Base/"}')
        names = [_column(name) for name, _ in pairs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UsageError(f"{path}, line {number}: {twice[0]!r} is in it twice", hint="Name each column once.")
        given = {name: value for name, (_, value) in zip(names, pairs, strict=True)}
        yield Cells(f"line {number}", {name: value for name, value in given.items() if value not in (None, "")})


class _Pairs(list[tuple[str, Any]]):
    """The names and values of a JSON object, as they stand there."""


def _folders(folder: Path, output: str) -> tuple[list[Cells], list[str]]:
    """A row for each sub-folder that may hold weights; and those that hold none."""
    if not _is_open(folder):
        raise UsageError(f"{folder}: not readable (Permission denied)", hint="Ask its owner, or name another folder.")
    own = None if is_remote(output) else Path(output).resolve()
    cells, skipped = list[Cells](), list[str]()
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith(".") or path.resolve() == own:
            continue
        if not _is_open(path) or _may_hold_weights(path):  # of a closed one, its row says so
            cells.append(Cells(f"folder {path.name}", {"source": str(path)}))
        else:
            skipped.append(path.name)
    if not cells and _may_hold_weights(folder):
        raise UsageError(
            f"{folder}: a checkpoint is in it, and no folder of one; expected a folder of folders",
            hint="One checkpoint is converted by nezha-convert convert SOURCE OUTPUT.",
        )
    return cells, skipped


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def _may_hold_weights(folder: Path) -> bool:
    """Whether a file of `folder`, or of a folder in it, may be weights by its name."""
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.suffix.lower() not in _NO_WEIGHTS and os.path.isfile(path):  # noqa: PTH113
            return True
    return False


def _searched(given: str | None, family: str | None, limit: int | None, hub: Hub) -> Iterator[Cells]:
    """A row for each model that the Hub finds."""
    owner, pattern = None, "*"
    if given is not None:
        owner, slash, pattern = given.removeprefix(SCHEME).partition("/")
        if not owner or not slash or "*" in owner or not pattern.endswith("*") or set("?[]") & set(pattern):
            raise UsageError(
                f"{given}: not a search; expected hf://OWNER/* or hf://OWNER/PREFIX*",
                hint="One model is converted by nezha-convert convert hf://OWNER/NAME OUTPUT.",
            )
    found = hub.search(owner, pattern.strip("*"), family, limit)
    for repo_id, model_type in found:
        if fnmatchcase(repo_id.partition("/")[2], pattern):
            other = model_type not in (None, *_NEZHA_TYPES)
            known = f"its config on the Hub says model_type {model_type!r}" if other else ""
            yield Cells(repo_id, {"source": f"{SCHEME}{repo_id}"}, known)
