"""`env`: what a bug report has to say of the machine, the versions, and a package that takes our place."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .._version import __version__
from ..errors import pip_install
from ..releases import TORCH, TRANSFORMERS

PACKAGES = (
    *("click", "google-crc32c", "huggingface_hub", "ml_dtypes", "numpy", "pyyaml", "rich", "safetensors", "tokenizers"),
    *("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "h5py", "matplotlib", "tensorflow-cpu"),
)
"""What the core and its extras for commands require."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a bug report has to say of where nezha-convert runs. It names no file of the user and no token.

    Attributes:
        version: nezha-convert's.
        folder: where it is installed.
        python: the version and the program.
        platform: the system and the processor.
        packages: the version of each of `PACKAGES`; None where it is not installed.
        supported: of torch and transformers, as this version was tested.
        problems: what takes the place of the package `nezha`.
        hint: what to do about that.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.env().problems
        ()
    """

    version: str
    folder: str
    python: str
    platform: str
    packages: Mapping[str, str | None]
    supported: str
    problems: tuple[str, ...] = ()
    hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The environment as ``--json`` prints it."""
        return asdict(self)


def env() -> Environment:
    """Tell the versions that a bug report needs. Neither torch nor transformers is imported.

    Returns:
        The versions, the platform, and whether ``import nezha`` finds another package.

    Raises:
        Nothing: what is not installed is told as None.

    Example:
        >>> import nezha_convert
        >>> nezha_convert.env().version == nezha_convert.__version__
        True
    """
    problems = _foreign()
    series = ", ".join(" to ".join(ends) for ends in TRANSFORMERS)
    return Environment(
        version=__version__,
        folder=str(Path(__file__).parents[1]),
        python=f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})",
        platform=platform.platform(),
        packages={name: _version(name) for name in PACKAGES},
        supported=f"torch {' to '.join(TORCH)}; transformers {series}",
        problems=problems,
        hint=_HINT if problems else "",
    )


_HINT = (
    f"{pip_install('').removesuffix(' install ')} uninstall -y nezha && "
    f"{pip_install('--force-reinstall --no-deps nezha-convert')}"
)


def _foreign() -> tuple[str, ...]:
    """What else calls itself `nezha` here, each in a sentence."""
    found = []
    if (other := _version("nezha")) is not None:
        found.append(
            f"the package nezha {other} of the index is installed: it is another program, with no model in it. It has "
            "the same folder, so that the one that was installed last has overwritten the other, and removing one "
            "damages the other"
        )
    spec = find_spec("nezha")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not any((Path(place) / "modeling_nezha.py").is_file() for place in places):
        where = ", ".join(places) or (spec and spec.origin) or "nothing"
        found.append(f"import nezha finds {where}, without the model")
    return tuple(found)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
