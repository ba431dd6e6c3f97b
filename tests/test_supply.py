"""What SECURITY.md promises of the supply chain: locked versions, builds that repeat, nothing run at install.

And that what is said of a release in several places is the same in all of them.
"""

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
from email import message_from_bytes
from fnmatch import fnmatchcase
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = (ROOT / ".ci" / "requirements.lock", ROOT / ".ci" / "requirements-torch.lock")
SOURCES = [path for package in ("nezha", "nezha_convert") for path in (ROOT / package).rglob("*.py")]
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
PYTHONS = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
REPOSITORY = "https://github.com/nezha-convert/nezha-convert"
TORCH = ("torch", "triton")
TORCH_PREFIXES = ("nvidia-", "cuda-")


# Locked versions


def requirements(path: Path) -> list[tuple[Requirement, list[str]]]:
    """Each requirement of a lock file, or of a constraints file, with its hashes."""
    lines = [line for line in path.read_text("utf-8").replace("\\\n", "").splitlines() if not line.startswith("#")]
    parts = [line.split("--hash=") for line in lines]
    return [(Requirement(name.strip()), [digest.strip() for digest in digests]) for name, *digests in parts]


def pins(path: Path, environment: dict[str, str]) -> dict[str, str]:
    """The version of each name that is for this environment."""
    pinned = [one for one, _ in requirements(path) if not one.marker or one.marker.evaluate(environment)]
    names = [canonicalize_name(one.name) for one in pinned]
    assert len(set(names)) == len(names), f"{path.name} holds a name twice for {environment}"
    return {name: str(one.specifier) for name, one in zip(names, pinned, strict=True)}


def test_every_locked_version_is_exact_and_has_its_hashes():
    for path in LOCKS:
        for one, digests in requirements(path):
            assert re.fullmatch(r"==[^*,]+", str(one.specifier)), one
            assert digests and all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests), one


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("python", PYTHONS)
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


def test_what_the_action_installs_is_a_part_of_the_lock():
    """Whole lines of it: the same versions with the same hashes, for all that the package and its build require."""
    lock, action = (
        {(canonicalize_name(one.name), str(one.specifier)): digests for one, digests in requirements(path)}
        for path in (LOCKS[0], ROOT / ".ci" / "requirements-action.lock")
    )
    assert {one: lock.get(one) for one in action} == action
    extras = "".join(re.findall(r"^(?:html|keras|torch) = \[(.+)\]$", PYPROJECT, re.MULTILINE))
    needed = closure(["nezha-convert", "hatchling", *re.findall(r'"(.+?)"', extras)]).keys() - {"nezha-convert"}
    assert {"h5py", "matplotlib", "torch", "transformers", "numpy"} <= needed
    of_torch = {name for name in needed if name in TORCH or name.startswith(TORCH_PREFIXES)}
    assert needed - of_torch <= {name for name, _ in action}
    assert not {name for name, _ in action} & {"pytest", "ray", "gradio", "datasets"}


def test_every_release_that_the_action_knows_has_a_hash():
    lines = (ROOT / ".ci" / "releases.lock").read_text("utf-8").splitlines()
    pattern = r"nezha-convert==[0-9A-Za-z.]+ --hash=sha256:[0-9a-f]{64}"
    assert all(line.startswith("#") or re.fullmatch(pattern, line) for line in lines)


def test_every_requirement_of_the_project_is_locked():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in ("html", "keras", "onnx", "ray", "space", "train", "test", "dev"):
        wanted += project["project"]["optional-dependencies"][extra]
    locked = {canonicalize_name(one.name) for path in LOCKS for one, _ in requirements(path)}
    assert {canonicalize_name(Requirement(one).name) for one in wanted} - {"nezha-convert"} <= locked


def test_the_core_requires_these_and_torch_comes_by_extras_alone():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads(PYPROJECT)["project"]
    names = {canonicalize_name(Requirement(one).name) for one in project["dependencies"]}
    assert names == {
        *(
            "click",
            "google-crc32c",
            "huggingface-hub",
            "ml-dtypes",
            "numpy",
            "pyyaml",
            "rich",
            "safetensors",
            "tokenizers",
        ),
    }
    extras = {name: " ".join(wanted) for name, wanted in project["optional-dependencies"].items()}
    assert {Requirement(one).name for one in project["optional-dependencies"]["torch"]} == {"torch", "transformers"}
    assert all("nezha-convert[torch]" in extras[name] for name in ("onnx", "train"))
    assert "onnx" in extras["test"] and "train" in extras["test"] and "nezha-convert[test]" in extras["dev"]


def closure(wanted: list[str]) -> dict[str, Distribution]:
    """What `wanted` and all that it requires install, of what is installed here, by name."""
    found: dict[str, Distribution] = {}
    queue = [Requirement(one) for one in wanted]
    while queue:
        one = queue.pop()
        name = canonicalize_name(one.name)
        if name not in found and (not one.marker or one.marker.evaluate({"extra": ""})):
            found[name] = distribution(name)
            queue += map(Requirement, found[name].requires or ())
    return found


def test_the_core_and_all_that_it_requires_take_less_than_200_mb():
    dependencies = re.findall(r"^dependencies = \[\n(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)[0]
    installed = closure(re.findall(r'"(.+?)"', dependencies))
    assert "numpy" in installed and not installed.keys() & {"torch", "transformers"}
    paths = [Path(file.locate()) for one in installed.values() for file in one.files or ()]
    assert 50e6 < sum(path.stat().st_size for path in paths if path.is_file()) < 200e6


def test_continuous_integration_installs_the_lock_file_and_looks_for_what_came_besides():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert script.index("--require-hashes -r .ci/requirements.lock") < script.index('bash "$work/test.sh"')
    assert script.index('bash "$work/test.sh"') < script.index("check_lock.py")


# Builds


def repository() -> list[str]:
    """Every file of this repository; of an unpacked sdist, which has no .git, every file that git would not ignore."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True) if (ROOT / ".git").exists() else None
    if listed and listed.returncode == 0:
        added = {path.relative_to(ROOT).as_posix() for path in SOURCES}  # perhaps not yet by `git add`
        return sorted(name for name in {*listed.stdout.split("\0"), *added} if (ROOT / name).is_file())
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split()]
    paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return sorted(
        path.as_posix()
        for path in paths
        if path.name != "PKG-INFO" and not any(fnmatchcase(part, glob) for part in path.parts for glob in ignored)
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """Wheel and sdist, built twice: in folders of other names, with other umasks, times and environments."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install -e '.[dev]'")
    results = {}
    for name, umask, seconds in (("one", 0o022, 1_000_000_000), ("another-folder", 0o077, 1_700_000_000)):
        folder = tmp_path_factory.mktemp(name)
        source, out = folder / name, folder / "out"
        for file in repository():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, source / file)
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
        *(b"[pytest11]", b"nezha_parity", b"=", b"nezha_convert.pytest_plugin"),
    ]
    fields = wheel[f"{folder}/WHEEL"].decode().splitlines()
    assert "Root-Is-Purelib: true" in fields and "Tag: py3-none-any" in fields


def test_the_wheel_records_the_hash_of_every_file(wheel):
    (record,) = (name for name in wheel if name.endswith("/RECORD"))
    rows = {name: digest for name, digest, _ in csv.reader(io.StringIO(wheel[record].decode()))}
    assert rows.pop(record) == "" and rows.keys() == wheel.keys() - {record}
    for name, digest in rows.items():
        computed = base64.urlsafe_b64encode(hashlib.sha256(wheel[name]).digest()).rstrip(b"=").decode()
        assert digest == f"sha256={computed}"


@pytest.fixture(scope="module")
def sdist(built) -> set[str]:
    """The names in the sdist, all of them files."""
    (data,) = (data for name, data in built["one"].items() if name.endswith(".tar.gz"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert all(member.isfile() for member in archive.getmembers())
        return {member.name.partition("/")[2] for member in archive.getmembers()}


def test_the_sdist_builds_by_hatchling_alone(sdist):
    """No setup.py, no hook of the project's own: what builds the wheel is the build backend, and it reads metadata."""
    assert "pyproject.toml" in sdist and not sdist & {"setup.py", "setup.cfg", "hatch_build.py"}
    assert 'build-backend = "hatchling.build"' in PYPROJECT and "hooks" not in PYPROJECT.replace(
        ".pre-commit-hooks.yaml", ""
    )


def test_the_sdist_holds_every_file_of_the_repository(sdist):
    """So the tests pass in it, and what a document names is there."""
    assert sdist == {*repository(), "PKG-INFO"}


# What is said in several places


def workflow(name: str) -> Any:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))


def test_the_versions_of_python_agree():
    assert [f"3.{minor}" for minor in range(10, 10 + len(PYTHONS))] == PYTHONS and len(PYTHONS) > 1
    assert f'requires-python = ">={PYTHONS[0]}"' in PYPROJECT
    assert f'target-version = "py{PYTHONS[0].replace(".", "")}"' in PYPROJECT
    assert workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    assert set(re.findall(r"Python (3\.\d+) to (3\.\d+)", text)) == {(PYTHONS[0], PYTHONS[-1])}


def test_the_addresses_of_the_project_are_of_one_repository_and_in_the_metadata(wheel):
    (metadata,) = (message_from_bytes(data) for name, data in wheel.items() if name.endswith("/METADATA"))
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL"))
    assert urls.keys() == {"Homepage", "Documentation", "Changelog", "Issues"}
    assert urls["Homepage"] == REPOSITORY and all(url.startswith(REPOSITORY) for url in urls.values())
    for url in urls.values():
        path = re.search(r"/(?:blob|tree)/main/(.+)$", url)
        assert path is None or (ROOT / path[1]).exists(), url


def test_the_changelog_begins_with_this_version():
    version = re.search(
        r'^__version__ = "(.+)"$', (ROOT / "nezha_convert/_version.py").read_text("utf-8"), re.MULTILINE
    )
    heading = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert re.fullmatch(rf"{re.escape(version[1])} \((\d{{4}}-\d\d-\d\d|unreleased)\)", heading[1])


def test_the_workflow_that_publishes_is_pinned_and_has_no_secret():
    release = workflow("release.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key `on` as true
    assert release["permissions"] == {"contents": "read"}
    build, publish = release["jobs"]["build"], release["jobs"]["publish"]
    assert "nox -s release" in [step.get("run") for step in build["steps"]] and "permissions" not in build
    assert publish["permissions"] == {"id-token": "write"} and publish["needs"] == "build"
    assert not any("run" in step for step in publish["steps"])  # no code of ours where the right to publish is
    action = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    for step in (*build["steps"], *publish["steps"], *action["runs"]["steps"]):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + 40 * "0")), step
    assert "secrets" not in (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")


def test_pre_commit_runs_the_locked_linters():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    hooks = {hook["id"]: repo for repo in repos for hook in repo["hooks"]}
    assert {"ruff-check", "ruff-format", "mypy"} <= hooks.keys()
    constraints = (ROOT / "constraints.txt").read_text("utf-8").split()
    assert f"ruff=={hooks['ruff-check']['rev'].removeprefix('v')}" in constraints
    assert hooks["mypy"]["repo"] == "local"  # the environment's own, which is the locked one


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


def test_torch_load_only_ever_makes_what_is_on_a_list():
    """Torch's own list, or that of the stand-ins. No rule of ruff's knows torch.load."""
    nodes = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    imported = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "torch"]
    assert not any(alias.name == "load" for node in imported for alias in node.names)
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    assert len(calls) > 1
    for call in calls:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options["weights_only"] == "True" or options["pickle_module"] == "STAND_INS", ast.unparse(call)
