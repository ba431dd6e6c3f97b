"""Text on its way out: nothing in it commands a terminal, breaks a format or turns a line around."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from goldens import FIXTURES
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from nezha_convert import convert, verify
from nezha_convert.cli.app import main
from nezha_convert.cli.console import Console
from nezha_convert.folder.card import conversion_card
from nezha_convert.parity.render.html import page
from nezha_convert.parity.render.junit import write_junit
from nezha_convert.text import printable, printable_json

HOSTILE = "\x1b[2J\u202e\x9b\x07\u2066x\u2028y\u200f\x7f"
SOURCE = FIXTURES / "huawei-torch-classifier"


def harmless(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


@given(st.text(st.characters()))
def test_what_is_shown_is_printable_and_printable_text_stays(text: str) -> None:
    assert printable(text).isprintable()
    assert harmless(printable(text, keep="\n"))
    assert printable(printable(text)) == printable(text)


@given(st.recursive(st.text(st.characters()), lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner)))
def test_json_is_printable_and_loses_nothing(content: object) -> None:
    assert harmless(printable_json(content))
    assert json.loads(printable_json(content)) == content


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source whose file, tensors, config and labels have hostile names."""
    folder = tmp_path_factory.mktemp("hostile") / f"source{HOSTILE}"
    shutil.copytree(SOURCE, folder)
    (file,) = folder.glob("*.bin")
    state = torch.load(file, weights_only=True)
    file.unlink()
    torch.save({**state, f"a{HOSTILE}.weight": torch.ones(2)}, folder / f"model{HOSTILE}.bin")
    config = json.loads((folder / "bert_config.json").read_text())
    (folder / "bert_config.json").write_text(json.dumps({**config, f"field{HOSTILE}": HOSTILE}))
    return folder


@pytest.fixture(scope="module")
def output(hostile: Path) -> Path:
    """Its conversion, without the strange tensor, in a folder with a hostile name."""
    (file,) = hostile.glob("*.bin")
    clean = hostile.with_name(f"clean{HOSTILE}")
    shutil.copytree(hostile, clean)
    state = torch.load(file, weights_only=True)
    torch.save({name: tensor for name, tensor in state.items() if HOSTILE not in name}, clean / file.name)
    convert(clean, hostile.with_name(f"out{HOSTILE}"))
    assert verify(clean, hostile.with_name(f"out{HOSTILE}")).passed
    return hostile.with_name(f"out{HOSTILE}")


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["words", "json"])
@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "{source}", "--tensors"],
        ["inspect", "{clean}"],
        ["convert", "{clean}", "{new}", "--dry-run"],
        ["convert", "{source}", "{new}"],
        ["convert", "{clean}", "{output}"],
        ["verify", "{clean}", "{output}", "--no-record"],
        ["verify", "{source}", "{output}"],
        ["diff", "{source}", "{output}"],
        ["repair", "{clean}"],
        ["export", "{output}", "{new}", "--to", "huawei-tf", "--dry-run"],
        ["push", "{output}", "owner/name", "--license", "mit", "--dry-run"],
        ["pull", "hf://{new}"],
        ["inspect", f"--no-such-{HOSTILE}"],
        ["convert", "{source}", "{new}", "--labels", f"{HOSTILE}"],
    ],
    ids=lambda command: " ".join(part for part in command if part.isprintable()),
)
def test_nothing_a_command_prints_commands_a_terminal(
    command: list[str], form: list[str], hostile: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"source": hostile, "clean": hostile.with_name(f"clean{HOSTILE}"), "output": output}
    places["new"] = hostile.with_name(f"new{HOSTILE}")
    with pytest.raises(SystemExit):
        main([part.format_map({**places}) if HOSTILE not in part else part for part in (*command, *form)])
    shown = capsys.readouterr()
    assert shown.out + shown.err
    assert harmless(shown.out) and harmless(shown.err)
    if form:
        json.loads(shown.out)


def test_a_name_with_a_line_break_makes_no_line_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "source")
    (file,) = (tmp_path / "source").glob("*.bin")
    torch.save({**torch.load(file, weights_only=True), "a\nnext  rm -r ~": torch.ones(2)}, file)
    for command in (["inspect", "--tensors"], ["convert"]):
        with pytest.raises(SystemExit):
            main(
                [command[0], str(tmp_path / "source"), *([] if command[1:] else [str(tmp_path / "out")]), *command[1:]]
            )
        shown = capsys.readouterr()
        assert not [line for line in (shown.out + shown.err).splitlines() if line.startswith("next  rm")]
        assert "a\\nnext  rm -r ~" in shown.out + shown.err


def test_a_traceback_commands_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEZHA_DEBUG", "1")
    with pytest.raises(SystemExit):
        main(["inspect", f"/nowhere/{HOSTILE}"])
    shown = capsys.readouterr()
    assert "Traceback" in shown.err and harmless(shown.err)


def test_a_bar_commands_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Console().progress(f"converting [/red]{HOSTILE}", "bytes") as progress:
        assert progress
        progress(1, 2, f"[/x]{HOSTILE}")
    assert HOSTILE not in capsys.readouterr().err


def test_junit_s_xml_is_well_formed_whatever_the_names_hold(output: Path, tmp_path: Path) -> None:
    clean = output.with_name(f"clean{HOSTILE}")
    write_junit(verify(clean, output, record=False), tmp_path / "parity.xml")
    text = (tmp_path / "parity.xml").read_text("utf-8")
    assert harmless(text)
    suite = ElementTree.fromstring(text).find("testsuite")
    assert suite is not None and "out\\x1b[2J\\u202e" in suite.attrib["name"]


def test_the_page_turns_nothing_around(output: Path) -> None:
    pytest.importorskip("matplotlib")
    text = page(verify(output.with_name(f"clean{HOSTILE}"), output, record=False))
    assert harmless(text.replace("\t", ""))
    assert "<h1>out\\x1b[2J\\u202e" in text


def test_the_card_and_the_records_are_harmless_and_the_records_lose_nothing(output: Path) -> None:
    for name in ("README.md", "conversion.json", "config.json"):
        assert harmless((output / name).read_text("utf-8")), name
    record = json.loads((output / "conversion.json").read_text("utf-8"))
    assert record["source"] == f"clean{HOSTILE}" or HOSTILE in record["source"]


def test_the_metadata_of_a_card_says_what_it_said(output: Path) -> None:
    record = json.loads((output / "conversion.json").read_text("utf-8"))
    language = {"field": "language", "value": "z\U000e0001\u202eh", "reason": HOSTILE}
    card = conversion_card({**record, "decisions": [language]}, license="mit")
    assert harmless(card)
    assert ModelCard(card).data.language == language["value"]
