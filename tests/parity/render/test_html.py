"""The HTML page of a verification: its numbers, its themes, its width. It needs no other file and no network."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from goldens import GOLDENS

import nezha_convert
from nezha_convert.errors import OutputError, UsageError, pip_install
from nezha_convert.parity.render import html
from nezha_convert.parity.render.html import page, write_html
from nezha_convert.parity.report import ParityReport

pytest.importorskip("matplotlib", reason="the extra html is not installed")

TF = next(golden for golden in GOLDENS if golden.name == "huawei-tf-pretraining")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--proxy-server=127.0.0.1:9",  # nothing listens there, so there is no network
]

PROBE = """<script>top.document.documentElement.dataset.probe = JSON.stringify({
  width: innerWidth, content: document.documentElement.scrollWidth,
  paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
  letters: Math.min(...[...document.querySelectorAll("svg text")].map(e => e.getBoundingClientRect().height)),
  letter: getComputedStyle(document.querySelector("svg text")).fill,
  pictures: [...document.querySelectorAll("svg")].map(e => e.getBoundingClientRect().width),
  loaded: performance.getEntriesByType("resource").map(e => e.name)})</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> ParityReport:
    """A failed verification with all parts: two comparisons, a tokenizer, dropped tensors, departures."""
    folder = tmp_path_factory.mktemp("html")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a"]) + "\n")
    options = {"vocab": folder / "vocab.txt", "dtype": "bfloat16", "activation": "gelu"}
    nezha_convert.convert(TF.folder, folder / "out", **options)
    tokenizer = (folder / "out" / "tokenizer.json").read_text()
    (folder / "out" / "tokenizer.json").write_text(tokenizer.replace('_per_word": 200', '_per_word": 100'))
    return nezha_convert.verify(TF.folder, folder / "out", vocab=folder / "vocab.txt")


@pytest.fixture(scope="module")
def file(report, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "parity.html"
    write_html(report, path)
    return path


class Tables(HTMLParser):
    """The cells of each table, row by row, and the script's text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.script, self._in = "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._in = tag if tag in ("td", "th", "script") else self._in
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        self._in = "" if tag == self._in else self._in

    def handle_data(self, data):
        if self._in == "script":
            self.script += data
        elif self._in:
            self.tables[-1][-1][-1] += data


def in_chromium(page: str, folder: Path, *flags: str) -> str:
    """The page's DOM in the browser."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    (folder / "page.html").write_text(page, encoding="utf-8")
    address = (folder / "page.html").as_uri()
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def probed(file: Path, folder: Path, *flags: str, width: int = 1000) -> dict:
    """What a script in the page measures, in a frame of this many pixels. A window cannot be so narrow."""
    text = file.read_text("utf-8").replace("</body>", f"{PROBE}</body>")
    frame = f'<!doctype html><iframe width="{width}" height="800" style="border: 0" srcdoc="{escape(text)}"></iframe>'
    dom = in_chromium(frame, folder, *flags)
    (probe,) = re.findall(r'data-probe="([^"]+)"', dom)
    return json.loads(unescape(probe))


def assert_numbers_are(content: dict, text: str) -> None:
    tables = Tables(text)
    assert json.loads(tables.script) == content
    numbers = [table for table in tables.tables if table[0][:1] == ["tensor"]]
    assert len(numbers) == len(content["comparisons"])
    for table, comparison in zip(numbers, content["comparisons"], strict=True):
        for row, tensor in zip(table[1:], comparison["tensors"], strict=True):
            peak = tensor["peak"]
            assert row == [
                tensor["name"],
                f"{tensor['max_error']:.2e}",
                f"{tensor['relative_error']:.2e}",
                f"{tensor['cosine_distance']:.2e}",
                f"{100 * tensor['argmax_agreement']:.2f}%",
                f"{peak['case']}{peak['index']}",
                f"{peak['found']:.6g}",
                f"{peak['expected']:.6g}",
            ]


def test_its_numbers_are_the_json_s(report, file):
    assert_numbers_are(json.loads(report.to_json()), file.read_text("utf-8"))


def test_a_browser_shows_the_same_numbers(report, file, tmp_path):
    dom = in_chromium(file.read_text("utf-8"), tmp_path)
    assert_numbers_are(json.loads(report.to_json()), dom)
    assert dom.count("<svg") == 3


def test_it_needs_nothing_but_itself(file, tmp_path):
    text = re.sub(r'xmlns(:xlink)?="[^"]+"', "", file.read_text("utf-8"))
    assert re.findall(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=\"(?!data:)[^\"]*", text) == []
    assert set(re.findall(r"url\(([^)]{1,1})", text)) <= {"#"}
    assert "@import" not in text and "http://" not in text and "https://" not in text
    assert probed(file, tmp_path)["loaded"] == []


def test_it_fits_a_phone(file, tmp_path):
    """At 390 pixels nothing is wider than the page, charts fill the width, and their letters stay readable."""
    sizes = probed(file, tmp_path, width=390)
    assert sizes["width"] == 390 and sizes["content"] <= 390
    assert all(300 < width < 390 for width in sizes["pictures"])
    assert sizes["letters"] >= 10


def test_it_is_light_and_dark(file, tmp_path):
    light, dark = (probed(file, tmp_path, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (1, 0))
    for theme, brighter in ((light, "paper"), (dark, "ink")):
        brightness = {name: sum(map(int, re.findall(r"\d+", theme[name])[:3])) for name in ("paper", "ink")}
        assert max(brightness, key=lambda name: brightness[name]) == brighter
    assert light["letter"] != dark["letter"]  # the charts follow the theme too


def test_every_colour_is_readable_in_both_themes():
    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    themes = [dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in html.CSS.split("@media (prefers")]
    assert len(themes) == 2 and themes[0].keys() == themes[1].keys()
    for theme in themes:
        for name, least in {
            "ink": 7,
            "muted": 4.5,
            "bad": 4.5,
            "good": 4.5,
            "note": 3,
            "series-1": 3,
            "series-2": 3,
        }.items():
            low, high = sorted(luminance(theme[color]) for color in (name, "card"))
            assert (high + 0.05) / (low + 0.05) >= least, name


def test_pictures_have_no_colour_of_their_own(file):
    svgs = re.findall(r"<svg.*?</svg>", file.read_text("utf-8"), re.DOTALL)
    for svg in svgs:
        assert re.findall(r"#[0-9a-f]{6}", re.sub(r"url\(#\w+\)|href=\"#\w+\"|id=\"\w+\"", "", svg)) == []
    identifiers = re.findall(r' id="([^"]+)"', "".join(svgs))
    assert len(identifiers) == len(set(identifiers))


def test_it_shows_what_was_decided_dropped_and_what_failed(report, file):
    text = file.read_text("utf-8")
    for words in (
        "gelu",
        "asked for",
        "LAMB",
        "first departs layer_0",
        "float32 noise floor",
        "allowed, 0.25",
    ):
        assert words in text
    assert f"SHA-256 <code>{report.verified[0].sha256}" in text


def test_the_same_report_gives_the_same_page(report):
    assert page(report) == page(report)


def test_a_name_cannot_become_markup(report):
    named = dataclasses.replace(report, output="</script><script>alert(1)</script>", warnings=("<b>&",))
    text = page(named)
    assert "<script>alert" not in text and "<b>&<" not in text
    assert json.loads(Tables(text).script)["output"] == named.output


def test_errors_that_are_not_finite_are_drawn_and_are_null_in_json(report):
    tensors = report.comparisons[0].tensors
    broken = dataclasses.replace(tensors[1], max_error=math.inf, relative_error=math.inf, passed=False, nonfinite=3)
    comparison = dataclasses.replace(report.comparisons[0], tensors=(tensors[0], broken))
    text = page(dataclasses.replace(report, comparisons=(comparison,)))
    embedded = json.loads(Tables(text).script, parse_constant=pytest.fail)
    assert embedded["comparisons"][0]["tensors"][1]["relative_error"] is None
    assert "<td>inf</td>" in text


def test_without_matplotlib_it_says_what_to_install(report, tmp_path, monkeypatch):
    monkeypatch.setattr(html, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="matplotlib, which is not installed") as error:
        write_html(report, tmp_path / "parity.html")
    assert error.value.hint == pip_install("'nezha-convert[html]'")


def test_a_page_that_cannot_be_written_is_5(report, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_html(report, tmp_path / "nowhere" / "parity.html")
