"""Errors that a user sees. One base; each class carries its exit code.

A message names the thing, what was expected and what was found; ``hint`` is the next command or step to try.
"""

from __future__ import annotations

import shlex
import sys

from .text import printable

LONGEST = 4_000
"""The most characters of a message or hint. The middle of a longer one is left out."""

CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of builds for the CPU. Without it pip may fetch gigabytes for a GPU."""


class NezhaConvertError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        message: the thing, what was expected, what was found.
        hint: what to do next; a command if there is one.
        problems: all problems, when there are several.
        ways: what answers the question that the error asks, one of them to be chosen: words to add to the command, or
            the path of another source.

    Example:
        >>> import nezha_convert
        >>> try:
        ...     nezha_convert.inspect("nothing-here")
        ... except nezha_convert.NezhaConvertError as error:
        ...     print(error.exit_code, error.message.partition(":")[0])
        3 nothing-here
    """

    exit_code = 70
    """A fault of ours (EX_SOFTWARE). Not 1, which Python uses: a CI job would read that as failed parity."""

    def __init__(
        self, message: str, *, hint: str = "", problems: tuple[str, ...] = (), ways: tuple[tuple[str, ...], ...] = ()
    ) -> None:
        self.message = _printable(message)
        self.hint = _printable(hint or _choice(ways))
        self.ways = ways
        self.problems = tuple(_printable(problem) for problem in problems)
        super().__init__(self.message)

    def about(self, name: str) -> NezhaConvertError:
        """This error with a message that names `name`."""
        if name in self.message:
            return self
        return type(self)(f"{name}: {self.message}", hint=self.hint, problems=self.problems, ways=self.ways)

    def to_dict(self) -> dict[str, object]:
        """The error as ``--json`` prints it."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "message": self.message,
            "problems": list(self.problems),
            "hint": self.hint,
            "ways": [list(way) for way in self.ways],
        }


class UsageError(NezhaConvertError):
    """The request is incomplete or ambiguous: an option is missing or names nothing.

    Args:
        message, hint, problems, ways: as of `NezhaConvertError`.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.convert("NEZHA-Base/", "NEZHA-Base/", dry_run=True)
        Traceback (most recent call last):
        nezha_convert.errors.UsageError: NEZHA-Base: the output would replace the source
    """

    exit_code = 2


class CheckpointError(NezhaConvertError):
    """The source is missing, unreadable, corrupt or unsafe.

    Args:
        message, hint, problems, ways: as of `NezhaConvertError`.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.inspect("nothing-here")
        Traceback (most recent call last):
        nezha_convert.errors.CheckpointError: nothing-here: ...
    """

    exit_code = 3


class MappingError(NezhaConvertError):
    """The source was read, but its tensors, config or vocabulary do not make the requested model.

    Args:
        message, hint, problems, ways: as of `NezhaConvertError`.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.convert("NEZHA-Base/", "reader/", head="question-answering")
        Traceback (most recent call last):
        nezha_convert.errors.MappingError: ...
    """

    exit_code = 4


class OutputError(NezhaConvertError):
    """The output cannot be written, or it does not read back as it was written.

    Args:
        message, hint, problems, ways: as of `NezhaConvertError`.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.convert("NEZHA-Base/", "nezha-base/")
        Traceback (most recent call last):
        nezha_convert.errors.OutputError: nezha-base: exists already
    """

    exit_code = 5


class HubError(NezhaConvertError):
    """The Hub refused, failed or could not be reached, or a folder is not fit to be pushed.

    Args:
        message, hint, problems, ways: as of `NezhaConvertError`.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.pull("hf://owner/no-such-model")
        Traceback (most recent call last):
        nezha_convert.errors.HubError: ...
    """

    exit_code = 6


class CancelledError(NezhaConvertError):
    """The signal `number` stopped the program: Ctrl-C, or another program that asked it to end."""

    exit_code = 130
    """128 plus the signal's number, as for every program that a signal ends; 130 is Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted; nothing half-written was left behind")
        self.exit_code = 128 + number


def pip_install(what: str) -> str:
    """The command that installs `what` for the Python that runs this, as a hint. A bare `pip` may be another's."""
    return f"{shlex.quote(sys.executable)} -m pip install {what}"


def _choice(ways: tuple[tuple[str, ...], ...]) -> str:
    """The hint to choose one of `ways`."""
    words = ", or ".join(shlex.join(way) for way in ways)
    return words and f"{'Add' if words.startswith('-') else 'Name'} {words}."


def _printable(text: str) -> str:
    """`text` cut to size, with everything escaped that a terminal would obey. A line break would begin a false line."""
    return _short(printable(_short(text)))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"
