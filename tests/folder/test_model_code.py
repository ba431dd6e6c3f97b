"""The model's own files, which every converted folder gets."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import nezha
from nezha_convert.errors import NezhaConvertError, pip_install
from nezha_convert.folder import model_code

PACKAGE = Path(nezha.__file__).parent


def test_each_file_is_the_installed_package_s():
    files = model_code.model_files()
    assert list(files) == list(model_code.MODEL_FILES)
    assert all(content == (PACKAGE / name).read_bytes() for name, content in files.items())
    assert model_code.installed_code("modeling_nezha.py") == files["modeling_nezha.py"]
    assert model_code.installed_code("another.py") is None


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(model_code, "find_spec", lambda name: importlib.util.find_spec("no_such_package"))
    with pytest.raises(NezhaConvertError, match="nezha is not installed") as error:
        model_code.model_files()
    assert error.value.hint == pip_install("--force-reinstall nezha-convert")
