"""The run over public weights: on simulated copies, with a copy that fails among them, and what its page says."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import upstream
import yaml
from hub_server import hub
from real import run as real

MODELS = real.read_models()
ROOT = real.ROOT
STEPS = ("pull", "inspect", "wrong", "convert", "verify", "here")


def here(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Loads a folder by the installed transformers."""
    return real.answer(upstream.run_python(real.LOADS, str(folder), json.dumps(texts), str(real.MOST), warm=True))


def entry(form: str) -> dict[str, Any]:
    return next(one for one in MODELS["copies"] if one["form"] == form)


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """Tries a copy: files in place of others, and the list's entry with other words."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)

    def tried(form: str, loading=here, sentences=MODELS["sentences"], files=None, **changed: Any) -> real.Row:
        one = entry(form)
        with hub("hf_none") as server:
            server.create(one["address"], real.simulated_files(one, MODELS["sentences"]) | (files or {}))
            return real.try_copy({**one, **changed}, sentences, server.endpoint, {"here": loading})

    return tried


def test_a_simulated_copy_goes_the_whole_way_and_finds_the_words(tried):
    row = tried(form := "transformers")
    assert row.failed == "" and tuple(row.done) == STEPS, row.done
    assert set(row.done["here"].split("、")) <= {"首", "气", "校"}
    assert all(kind in row.done["wrong"] for kind in entry(form)["wrong"])


NONE_LOADS = {"loading": lambda folder, texts: pytest.fail("it was loaded")}


def test_a_fault_that_the_list_has_and_the_copy_has_not_fails(tried):
    row = tried("transformers", **NONE_LOADS, wrong=["lost word embeddings"])
    assert row.failed == "wrong" and "not found any more: lost word embeddings; found: mis" in row.done["wrong"]


def test_a_copy_that_is_not_there_or_is_damaged_fails_at_its_step(tried):
    row = tried("transformers", **NONE_LOADS, address="owner/nothing")
    assert (row.failed, list(row.done)) == ("pull", ["pull"]) and row.done["pull"].startswith("FAILED: HubError: ")
    row = tried("transformers", **NONE_LOADS, files={"pytorch_model.bin": b"cut"})
    assert row.failed == "inspect" and "FAILED: CheckpointError" in row.done["inspect"]


def test_a_word_that_no_reader_expects_fails(tried):
    said = {"causal": False, "found": [["首", "京"], ["在", "是"], ["校"]]}
    row = tried("huawei-torch", lambda folder, texts: said)
    assert row.failed == "here" and "今天天[MASK]很好。: found 在 是, expected 气" in row.done["here"]


def test_a_parity_that_fails_fails(tried, monkeypatch):
    monkeypatch.setattr(
        real.nezha_convert, "verify", lambda *sides: type("", (), {"passed": False, "verdict": "layer_1"})
    )
    row = tried("transformers", **NONE_LOADS)
    assert row.failed == "verify" and "layer_1" in row.done["verify"]


def a_list(folder: Path, *addresses: str) -> Path:
    copies = [
        {**entry("bert4torch"), "address": address, "form": form}
        for address, form in zip(addresses, FORMS, strict=True)
    ]
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({**MODELS, "copies": copies}, allow_unicode=True), "utf-8")
    return path


FORMS = ("bert4torch", "huawei-torch")


def test_a_model_that_fails_stops_no_other_and_the_exit_code_and_the_page_tell_it(tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.delenv("NEZHA_ORIGINALS", raising=False)
    said = {"causal": True, "found": []}
    words = ["--simulated", "--models", str(a_list(tmp_path, "a/good", "b/bad")), "--pages", str(tmp_path)]
    monkeypatch.setattr(real, "_wrong", lambda one, source: 1 / 0 if one["address"] == "a/good" else "nothing")
    assert real.main(words, {"1.0": lambda folder, texts: said}) == 1
    printed = capsys.readouterr().out
    assert "a/good: wrong: FAILED: ZeroDivisionError" in printed and "NEZHA-base: not checked" in printed
    for language, begun, unchecked in (("en", "not begun", "Not checked"), ("zh", "没有开始", "没有检查")):
        text = (tmp_path / real.PAGES[language].relative_to(ROOT / "docs")).read_text("utf-8")
        (row,) = re.findall(r"^\| simulated: \[a/good\].*$", text, re.MULTILINE)
        assert "FAILED: ZeroDivisionError" in row and row.count(begun) == 3 and text.count(unchecked) == 4


def test_an_original_is_checked_by_what_a_person_entered(tmp_path):
    one = {"name": "NEZHA-base", "files": []}
    assert real.try_original(one, MODELS["sentences"], str(tmp_path), {}) is None
    files = [{"name": "bert_config.json", "bytes": 2, "sha256": "0" * 64}]
    (tmp_path / "NEZHA-base").mkdir()
    (tmp_path / "NEZHA-base" / "bert_config.json").write_text("{}")
    row = real.try_original({**one, "files": files}, MODELS["sentences"], str(tmp_path), {})
    assert row and row.failed == "pull" and "entered 2, 000" in row.done["pull"]


# The list, the pages and the workflow


def test_every_model_of_the_list_has_a_source_and_words_in_both_languages():
    for one in MODELS["copies"]:
        assert one["source"].startswith(f"https://huggingface.co/{one['address']}") and one["what"] and one["zh"]
    for sentence in MODELS["sentences"]:
        assert sentence["text"].count("[MASK]") == 1 and sentence["words"]
    assert all(
        set(file) == {"name", "bytes", "sha256"} for one in MODELS["originals"]["models"] for file in one["files"]
    )


@pytest.mark.parametrize("language", real.PAGES)
def test_the_page_names_every_model_and_says_whether_it_is_simulated(language):
    text = real.PAGES[language].read_text("utf-8")
    rows = re.findall(r"^\| (simulated: )?\[([\w./-]+)\]\(", text, re.MULTILINE)
    assert [name for _, name in rows] == [one["address"] for one in MODELS["copies"]]
    simulated = "--simulated" in text
    assert {bool(mark) for mark, _ in rows} == {simulated}
    assert not simulated or ("No real copy was downloaded" in text or "没有下载任何真实的副本" in text)
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", text) and all(release in text for release in real.ENDS)


def test_the_weekly_workflow_runs_the_session_and_is_pinned():
    content = yaml.safe_load((ROOT / ".github" / "workflows" / "real.yml").read_text("utf-8"))
    assert (
        len(content[True]["schedule"][0]["cron"].split()) == 5
        and content[True]["schedule"][0]["cron"].split()[-1] != "*"
    )
    assert content["permissions"] == {"contents": "read"}
    steps = content["jobs"]["real"]["steps"]
    assert any("nox -s real" in step.get("run", "") for step in steps)
    for step in steps:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + 40 * "0")), step
