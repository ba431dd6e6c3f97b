"""That everything in this environment but torch and what belongs to its build came by hash: `python .ci/check_lock.py`.

CI installs the lock file first, hashes checked; what pip installs after that is either missing in the lock file or of
another version, and is named here.
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
    """Version by name, of those that are for this machine."""
    lines = re.findall(r"^[A-Za-z0-9].*?(?= \\$)", path.read_text("utf-8"), re.MULTILINE)
    found = [Requirement(line) for line in lines]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in found
        if not one.marker or one.marker.evaluate()
    }


def main() -> None:
    """Name every distribution that is not as locked."""
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
