"""A verification as JUnit's XML, which CI services show: a test case for each tensor, the tokenizer and the files."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ...files.staging import write_file
from ..report import ParityReport


def write_junit(report: ParityReport, path: Path) -> None:
    """Write `path`.

    Raises:
        OutputError: it cannot be written.
    """
    suite = Element("testsuite", name=f"nezha-convert verify {report.output}", time=f"{report.seconds:.3f}")
    for comparison in report.comparisons:
        place = f"{comparison.reference}, {comparison.arithmetic}"
        for tensor in comparison.tensors:
            said = (
                f"{tensor.name}: {tensor.relative_error:.3e} of its range, allowed {comparison.tolerance:g}; peak at "
                f"{tensor.peak}: {tensor.peak.found:.9g}, expected {tensor.peak.expected:.9g}"
            )
            _case(suite, place, tensor.name, said, "" if tensor.passed else said)
    if report.tokenizer:
        differing = [
            f"{one.text!r} from token {one.at}: {one.found}, expected {one.expected}"
            for one in report.tokenizer.differing
        ]
        said = f"{report.tokenizer.texts} texts, by {report.tokenizer.reference}"
        _case(suite, "tokenizer", "tokens", said, "\n".join(differing))
    _case(suite, "files", "as they were written", "", ", ".join(report.changed))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", "0")
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    write_file(path, tostring(root, encoding="utf-8", xml_declaration=True))


def _case(suite: Element, place: str, name: str, said: str, failure: str) -> None:
    case = SubElement(suite, "testcase", classname=place, name=name)
    if failure:
        SubElement(case, "failure", message=_clean(failure.split("\n")[0])).text = _clean(failure)
    elif said:
        SubElement(case, "system-out").text = _clean(said)


def _clean(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in text)
