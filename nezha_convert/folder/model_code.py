"""The model's own source, which every converted folder carries."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import NezhaConvertError

MODEL_FILES = ("configuration_nezha.py", "attention_nezha.py", "modeling_nezha.py", "triton_nezha.py")
"""The files of the package nezha that a converted folder needs."""


def model_files() -> dict[str, bytes]:
    """The model's source files by name. The package is found without importing it, which would load torch.

    Raises:
        NezhaConvertError: it is not installed.
    """
    spec = find_spec("nezha")
    if spec is None or not spec.submodule_search_locations:
        raise NezhaConvertError(
            "the package nezha is not installed beside nezha_convert",
            hint="pip install --force-reinstall nezha-convert",
        )
    folder = Path(spec.submodule_search_locations[0])
    return {name: (folder / name).read_bytes() for name in MODEL_FILES}
