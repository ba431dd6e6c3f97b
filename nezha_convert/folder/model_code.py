"""The model's own source files. Every converted folder gets a copy, so that it loads where this package is missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import NezhaConvertError, pip_install

MODEL_FILES = ("configuration_nezha.py", "attention_nezha.py", "modeling_nezha.py")


def model_files() -> dict[str, bytes]:
    """The files of `MODEL_FILES` by name.

    Raises:
        NezhaConvertError: the package `nezha` is not installed.
    """
    folder = _package()
    return {name: (folder / name).read_bytes() for name in MODEL_FILES}


def installed_code(name: str) -> bytes | None:
    """The file `name` of the installed package `nezha`; None where the package has no such file.

    Raises:
        NezhaConvertError: the package `nezha` is not installed.
    """
    path = _package() / name
    return path.read_bytes() if path.is_file() else None


def _package() -> Path:
    """The folder of the package `nezha`, found without an import: that would load torch."""
    spec = find_spec("nezha")
    if spec is None or not spec.submodule_search_locations:
        raise NezhaConvertError(
            "the package nezha is not installed beside nezha_convert",
            hint=pip_install("--force-reinstall nezha-convert"),
        )
    return Path(spec.submodule_search_locations[0])
