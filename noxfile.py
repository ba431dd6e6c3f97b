"""Sessions that need environments of their own.

`nox -s matrix`: converted folders on every release of transformers that they are for.
`nox -s lock`: the hashes of constraints.txt's versions, anew. `nox -s audit`: are weaknesses known of them?
"""

import re
from pathlib import Path

import nox

LOCK, TORCH_LOCK = Path(".ci/requirements.lock"), Path(".ci/requirements-torch.lock")
TORCH = re.compile(r"(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")
KNOWN_WEAK = "urllib3==1.24.1"
"""A release with published weaknesses: a database that finds none in it has not been asked."""


@nox.session(python=False)
def matrix(session: nox.Session) -> None:
    """Each release of tests/test_matrix.py in an isolated environment, cached between runs."""
    session.run("python", "-m", "pytest", "tests/test_matrix.py", *session.posargs, env={"NEZHA_MATRIX": "all"})


@nox.session
def lock(session: nox.Session) -> None:
    """Write the lock files: the versions of constraints.txt, with the SHA-256 of every file that the index has of them.

    torch has a file of its own: which build of it is the right one depends on the machine.
    """
    session.install("uv==0.13.9")
    out = Path(session.create_tmp()).resolve() / "requirements.txt"
    out.unlink(missing_ok=True)  # uv would keep its versions
    session.run(
        *("uv", "pip", "compile", "pyproject.toml", "--extra", "dev", "--constraints", "constraints.txt"),
        *("--universal", "--python-version", "3.10", "--generate-hashes", "--no-annotate", "--no-header", "--quiet"),
        *("--output-file", str(out)),
    )
    blocks = re.findall(r"^\S.*(?:\n .*)*\n", out.read_text("utf-8"), re.MULTILINE)
    for path, torch in ((LOCK, False), (TORCH_LOCK, True)):
        text = "".join(block for block in blocks if bool(TORCH.match(block)) == torch)
        path.write_text(f"# Written by `nox -s lock`. What it is for: SECURITY.md.\n{text}", "utf-8")


@nox.session
def audit(session: nox.Session) -> None:
    """Look the locked versions up among published weaknesses.

    Where the database gives no answer it fails too; with `-- --if-it-answers` it is skipped, and says so.
    """
    session.install("pip-audit==2.10.1")
    weak = Path(session.create_tmp()).resolve() / "weak.txt"
    weak.write_text(f"{KNOWN_WEAK}\n")
    audited = ("pip-audit", "--disable-pip", "--no-deps", "--progress-spinner", "off")
    found = session.run(*audited, "--requirement", str(weak), silent=True, success_codes=[0, 1])
    if not re.search(r"^urllib3 +1\.24\.1 +(PYSEC|CVE|GHSA)-", str(found), re.MULTILINE):
        (session.skip if "--if-it-answers" in session.posargs else session.error)(
            f"NOT AUDITED: the database of weaknesses, asked about {KNOWN_WEAK}, named none. It said:\n{found}"
        )
    session.run(*audited, "--strict", "--requirement", str(LOCK), "--requirement", str(TORCH_LOCK))
