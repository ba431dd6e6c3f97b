"""What SECURITY.md promises of the supply chain: locked versions, builds that repeat, nothing run at install."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = (ROOT / ".ci" / "requirements.lock", ROOT / ".ci" / "requirements-torch.lock")
SOURCES = [path for package in ("nezha", "nezha_convert") for path in (ROOT / package).rglob("*.py")]
TORCH = ("torch", "triton")
TORCH_PREFIXES = ("nvidia-", "cuda-")


# Locked versions


def requirements(path: Path) -> list[tuple[Requirement, list[str]]]:
    """Each requirement of a lock file, or of a constraints file, with its hashes."""
    lines = [line for line in path.read_text("utf-8").replace("\\\n", "").splitlines() if not line.startswith("#")]
    parts = [line.split("--hash=") for line in lines]
    return [(Requirement(name.strip()), [digest.strip() for digest in digests]) for name, *digests in parts]


def pins(path: Path, environment: dict[str, str]) -> dict[str, str]:
    found = [one for one, _ in requirements(path) if not one.marker or one.marker.evaluate(environment)]
    names = [canonicalize_name(one.name) for one in found]
    assert len(set(names)) == len(names), f"{path.name} holds a name twice for {environment}"
    return {name: str(one.specifier) for name, one in zip(names, found, strict=True)}


def test_every_locked_version_is_exact_and_has_its_hashes():
    for path in LOCKS:
        for one, digests in requirements(path):
            assert re.fullmatch(r"==[^*,]+", str(one.specifier)), one
            assert digests and all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests), one


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_the_lock_files_hold_the_versions_of_constraints_txt(python, platform):
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": platform,
        "extra": "",
    }
    allowed = pins(ROOT / "constraints.txt", environment)
    locked, torch = (pins(path, environment) for path in LOCKS)
    assert {name: allowed.get(name) for name in locked} == locked
    assert torch["torch"] == allowed["torch"]
    assert all(name in TORCH or name.startswith(TORCH_PREFIXES) for name in torch)
    assert not locked.keys() & torch.keys()


def test_every_requirement_of_the_project_is_locked():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in ("html", "keras", "onnx", "train", "test", "dev"):
        wanted += project["project"]["optional-dependencies"][extra]
    locked = {canonicalize_name(one.name) for path in LOCKS for one, _ in requirements(path)}
    assert {canonicalize_name(Requirement(one).name) for one in wanted} - {"nezha-convert"} <= locked


def test_continuous_integration_installs_the_lock_file_and_looks_for_what_came_besides():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert script.index("--require-hashes -r .ci/requirements.lock") < script.index('bash "$work/test.sh"')
    assert script.index('bash "$work/test.sh"') < script.index("check_lock.py")


# Builds


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """Wheel and sdist, built twice: in folders of other names, with other umasks, times and environments."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install -e '.[dev]'")
    results = {}
    for name, umask, seconds in (("one", 0o022, 1_000_000_000), ("another-folder", 0o077, 1_700_000_000)):
        folder = tmp_path_factory.mktemp(name)
        source, out = folder / name, folder / "out"
        source.mkdir()
        ignored = shutil.ignore_patterns("__pycache__", ".hypothesis", ".pytest_cache", "fuzz-work")
        for path in ("nezha", "nezha_convert", "tests", "fixtures", "benchmarks"):
            shutil.copytree(ROOT / path, source / path, ignore=ignored)
        for path in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", ".gitignore"):
            shutil.copy(ROOT / path, source / path)
        for path in source.rglob("*.py"):
            os.utime(path, (seconds, seconds))
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~umask)
        environment = {k: v for k, v in os.environ.items() if k not in ("SOURCE_DATE_EPOCH", "PYTHONPATH")}
        environment |= {"TZ": "UTC" if name == "one" else "Asia/Shanghai", "PYTHONHASHSEED": str(seconds % 1000)}
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(out)]
        subprocess.run(command, cwd=source, check=True, capture_output=True, env=environment, umask=umask)
        results[name] = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
    return results


def test_two_builds_give_the_same_bytes(built):
    one, other = built.values()
    assert sorted(name.rpartition("-")[0].partition("-")[0] for name in one) == ["nezha_convert"] * 2
    assert {name: hashlib.sha256(data).hexdigest() for name, data in one.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in other.items()
    }


@pytest.fixture(scope="module")
def wheel(built) -> dict[str, bytes]:
    """The wheel's files."""
    (data,) = (data for name, data in built["one"].items() if name.endswith(".whl"))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_the_wheel_is_the_packages_and_its_metadata_alone(wheel):
    """An installer only copies these: it runs code for a .pth file, a setup.py or scripts, and there are none."""
    (folder,) = {name.split("/")[0] for name in wheel if ".dist-info/" in name}
    metadata = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    sources = {path.relative_to(ROOT).as_posix() for path in SOURCES} | {"nezha/py.typed", "nezha_convert/py.typed"}
    assert set(wheel) == sources | {f"{folder}/{name}" for name in metadata}
    assert all(wheel[name] == (ROOT / name).read_bytes() for name in sources)
    assert wheel[f"{folder}/entry_points.txt"].split() == [
        *(b"[console_scripts]", b"nezha-convert", b"=", b"nezha_convert.__main__:main"),
    ]
    said = wheel[f"{folder}/WHEEL"].decode().splitlines()
    assert "Root-Is-Purelib: true" in said and "Tag: py3-none-any" in said


def test_the_wheel_records_the_hash_of_every_file(wheel):
    (record,) = (name for name in wheel if name.endswith("/RECORD"))
    rows = {name: digest for name, digest, _ in csv.reader(io.StringIO(wheel[record].decode()))}
    assert rows.pop(record) == "" and rows.keys() == wheel.keys() - {record}
    for name, digest in rows.items():
        found = base64.urlsafe_b64encode(hashlib.sha256(wheel[name]).digest()).rstrip(b"=").decode()
        assert digest == f"sha256={found}"


def test_the_sdist_builds_by_hatchling_alone(built):
    """No setup.py, no hook of the project's own: what builds the wheel is the build backend, and it reads metadata."""
    (data,) = (data for name, data in built["one"].items() if name.endswith(".tar.gz"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
        assert all(member.isfile() for member in archive.getmembers())
    assert "pyproject.toml" in names and not names & {"setup.py", "setup.cfg", "hatch_build.py"}
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert 'build-backend = "hatchling.build"' in text and "hooks" not in text


# What the linter would catch


PLANTED = {
    "S301": "pickle.loads(b'')",
    "S602": "subprocess.run(input(), shell=True, check=True)",
    "S202": "tarfile.open('a').extractall('b')",
    "S506": "yaml.load('a')",
    "S102": "exec(input())",
    "S113": "requests.get('https://example.org')",
}


@pytest.mark.parametrize("place", ["nezha_convert/planted.py", "nezha_convert/formats/planted.py", "nezha/planted.py"])
def test_planted_weaknesses_are_found_by_the_project_s_own_settings(place):
    if find_spec("ruff") is None:
        pytest.skip("ruff is not installed: pip install -e '.[dev]'")
    code = "import pickle\nimport subprocess\nimport tarfile\n\nimport requests\nimport yaml\n\n"
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "--stdin-filename"]
    code += "\n".join(PLANTED.values())
    done = subprocess.run([*command, place, "-"], cwd=ROOT, input=code, capture_output=True, text=True, check=False)
    assert [rule for rule in PLANTED if f" {rule} " not in done.stdout] == [], done.stdout + done.stderr


def test_torch_load_is_never_called_without_weights_only():
    """No rule of ruff's knows torch.load."""
    nodes = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    imported = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "torch"]
    assert not any(alias.name == "load" for node in imported for alias in node.names)
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    assert len(calls) > 1
    for call in calls:
        assert ("weights_only", "True") in [(k.arg, ast.unparse(k.value)) for k in call.keywords], ast.unparse(call)
