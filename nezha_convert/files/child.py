"""Code of ours in a process of its own, begun so that no file in the current folder is run in our place."""

from __future__ import annotations

import json
import sys

_START = "import sys; sys.path[:] = filter(None, sys.path); import json; sys.path[:] = json.loads(sys.argv.pop(1)); "
"""`-c` puts the current folder first on the path: there a file of a checkpoint, json.py, would be run."""


def python(code: str, *arguments: object) -> list[str]:
    """The command that runs `code` in this Python, with the same path for imports.

    Args:
        code: statements; `sys` is imported.
        arguments: texts from `sys.argv[1]` on.

    Example:
        >>> import subprocess
        >>> subprocess.run(python("print(sys.argv[1])", "x"), capture_output=True, text=True).stdout
        'x\\n'
    """
    return [sys.executable, "-c", _START + code, json.dumps(sys.path), *map(str, arguments)]
