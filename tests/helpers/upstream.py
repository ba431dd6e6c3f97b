"""Other releases of transformers than the installed one, and the tests of the installed one.

pip fetches both once, into a cache that outlives the checkout: `$NEZHA_TEST_CACHE`, or `nezha-convert/tests` in
the user's cache directory. A test is skipped with the message of an `UnavailableError`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import warm_python

INSTALL_SECONDS = 600
QUICK = ("--no-compile",)
"""Python compiles what a program imports, which is a small part of a release."""

PADDLE_REQUIREMENTS = (
    *("paddlepaddle==3.3.1", "huggingface-hub==0.25.2", "aistudio-sdk==0.2.6", "datasets==2.21.0", "setuptools<70"),
    *("colorlog", "tqdm", "safetensors", "jinja2", "rich", "sentencepiece", "regex", "requests", "dill"),
    *("multiprocess", "jieba", "seqeval", "fastapi", "uvicorn", "typer"),
)
"""Of PaddleNLP 2.8.1."""

KERAS_REQUIREMENTS = ("tensorflow-cpu==2.15.1", "h5py==3.14.0", "numpy==1.26.4", "setuptools<70")
"""Of bert4keras 0.11.5."""


class UnavailableError(Exception):
    """A release could not be fetched; the message is a reason to skip a test."""


def installed_release(release: str) -> Path:
    """A folder with a release of transformers and its requirements, to come first on PYTHONPATH.

    Torch is no dependency of transformers: it stays the one that runs the tests.
    """

    def install(folder: Path) -> None:
        _pip("install", *QUICK, "--target", str(folder), f"transformers=={release}")

    return _cached(f"transformers-{release}-python{sys.version_info.major}.{sys.version_info.minor}", install)


def installed_program(name: str, *requirements: str, alone: tuple[str, ...] = ()) -> Path:
    """The folder `name` with `requirements` and all that they require, and with `alone` without what those require."""

    def install(folder: Path) -> None:
        _pip("install", *QUICK, "--target", str(folder), *requirements)
        if alone:
            _pip("install", *QUICK, "--no-deps", "--target", str(folder), *alone)

    return _cached(f"{name}-python{sys.version_info.major}.{sys.version_info.minor}", install)


def environment_with(name: str, *requirements: str) -> Path:
    """The Python of an environment `name` that has what this one has, and `requirements` with what they lack."""

    def install(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "base.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
        _pip("--python", str(folder / "bin" / "python"), "install", *QUICK, *requirements)

    return _cached(f"{name}-python{sys.version_info.major}.{sys.version_info.minor}", install) / "bin" / "python"


def installed_torch_1_1() -> Path:
    """A folder with torch 1.1 and NumPy for Python 3.7, which `python3.7` has to be."""
    try:
        ran = subprocess.run(["python3.7", "-c", ""], capture_output=True, check=False)
    except OSError as error:
        raise UnavailableError(f"python3.7 cannot be run: {error.strerror}") from error
    if ran.returncode:
        raise UnavailableError("python3.7 cannot be run, and torch 1.1 has no wheel for a later Python")

    def install(folder: Path) -> None:
        _pip("install", *QUICK, "--target", str(folder), "torch==1.1.0", python="python3.7")

    return _cached("torch-1.1.0-python3.7", install)


def release_tests(release: str) -> Path:
    """A folder with the `tests/test_*.py` that a release of transformers carries in its source distribution."""

    def download(folder: Path) -> None:
        _pip("download", "--no-deps", "--no-binary", "transformers", "--dest", str(folder), f"transformers=={release}")
        (archive,) = folder.glob("*.tar.gz")
        extract_tests(archive, folder)
        archive.unlink()

    return _cached(f"transformers-{release}-tests", download)


def extract_tests(archive: Path, folder: Path) -> None:
    """Extract `NAME-VERSION/tests/*.py` to `folder/tests`, and nothing anywhere else."""
    (folder / "tests").mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = member.name.split("/")
            # Only plain files of exactly this depth, written under their last name: no path can lead outside.
            if member.isfile() and len(parts) == 3 and parts[1] == "tests" and parts[2].endswith(".py"):
                (folder / "tests" / Path(parts[2]).name).write_bytes(tar.extractfile(member).read())


def run_isolated(release: str, program: str, *arguments: str, path: Path | None = None) -> str:
    """Run a Python program on a release of transformers; what it printed.

    Args:
        release: as in `installed_release`.
        program: source text.
        arguments: its `sys.argv[1:]`.
        path: a folder to import from besides, such as the repository's root.
    """
    return run_python(program, *arguments, path=[installed_release(release), *([path] if path else [])])


def run_python(
    program: str,
    *arguments: str,
    path: list[Path] | None = None,
    warm: bool = False,
    python: str | Path = sys.executable,
) -> str:
    """Run a Python program in a process of its own outside the checkout; what it printed.

    It can import the folders of `path`, before whatever is installed, and nothing of the checkout besides. A `warm`
    one has torch imported already: not for tests of imports, nor for a `path` with other releases of its libraries.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(folder) for folder in path or ()),
            "PYTHONSAFEPATH": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": elsewhere,
        }
        command = ["-c", program, *arguments]
        if warm:
            ran = warm_python.run(command, env=environment, cwd=elsewhere)
        else:
            ran = subprocess.run(
                [str(python), *command],
                capture_output=True,
                text=True,
                env=environment,
                cwd=elsewhere,
                timeout=INSTALL_SECONDS,
            )
    assert ran.returncode == 0, f"the program failed:\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def _cache_directory() -> Path:
    chosen = os.environ.get("NEZHA_TEST_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nezha-convert" / "tests"


def _cached(name: str, fill: Callable[[Path], None]) -> Path:
    """The cached folder `name`, filled by one test process while the others wait for it.

    It is filled under another name first, so that it is never half full.
    """
    folder = _cache_directory() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix="partial-") as staged:
                content = Path(staged) / name
                content.mkdir()
                fill(content)
                content.rename(folder)
    return folder


def _pip(*arguments: str, python: str = sys.executable) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    # The constraints of the environment that runs the tests name other releases.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    ran = subprocess.run(
        [*command, *arguments, "--retries", "1", "--timeout", "15"],
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        env=environment,
    )
    if ran.returncode:
        last = (ran.stderr.strip() or "pip is not installed").splitlines()[-1]
        raise UnavailableError(f"pip could not fetch {arguments[-1]}: {last}")
