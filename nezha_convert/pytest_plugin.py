"""A plugin for pytest: a test for each pair of a source and its converted folder.

Pairs stand in pytest's configuration file, or on a test of one's own by a marker:

    [pytest]
    nezha_parity =
        NEZHA-Base/ -> nezha-base/

    @pytest.mark.nezha_parity("NEZHA-Base/", "nezha-base/", tolerance=1e-5)
    def test_the_report(nezha_parity): ...

pytest loads this module in every suite of its environment, so it imports nothing of ours before a pair is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .parity.report import ParityReport

NAME = "nezha_parity"
"""Of the setting, the marker and the fixture."""

TOLERANCE = f"{NAME}_tolerance"
FILES = ("config", "vocab", "labels", "texts")
"""The options of `verify` that may name a file."""

_PAIRS = pytest.StashKey[Mapping[str, tuple[str, str]]]()
_REPORT = pytest.StashKey["ParityReport"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Make the settings known."""
    pairs = "lines SOURCE -> OUTPUT, each a test: the converted folder OUTPUT computes what its source computes"
    parser.addini(NAME, pairs, type="linelist", default=[])
    parser.addini(TOLERANCE, "the largest error allowed in these tests, as a part of each tensor's range", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings, and have their file collected wherever the paths of `testpaths` are.

    Raises:
        UsageError: a setting is not as it is written; the message names file, line and what was expected.
    """
    config.addinivalue_line(
        "markers",
        f"{NAME}(source, output, **options): the converted folder `output` computes what `source` computes; the "
        "options are those of nezha_convert.verify",
    )
    pairs = config.stash[_PAIRS] = dict(_pairs(config))
    _tolerance(config)
    if not pairs:
        return
    if config.inipath is None:
        raise pytest.UsageError(f"{NAME}: set without a configuration file; write it into a pytest.ini")
    asked = [Path(config.invocation_params.dir, path) for path in config.args]
    by_testpaths = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if by_testpaths and not any(config.inipath.is_relative_to(path) for path in asked):
        config.args.append(str(config.inipath))


def _pairs(config: pytest.Config) -> Iterator[tuple[str, tuple[str, str]]]:
    """The pairs of the setting, each with the name of its test."""
    seen = set()
    for line in config.getini(NAME):
        source, *others = (side.strip() for side in line.split("->"))
        name = " -> ".join((source, *others))
        if len(others) != 1 or not source or not others[0]:
            raise _misconfigured(config, NAME, line, "expected SOURCE -> OUTPUT, such as NEZHA-Base/ -> nezha-base/")
        if name in seen:
            raise _misconfigured(config, NAME, line, "it is there twice; expected each pair once")
        seen.add(name)
        yield name, (source, others[0])


def _tolerance(config: pytest.Config) -> float | None:
    """The tolerance of the settings; None where there is none."""
    text = str(config.getini(TOLERANCE)).strip()
    try:
        value = float(text) if text else None
    except ValueError:
        value = 0.0
    if value is not None and not 0 < value < float("inf"):
        raise _misconfigured(config, TOLERANCE, text, "expected a number over 0, such as 1e-5")
    return value


def _misconfigured(config: pytest.Config, setting: str, text: str, expected: str) -> pytest.UsageError:
    """The error for a setting that says `text`, with the line where it stands."""
    path = config.inipath
    lines = path.read_text("utf-8").splitlines() if path else []
    number = next((number for number, line in enumerate(lines, 1) if text in line), None)
    where = f"{path}:{number}" if number else str(path or "-o")
    return pytest.UsageError(f"{where}: {setting}: {text!r}: {expected}")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> PairsFile | None:
    """The configuration file has a test for each of its pairs."""
    if parent.config.stash[_PAIRS] and file_path == parent.config.inipath:
        return PairsFile.from_parent(parent, path=file_path)
    return None


class PairsFile(pytest.File):
    """pytest's configuration file, as a file of tests."""

    def collect(self) -> Iterator[Pair]:
        """A test for each pair."""
        for name, (source, output) in self.config.stash[_PAIRS].items():
            pair: Pair = Pair.from_parent(self, name=name)
            pair.add_marker(pytest.mark.nezha_parity(source, output))
            yield pair


class Pair(pytest.Item):
    """The test of a pair of the settings. It is marked, and so compared like any test with the marker."""

    def runtest(self) -> None:
        """Nothing besides."""

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where the pair stands, and its name."""
        return self.path, None, self.name


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """A marked test fails, before it runs, if its output does not compute what its source computes."""
    if item.get_closest_marker(NAME) is None:
        return
    report = _report(item)
    item.user_properties.append((NAME, report.verdict))
    if not report.passed:
        raise _failed(_message(report, _asked(item)))
    item.add_report_section("call", NAME, repr(report))  # what it rests on is told by -rP


@pytest.fixture(name=NAME)
def _fixture(request: pytest.FixtureRequest) -> ParityReport:
    """The ParityReport on the pair of the test's marker."""
    return _report(request.node)


def _report(item: pytest.Item) -> ParityReport:
    """The report on the pair of the marker of `item`, which is compared once."""
    if (report := item.stash.get(_REPORT, None)) is None:
        report = item.stash[_REPORT] = _compare(item)
    return report


def _asked(item: pytest.Item) -> dict[str, Any]:
    """The arguments of `verify` that the marker of `item` says. Relative paths begin at the configuration file.

    Without one they begin where pytest was started.
    """
    from .commands.verify import verify
    from .files.given import path_of

    marker = item.get_closest_marker(NAME)
    if marker is None:
        raise _failed(f"the fixture {NAME} needs @pytest.mark.{NAME}(SOURCE, OUTPUT) on its test")
    options = {"tolerance": _tolerance(item.config), "record": False, **marker.kwargs}
    try:
        asked = signature(verify).bind(*marker.args, **options).arguments
    except TypeError as error:
        raise _failed(f"@pytest.mark.{NAME}: {error}; expected (SOURCE, OUTPUT) and options of verify") from None
    folder = item.config.inipath.parent if item.config.inipath else item.config.invocation_params.dir
    near = {name: _near(folder, asked[name]) for name in FILES if name in asked}
    return {**asked, **near, "source": _source(folder, asked["source"]), "output": folder / path_of(asked["output"])}


def _source(folder: Path, given: str | Path) -> str | Path:
    """`given` as an address of the Hub or as a path."""
    from .files.given import path_of
    from .hub import is_address

    path = folder / path_of(given)
    return given if is_address(given) and not path.parent.exists() else path


def _near(folder: Path, given: Any) -> Any:
    """`given` as the file in `folder` that it names; anything else, such as a list of labels, as it is."""
    path = folder / given if isinstance(given, (str, Path)) else None
    return path if path and path.exists() else given


def _compare(item: pytest.Item) -> ParityReport:
    from .commands.verify import verify
    from .errors import NezhaConvertError

    try:
        return verify(**_asked(item))
    except NezhaConvertError as error:
        hint = (f"next: {error.hint}",) if error.hint else ()
        raise _failed("\n".join((error.message, *error.problems, *hint))) from None


def _failed(message: str) -> BaseException:
    """A failure that pytest shows by `message` alone, without a traceback."""
    return pytest.fail.Exception(message, pytrace=False)


def _message(report: ParityReport, asked: Mapping[str, Any]) -> str:
    """What failed, the first departing tensor first, and the command that shows the whole."""
    from .text import printable, quoted

    departures = [comparison.departure for comparison in report.comparisons]
    reasons = dict.fromkeys(filter(None, (*departures, *report.failures)))
    options = {**{name: asked.get(name) for name in (*FILES, "original", "tolerance")}, "html": "parity.html"}
    given = [f"--{name} {quoted(value)}" for name, value in options.items() if isinstance(value, (str, Path, float))]
    command = " ".join(("nezha-convert verify", quoted(asked["source"]), quoted(asked["output"]), *given))
    return printable("\n".join((*reasons, f"next: {command}")), keep="\n")
