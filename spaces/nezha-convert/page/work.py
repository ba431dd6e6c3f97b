"""What a job does, in its own process: it reads an order from stdin, calls the public API, and writes events to stdout.

The files of a checkpoint are a stranger's. Here they meet `nezha_convert`, which runs none of them, within limits of
memory and in an environment without secrets.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import nezha_convert

from .questions import OF_INSPECT, SOURCE

Order = Mapping[str, Any]
Tell = Callable[[int, int, str], None]

_EVERY = 0.2
"""Seconds between two messages of progress."""


def look(order: Order, tell: Tell) -> dict[str, Any]:
    """What the source is.

    Args:
        order: "address" on the Hub, with "token" and "download_bytes", or the folder "given"; "options", the arguments
            of `convert`; or "source" and "name" of a source that is here already.
        tell: told of progress.

    Returns:
        "source" and its "name"; "inspection" and "plan", which are None where the source is not understood so far; and
        "refusal", the error that stands in the way, or None.
    """
    source, name = _source(order, tell)
    options = dict(order["options"])
    chosen = options.pop(SOURCE, source)
    found: dict[str, Any] = {"source": source, "name": name, "inspection": None, "plan": None, "refusal": None}
    tell(0, 0, "looking")
    try:
        asked = {key: value for key, value in options.items() if key in OF_INSPECT}
        found["inspection"] = nezha_convert.inspect(chosen, **asked).to_dict()
    except nezha_convert.NezhaConvertError as error:
        return found | {"refusal": error.to_dict()}
    try:
        plan = nezha_convert.convert(chosen, Path("out") / _safe(name), dry_run=True, **options)
        found["plan"] = plan.to_dict()
    except nezha_convert.NezhaConvertError as error:
        found["refusal"] = error.to_dict()
    return found


def convert(order: Order, tell: Tell) -> dict[str, Any]:
    """Convert and verify the source.

    Args:
        order: "source", its "name", "options" of `convert`, and "served", the folder of downloads.
        tell: told of progress.

    Returns:
        The "folder", the class that it is "loaded_by", its "report" as `to_dict` has it, the verdict of "parity", and
        the files "zip" and "html" to download.
    """
    options = dict(order["options"])
    source, name = options.pop(SOURCE, order["source"]), _safe(order["name"])
    folder, served = Path("out") / name, Path(order["served"])
    report = nezha_convert.convert(
        source, folder, source_name=order["name"], progress=_named(tell, "converting"), **options
    )
    given = {key: options[key] for key in ("labels",) if key in options}
    if str(options.get("config", "")).endswith(".json"):
        given["config"] = options["config"]
    tell(0, 0, "verifying")
    parity = nezha_convert.verify(source, folder, progress=_named(tell, "verifying"), **given)
    tell(0, 0, "packing")
    served.mkdir(mode=0o700, exist_ok=True)
    html = served / f"{name}-parity.html"
    nezha_convert.write_html(parity, html)
    packed = served / f"{name}.zip"
    with zipfile.ZipFile(packed, "w") as archive:  # stored: weights do not get smaller
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to("out"))
    return {
        "folder": str(folder.resolve()),
        "loaded_by": report.auto_class,
        "report": report.to_dict(),
        "parity": {"passed": parity.passed, "verdict": parity.verdict, "failures": list(parity.failures)}
        | {"warnings": list(parity.warnings), "assumed": [str(one) for one in parity.open_assumptions]},
        "zip": str(packed),
        "html": str(html),
    }


def propose(order: Order, tell: Tell) -> dict[str, Any]:
    """Open a pull request.

    Args:
        order: the converted "folder", "repo_id", "license" and the visitor's "token".
        tell: told of progress.

    Returns:
        What was pushed, as `Pushed.to_dict` has it.
    """
    tell(0, 0, "proposing")
    pushed = nezha_convert.push(
        order["folder"], order["repo_id"], license=order["license"], create_pr=True, token=order["token"]
    )
    return pushed.to_dict()


TASKS: dict[str, Callable[[Order, Tell], dict[str, Any]]] = {"look": look, "convert": convert, "propose": propose}


def _source(order: Order, tell: Tell) -> tuple[str, str]:
    """The source and its name; an address of the Hub is downloaded."""
    if order.get("source"):
        return order["source"], order["name"]
    if order.get("address"):
        tell(0, 0, "downloading")
        pulled = nezha_convert.pull(order["address"], token=order["token"] or None, max_bytes=order["download_bytes"])
        return str(pulled.source), str(pulled.address)
    files = sorted(Path(order["given"]).iterdir())
    return (str(files[0]), files[0].name) if len(files) == 1 else (order["given"], "upload")


def _safe(name: str) -> str:
    """A folder's name for what `name` is converted to. transformers 4.52 loads no code from a name with a dot."""
    last = re.sub(r"@.*|\.(zip|tar|t?gz|bz2|xz|bin|pth?|safetensors|ckpt|h5|pdparams)\b.*", "", name.rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-")[:60] or "nezha-converted"


def _named(tell: Tell, stage: str) -> Tell:
    """`tell` with the stage in front of what is being done, and not more often than every so many seconds."""
    last = 0.0

    def progress(done: int, total: int, what: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY or done == total:
            last = now
            tell(done, total, f"{stage} {what}".strip())

    return progress


def main(stdin: TextIO, stdout: TextIO) -> None:
    """Carry out the order on `stdin`; one event a line goes to `stdout`, the last of them the outcome."""
    order = json.loads(stdin.read())
    resource.setrlimit(resource.RLIMIT_DATA, (order["memory_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["folder_bytes"],) * 2)
    secret = json.dumps(order.get("token") or "")[1:-1]

    def put(kind: str, content: Any) -> None:
        text = json.dumps({kind: content}, default=str)
        print(text.replace(secret, "(token)") if secret else text, file=stdout, flush=True)

    try:
        put("result", TASKS[order["task"]](order, lambda *how_far: put("progress", how_far)))
    except nezha_convert.NezhaConvertError as error:
        put("refusal", error.to_dict())
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch has an error of its own
            put("ended", "no_memory")
        else:  # a fault of ours: its words go to the server's log, without the token
            put("fault", traceback.format_exc())
            put("ended", "fault")


if __name__ == "__main__":
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no event
    main(sys.stdin, events)
