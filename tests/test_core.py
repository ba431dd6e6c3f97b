"""The core does without torch and transformers, and without the compiled parts that a library may lack."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from stranger import without

import nezha_convert
from nezha_convert.errors import CPU_INDEX, UsageError, pip_install
from nezha_convert.parity import converted

HELPERS = Path(__file__).parent / "helpers"
ROOT = HELPERS.parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
CANNOT = "cannot compute what this model computes"
"""What `export` says of a program that has no place for something of a model."""


def without_packages(program: str, *names: str) -> subprocess.CompletedProcess[str]:
    """Run `program` where the modules `names` are not installed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(HELPERS)))}
    command = [sys.executable, "-c", without(*names) + program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_every_command_but_verify_runs_on_every_fixture_where_torch_and_transformers_are_missing(tmp_path):
    program = f"import runpy; sys.argv[1:] = [{str(tmp_path)!r}]; runpy.run_module('walk', run_name='__main__')"
    done = without_packages(program, "torch", "transformers")
    assert done.returncode == 0, done.stderr
    said = {command: (code, words) for command, (code, words) in json.loads(done.stdout).items()}
    failed = [
        f"{command}: {words}"
        for command, (code, words) in said.items()
        if not (code == 0 or (code == 1 and command.startswith("diff ")) or (code == 4 and CANNOT in words))
    ]
    assert failed == []
    worked = {command.rpartition(" ")[0] for command, (code, _) in said.items() if code == 0}
    assert len(said) > 300 and worked >= {"inspect", "convert", "check", "diff", "repair", "push", "pull at the"}, (
        worked
    )
    assert sum(command.startswith("export") for command in worked) == 5  # each program holds some of the models


def test_a_tensorflow_checkpoint_is_read_and_written_where_google_crc32c_has_no_compiled_part(tmp_path):
    source, out, back = ROOT / "fixtures" / "huawei-tf-pretraining", tmp_path / "out", tmp_path / "back"
    program = f"""
import google_crc32c
import nezha_convert
assert google_crc32c.implementation == "python"
nezha_convert.convert({str(source)!r}, {str(out)!r})
nezha_convert.export({str(out)!r}, {str(back)!r}, "huawei-tf")
"""
    done = without_packages(program, "google_crc32c._crc32c")
    assert done.returncode == 0, done.stderr
    assert nezha_convert.diff(source, back).same


def test_a_wrong_checksum_is_noticed_there_too(tmp_path):
    source = Path(shutil.copytree(ROOT / "fixtures" / "huawei-tf-pretraining", tmp_path / "source"))
    (data,) = source.glob("*.data-*")
    whole = bytearray(data.read_bytes())
    whole[8] ^= 1  # of the first tensor after a counter
    data.write_bytes(whole)
    program = f"import nezha_convert; nezha_convert.convert({str(source)!r}, {str(tmp_path / 'out')!r})"
    done = without_packages(program, "google_crc32c._crc32c")
    assert "do not have the checksum" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("module", "suffix", "kind"), [("bz2", ".tar.bz2", "bztar"), ("lzma", ".tar.xz", "xztar"), ("bz2", ".zip", "zip")]
)
def test_a_python_without_a_module_of_compression_starts_and_names_it(module, suffix, kind, tmp_path):
    fixture = ROOT / "fixtures" / "huawei-tf-squad"
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_BZIP2) as archive:
            for path in fixture.iterdir():
                archive.write(path, path.name)
    else:
        shutil.make_archive(str(tmp_path / "model"), kind, fixture)
    words = ["inspect", str(tmp_path / f"model{suffix}")]
    assert without_packages(f"from nezha_convert.cli.app import main; main({words!r})").returncode == 0
    done = without_packages(f"from nezha_convert.cli.app import main; main({words!r})", module)
    assert done.returncode == 3
    assert module in done.stderr and done.stderr.endswith("next: Unpack it yourself and name the folder.\n")


VERIFY = "from nezha_convert.cli.app import main; main(['verify', 'no source', 'no output'])"
NEEDS = "needs torch 2.10 and transformers 4.52.1 or newer; found"


@pytest.mark.parametrize("missing", [("torch",), ("transformers",), ("torch", "transformers")])
def test_verify_says_which_command_installs_what_is_missing(missing):
    done = without_packages(VERIFY, *missing)
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    found = " and ".join(f"no {name}" for name in missing)
    assert error == f"error: verify runs the converted model, which {NEEDS} {found}"
    assert shlex.split(hint) == [
        *("next:", sys.executable, "-m", "pip", "install", "nezha-convert[torch]"),
        *("--extra-index-url", "https://download.pytorch.org/whl/cpu"),
    ]


@pytest.mark.parametrize(("name", "old"), [("torch", "2.9.1+cpu"), ("transformers", "4.40.2")])
def test_verify_says_what_is_too_old(name, old, monkeypatch):
    monkeypatch.setattr(converted, "version", lambda package: {name: old}.get(package, "5.0"))
    with pytest.raises(UsageError, match=re.escape(f"{NEEDS} {name} {old}")) as error:
        nezha_convert.verify("no source", "no output")
    assert error.value.hint == pip_install(f"'nezha-convert[torch]' {CPU_INDEX}")


def test_the_lowest_versions_are_those_of_the_extra():
    requirements = re.findall(r'^torch = \["(.+?)>=([\d.]+)", "(.+?)>=([\d.]+),', PYPROJECT, re.MULTILINE)[0]
    assert {requirements[0]: requirements[1], requirements[2]: requirements[3]} == converted.LEAST


def test_an_export_to_onnx_says_which_command_installs_what_is_missing(tmp_path):
    nezha_convert.convert(ROOT / "fixtures" / "huawei-tf-pretraining", tmp_path / "out")
    words = ["export", str(tmp_path / "out"), str(tmp_path / "graph"), "--to", "onnx"]
    program = f"from nezha_convert.cli.app import main; main({words!r})"
    done = without_packages(program, "torch", "transformers", "onnxscript")
    assert done.returncode == 2
    hint = pip_install(f"'nezha-convert[onnx]' {CPU_INDEX}")
    assert done.stderr == f"error: an export to ONNX {NEEDS} no torch and no transformers\nnext: {hint}\n"


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_importing_the_model_says_what_is_missing_and_how_to_get_it(missing):
    done = without_packages("import nezha", missing)
    assert f"No module named '{missing}'" in done.stderr
    assert "pip install 'nezha-convert[torch]' --extra-index-url" in done.stderr
