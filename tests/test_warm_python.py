"""A warm Python ends, prints and finds its modules as a new one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch  # noqa: F401  (what this process has, the warm one has)
import warm_python

SCRIPT = (
    "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ.get('MINE'), sys.path[0], __name__, file=sys.stderr)"
)

PROGRAMS = {
    "a program": ["-c", SCRIPT, "a", "b c"],
    "a script": ["script.py", "a"],
    "a module": ["-m", "script", "a"],
    "a module of a package": ["-m", "json.tool", "--help"],
    "no error": ["-c", "raise SystemExit"],
    "an exit code": ["-c", "import sys; print(1); sys.exit(3)"],
    "a message": ["-c", "raise SystemExit('no')"],
    "a signal": ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
    "an atexit function": ["-c", "import atexit; atexit.register(print, 'last'); print('first')"],
    "a thread": ["-c", "import threading, time; threading.Timer(0.05, print, ['late']).start()"],
    "no input": ["-c", "import sys; print(repr(sys.stdin.read()))"],
    "a program of its own": ["-c", "import os; os.system('echo from a shell')"],
    "a class that is pickled": ["-c", "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))))"],
}


@pytest.mark.parametrize("safe", ["", "1"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_ends_and_prints_as_a_new_one(name: str, safe: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "library").mkdir()
    environment = {**os.environ, "MINE": "1", "PYTHONPATH": str(tmp_path / "library"), "PYTHONSAFEPATH": safe}
    arguments = PROGRAMS[name]
    wanted = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    done = warm_python.run(arguments, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (wanted.returncode, wanted.stdout)
    assert done.stderr.rpartition(": ")[2] == wanted.stderr.rpartition(": ")[2]  # after the name of who says it


def test_an_error_ends_it_with_a_traceback() -> None:
    done = warm_python.run(["-c", "1 / 0"])
    assert done.returncode == 1 and done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_it_has_torch_and_nothing_that_reads_the_environment_or_is_ours() -> None:
    program = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    tops = set(warm_python.run(["-c", program]).stdout.split())
    assert "torch" in tops
    assert not tops & {"transformers", "huggingface_hub", "accelerate", "datasets", "nezha", "nezha_convert", "pytest"}


def test_it_has_the_modules_asked_for_and_no_torch() -> None:
    program = "import sys; print(*sys.modules)"
    loaded = warm_python.run(["-c", program], modules=("nezha_convert.errors",)).stdout.split()
    assert "nezha_convert.errors" in loaded and "torch" not in loaded


def test_what_a_program_changes_the_next_one_does_not_see() -> None:
    warm_python.run(["-c", "import os, torch; os.environ['MINE'] = '1'; torch.mine = 1"])
    done = warm_python.run(["-c", "import os, torch; print('MINE' in os.environ, hasattr(torch, 'mine'))"])
    assert done.stdout == "False False\n"
