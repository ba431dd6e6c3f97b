"""Python programs that need torch, started without its import: forked from a process that has imported it.

`run` stands in for `subprocess.run([sys.executable, ...])`: a real process with an environment, a folder and standard
streams of its own. What it finds imported is LIBRARIES alone. Packages that read the environment as they are imported
(huggingface_hub, transformers and who builds on them) and ours are not among them: the program imports those itself.
A test of what is imported, or of a signal at any moment, starts a real interpreter instead.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NoReturn

LIBRARIES = {"mpmath", "numpy", "scipy", "sympy", "torch"}
"""None of them starts a thread, which a fork would lose: pyarrow does, and so does scikit-learn, which imports it."""

SECONDS = 600


@dataclass(frozen=True)
class Done:
    """How a program ended, as subprocess has it, and the CPU time that it took."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


def run(
    arguments: Sequence[object],
    *,
    cwd: Path | str = ".",
    env: Mapping[str, str] | None = None,
    modules: tuple[str, ...] = (),
) -> Done:
    """Run `python ARGUMENTS`: ["-c", program, ...], ["-m", module, ...] or [script, ...]; no input, output captured.

    A program that takes longer than SECONDS ends by SIGALRM. With `modules` it finds those imported and no LIBRARIES:
    the smaller the process, the sooner it is forked.
    """
    words = [str(word) for word in arguments]
    with TemporaryDirectory() as name:
        streams = [Path(name, "stdout"), Path(name, "stderr")]
        request = {
            "arguments": words,
            "folder": str(Path(cwd).resolve()),
            "environment": dict(os.environ if env is None else env),
            "streams": [os.devnull, *map(str, streams)],
        }
        server = _server(modules)
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code, seconds = json.loads(server.stdout.readline() or '["the server has ended", 0]')
        return Done(code, *(stream.read_text("utf-8", "surrogateescape") for stream in streams), seconds)


@cache
def _server(modules: tuple[str, ...]) -> subprocess.Popen[str]:
    """This file, running, with `modules` imported or the libraries that this process has; it ends with its input."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2])} if modules else {}
    server = subprocess.Popen(
        [sys.executable, __file__],
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE},
        env=environment | {"OMP_NUM_THREADS": "1"},
        text=True,
    )
    assert server.stdin
    ready = modules or [name for name in sys.modules if name.split(".")[0] in LIBRARIES]
    server.stdin.write(json.dumps(ready) + "\n")
    return server


# In the server


def serve() -> dict[str, object]:
    """Fork for every request. Returns the request in the child; never in the server."""
    del sys.path[0]  # this file's folder
    for name in json.loads(sys.stdin.readline()):
        with suppress(Exception):  # what cannot be imported alone is imported by whoever needs it
            importlib.import_module(name)
    gc.freeze()  # a child's collections would copy every page
    threads = Path("/proc/self/task")
    assert not threads.is_dir() or len(list(threads.iterdir())) == 1, "a fork would lose the other threads' locks"
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            return json.loads(line)
        _, status, used = os.wait4(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime]), flush=True)
    sys.exit()


def become(arguments: list[str], folder: str, environment: dict[str, str], streams: list[str]) -> None:
    """Be the interpreter that was asked for, from its streams to its program."""
    os.setsid()
    signal.alarm(SECONDS)
    for number, stream in enumerate(streams):
        opened = os.open(stream, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    kind, paths = arguments[0], [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    is_file = kind not in ("-c", "-m")
    own = [str(Path(kind).resolve().parent) if is_file else "" if kind == "-c" else folder]
    safe = sys.version_info >= (3, 11) and environment.get("PYTHONSAFEPATH")
    sys.path[:0] = [*([] if safe else own), *paths]
    sys.argv = arguments if is_file else [kind, *arguments[2:]]
    if is_file:
        runpy.run_path(kind, run_name="__main__")
    elif kind == "-m":
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), vars(main))


def end(**request: object) -> NoReturn:
    """Run the program and end as the interpreter does, without the two seconds that taking torch apart would need."""
    code: object = 0
    try:
        become(**request)  # type: ignore[arg-type]  (the keys are run's)
    except SystemExit as ended:
        code = ended.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  (waits for the program's threads, as the interpreter does)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))  # type: ignore[call-overload]


if __name__ == "__main__":
    end(**serve())
