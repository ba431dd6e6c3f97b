"""What people give as a path is one, or is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from nezha_convert.errors import UsageError
from nezha_convert.files.given import path_of
from nezha_convert.hub import is_address


@pytest.mark.parametrize("given", ["x" * 400, "a\0b", "~nobody-here/x", "\ud800", Path("x" * 400, "y"), 3])
def test_what_no_drive_takes_is_no_path(given):
    with pytest.raises(UsageError, match=r"not a path|expected a path"):
        path_of(given)


def test_a_circle_of_links_is_no_path_and_a_path_that_is_not_there_is_one(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "loop/x"):
        with pytest.raises(UsageError, match=r"loop.*not a path"):
            path_of(tmp_path / name)
    assert path_of(tmp_path / "no" / "such") == tmp_path / "no" / "such" and path_of("~") == Path.home()


def test_a_long_name_is_an_address_or_a_path_and_no_error():
    assert is_address(f"{'x' * 300}/{'y' * 300}") and not is_address("x" * 400)
