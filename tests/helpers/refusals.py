"""The refusals in the program's source, and a user who follows what they advise."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from cases import HOPS, run

from nezha_convert import errors
from nezha_convert.cli.app import cli

PACKAGE = Path(errors.__file__).parent
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)(?: ('[^']*'|[A-Z][A-Z_]*\b|[a-z]+-[a-z-]+\b|[\w.]+(?=\.$)))?")
"""An option in a text, and its value: quoted, with a hyphen, the last word, or capitals that stand for it."""


@dataclass(frozen=True)
class Refusal:
    """A place where an error is made.

    Attributes:
        file, first, last: where it stands.
        advises: whether it has a hint or ways.
        text: the hint's text, with what is put into it as a capital letter.
        unquoted: what is put into a command of it as it is.
    """

    file: str
    first: int
    last: int
    advises: bool
    text: str
    unquoted: tuple[str, ...] = ()

    @property
    def names_words(self) -> bool:
        """Whether it names a command or an option."""
        return "nezha-convert " in self.text or bool(OPTION.search(self.text))

    def __str__(self) -> str:
        return f"{self.file}:{self.first}"


def refusals() -> list[Refusal]:
    """Every refusal in the program: each call that makes one of its errors, by the syntax tree."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in KINDS:
                advice = {word.arg: word.value for word in node.keywords if word.arg in ("hint", "ways")}
                hint = advice.get("hint")
                text = _text(hint, constants) if hint else ""
                bare = tuple(_unquoted(hint)) if hint and re.search(r"nezha-convert |mkdir |mv |pip ", text) else ()
                where = path.relative_to(PACKAGE).as_posix()
                found.append(Refusal(where, node.lineno, node.end_lineno or 0, bool(advice), text, bare))
    return found


def _text(node: ast.AST, constants: Mapping[str, ast.AST]) -> str:
    """The text of an expression, as far as it stands in the source."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(value, constants) for value in values)
        case ast.FormattedValue(value=value):
            return _text(value, constants) or "X"
        case ast.Name(id=name) if name in constants:
            return _text(constants[name], {key: value for key, value in constants.items() if key != name})
        case ast.BinOp(left=left, right=right):
            return _text(left, constants) + _text(right, constants)
        case ast.IfExp(body=body, orelse=orelse):
            return f"{_text(body, constants)} {_text(orelse, constants)}"
    return ""


def _unquoted(hint: ast.AST) -> Iterator[str]:
    """What a command in `hint` is given without the shell's quotes."""
    for node in ast.walk(hint):
        if isinstance(node, ast.FormattedValue):
            quoted = isinstance(node.value, ast.Call) and re.search("shlex|quoted|converting|format", ast.unparse(node))
            if not quoted and re.search(r"path|folder|file|source|place|output|home", ast.unparse(node.value).lower()):
                yield ast.unparse(node.value)


@contextmanager
def noticed() -> Iterator[set[tuple[str, int]]]:
    """The places at which errors are made meanwhile."""
    places: set[tuple[str, int]] = set()
    made = errors.NezhaConvertError.__init__

    def noticing(self: Any, *args: Any, **kwargs: Any) -> None:
        frame = sys._getframe(1)
        while frame.f_back and Path(frame.f_code.co_filename) == Path(errors.__file__):
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        if PACKAGE in path.parents:
            places.add((path.relative_to(PACKAGE).as_posix(), frame.f_lineno))
        made(self, *args, **kwargs)

    errors.NezhaConvertError.__init__ = noticing  # type: ignore[method-assign]
    try:
        yield places
    finally:
        errors.NezhaConvertError.__init__ = made  # type: ignore[method-assign]


def commands_in(text: str) -> list[list[str]]:
    """The commands of nezha-convert in a text, each as far as its words are of it."""
    found = []
    for after in re.split(r"(?<![\w-])nezha-convert (?=[a-z])", text)[1:]:
        lexer = shlex.shlex(after, posix=True, punctuation_chars=False)
        lexer.whitespace_split, lexer.commenters, words = True, "", []
        command = cli.commands.get(lexer.get_token() or "")
        if command is None:
            continue
        places = sum(isinstance(one, click.Argument) for one in command.params)
        takes = {name: not one.is_flag for one in command.params if isinstance(one, click.Option) for name in one.opts}
        while word := _next(lexer):
            plain = word.rstrip(";,:.")
            if plain.startswith("--"):
                words.append(plain)
                if takes.get(plain):
                    words.append((_next(lexer) or "").rstrip(";,"))
            elif places and (word[:1] in "/.~" or word.isupper() or "://" in word or plain.isupper()):
                words.append(plain if plain.isupper() else word.rstrip(";,"))
                places -= 1
            else:
                break
            if plain != word:
                break
        found.append([command.name or "", *words])
    return found


def _next(lexer: shlex.shlex) -> str | None:
    try:
        return lexer.get_token()
    except ValueError:  # an apostrophe of a word of the text
        return None


def options_in(text: str) -> list[tuple[str, str]]:
    """The options in a text that stand in no command of it, with the word behind each."""
    for after in re.split(r"(?<![\w-])nezha-convert (?=[a-z])", text)[1:]:
        end = re.search(r"[;,]|\. |$", after)
        text = text.replace(after[: end.start() if end else None], "")
    text = re.sub(r"(tar|pip|git|python) .*", "", text)  # other programs' commands
    return [(match[1], match[2] or "") for match in OPTION.finditer(text)]


@dataclass
class User:
    """One who follows what is advised.

    Attributes:
        folder: where new outputs go.
        values: what stands for a word in capitals that a hint leaves open, or for the value of an option.
        followed: how many commands were run.
    """

    folder: Path
    values: dict[str, str] = field(default_factory=dict)
    followed: int = 0

    def follow(self, typed: Sequence[str], said: Mapping[str, Any], before: tuple[list[str], ...] = ()) -> None:
        """Run each command that the refusal `said` of `typed` names. Each must lead on, and none back.

        Raises:
            AssertionError: one leads back, in a circle, or to no result and no question in `HOPS` commands.
        """
        before = (*before, list(typed))
        for words in self.next_of(typed, said):
            assert words not in before, f"{said['hint']!r} leads back: {shlex.join(words)}"
            words = [self._output(word) if word == self._typed_output(words) else word for word in words]
            code, again = run(words)
            self.followed += 1
            assert code != 2 or not again["message"].startswith(("No such option", "Invalid value", "Missing")), again
            if "error" in again:
                assert again["message"] != said["message"], f"{said['hint']!r} leads back: {shlex.join(words)}"
                if len(before) >= HOPS:
                    assert again["ways"], f"{HOPS} commands lead to no question: {again['message']} >> {again['hint']}"
                else:
                    self.follow(words, again, before)

    def next_of(self, typed: Sequence[str], said: Mapping[str, Any]) -> list[list[str]]:
        """The commands that `said` names: whole ones, those in its hint, or `typed` with the options of the hint."""
        if said["next"]:
            return [shlex.split(command)[1:] for command in said["next"]]
        if commands := commands_in(said["hint"]):
            return [[self.values.get(word, word) for word in words] for words in commands]
        found = []
        for option, value in options_in(said["hint"]):
            if re.search(rf"[Ll]eave (?:it as it is: )?(?:the \w+'s card as it is: )?{option}(?: out)", said["hint"]):
                found.append([word for word in typed if word != option])
                continue
            parameter = {name: one for one in cli.commands[typed[0]].params for name in one.opts}.get(option)
            assert parameter, f"{typed[0]} has no {option}: {said['hint']}"
            words = [word for i, word in enumerate(typed) if word != option and typed[max(i - 1, 0)] != option]
            given = [] if parameter.is_flag else [self.values.get(option, value)]  # type: ignore[attr-defined]
            if "" not in given:  # a text about an option is no command
                found.append([*words, option, *given])
        return found

    def _typed_output(self, words: Sequence[str]) -> str:
        """The folder that the command `words` writes."""
        command = cli.commands[words[0]]
        typed = command.make_context(words[0], list(words[1:]), resilient_parsing=True).params
        name = {"convert": "output", "repair": "output", "export": "target", "pull": "folder"}.get(words[0])
        return str(typed.get(name)) if name and "--force" not in words else ""

    def _output(self, name: str) -> str:
        """A new folder for it."""
        return str(self.folder / f"{Path(name).name} {self.followed}") if name else name
