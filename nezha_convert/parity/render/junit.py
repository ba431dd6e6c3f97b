"""A verification as JUnit's XML, for CI services: a test case for each tensor, the tokenizer and the files."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ...files.given import path_of
from ...files.staging import write_file
from ...text import printable
from ..report import ParityReport


def write_junit(report: ParityReport, path: str | Path) -> None:
    """Write `report` as JUnit's XML, a test case a tensor, as ``verify --junit`` does.

    Args:
        report: what `verify` returned.
        path: the file to write; it is replaced whole.

    Returns:
        Nothing.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> import nezha_convert
        >>> report = nezha_convert.verify("NEZHA-Base/", "nezha-base/")
        >>> nezha_convert.write_junit(report, "parity.xml")
    """
    suite = Element("testsuite", name=f"nezha-convert verify {report.output}", time=f"{report.seconds:.3f}")
    if report.open_assumptions:
        properties = SubElement(suite, "properties")
        for one in report.open_assumptions:
            SubElement(properties, "property", name=f"assumed: {one.name}", value=one.text)
    for comparison in report.comparisons:
        place = f"{comparison.reference}, {comparison.arithmetic}"
        for tensor in comparison.tensors:
            text = (
                f"{tensor.name}: {tensor.relative_error:.3e} of its range, allowed {comparison.tolerance:g}; peak at "
                f"{tensor.peak}: {tensor.peak.found:.9g}, expected {tensor.peak.expected:.9g}"
            )
            _case(suite, place, tensor.name, text, "" if tensor.passed else text)
    if report.tokenizer:
        differing = [
            f"{entry.text!r} from token {entry.at}: {entry.found}, expected {entry.expected}"
            for entry in report.tokenizer.differing
        ]
        text = f"{report.tokenizer.texts} texts, by {report.tokenizer.reference}"
        _case(suite, "tokenizer", "tokens", text, "\n".join(differing))
    _case(suite, "files", "as they were written", "", ", ".join(report.changed))
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", "0")
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    text = printable(tostring(root, encoding="unicode"), keep="\n")  # XML cannot hold control characters at all
    write_file(path_of(path), f"<?xml version='1.0' encoding='utf-8'?>\n{text}".encode())


def _case(suite: Element, place: str, name: str, text: str, failure: str) -> None:
    """Add a test case: `failure` if it is not empty, otherwise `text` as its output."""
    case = SubElement(suite, "testcase", classname=place, name=name)
    if failure:
        SubElement(case, "failure", message=failure.split("\n")[0]).text = failure
    elif text:
        SubElement(case, "system-out").text = text
