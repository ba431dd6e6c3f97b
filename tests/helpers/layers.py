"""The column of rooms as a check: who imports whom, read from the source, and every import that the house forbids."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

ROOMS = (
    *("__main__", "pytest_plugin", "cli", "commands", "batches", "exports", "parity", "folder", "weights", "tokenizer"),
    *("mapping", "families", "formats", "hub", "files", "checkpoint", "errors", "text", "releases", "_version"),
)
"""From top to bottom. A room is a folder or a file of nezha_convert; imports go down only."""

API = "nezha_convert"
"""Its `__init__` imports lazily and stands outside the column; no room may import it."""

SCREEN = {"click", "rich"}
MODEL = {"torch", "transformers"}
ORACLE = f"{API}.parity.oracle"
ORACLE_MAY = {f"{API}.errors", "numpy"}
REREADS = (f"{API}.parity.again.", f"{API}.parity.source.")
"""What reads a source for the second time."""

REREAD_MAY = {f"{API}.formats.archive", f"{API}.formats.torch.containers"}
"""What it shares with the readers that convert: guards that give no value."""


@dataclass(frozen=True, slots=True)
class Import:
    """`module` imports `target`, or `name` from it, and calls it `local`."""

    module: str
    line: int
    target: str
    name: str
    local: str


@dataclass(frozen=True, slots=True)
class Source:
    """A module: its dotted name, its folder's dotted name and its syntax tree."""

    module: str
    folder: str
    tree: ast.Module


def sources(root: Path, package: str) -> list[Source]:
    """The modules of `package`, which is a folder of `root`."""
    found = []
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        folder = ".".join(parts[:-1])
        module = folder if parts[-1] == "__init__" else ".".join(parts)
        found.append(Source(module, folder, ast.parse(path.read_text("utf-8"))))
    return found


def imports(source: Source, modules: set[str]) -> Iterator[Import]:
    """Every import of a file, wherever it stands.

    `from .. import locks` imports a module where `modules` has it, and else a name of the package's `__init__`.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(source.module, node.lineno, alias.name, "", alias.asname or "")
        elif isinstance(node, ast.ImportFrom):
            parents = source.folder.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule, local = f"{target}.{alias.name}", alias.asname or alias.name
                if submodule in modules:
                    yield Import(source.module, node.lineno, submodule, "", local)
                else:
                    yield Import(source.module, node.lineno, target, alias.name, local)


def violations(root: Path) -> list[str]:
    """Every import below `root` that the house forbids, as a sentence; none where all is in order."""
    house, model = sources(root, API), sources(root, "nezha")
    modules = {source.module for source in house}
    found = {source.module: list(imports(source, modules)) for source in house}
    return [
        *chain.from_iterable(_upward(source, found[source.module]) for source in house),
        *chain.from_iterable(_screen(source, found[source.module]) for source in house),
        *chain.from_iterable(_private(source, found[source.module], modules) for source in house),
        *chain.from_iterable(_oracle(source, found[source.module]) for source in house),
        *chain.from_iterable(_reread(source, found[source.module]) for source in house),
        *chain.from_iterable(_model(source, list(imports(source, modules))) for source in model),
        *_cycles({module: {one.target for one in found[module]} & modules for module in modules}),
    ]


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _upward(source: Source, found: list[Import]) -> Iterator[str]:
    own = _room(source.module)
    if not own:  # the package's lazy __init__
        return
    if own not in ROOMS:
        yield f"{source.module} is in no room"
        return
    for one in found:
        if one.target == API:
            yield f"{one.module}:{one.line} imports {one.name or 'the package'} from the package's __init__"
        elif one.target.startswith(f"{API}."):
            other = _room(one.target)
            if other not in ROOMS or ROOMS.index(other) < ROOMS.index(own):
                yield f"{one.module}:{one.line} imports upwards: {one.target}"


def _screen(source: Source, found: list[Import]) -> Iterator[str]:
    for one in found:
        if one.target.split(".")[0] in SCREEN and _room(source.module) != "cli":
            yield f"{one.module}:{one.line} imports {one.target}, which only cli does"
    calls = (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))
    if source.module != f"{API}.cli.console":
        for call in calls:
            if isinstance(call.func, ast.Name) and call.func.id == "print":
                yield f"{source.module}:{call.lineno} prints, which only cli/console.py does"


def _private(source: Source, found: list[Import], modules: set[str]) -> Iterator[str]:
    """Private names of other folders: imported by name, or reached through an imported module."""
    for one in found:
        if _is_private(one.name) and not _same_folder(source, one.target, modules):
            yield f"{one.module}:{one.line} imports the private {one.name} of {one.target}"
    foreign = {one.local: one.target for one in found if one.local and not one.name}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and isinstance(node.value, ast.Name):
            target = foreign.get(node.value.id)
            if target and not _same_folder(source, target, modules):
                yield f"{source.module}:{node.lineno} uses the private {node.attr} of {target}"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _same_folder(source: Source, target: str, modules: set[str]) -> bool:
    """Whether `target` is a module of the same folder, or none of ours."""
    folder = target if any(module.startswith(f"{target}.") for module in modules) else target.rpartition(".")[0]
    return not target.startswith(f"{API}.") or folder == source.folder


def _oracle(source: Source, found: list[Import]) -> Iterator[str]:
    """The oracle must not use what it checks."""
    if not f"{source.module}.".startswith(f"{ORACLE}."):
        return
    for one in found:
        top = one.target.split(".")[0]
        if f"{one.target}.".startswith(f"{ORACLE}.") or one.target in ORACLE_MAY or top in ORACLE_MAY:
            continue
        if top not in sys.stdlib_module_names:
            yield f"{one.module}:{one.line} imports {one.target}, which the oracle checks or cannot trust"


def _reread(source: Source, found: list[Import]) -> Iterator[str]:
    """What reads a source again must not read it by the code whose reading it checks."""
    if f"{source.module}.".startswith(REREADS):
        for one in found:
            if _room(one.target) in ("formats", "mapping", "families", "tokenizer") and one.target not in REREAD_MAY:
                yield f"{one.module}:{one.line} imports {one.target}, by which the conversion reads"


def _model(source: Source, found: list[Import]) -> Iterator[str]:
    """The model is shipped into every converted folder, where nothing else is."""
    allowed = {"nezha", *MODEL, *(["triton"] if source.module == "nezha.triton_nezha" else [])}
    for one in found:
        top = one.target.split(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            yield f"{one.module}:{one.line} imports {one.target}, which is not shipped with the model"


def _cycles(graph: dict[str, set[str]]) -> Iterator[str]:
    """Rings of modules, and rings of what lies side by side in a folder: files and subfolders."""
    rings = list(_rings(graph))
    for folder in sorted({module.rpartition(".")[0] for module in graph} - {""}):
        beside: dict[str, set[str]] = {}
        for module in (module for module in graph if module.startswith(f"{folder}.")):
            targets = {_beside(folder, target) for target in graph[module] if target.startswith(f"{folder}.")}
            beside.setdefault(_beside(folder, module), set()).update(targets - {_beside(folder, module)})
        rings += _rings(beside)
    yield from dict.fromkeys(rings)  # a ring of two files of one folder was found twice


def _beside(folder: str, module: str) -> str:
    """The file or folder of `folder` that `module` is or lies in."""
    return f"{folder}.{module.removeprefix(f'{folder}.').split('.')[0]}"


def _rings(graph: dict[str, set[str]]) -> Iterator[str]:
    """Each group that imports itself in a ring, by the shortest ring through its first member."""
    reachable = {node: _reach(graph, node) for node in graph}
    seen: set[str] = set()
    for node in sorted(graph):
        group = {other for other in reachable[node] if node in reachable[other]}
        if group and node not in seen:
            seen |= group
            yield f"a cycle: {' -> '.join(_ring(graph, node))}"


def _reach(graph: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    ahead = set(graph[start])
    while ahead:
        node = ahead.pop()
        reached.add(node)
        ahead |= graph[node] - reached
    return reached


def _ring(graph: dict[str, set[str]], start: str) -> list[str]:
    paths = [[start]]
    while True:
        path = paths.pop(0)
        for node in sorted(graph[path[-1]]):
            if node == start:
                return [*path, start]
            if node not in path:
                paths.append([*path, node])
