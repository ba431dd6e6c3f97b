"""The next command after a refusal, whole: what was typed, with what the error says to add to it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import click

from ..errors import NezhaConvertError
from .rows import SHOWN

_REPEATED = ("--drop", "--rename")
"""Options that may stand several times; another one takes the place of the one that was typed."""


def advice(group: click.Group, arguments: Sequence[str], error: NezhaConvertError) -> tuple[str, tuple[str, ...]]:
    """The hint of `error` about the command that `arguments` are, and the commands that answer it, to be pasted."""
    command = group.commands.get(arguments[0]) if arguments else None
    if command is None:
        return error.hint, ()
    typed = command.make_context(command.name, list(arguments[1:]), resilient_parsing=True).params
    hint, source = error.hint, typed.get("source")
    for name in ("source", "output"):
        if typed.get(name):
            hint = re.sub(rf"\b{name.upper()}\b", lambda match: shlex.quote(str(typed[name])), hint)  # noqa: B023
    known = {option for parameter in command.params for option in parameter.opts}
    commands = []
    for way in error.ways[:SHOWN]:
        if way[0] in known:
            commands.append([*_without(arguments, way[0]), *way])
        elif source and not way[0].startswith("-"):
            commands.append([way[0] if word == source else word for word in arguments])
    return hint, tuple(shlex.join(["nezha-convert", *words]) for words in commands)


def _without(arguments: Sequence[str], option: str) -> list[str]:
    """`arguments` without the `option` that is about to be added."""
    words = [word for word in arguments if option in _REPEATED or not word.startswith(f"{option}=")]
    if option in words and option not in _REPEATED:
        at = words.index(option)
        del words[at : at + 2]
    return words
