"""Print the words of a text, each with a null byte at its end: `python .ci/words.py TEXT`. action.yml calls it.

The text is split as a shell splits it: by blanks and quotes. Nothing in it is replaced or run.
"""

from __future__ import annotations

import shlex
import sys


def main() -> None:
    """Print the words of the first argument; exit with 2 if a quote in it has no end."""
    try:
        words = shlex.split(sys.argv[1])
    except ValueError as error:
        print(f"error: {sys.argv[1]!r}: cannot be split into words ({error})", file=sys.stderr)
        sys.exit(2)
    sys.stdout.buffer.write(b"".join(word.encode(errors="surrogateescape") + b"\0" for word in words))


if __name__ == "__main__":
    main()
