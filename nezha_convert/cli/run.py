"""Runs one command and turns whatever happens to it into an exit code and a message."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from io import StringIO

import click

from ..errors import CancelledError, NezhaConvertError, OutputError, UsageError
from .advice import advice
from .console import Console
from .process import Stop, end_with, no_memory, silence_broken

PIPE_CLOSED = 128 + 13
"""The exit code of a program that SIGPIPE ends; Python ignores that signal and raises BrokenPipeError."""


def run(group: click.Group, arguments: list[str], console: Console) -> int:
    """Run the command of `group` that `arguments` name, and return its exit code."""
    stop, Console.began = Stop(), False
    try:
        with stop.interrupting():
            return _run(group, arguments, console, stop)
    except (KeyboardInterrupt, click.Abort):  # a signal; or Ctrl-C or Ctrl-D at a question
        error = CancelledError(stop.number)
        in_words = Console.began or not console.as_json
        return end_with(_fail(console, error, partial(console.say, error.message) if in_words else None))


def _run(group: click.Group, arguments: list[str], console: Console, stop: Stop) -> int:
    """The exit code of a command that no signal stops. Its errors become messages."""
    try:
        code = _invoke(group, arguments)
        sys.stdout.flush()
        return code
    except click.ClickException as error:
        shown = StringIO()
        error.show(file=shown)
        say = None if console.as_json else partial(console.say, shown.getvalue().removesuffix("\n"))
        return _fail(console, UsageError(error.format_message()), say)
    except click.Abort:
        raise
    except Exception as error:
        if stop.asked:  # a library has turned our KeyboardInterrupt into another error
            raise KeyboardInterrupt from error
        if isinstance(error, NezhaConvertError):
            return _fail(console, error, partial(console.error, error, *advice(group, arguments, error)))
        if sys.stdout in silence_broken() and isinstance(error, OSError):
            if isinstance(error, BrokenPipeError):  # the reader of our output has gone, which is no error
                return PIPE_CLOSED
            return _fail(Console(), OutputError(f"stdout: cannot be written ({error.strerror})"))
        if isinstance(error, MemoryError) or "failed to map segment" in str(error):
            return _fail(console, no_memory(error))
        what = f"a fault of nezha-convert: {type(error).__name__}: {error}"
        hint = "Please report it with the output of the same command under NEZHA_DEBUG=1."
        return _fail(console, NezhaConvertError(what, hint=hint))


def _invoke(group: click.Group, arguments: list[str]) -> int:
    # Not group.main(): it would turn a broken pipe into exit code 1.
    try:
        with group.make_context("nezha-convert", list(arguments)) as context:
            group.invoke(context)
    except click.exceptions.Exit as exit:
        return exit.exit_code
    return 0


def _fail(console: Console, error: NezhaConvertError, say: Callable[[], None] | None = None) -> int:
    """Print `error`, by `say` or as the console does, and return its exit code.

    If stdout cannot be written, print it in words on stderr. If that fails too, nobody is listening.
    """
    for attempt in (say or partial(console.error, error), partial(Console().error, error)):
        try:
            if os.environ.get("NEZHA_DEBUG") and not isinstance(error, CancelledError):
                console.say(traceback.format_exc())
            attempt()
            sys.stdout.flush()
            break
        except OSError:
            if sys.stdout not in silence_broken():
                break
    return error.exit_code
