"""`env`: what a bug report says, and the package of the index that takes our place."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nezha_convert
from nezha_convert.cli.app import main
from nezha_convert.commands.env import PACKAGES
from nezha_convert.releases import TORCH, TRANSFORMERS

ROOT = Path(__file__).parents[2]


def install_other(place: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """The package of the index as pip would leave it in `place`, which comes first on sys.path."""
    (place / "nezha-0.0.68.dist-info").mkdir(parents=True)
    (place / "nezha-0.0.68.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: nezha\nVersion: 0.0.68\n")
    for name, text in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    monkeypatch.syspath_prepend(place)


def test_it_names_the_versions_of_what_the_core_and_its_extras_require():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [project["optional-dependencies"][extra] for extra in ("torch", "onnx", "keras", "html", "tf")]
    wanted = {canonicalize_name(Requirement(one).name) for one in chain(project["dependencies"], *extras)}
    assert wanted - {"nezha-convert", "tf-slim"} == {canonicalize_name(name) for name in PACKAGES}
    found = nezha_convert.env()
    assert found.packages["numpy"] == version("numpy") and found.python.startswith(sys.version.split()[0])
    assert (found.version, found.problems, found.hint) == (nezha_convert.__version__, (), "")


def test_it_names_the_releases_that_the_tests_have_shown():
    said = nezha_convert.env().supported
    assert all(release in said for ends in (TORCH, *TRANSFORMERS) for release in ends)


def test_a_package_that_is_not_there_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr("nezha_convert.commands.env.PACKAGES", ("no-such-package",))
    assert nezha_convert.env().packages == {"no-such-package": None}


def test_the_other_nezha_of_the_index_is_found_with_the_command_that_mends_it(tmp_path, monkeypatch, capsys):
    install_other(tmp_path, monkeypatch, {})
    (problem,) = nezha_convert.env().problems
    assert re.match(r"the package nezha 0\.0\.68 of the index is installed", problem)
    with pytest.raises(SystemExit) as exit:
        main(["env"])
    shown = capsys.readouterr().out
    assert exit.value.code == 0 and "pip uninstall -y nezha && " in shown
    assert "pip install --force-reinstall --no-deps nezha-convert" in shown


def test_a_nezha_without_the_model_is_found_even_without_its_metadata(tmp_path, monkeypatch):
    install_other(tmp_path, monkeypatch, {"nezha/__init__.py": ""})
    monkeypatch.delitem(sys.modules, "nezha", raising=False)
    overwritten, hidden = nezha_convert.env().problems
    assert "0.0.68" in overwritten
    assert hidden == f"import nezha finds {tmp_path / 'nezha'}, without the model"


def test_it_is_one_document_for_a_program_and_says_nothing_secret(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(SystemExit):
        main(["env", "--json"])
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads(json.dumps(nezha_convert.env().to_dict())) and "hf_secret" not in printed
