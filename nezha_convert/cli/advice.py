"""The next command after a refusal, whole: what was typed, with what the error says to add to it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import click

from ..errors import NezhaConvertError
from ..text import with_names
from .rows import SHOWN

_REPEATED = ("--drop", "--rename")
"""Options that may stand several times; another one takes the place of the one that was typed."""

_READS = {"export": ("output",), "diff": ("a", "b"), "push": ()}
"""The arguments of a command that are a source to be read; of the others it is `source`."""

_WRITES = {"export": "", "diff": "", "inspect": ""}
"""The argument that is a converted folder to be written, or to be looked at; of the others it is `output`."""

_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*) (?:[A-Z]+|[a-z]+-[a-z-]+)\b")
"""An option and its value, or what stands for it, in a hint."""

_COMMAND = re.compile(r"(?<![\w-])nezha-convert [a-z][^;]*")


def advice(group: click.Group, arguments: Sequence[str], error: NezhaConvertError) -> tuple[str, tuple[str, ...]]:
    """The hint of `error` about the command that `arguments` are, and the commands that answer it, to be pasted."""
    command = group.commands.get(arguments[0]) if arguments else None
    if command is None or command.name is None:
        return error.hint, ()
    typed = command.make_context(command.name, list(arguments[1:]), resilient_parsing=True).params
    source, output = _source(command.name, typed, error), typed.get(_WRITES.get(command.name, "output"))
    hint = with_names(error.hint, SOURCE=source, OUTPUT=output)
    known, of_convert = _options(command), _options(group.commands["convert"])
    instead = ["convert", source or "SOURCE", "OUTPUT"]
    others = [match[0].split() for match in _OPTION.finditer(_COMMAND.sub("", hint)) if match[1] in of_convert - known]
    if others:
        whole = shlex.join(["nezha-convert", *instead, *others[0]])
        hint += f" That is an option of convert: {whole}; then name OUTPUT here."
    commands, once = [], {way[0] for way in error.ways} - {*_REPEATED}
    for way in error.ways[:SHOWN]:
        if way[0] in known:
            commands.append([*_without(arguments, command, once), *way])
        elif way[0] in of_convert:
            commands.append([*instead, *way])
        elif source:
            commands.append([way[0] if word == source else word for word in arguments])
    return hint, tuple(shlex.join(["nezha-convert", *words]) for words in commands)


def _source(name: str, typed: Mapping[str, Any], error: NezhaConvertError) -> str | None:
    """The source that the error is about: the one that its message names, of two."""
    given = [str(typed[one]) for one in _READS.get(name, ("source",)) if typed.get(one)]
    named = [one for one in given if one in error.message]
    return max(named, key=len) if named else next(iter(given), None)


def _options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def _without(arguments: Sequence[str], command: click.Command, options: Collection[str]) -> list[str]:
    """`arguments` without `options`, one of which is about to be added: they exclude each other."""
    flags = {name for one in command.params if isinstance(one, click.Option) and one.is_flag for name in one.opts}
    words, taken = list[str](), iter(arguments)
    for word in taken:
        name, equals, _ = word.partition("=")
        if name not in options:
            words.append(word)
        elif not equals and name not in flags:
            next(taken, None)  # its value
    return words
