"""Errors: a common base, an exit code each, and everything that a person or a program needs next."""

from __future__ import annotations

import json

import pytest

from nezha_convert import errors
from nezha_convert.errors import CheckpointError, HubError, MappingError, NezhaConvertError, OutputError, UsageError

CODES = {NezhaConvertError: 70, UsageError: 2, CheckpointError: 3, MappingError: 4, OutputError: 5, HubError: 6}


@pytest.mark.parametrize("error, code", CODES.items(), ids=lambda value: getattr(value, "__name__", str(value)))
def test_each_error_has_its_exit_code_and_the_common_base(error: type[NezhaConvertError], code: int) -> None:
    assert error.exit_code == code
    assert issubclass(error, NezhaConvertError)
    assert error("x").to_dict()["exit_code"] == code


def test_no_exit_code_stands_for_two_errors() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert set(CODES) <= set(classes)
    codes = [error.exit_code for error in classes]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes


def test_an_error_says_its_message() -> None:
    error = MappingError("the tensors do not map", hint="look at them", problems=("missing: a", "missing: b"))
    assert str(error) == error.message == "the tensors do not map"
    assert (error.hint, error.problems) == ("look at them", ("missing: a", "missing: b"))


def test_an_error_needs_neither_hint_nor_problems() -> None:
    error = UsageError("no")
    assert (error.hint, error.problems) == ("", ())


def test_the_json_of_an_error_is_complete() -> None:
    error = MappingError("m", hint="h", problems=("p", "q"))
    assert json.loads(json.dumps(error.to_dict())) == {
        "error": "MappingError",
        "exit_code": 4,
        "message": "m",
        "problems": ["p", "q"],
        "hint": "h",
        "ways": [],
    }


def test_a_message_is_short_and_commands_no_terminal():
    error = CheckpointError("\x1b[2J\ud800\u202e哪\n" + "x" * 10**6, hint="\x07", problems=("a\0b",))
    assert len(error.message) < 4100
    assert error.message.startswith("\\x1b[2J\\ud800\\u202e哪\\n")
    assert "[...]" in error.message
    assert (error.hint, error.problems, str(error)) == ("\\x07", ("a\\x00b",), error.message)
    error.message.encode()
