"""A batch does each row once, whatever stops it, and says of every row what became of it."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from goldens import FIXTURES
from hub_fixtures import CANARY
from safetensors.numpy import save_file

from nezha_convert import batch
from nezha_convert.batches.journal import JOURNAL, REPORT, alone
from nezha_convert.batches.needs import Needs
from nezha_convert.batches.pool import Task
from nezha_convert.batches.results import OUTCOMES
from nezha_convert.batches.row import Row
from nezha_convert.cli.app import main
from nezha_convert.commands import batch as verb
from nezha_convert.commands import batch_row
from nezha_convert.commands.batch_row import _about, do_row
from nezha_convert.commands.convert import convert
from nezha_convert.errors import OutputError, UsageError

FULL = bool(os.environ.get("NEZHA_BATCH"))
"""Whether the kills are as many as the issue asks for; `nightly.yml` sets it."""

COPY = "transformers-4.40.2-pretraining"


def bert(folder: Path) -> None:
    """A model that is no NEZHA."""
    folder.mkdir(parents=True)
    save_file({"bert.embeddings.position_embeddings.weight": np.zeros((2, 2), "f4")}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")


def models(folder: Path) -> Path:
    """A model of each outcome."""
    for name, fixture in {"right": COPY, "question": "huawei-tf-classifier", "damaged": COPY}.items():
        ignore = shutil.ignore_patterns("expected.npz")
        shutil.copytree(FIXTURES / fixture, folder / name, ignore=ignore)
    (weights,) = (folder / "damaged").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    bert(folder / "bert")
    (folder / "notes").mkdir()
    return folder


def here(tasks, limits, work, watch):
    """Does the rows in this process, which has torch."""
    for task in tasks:
        yield do_row(
            Task.from_dict(json.loads(json.dumps(task.to_dict()))), lambda step, row=task.row: watch(row, step)
        )


@pytest.fixture
def in_process(monkeypatch):
    """Steps of rows, which run in this process."""
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(verb, "run_here", here)

    def run(*arguments, **more):
        told.clear()

        def watch(row, step, result=None):
            told.append((Path(row.source).name, step))

        return batch(*arguments, watch=watch, **more)

    run.told = told
    return run


def steps(run) -> list[tuple[str, str]]:
    return [(name, step) for name, step in run.told if step != "done"]


def test_each_row_has_its_outcome_and_what_is_open_has_commands_that_work(in_process, tmp_path):
    report = in_process(models(tmp_path / "models"), tmp_path / "out")
    assert {Path(row.source).name: row.outcome for row in report.rows} == {
        **{"bert": "not NEZHA", "damaged": "failed", "question": "needs a decision", "right": "verified"},
    }
    assert report.skipped == ("notes",) and not report.right
    question = report.rows[2]
    assert [command.split()[-2:] for command in question.commands] == [
        ["--head", "sequence-classification"],
        ["--head", "token-classification"],
    ]
    with pytest.raises(SystemExit) as exit:
        main(question.commands[0].split()[1:])
    assert exit.value.code == 0
    again = in_process(tmp_path / "models", tmp_path / "out")
    assert again.rows[2].outcome == "verified" and again.rows[2].head == "sequence-classification"
    assert steps(in_process) == [("damaged", "converting"), ("question", "verifying")]
    assert json.loads((tmp_path / "out" / REPORT).read_text()) == json.loads(again.to_json())


def test_what_is_done_is_not_done_again_with_the_journal_and_without(in_process, tmp_path):
    folder = models(tmp_path / "models")
    for name in ("question", "damaged", "bert"):
        shutil.rmtree(folder / name)
    first = in_process(folder, tmp_path / "out")
    assert steps(in_process) == [("right", "converting"), ("right", "verifying")]
    second = in_process(folder, tmp_path / "out")
    assert steps(in_process) == [] and second.rows[0].resumed
    (tmp_path / "out" / JOURNAL).unlink()  # the output's own record says it
    third = in_process(folder, tmp_path / "out")
    assert steps(in_process) == []
    assert first.without_timings() == second.without_timings() == third.without_timings()


def test_a_line_of_the_journal_that_was_cut_short_harms_nothing(in_process, tmp_path):
    folder = models(tmp_path / "models")
    in_process(folder, tmp_path / "out", verify=False)
    journal = tmp_path / "out" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-20])
    report = in_process(folder, tmp_path / "out", verify=False)
    assert report.counts == {"converted": 1, "needs a decision": 1, "not NEZHA": 1, "failed": 1}
    assert all(json.loads(line) for line in journal.read_bytes().splitlines()[-1:])


def test_a_proof_that_is_asked_for_later_is_all_that_is_added(in_process, tmp_path):
    folder = models(tmp_path / "models")
    in_process(folder, tmp_path / "out", verify=False)
    inode = (tmp_path / "out" / "right" / "model.safetensors").stat().st_ino
    report = in_process(folder, tmp_path / "out")
    assert ("right", "converting") not in steps(in_process) and ("right", "verifying") in steps(in_process)
    assert report.rows[3].outcome == "verified"
    assert (tmp_path / "out" / "right" / "model.safetensors").stat().st_ino == inode


def test_an_output_of_other_options_or_another_source_is_replaced_by_force_alone(in_process, tmp_path):
    folder = models(tmp_path / "models")
    in_process(folder, tmp_path / "out", verify=False)
    other = in_process(folder, tmp_path / "out", verify=False, options={"dtype": "bfloat16"}).rows[3]
    assert other.outcome == "failed" and "exists already" in other.reason and "--force" in other.hint
    forced = in_process(folder, tmp_path / "out", verify=False, options={"dtype": "bfloat16"}, force=True).rows[3]
    assert forced.outcome == "converted"
    (folder / "right" / "config.json").write_text((folder / "right" / "config.json").read_text() + " ")
    assert in_process(folder, tmp_path / "out", verify=False, options={"dtype": "bfloat16"}).rows[3].outcome == "failed"


def test_a_file_of_an_output_that_was_lost_is_noticed(in_process, tmp_path):
    folder = models(tmp_path / "models")
    in_process(folder, tmp_path / "out", verify=False)
    (tmp_path / "out" / "right" / "model.safetensors").unlink()
    lost = in_process(folder, tmp_path / "out", verify=False).rows[3]
    assert lost.outcome == "failed" and "exists already, and is not a whole conversion" in lost.reason
    with pytest.raises(SystemExit) as exit:
        main(shlex.split(lost.commands[0])[1:])  # as pasted
    assert exit.value.code == 0 and (tmp_path / "out" / "right" / "model.safetensors").is_file()


def test_a_dry_run_says_how_long_and_how_large_and_writes_nothing(tmp_path):
    report = batch(models(tmp_path / "models"), tmp_path / "out", dry_run=True)
    assert {row.outcome for row in report.rows} == {"planned"} and not (tmp_path / "out").exists()
    assert report.estimate.seconds > 0 and report.estimate.output_nbytes > 0 and "measured" in report.estimate.rates


def test_a_dry_run_refuses_to_write_a_page(tmp_path):
    with pytest.raises(UsageError, match="--html: a dry run writes nothing"):
        batch(models(tmp_path / "models"), tmp_path / "out", dry_run=True, html=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_two_batches_do_not_write_into_one_folder_at_a_time(tmp_path):
    folder = models(tmp_path / "models")
    with alone(tmp_path / "out"), pytest.raises(OutputError, match="another batch is at work in it"):
        batch(folder, tmp_path / "out", verify=False)
    batch(folder, tmp_path / "out", verify=False)


def test_outputs_go_to_a_store_and_are_found_there_again(in_process, tmp_path, monkeypatch):
    import fsspec

    monkeypatch.chdir(tmp_path)
    store = fsspec.filesystem("memory")
    folder = models(tmp_path / "models")
    report = in_process(folder, "memory://bucket/converted")
    assert report.rows[3].outcome == "verified" and report.rows[3].output == "memory://bucket/converted/right"
    names = {path.rpartition("/")[2] for path in store.find("/bucket/converted/right")}
    assert {"model.safetensors", "config.json", "conversion.json"} <= names
    assert (tmp_path / "converted-batch" / REPORT).is_file()
    in_process(folder, "memory://bucket/converted")
    assert ("right", "converting") not in steps(in_process)
    (tmp_path / "converted-batch" / JOURNAL).unlink()
    in_process(folder, "memory://bucket/converted")
    assert {("right", "converting"), ("right", "verifying")}.isdisjoint(steps(in_process))
    store.rm("/bucket", recursive=True)


def test_a_store_whose_library_is_missing_is_told_before_anything_is_done(tmp_path):
    with pytest.raises(UsageError, match="nosuchstore"):
        batch(models(tmp_path / "models"), "nosuchstore://bucket/x", verify=False)


def test_the_command_shows_lines_a_table_and_an_exit_code(tmp_path, capfd):
    folder = models(tmp_path / "models")
    with pytest.raises(SystemExit) as exit:
        main(
            ["batch", str(folder), "--output", str(tmp_path / "out"), "--no-verify", "--html", str(tmp_path / "p.html")]
        )
    shown = capfd.readouterr()
    assert exit.value.code == 1
    assert shown.err.count("\n") == 4 and "converted: " in shown.err
    assert "rows" in shown.out and "1 converted, 1 needs a decision, 1 not NEZHA, 1 failed" in shown.out
    assert "nezha-convert convert" in shown.out
    page = (tmp_path / "p.html").read_text("utf-8")
    assert all(outcome in page for outcome in OUTCOMES[1:5]) and "http" not in page.replace("https://", "")
    shutil.rmtree(folder / "question")
    shutil.rmtree(folder / "damaged")
    with pytest.raises(SystemExit) as exit:
        main(["batch", str(folder), "--output", str(tmp_path / "out"), "--no-verify", "--json"])
    content = json.loads(capfd.readouterr().out)
    assert exit.value.code == 0 and content["right"] and content["rows"][1]["resumed"]


def test_ctrl_c_leaves_nothing_half_written_and_says_how_to_go_on(tmp_path):
    folder, out = models(tmp_path / "models"), tmp_path / "out"
    command = [sys.executable, "-m", "nezha_convert", "batch", str(folder), "--output", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 60
    while not out.exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "To go on:" in said and f"next: nezha-convert batch {folder} --output {out}" in said
    assert not list(out.glob(".*.part"))


def test_nothing_is_lost_and_nothing_done_twice_when_a_batch_is_killed_at_any_moment(tmp_path):
    kills, rows = (10, 24) if FULL else (2, 6)
    for number in range(rows):
        shutil.copytree(FIXTURES / COPY, tmp_path / "models" / f"m{number:02}", ignore=shutil.ignore_patterns("*.npz"))
    out, chance = tmp_path / "out", random.Random(7)
    command = [sys.executable, "-m", "nezha_convert", "batch", str(tmp_path / "models"), "--output", str(out)]
    command += ["--jobs", "2"] + ([] if FULL else ["--no-verify"])
    whole: dict[str, int] = {}
    for _ in range(kills):
        process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        until, target = time.monotonic() + 60, min(rows - 1, len(whole) + 1)
        while len(list(out.glob("m*/conversion.json"))) < target and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(chance.random() * (0.6 if FULL else 0.1))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.3)  # until its workers have noticed
        now = {
            path.parent.name: path.with_name("model.safetensors").stat().st_ino for path in out.glob("m*/conv*.json")
        }
        assert whole.items() <= now.items()  # what was whole is the same file
        whole = now
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["counts"] == {"verified" if FULL else "converted": rows}
    after = {path.parent.name: path.with_name("model.safetensors").stat().st_ino for path in out.glob("m*/conv*.json")}
    assert whole.items() <= after.items() and len(after) == rows
    assert not list(out.glob(".*.part"))


def test_a_search_on_the_hub_is_converted_proved_and_pushed_once(in_process, server, tmp_path):
    files = {p.name: p.read_bytes() for p in (FIXTURES / COPY).iterdir() if p.suffix != ".npz"}
    for name in ("lab/nezha-a", "lab/nezha-b", "other/nezha-c"):
        server.create(name, files)
    server.create("lab/llama", {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"x" * 100})
    server.create("lab/notes", {"notes.md": b"x"})
    asked = {"token": CANARY, "endpoint": server.endpoint, "license": "apache-2.0"}
    report = in_process("hf://lab/*", tmp_path / "out", push="owner/{name}-converted", **asked)
    assert {row.source: row.outcome for row in report.rows} == {
        "hf://lab/llama": "not NEZHA",
        "hf://lab/nezha-a": "verified",
        "hf://lab/nezha-b": "verified",
        "hf://lab/notes": "not NEZHA",
    }
    assert "llama" in report.rows[0].reason and server.count("GET /lab/llama/resolve") == 0
    assert "owner/lab__nezha-a-converted" in server.repositories
    before = server.count("POST .*/commit/")
    again = in_process("hf://lab/*", tmp_path / "out", push="owner/{name}-converted", **asked)
    assert steps(in_process) == [] and server.count("POST .*/commit/") == before == 2
    assert again.without_timings() == report.without_timings()
    assert [row.source for row in in_process("hf://lab/nezha*", tmp_path / "o2", dry_run=True, **asked).rows] == [
        "hf://lab/nezha-a",
        "hf://lab/nezha-b",
    ]
    text = "".join(path.read_text("utf-8") for path in (tmp_path / "out").glob("*.json*"))
    assert CANARY not in text


def test_a_family_is_what_the_hub_finds_by_its_tag(in_process, server, tmp_path):
    files = {p.name: p.read_bytes() for p in (FIXTURES / COPY).iterdir() if p.suffix != ".npz"}
    for number in range(5):
        server.create(f"owner/model-{number}", files).tags.append("nezha" if number % 2 else "bert")
    report = in_process(None, tmp_path / "out", family="nezha", endpoint=server.endpoint, dry_run=True)
    assert [row.source for row in report.rows] == ["hf://owner/model-1", "hf://owner/model-3"]


def test_a_pull_request_that_is_open_already_is_not_opened_twice(in_process, server, tmp_path):
    files = {p.name: p.read_bytes() for p in (FIXTURES / COPY).iterdir() if p.suffix != ".npz"}
    server.create("owner/nezha-a", files)
    asked = {"token": CANARY, "endpoint": server.endpoint, "license": "apache-2.0", "create_pr": True}
    first = in_process("hf://owner/nezha*", tmp_path / "out", **asked).rows[0]
    assert first.pushed.endswith("/owner/nezha-a/discussions/1")
    (tmp_path / "out" / JOURNAL).unlink()  # killed before its line was written
    second = in_process("hf://owner/nezha*", tmp_path / "out", **asked).rows[0]
    assert second.pushed == first.pushed
    assert [name for name in server.repositories["owner/nezha-a"].branches if name.startswith("refs/pr")] == [
        "refs/pr/1"
    ]


def test_the_hub_s_limit_of_requests_is_waited_for(in_process, server, tmp_path, monkeypatch):
    from nezha_convert.commands import batch_row

    files = {p.name: p.read_bytes() for p in (FIXTURES / COPY).iterdir() if p.suffix != ".npz"}
    server.create("owner/nezha-a", files)
    waited = []
    monkeypatch.setattr(batch_row.time, "sleep", waited.append)
    manifest = tmp_path / "models.csv"
    manifest.write_text("source\nhf://owner/nezha-a\n")
    commit = server.repositories["owner/nezha-a"].branches["main"]
    server.fail(f"GET /api/models/owner/nezha-a/revision/{commit}", 429, times=1, RateLimit='"api";r=0;t=42')
    report = in_process(manifest, tmp_path / "out", verify=False, endpoint=server.endpoint)
    assert report.rows[0].outcome == "converted" and 43.0 in waited


def test_a_conversion_by_hand_of_the_same_row_is_taken(in_process, tmp_path):
    folder = models(tmp_path / "models")
    convert(folder / "right", tmp_path / "out" / "right")
    in_process(folder, tmp_path / "out", verify=False)
    assert ("right", "converting") not in steps(in_process)


def test_a_hint_has_the_row_s_own_names_whatever_they_are():
    row = Row(1, "line 1", "OUTPUT/m", "SOURCE/n")
    assert _about(row, "convert SOURCE OUTPUT, not SOURCES") == "convert OUTPUT/m SOURCE/n, not SOURCES"


def test_a_file_that_may_not_be_read_is_a_failed_row_in_words(monkeypatch, tmp_path):
    def refused(*arguments, **more):
        raise PermissionError(13, "Permission denied", "models/m/modules.json")

    monkeypatch.setattr(batch_row, "convert", refused)
    result = do_row(Task(Row(1, "line 1", "./models/m", str(tmp_path / "out")), Needs(1, 1, 1)), lambda step: None)
    assert (result.outcome, result.reason) == ("failed", "models/m/modules.json: Permission denied")


def test_an_empty_output_is_not_the_current_folder(tmp_path):
    with pytest.raises(UsageError, match="--output: empty"):
        batch(tmp_path, "")
