"""Check that everything in this environment came by hash, except torch and its build: `python .ci/check_lock.py`.

CI installs the lock file first, with hashes checked. Whatever pip installs after that is missing in the lock file or of
another version there, and is named here.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
OWN = {"nezha-convert", "pip"}


def pins(path: Path) -> dict[str, str]:
    """The locked version of each name, of the lines that are for this machine."""
    lines = re.findall(r"^[A-Za-z0-9].*?(?= \\$)", path.read_text("utf-8"), re.MULTILINE)
    requirements = [Requirement(line) for line in lines]
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if not requirement.marker or requirement.marker.evaluate()
    }


def main() -> None:
    """Fail if a distribution is not as locked, and name each one."""
    locked, torch = pins(HERE / "requirements.lock"), pins(HERE / "requirements-torch.lock")
    wrong = []
    for distribution in distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        if name not in OWN and name not in torch and distribution.version != locked.get(name):
            wrong.append(f"{name} {distribution.version}: locked is {locked.get(name, 'none')}")
    if wrong:
        sys.exit(f"installed without a hash (renew with nox -s lock): {'; '.join(sorted(wrong))}")
    print(f"{len(locked)} distributions are locked by hash; torch is by version")


if __name__ == "__main__":
    main()
