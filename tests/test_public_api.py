"""What a user of the packages sees: names, signatures, versions, types."""

from __future__ import annotations

import dataclasses
import inspect
import os
import pydoc
import re
import rlcompleter
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from goldens import FIXTURES

import nezha
import nezha_convert
from nezha_convert.text import SCREEN, cell_width

ROOT = Path(__file__).parents[1]
VERBS = (
    "batch",
    "check",
    "inspect",
    "convert",
    "verify",
    "diff",
    "export",
    "push",
    "pull",
    "repair",
    "record_training",
)


def test_dir_lists_the_public_names_and_no_other():
    assert dir(nezha_convert) == sorted(nezha_convert.__all__)
    assert set(VERBS) <= set(dir(nezha_convert))


def test_every_public_name_is_there():
    for package in (nezha, nezha_convert):
        for name in package.__all__:
            assert getattr(package, name) is not None


def test_completion_finds_the_verbs():
    completer = rlcompleter.Completer({"nezha_convert": nezha_convert})
    assert completer.complete("nezha_convert.con", 0).startswith("nezha_convert.convert(")
    assert completer.complete("nezha_convert.con", 1) is None


def test_help_describes_the_verbs():
    text = pydoc.render_doc(nezha_convert, renderer=pydoc.plaintext)
    for verb in VERBS:
        assert re.search(rf"^    {verb}\(", text, re.MULTILINE), verb


@pytest.mark.parametrize("verb", [*VERBS, "export_graph", "open_checkpoint"])
def test_a_signature_can_be_read(verb):
    signature = inspect.signature(getattr(nezha_convert, verb))
    assert " at 0x" not in str(signature)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, parameter


def test_both_packages_are_of_one_version():
    assert nezha.__version__ == nezha_convert.__version__


def test_the_outputs_of_pretraining_can_be_named():
    assert nezha.NezhaForPreTrainingOutput.__module__ == "nezha.modeling_nezha"


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> dict[str, object]:
    """A result of each kind that people look at in Python."""
    folder, source = tmp_path_factory.mktemp("shown") / "out", FIXTURES / "huawei-torch-classifier"
    inspected, converted = nezha_convert.inspect(source), nezha_convert.convert(source, folder)
    return {"inspection": inspected, "report": converted, "parity": nezha_convert.verify(source, folder)}


@pytest.mark.parametrize("name", ["inspection", "report", "parity"])
def test_python_shows_a_result_on_one_screen(name, shown):
    lines = repr(shown[name]).split("\n")
    assert 4 <= len(lines) <= SCREEN[0] and max(map(cell_width, lines)) <= SCREEN[1]
    assert not lines[0].startswith(" ") and all(line.startswith("  ") for line in lines[1:])


def test_what_python_shows_says_what_it_is(shown):
    assert "Huawei's NEZHA-PyTorch" in repr(shown["inspection"]) and "nezha-convert convert" in repr(
        shown["inspection"]
    )
    used = len(shown["report"].written)
    assert f"{used} used, " in repr(shown["report"]) and "decided  " in repr(shown["report"])
    assert ": passed\n  in float32  against the oracle: largest error " in repr(shown["parity"])
    failed = dataclasses.replace(shown["parity"], failures=("a reason",))
    assert "FAILED\n  problem " in repr(failed)


def test_a_result_of_many_rows_is_cut_and_says_where_all_are(shown):
    many = dataclasses.replace(shown["inspection"], problems=("我们" * 99,) * 50)
    lines = repr(many).split("\n")
    assert len(lines) == SCREEN[0] and max(map(cell_width, lines)) <= SCREEN[1]
    assert re.fullmatch(r"  \.\.\. \d\d more rows; to_dict\(\) has all", lines[-1])


def test_a_notebook_shows_the_chart_of_errors_and_nothing_that_a_name_holds_runs(shown, monkeypatch):
    parity = dataclasses.replace(shown["parity"], output="<script>")
    html = parity._repr_html_()
    assert html.count("<svg") == 1 and "pooler" in html and "<script>" not in html and "&lt;script&gt;" in html
    monkeypatch.setattr("nezha_convert.parity.report.find_spec", lambda name: None)
    html = parity._repr_html_()
    assert "<svg" not in html and "matplotlib" in html


CONVERTING = """
import nezha_convert
report = nezha_convert.convert("NEZHA-Base")
print(report.architecture.lower())
print(report.heads)
"""

MODELLING = """
import nezha
config = nezha.NezhaConfig(vocab_size="many", hidden_size=768)
print(config.max_relative_position.bit_length())
"""


def test_mypy_finds_a_user_s_mistakes_in_an_ordinary_install(tmp_path):
    """An environment of its own with the wheel, and without torch and transformers, which would take mypy a minute."""
    for module in ("hatchling", "mypy"):
        pytest.importorskip(module, reason="the extra dev is not installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    (tmp_path / "converting.py").write_text(CONVERTING.lstrip())
    (tmp_path / "modelling.py").write_text(MODELLING.lstrip())
    command = [sys.executable, "-m", "mypy", "--config-file=", f"--python-executable={tmp_path}/venv/bin/python"]
    command += ["--cache-dir", str(tmp_path / "cache"), "converting.py", "modelling.py"]
    environment = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    errors = [line.split(": error: ") for line in done.stdout.splitlines() if ": error: " in line]
    assert [where for where, _ in errors] == ["modelling.py:2", "converting.py:2", "converting.py:4"], done.stdout
    for (_, message), words in zip(errors, ('"vocab_size"', 'argument "output"', 'no attribute "heads"'), strict=True):
        assert words in message
