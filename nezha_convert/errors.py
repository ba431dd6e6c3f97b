"""Errors that a user sees. One base; each class carries its exit code.

A message names the thing, what was expected and what was found; ``hint`` is the next command or step to try.
"""

from __future__ import annotations

LONGEST = 4_000
"""Characters of a message or hint; of a longer one the middle is left out."""


class NezhaConvertError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        message: the thing, what was expected, what was found.
        hint: what to do next, a command where there is one.
        problems: every single problem, when there are several.
    """

    exit_code = 70
    """A fault of ours, EX_SOFTWARE. Not 1, Python's own code of it: a CI service would read that as failed parity."""

    def __init__(self, message: str, *, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        self.message = _printable(message)
        self.hint = _printable(hint)
        self.problems = tuple(_printable(problem) for problem in problems)
        super().__init__(self.message)

    def to_dict(self) -> dict[str, object]:
        """The error as ``--json`` prints it."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "message": self.message,
            "problems": list(self.problems),
            "hint": self.hint,
        }


class UsageError(NezhaConvertError):
    """The request is incomplete or ambiguous: an option is missing or names nothing."""

    exit_code = 2


class CheckpointError(NezhaConvertError):
    """The source is not there, not readable, corrupt or unsafe."""

    exit_code = 3


class MappingError(NezhaConvertError):
    """The source was read, but its tensors, config or vocabulary do not make the requested model."""

    exit_code = 4


class OutputError(NezhaConvertError):
    """The output cannot be written, or did not read back as written."""

    exit_code = 5


class HubError(NezhaConvertError):
    """The Hub refused, failed or could not be reached, or a folder is not fit to be pushed."""

    exit_code = 6


class CancelledError(NezhaConvertError):
    """Stopped by the signal `number`: by the user, or by whoever asked the process to end."""

    exit_code = 130
    """128 and the signal's number, as of every program that a signal ends; 130 is Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted; nothing half-written was left behind")
        self.exit_code = 128 + number


def _printable(text: str) -> str:
    """`text`, short enough and without what a terminal would obey or cannot show: names come from strangers' files."""
    escaped = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in _short(text))
    return _short(escaped)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"
