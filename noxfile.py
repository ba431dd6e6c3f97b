"""Sessions that need an environment of their own.

- `nox -s matrix` loads converted folders in every release of transformers that we support.
- `nox -s words` changes every word of each program's config and runs the program beside the converted model.
- `nox -s real` pulls public weights from the Hub, converts, proves and asks them for words, and writes docs/real.md.
- `nox -s readme` runs the blocks of every document as a reader would, in fresh environments that pip fills.
- `nox -s docs` builds the site of the documents and the reference.
- `nox -s floors` runs the core's tests with the lowest versions that pyproject.toml allows, `nox -s newest` with the
  highest.
- `nox -s lock` writes the lock files anew from the versions in constraints.txt.
- `nox -s audit` looks for published weaknesses of the locked versions.
- `nox -s release` checks this commit and builds what is published.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import nox

UV = "uv==0.13.9"
LOCK, TORCH_LOCK = Path(".ci/requirements.lock"), Path(".ci/requirements-torch.lock")
ACTION_LOCK, RELEASES = Path(".ci/requirements-action.lock"), Path(".ci/releases.lock")
CORE_LOCK = Path(".ci/requirements-core.lock")
TORCH = re.compile(r"(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")
KNOWN_WEAK = "urllib3==1.24.1"
"""A release with published weaknesses. A database that finds none in it did not answer the question."""

CORE_TESTS = (
    *(
        "cli",
        "commands",
        "exports",
        "files",
        "folder",
        "formats",
        "hub",
        "mapping",
        "model",
        "parity",
        "tokenizer",
        "weights",
    ),
    *("test_core.py", "test_layers.py"),
)
"""What `floors` and `newest` run, of the folder `tests`: not the examples' and the tools' tests."""

VERSION_FILE, CHANGELOG = Path("nezha_convert/_version.py"), Path("CHANGELOG.md")


@nox.session(python=False)
def matrix(session: nox.Session) -> None:
    """Run tests/matrix on each release of transformers, in isolated environments that are kept between runs."""
    session.run("python", "-m", "pytest", "tests/matrix", *session.posargs, env={"NEZHA_MATRIX": "all"})


@nox.session(python=False)
def words(session: nox.Session) -> None:
    """Print the table of docs/verify.md. What a program needs and is not there is said; `-- NAME` runs one of them."""
    paths = os.pathsep.join((".", "tests", "tests/helpers"))
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    session.run("python", "-W", "ignore", "tests/helpers/words.py", *session.posargs, env=environment)


@nox.session(python=False)
def real(session: nox.Session) -> None:
    """Try the public weights of tests/real/models.yaml and write docs/real.md; `-- --simulated` needs no network."""
    paths = os.pathsep.join((".", "tests", "tests/helpers"))
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "2", "HF_HUB_DISABLE_XET": "1"}
    session.run("python", "-W", "ignore", "tests/real/run.py", *session.posargs, env=environment)


@nox.session(python=False)
def readme(session: nox.Session) -> None:
    """Run the blocks of the documents, with what they install from the index. `-- -k README` runs one document."""
    wheel = Path(session.create_tmp()).resolve()
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheel), ".")
    environment = {"NEZHA_FRESH": "1", "PIP_FIND_LINKS": str(wheel)}
    session.run("python", "-m", "pytest", "tests/docs/test_blocks.py", *session.posargs, env=environment)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into site/; a warning is an error. `-- serve` shows it while you write."""
    # The extra `docs`, without the package.
    session.install("mkdocs-material>=9.8,<10", "mkdocstrings-python>=2,<3", "ruff>=0.9")
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def floors(session: nox.Session) -> None:
    """Run the core's tests with the lowest version of each requirement. UV_TORCH_BACKEND=cpu saves gigabytes."""
    _test_with(session, "lowest-direct")


@nox.session
def newest(session: nox.Session) -> None:
    """Run the core's tests with the highest version of each requirement. UV_TORCH_BACKEND=cpu saves gigabytes."""
    _test_with(session, "highest")


def _test_with(session: nox.Session, resolution: str) -> None:
    session.install(UV)
    install = ("uv", "pip", "install", "--quiet", "--python", str(Path(session.bin) / "python"))
    session.run(*install, "--resolution", resolution, "--editable", ".[html,keras,onnx,torch]")
    session.run(*install, "accelerate", "hypothesis", "parameterized", "pytest", "pytest-xdist")
    session.run("uv", "pip", "list")
    session.run("python", "-m", "pytest", *(f"tests/{name}" for name in CORE_TESTS), *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Write the lock files: the versions of constraints.txt, with the SHA-256 of every file that the index has of them.

    torch has a lock file of its own, because the right build of it depends on the machine. What action.yml and the
    Dockerfile install are parts of the first one.
    """
    session.install(UV)
    every = _locked(session, ("dev",))
    action, core = _locked(session, ("html", "keras", "torch")), _locked(session, ())
    files = ((LOCK, every, False), (TORCH_LOCK, every, True), (ACTION_LOCK, action, False), (CORE_LOCK, core, False))
    for path, blocks, torch in files:
        text = "".join(block for block in blocks if bool(TORCH.match(block)) == torch)
        path.write_text(f"# Written by `nox -s lock`. What it is for: SECURITY.md.\n{text}", "utf-8")


def _locked(session: nox.Session, extras: Sequence[str]) -> list[str]:
    """The lines of each version that the package with `extras`, and its build, require."""
    folder = Path(session.create_tmp()).resolve()
    out, build = folder / "requirements.txt", folder / "build.in"
    out.unlink(missing_ok=True)  # uv would keep the versions in it
    build.write_text("hatchling\n", "utf-8")
    session.run(
        *("uv", "pip", "compile", "pyproject.toml", str(build), *(word for one in extras for word in ("--extra", one))),
        *("--constraints", "constraints.txt", "--universal", "--python-version", "3.10", "--generate-hashes"),
        *("--no-annotate", "--no-header", "--quiet", "--output-file", str(out)),
    )
    return re.findall(r"^\S.*(?:\n .*)*\n", out.read_text("utf-8"), re.MULTILINE)


@nox.session
def audit(session: nox.Session) -> None:
    """Look the locked versions up in a database of published weaknesses.

    If the database does not answer, the session fails. With `-- --if-it-answers` it is skipped instead, and says so.
    """
    session.install("pip-audit==2.10.1")
    weak = Path(session.create_tmp()).resolve() / "weak.txt"
    weak.write_text(f"{KNOWN_WEAK}\n")
    pip_audit = ("pip-audit", "--disable-pip", "--no-deps", "--progress-spinner", "off")
    answer = session.run(*pip_audit, "--requirement", str(weak), silent=True, success_codes=[0, 1])
    if not re.search(r"^urllib3 +1\.24\.1 +(PYSEC|CVE|GHSA)-", str(answer), re.MULTILINE):
        (session.skip if "--if-it-answers" in session.posargs else session.error)(
            f"NOT AUDITED: the database of weaknesses, asked about {KNOWN_WEAK}, named none. It said:\n{answer}"
        )
    session.run(*pip_audit, "--strict", "--requirement", str(LOCK), "--requirement", str(TORCH_LOCK))


@nox.session
def release(session: nox.Session) -> None:
    """Check this commit and build its wheel and sdist into dist/. Publishing is .github/workflows/release.yml's part.

    `-- --dry-run` needs neither a tag nor a date in the changelog. `-- --no-tests` leaves out the sdist's own tests.
    """
    if unknown := set(session.posargs) - {"--dry-run", "--no-tests"}:
        session.error(f"unknown: {', '.join(sorted(unknown))}; expected --dry-run or --no-tests")
    work = Path(session.create_tmp()).resolve()
    shutil.rmtree(work)
    work.mkdir()
    version = _check_commit(session, dry_run="--dry-run" in session.posargs)
    session.install("-c", "constraints.txt", "hatchling", "twine==7.0.0")
    wheel, sdist = _build(session, work)
    if wheel.name.split("-")[1] != version:
        session.error(f"{wheel.name} is not of version {version}")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    _check_hash(session, version, wheel, dry_run="--dry-run" in session.posargs)

    session.run("python", "-m", "venv", str(work / "fresh"))
    fresh = str(work / "fresh" / "bin" / "python")
    pip = (fresh, "-m", "pip", "install", "--quiet", "-c", "constraints.txt")
    session.run(*pip, str(wheel), external=True)
    command = str(work / "fresh" / "bin" / "nezha-convert")
    if version not in str(session.run(command, "--version", external=True, silent=True)):
        session.error(f"the installed command does not say that it is {version}")
    converted = ("convert", "fixtures/huawei-tf-pretraining", str(work / "converted"))
    session.run(command, *converted, external=True)  # by the core alone
    if "--no-tests" not in session.posargs:
        session.run("python", "-m", "tarfile", "-e", str(sdist), str(work))
        session.run(*pip, f"nezha-convert[dev] @ {wheel.as_uri()}", external=True)
        with session.chdir(work / sdist.name.removesuffix(".tar.gz")):
            session.run(fresh, "-m", "pytest", external=True)
    dist = Path("dist")
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    session.log(" and ".join(str(shutil.copy(path, dist)) for path in (wheel, sdist)))


def _check_commit(session: nox.Session, dry_run: bool) -> str:
    """The version of this commit, once its tree is clean and version, changelog and tag agree."""
    version = re.findall(r'^__version__ = "(.+)"$', VERSION_FILE.read_text("utf-8"), re.MULTILINE)[0]
    if changes := session.run("git", "status", "--porcelain", external=True, silent=True):
        session.error(f"the tree has changes that are not committed:\n{changes}")
    heading, _, section = CHANGELOG.read_text("utf-8").partition("\n## ")[2].partition("\n")
    date = re.fullmatch(rf"{re.escape(version)} \((\d{{4}}-\d\d-\d\d|unreleased)\)", heading)
    if date is None or not section.partition("\n## ")[0].strip():
        session.error(f"{CHANGELOG}: expected '## {version} (YYYY-MM-DD)' and a list first, found '## {heading}'")
    if dry_run:
        return version
    if date[1] == "unreleased":
        session.error(f"{CHANGELOG}: '## {heading}' has no date yet")
    tags = str(session.run("git", "tag", "--points-at", "HEAD", external=True, silent=True)).split()
    if f"v{version}" not in tags:
        session.error(f"this commit has no tag v{version}, found {', '.join(tags) or 'none'}: git tag v{version}")
    return version


def _check_hash(session: nox.Session, version: str, wheel: Path, dry_run: bool) -> None:
    """What action.yml installs of a release is known by its hash in the very commit that is tagged."""
    line = f"nezha-convert=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    if line in RELEASES.read_text("utf-8").splitlines():
        return
    (session.log if dry_run else session.error)(f"{RELEASES} lacks the line of this release: {line}")


def _build(session: nox.Session, work: Path) -> tuple[Path, Path]:
    """Wheel and sdist of HEAD. They are built twice, in folders of different names; the bytes must be equal."""
    builds = []
    for name in ("one", "another-folder"):
        source, out = work / name, work / f"{name}-dist"
        source.mkdir()
        session.run("git", "archive", f"--output={work / 'head.tar'}", "HEAD", external=True)
        session.run("python", "-m", "tarfile", "-e", str(work / "head.tar"), str(source))
        with session.chdir(source):
            session.run("python", "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(out), silent=True)
        builds.append(sorted(out.iterdir(), key=lambda path: path.suffix != ".whl"))
    for one, other in zip(*builds, strict=True):
        if one.name != other.name or one.read_bytes() != other.read_bytes():
            session.error(f"two builds of this commit differ: {one} and {other}")
    wheel, sdist = builds[0]
    return wheel, sdist
