"""A folder that appears complete or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError

MARK = "conversion.json"
"""The report in every converted folder."""

TRAINED = "training.json"
"""The record in every folder of a model that was trained from a converted one."""


@contextmanager
def staged(output: Path, force: bool, nbytes: int, mark: str = MARK) -> Iterator[Path]:
    """A temporary folder beside `output` that becomes `output` if the block ends well, and vanishes if it does not.

    Args:
        output: the folder to appear. It must not exist, unless `force` is given and it is a folder with `mark`.
        nbytes: what is going to be written, so that a full disk is noticed first.
        mark: the report in every folder of its kind; a folder without it is never replaced.

    Raises:
        OutputError: it exists, there is not enough room, or it cannot be written.
    """
    with _as_output_error(output):
        check_output(output, force, mark)
        place = output.resolve()  # "." has no name, and a working folder may change
        place.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place.parent).free
        if nbytes > free:
            raise OutputError(
                f"{output}: it needs {nbytes:,} bytes, and the disk has {free:,} free",
                hint="Free some room, or name an output on another disk.",
            )
        stage = _new_folder(place, "part")
        try:
            yield stage
            check_output(place, force, mark)  # again: another program may have been faster
            _rename_into_place(stage, place)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`: beside it and renamed, so that no reader sees half of it, and on the disk before that.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def check_output(output: Path, force: bool, mark: str = MARK) -> None:
    """Raises OutputError unless `output` may be written."""
    if not os.path.lexists(output):
        return
    if not force:
        raise OutputError(f"{output}: exists already", hint="Name another output, or add --force to replace it.")
    ours = output.is_dir() and not output.is_symlink() and ((output / mark).is_file() or not any(output.iterdir()))
    if not ours:
        raise OutputError(
            f"{output}: exists and is not a folder that nezha-convert wrote (no {mark} in it); not replaced",
            hint="Name another output, or remove it yourself.",
        )


def _rename_into_place(stage: Path, output: Path) -> None:
    if not os.path.lexists(output):
        stage.rename(output)
        return
    retired = _new_folder(output, "old")
    try:
        output.rename(retired / output.name)
        stage.rename(output)
    finally:  # Ctrl-C between the two as well: the old output goes back unless the new one is in place
        if not os.path.lexists(output):
            (retired / output.name).rename(output)
        shutil.rmtree(retired, ignore_errors=True)


@contextmanager
def _as_output_error(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"{error.filename or output}: cannot be written ({error.strerror or error})",
            hint="Free some room, or name an output on another disk."
            if full
            else "Name an output that can be written.",
        ) from error


def _new_folder(output: Path, suffix: str) -> Path:
    """A new hidden folder on the same disk as `output`, so that a rename moves nothing."""
    folder = output.with_name(f".{output.name}.{secrets.token_hex(4)}.{suffix}")
    folder.mkdir()
    return folder
