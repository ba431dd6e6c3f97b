"""Reads rows from the data sets' own files or through `datasets`. A fault is one message with file and line."""

from __future__ import annotations

import csv
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from training import SPLITS, Arguments

from nezha_convert.errors import UsageError

UTF8 = "Write it again in UTF-8: iconv -f GB18030 -t UTF-8 FILE > NEW, if it is in one of the older Chinese encodings."


@dataclass(frozen=True)
class Row:
    """One row of data.

    Args:
        where: file and line, or data set, split and row; for messages.
        fields: the values by column.
    """

    where: str
    fields: dict[str, Any]


def wrong(where: str, expected: str, found: str, hint: str) -> UsageError:
    """An error in the data: the place, what was expected, what was found, what to do."""
    return UsageError(f"{where}: expected {expected}, found {found}", hint=hint)


def read(arguments: Arguments, file: Callable[[Path], Iterable[Row]]) -> dict[str, list[Row]]:
    """The rows of each split that the command line names.

    Args:
        arguments: the script's arguments.
        file: reads one file in the formats of the script.

    Raises:
        UsageError: a file does not exist, has no rows or wrong ones; `datasets` has no such data set.
    """
    if not any(getattr(arguments, split) for split in SPLITS):
        raise UsageError("no data: expected one of --train, --dev and --test", hint="See the example of --help.")
    splits = {}
    for split in SPLITS:
        name = getattr(arguments, split)
        if name is not None:
            rows = list(_of_datasets(arguments, name) if arguments.dataset else file(_existing(split, name)))
            if not rows:
                where = f"{arguments.dataset or ''} {name}".strip()
                raise wrong(where, "at least one row", "none", "See docs/training.md.")
            splits[split] = rows
    return splits


def _existing(split: str, name: str) -> Path:
    if not Path(name).is_file():
        raise UsageError(
            f"--{split} {name}: expected a file, found {'a folder' if Path(name).is_dir() else 'none'}",
            hint="A split of a published data set is read by --dataset NAME --train train.",
        )
    return Path(name)


def of_the_library(arguments: Arguments, split: str, **options: Any) -> Any:
    """A split of a data set that `datasets` loads.

    Raises:
        UsageError: there is no such data set, configuration or split.
    """
    try:
        return datasets.load_dataset(arguments.dataset, arguments.dataset_config, split=split, **options)
    except (OSError, ValueError, RuntimeError) as error:  # for unknown names, configurations and splits
        raise UsageError(
            f"--dataset {arguments.dataset}, split {split}: {str(error).strip().splitlines()[0]}",
            hint="datasets.get_dataset_config_names and get_dataset_split_names list what there is.",
        ) from error


def _of_datasets(arguments: Arguments, split: str) -> Iterator[Row]:
    """Rows of a data set that `datasets` loads, with the names of classes in place of their numbers."""
    table = of_the_library(arguments, split)
    names = {column: _names(feature) for column, feature in table.features.items()}
    for number, fields in enumerate(table):
        where = f"{arguments.dataset}, split {split}, row {number}"
        yield Row(where, {column: names[column](value) for column, value in fields.items()})


def _names(feature: Any) -> Callable[[Any], Any]:
    """A function that turns a column's values of `datasets` into the scripts' own; the class -1 means "not known"."""
    if isinstance(feature, datasets.ClassLabel):
        return lambda value: None if value is None or value < 0 else feature.int2str(value)
    if isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.ClassLabel):
        return lambda values: [feature.feature.int2str(value) for value in values]
    return lambda value: value


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, numbered from 1. Only a line feed ends a line.

    Raises:
        UsageError: a line is not UTF-8.
    """
    # No universal newlines or splitlines(): review texts contain U+2028 and lone carriage returns.
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    hint = f"iconv -f UTF-16 -t UTF-8 {shlex.quote(str(path))} > NEW"
                    raise wrong(str(path), "UTF-8", "UTF-16, by its byte-order mark", hint) from error
                found = f"the byte 0x{raw[error.start]:02x} at column {error.start + 1}"
                raise wrong(f"{path}, line {number}", "UTF-8", found, UTF8) from error
            yield number, line.rstrip("\r\n")


def table(path: Path, columns: Sequence[str], known: Iterable[str]) -> Iterator[Row]:
    """Rows of a TSV, CSV, JSON or JSON Lines file.

    Args:
        path: its ending names the format (``.csv``, ``.json``, ``.jsonl``); any other means tab-separated.
        columns: the columns of a file without a header; if empty, the first line or the number of columns decides.
        known: a first line that contains one of these names is a header.

    Raises:
        UsageError: a row has other columns than the rest; the file is not JSON or not UTF-8.
    """
    if path.suffix in (".json", ".jsonl"):
        for row in json_rows(path):
            if not isinstance(row.fields, dict):
                raise wrong(row.where, "an object of columns", _short(row.fields), "See docs/training.md.")
            yield row
        return
    names, first = list(columns), True
    for number, cells in _cells(path):
        where = f"{path}, line {number}"
        if first:
            first = False
            if not columns and set(cells) & set(known):
                names = cells
                continue
            names = names or HEADERLESS.get(len(cells), [])
            if not names:
                raise wrong(
                    where,
                    "a header, or two columns (label, text) or three (text, text, label) without one",
                    f"{len(cells)} columns: {_short(cells)}",
                    "Name the columns of a header by --text, --pair and --label, or all columns by --columns.",
                )
        if len(cells) != len(names):
            raise wrong(
                where,
                f"{len(names)} {'comma' if path.suffix == '.csv' else 'tab'}-separated columns ({', '.join(names)})",
                f"{len(cells)}: {_short(cells)}",
                "Mend the line, or name the file's columns in their order by --columns.",
            )
        yield Row(where, dict(zip(names, cells, strict=True)))


HEADERLESS = {2: ["label", "text"], 3: ["text", "pair", "label"]}
"""The columns of a file without a header, by their number: ChnSenti's two and LCQMC's three."""


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    if path.suffix == ".csv":
        reader = csv.reader(f"{line}\n" for _, line in lines(path))
        yield from ((reader.line_num, cells) for cells in reader if cells)
    else:  # in a TSV, quotation marks are plain text
        yield from ((number, line.split("\t")) for number, line in lines(path) if line)


def json_rows(path: Path) -> Iterator[Row]:
    """The items of a JSON list or of JSON Lines. The content decides, not the ending: CLUE's JSON Lines end in .json.

    Raises:
        UsageError: the file is not JSON.
    """
    start = next((line.lstrip()[:1] for _, line in lines(path) if line.strip()), "")
    if start == "[":
        content = whole_json(path)
        yield from (Row(f"{path}, item {number}", item) for number, item in enumerate(content, 1))
        return
    for number, line in lines(path):
        if line.strip():
            try:
                item = json.loads(line)
            except json.JSONDecodeError as error:
                hint = "JSON Lines have one object on each line; a single JSON document is a list of them."
                raise wrong(f"{path}, line {number}", "a JSON object", f"{_short(line)} ({error.msg})", hint) from error
            yield Row(f"{path}, line {number}", item)


def whole_json(path: Path) -> Any:
    """The content of a file that is one JSON document.

    Raises:
        UsageError: the file is not JSON.
    """
    text = "\n".join(line for _, line in lines(path))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        found = f"{_short(text[max(error.pos - 20, 0) : error.pos + 20])} ({error.msg})"
        raise wrong(f"{path}, line {error.lineno}", "JSON", found, "Fetch the file again, or mend it.") from error


def column(
    rows: Sequence[Row], option: str, asked: str | None, usual: Sequence[str], needed: bool = True
) -> str | None:
    """The name of a column in `rows`: the one asked for, or else the first of the usual names that exists.

    Raises:
        UsageError: the column asked for does not exist; or it is `needed`, and there is none of the usual ones.
    """
    names, where, hint = rows[0].fields, rows[0].where, f"Name the column by {option}."
    if not isinstance(names, dict):
        raise wrong(where, "an object of columns", _short(names), "See docs/training.md.")
    if asked is not None and asked not in names:
        raise wrong(f"{where}: {option} {asked}", f"one of the columns {', '.join(names)}", "no such column", hint)
    found = asked or next((name for name in usual if name in names), None)
    if found is None and needed:
        raise wrong(where, f"a column {' or '.join(usual)}", f"only {', '.join(names)}", hint)
    return found


def value(row: Row, name: str, kind: type | tuple[type, ...] = str) -> Any:
    """A field of a row.

    Raises:
        UsageError: it is missing or of another type; or the row is no object of JSON.
    """
    fields = row.fields
    if isinstance(fields, dict) and isinstance(fields.get(name), kind):
        return fields[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = f"{name!r} with a {' or '.join(k.__name__ for k in kinds)}"
    if not isinstance(fields, dict):
        found = f"type {type(fields).__name__}"
    else:
        found = _short(fields[name]) if name in fields else f"only {', '.join(map(repr, fields))}"
    raise wrong(row.where, expected, found, "See the formats in docs/training.md.")


def choose_labels(asked: Sequence[str], labelled: Iterable[tuple[str, str]], of_model: Sequence[str]) -> list[str]:
    """The labels in the order of their numbers.

    Args:
        asked: the labels of ``--labels``; they win.
        labelled: place and label of each training row; empty without training data.
        of_model: the labels in the model's config; used if the training data has the same ones, or if there is none.

    Returns:
        Otherwise the labels of the training data: numbers by value, then words by code point.
    """
    counted = Counter(label for _, label in labelled)
    if asked:
        return list(asked)
    if not counted or set(counted) == set(of_model):
        if not of_model:
            raise UsageError("the model does not name its labels", hint="Name them in their order: --labels A B.")
        return list(of_model)
    return sorted(counted, key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))


def number_of(label: str, numbers: dict[str, int], where: str) -> int:
    """The number of a label.

    Raises:
        UsageError: the training data, ``--labels`` or the model have no such label.
    """
    if label not in numbers:
        hint = "All splits have the labels of the training data; --labels names all of them."
        raise wrong(where, f"one of the labels {_short(list(numbers))}", repr(label), hint)
    return numbers[label]


def _short(thing: Any) -> str:
    """A value of the data as a message shows it."""
    text = thing if isinstance(thing, str) else json.dumps(thing, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
