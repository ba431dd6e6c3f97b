"""The state of a file tells whether it changed; a link out of its folder is noticed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nezha_convert.errors import CheckpointError
from nezha_convert.files.state import check_unchanged, leads_outside, state_of


def replace(file: Path) -> None:
    file.with_suffix(".new").write_bytes(file.read_bytes())
    os.utime(file.with_suffix(".new"), ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    file.with_suffix(".new").replace(file)


CHANGES: dict[str, Callable[[Path], object]] = {
    "written to": lambda file: os.utime(file, ns=(0, 0)),
    "cut short": lambda file: os.truncate(file, 1),
    "replaced by one of the same bytes and time": replace,
    "removed": lambda file: file.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_a_file_is_noticed(change: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    seen = state_of(file.stat())
    check_unchanged(file, seen)
    CHANGES[change](file)
    with pytest.raises(CheckpointError, match="file: it was changed meanwhile"):
        check_unchanged(file, seen)


def test_an_open_file_that_was_replaced_is_still_the_one_that_was_seen(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    with open(file, "rb") as data:
        seen = state_of(os.fstat(data.fileno()))
        replace(file)
        check_unchanged(file, seen, data.fileno())
        with pytest.raises(CheckpointError):
            check_unchanged(file, seen)


@pytest.mark.parametrize(
    ("target", "outside"),
    [("folder/other", False), ("folder/below/other", False), ("other", True), ("blobs/other", False)],
)
def test_a_link_out_of_its_folder_is_noticed_unless_it_leads_to_the_cache(
    target: str, outside: bool, tmp_path: Path
) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / target).write_bytes(b"abc")
    link = tmp_path / "folder" / "link"
    link.symlink_to(tmp_path / target)
    assert leads_outside(link) == outside
    assert not leads_outside(tmp_path / target)
