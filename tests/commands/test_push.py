"""A push makes one commit of what is proved: the real client against a server on loopback (hub_server.py)."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import trainings
from goldens import HELPERS
from hub_fixtures import CANARY, NAME, PUSH, TF, commits, process, pushed
from stranger import WITHOUT_PACKAGES

from nezha_convert import convert, pull, push, record
from nezha_convert.cli.console import Console


def test_a_push_creates_the_repository_and_makes_one_commit_of_the_whole_folder(run, server, folder):
    result = run("push", folder, NAME, *PUSH)
    assert (result.code, commits(server)) == (0, 1)
    files = pushed(server)
    recorded = {file["name"] for file in json.loads((folder / "conversion.json").read_text())["output_files"]}
    assert set(files) == recorded | {"README.md", "conversion.json", ".gitattributes"}
    for name in recorded | {"conversion.json"}:
        assert files[name] == (folder / name).read_bytes()
    assert "created" in result.out and "commit" in result.out
    assert not server.repositories[NAME].private


def test_weights_go_by_lfs_and_small_files_in_the_commit(run, server, folder):
    run("push", folder, NAME, *PUSH)
    assert (folder / "model.safetensors").read_bytes() in server.large.values()
    assert (folder / "config.json").read_bytes() not in server.large.values()


def test_a_second_push_sends_nothing_and_makes_no_commit(run, server, folder):
    run("push", folder, NAME, *PUSH)
    sent = server.count("PUT ")
    result = run("push", folder, NAME, *PUSH)
    assert (result.code, commits(server)) == (0, 1)
    assert server.count("PUT ") == sent and server.count("POST .*/commit/") == 1
    assert "nothing changed" in result.out


def test_a_changed_card_is_one_commit_of_one_file(run, server, folder):
    run("push", folder, NAME, *PUSH)
    sent = server.count("PUT ")
    result = run("push", folder, NAME, "--license", "mit", "--json")
    done = json.loads(result.out)
    assert commits(server) == 2 and server.count("PUT ") == sent
    assert [file["name"] for file in done["files"] if file["state"] == "uploaded"] == ["README.md"]


def test_weights_of_another_layout_leave_no_stale_ones_behind(run, server, folder, tmp_path):
    run("push", folder, NAME, *PUSH)
    convert(TF, tmp_path / "sharded", max_shard_bytes=20_000)
    result = run("push", tmp_path / "sharded", NAME, *PUSH, "--force")
    assert result.code == 0 and "deleted" in result.out
    assert "model.safetensors" not in pushed(server) and "model.safetensors.index.json" in pushed(server)
    run("push", folder, NAME, *PUSH)
    assert [name for name in pushed(server) if "safetensors" in name] == ["model.safetensors"]


def test_what_an_earlier_model_kept_beside_it_does_not_stay(run, server, folder):
    repository = server.create(NAME)
    repository.add("main", repository.branches["main"], {"extra.safetensors": b"another model's"}, "before")
    assert run("push", folder, NAME, *PUSH).code == 0
    assert "extra.safetensors" not in pushed(server)


def test_a_change_by_someone_else_meanwhile_is_an_error_and_no_merge(run, server, folder):
    repository = server.create(NAME)

    def interfere() -> None:
        repository.add("main", repository.branches["main"], {"theirs.txt": b"theirs"}, "theirs")

    server.before_commit.append(interfere)
    result = run("push", folder, NAME, *PUSH)
    assert result.code == 6 and "changed by someone else" in result.err and "next: " in result.err
    assert pushed(server) == {"theirs.txt": b"theirs"}
    assert run("push", folder, NAME, *PUSH).code == 0
    assert pushed(server)["theirs.txt"] == b"theirs"


def test_a_pull_request_leaves_main_as_it_was(run, server, folder):
    server.create(NAME, {"README.md": b"mine"})
    result = run("push", folder, NAME, *PUSH, "--create-pr")
    assert result.code == 0 and f"{server.endpoint}/{NAME}/discussions/1" in result.out
    assert set(pushed(server)) == {".gitattributes", "README.md"}
    assert (folder / "model.safetensors").read_bytes() == pushed(server, branch="refs/pr/1")["model.safetensors"]


def test_a_private_push_creates_a_private_repository(run, server, folder):
    assert run("push", folder, NAME, *PUSH, "--private").code == 0
    assert server.repositories[NAME].private


def test_a_private_push_never_goes_to_a_public_repository(run, server, folder):
    server.create(NAME)
    result = run("push", folder, NAME, *PUSH, "--private")
    assert result.code == 6 and "is public" in result.err
    assert commits(server) == 0 and not server.large


def test_a_push_goes_to_the_branch_that_is_named(run, server, folder):
    repository = server.create(NAME)
    repository.branches["next"] = repository.branches["main"]
    assert run("push", folder, NAME, *PUSH, "--revision", "next", "--message", "Hello").code == 0
    assert repository.history("next")[0].title == "Hello"
    assert len(repository.history("main")) == 1


# What may be pushed


def test_a_folder_that_was_never_verified_is_refused_and_force_says_so_in_the_card(run, server, tmp_path):
    convert(TF, tmp_path / "out")
    refused = run("push", tmp_path / "out", NAME, *PUSH)
    assert refused.code == 6 and "never measured" in refused.err and "nezha-convert verify" in refused.err
    assert not server.requests
    assert run("push", tmp_path / "out", NAME, *PUSH, "--force").code == 0
    assert b"Pushed with `--force`" in pushed(server)["README.md"]


def test_a_folder_that_failed_its_verification_is_refused(run, folder):
    record = json.loads((folder / "conversion.json").read_text())
    record["parity"] |= {"passed": False, "failures": ["first departs layer_0"]}
    (folder / "conversion.json").write_text(json.dumps(record))
    result = run("push", folder, NAME, *PUSH)
    assert result.code == 6 and "first departs layer_0" in result.err


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "modeling_nezha.py"])
def test_a_file_that_was_changed_since_is_refused_by_name(run, server, folder, name):
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    result = run("push", folder, NAME, *PUSH)
    assert result.code == 6 and f"{name} was changed" in result.err
    assert not server.requests


def test_weights_that_were_not_the_verified_ones_are_refused(run, folder):
    """Converted anew since: the record of the conversion fits, the proof is of other weights."""
    record = json.loads((folder / "conversion.json").read_text())
    record["parity"]["verified"][0]["sha256"] = "0" * 64
    (folder / "conversion.json").write_text(json.dumps(record))
    result = run("push", folder, NAME, *PUSH)
    assert result.code == 6 and "not the file that was compared" in result.err


def test_files_that_are_not_the_conversion_s_stay_at_home(run, server, folder):
    (folder / "notes.txt").write_text("mine")
    result = run("push", folder, NAME, *PUSH)
    assert "left out" in result.out and "notes.txt" in result.out
    assert "notes.txt" not in pushed(server)


def test_a_license_is_asked_for_and_never_assumed(run, server, folder):
    result = run("push", folder, NAME)
    assert result.code == 2 and "no license is stated, and none is assumed" in result.err
    unknown = run("push", folder, NAME, "--license", "Apache")
    assert unknown.code == 2 and "apache-2.0" in unknown.err
    assert not server.requests


def test_a_person_is_asked_for_the_license(run, server, folder, monkeypatch):
    monkeypatch.setattr(Console, "asks", True)
    monkeypatch.setattr("sys.stdin", io.StringIO("apache\napache-2.0\n"))
    result = run("push", folder, NAME)
    assert result.code == 0 and "'apache' is not one of" in result.err
    assert b'license: "apache-2.0"' in pushed(server)["README.md"]


@pytest.mark.parametrize("answer", ["", KeyboardInterrupt], ids=["Ctrl-D", "Ctrl-C"])
def test_a_person_who_does_not_answer_has_interrupted(run, server, folder, monkeypatch, answer):
    class Keyboard(io.StringIO):
        def readline(self, *size):
            if answer:
                raise answer
            return ""

    monkeypatch.setattr(Console, "asks", True)
    monkeypatch.setattr("sys.stdin", Keyboard())
    result = run("push", folder, NAME)
    assert result.code == 130 and "interrupted" in result.err and "fault" not in result.err
    assert not server.requests


def test_a_card_edited_by_hand_goes_as_it_is_with_its_license_filled_in(run, server, folder):
    text = (folder / "README.md").read_text().replace("# Nezha", "# My own Nezha")
    (folder / "README.md").write_text(text)
    assert run("push", folder, NAME, *PUSH).code == 0
    card = huggingface_hub.ModelCard(pushed(server)["README.md"].decode())
    assert card.data.license == "apache-2.0" and "# My own Nezha" in card.text


def test_a_card_whose_metadata_cannot_be_read_is_2(run, server, folder):
    (folder / "README.md").write_text("---\nlicense: [\n---\nmine")
    result = run("push", folder, NAME, *PUSH)
    assert result.code == 2 and "README.md: its metadata cannot be read" in result.err and "--no-card" in result.err
    assert not server.requests


@pytest.mark.parametrize("how", ["absolute", "above", "link"])
def test_no_record_makes_a_file_from_elsewhere_public(run, server, folder, how):
    secret = folder.parent / "secret.txt"
    secret.write_text("secret")
    name = {"absolute": str(secret), "above": "../secret.txt", "link": "innocent.txt"}[how]
    if how == "link":
        (folder / name).symlink_to(secret)
    record = json.loads((folder / "conversion.json").read_text())
    digest = hashlib.sha256(b"secret").hexdigest()
    record["output_files"].append({"name": name, "nbytes": 6, "sha256": digest})
    (folder / "conversion.json").write_text(json.dumps(record))
    result = run("push", folder, NAME, *PUSH, "--force")
    assert result.code == 4 and name in result.err and "of the folder" in result.err
    assert not server.requests


def test_a_card_that_is_a_link_makes_no_file_from_elsewhere_public(run, server, folder):
    (folder.parent / "secret.txt").write_text("secret words")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(folder.parent / "secret.txt")
    for option in ("--dry-run", "--force"):
        result = run("push", folder, NAME, *PUSH, option)
        assert result.code == 4 and "README.md" in result.err and "symbolic link" in result.err
        assert "secret words" not in result.out + result.err
    assert not server.requests


def test_without_a_card_the_repository_s_own_stays(run, server, folder):
    server.create(NAME, {"README.md": b"---\nlicense: mit\n---\nmine"})
    assert run("push", folder, NAME, "--no-card").code == 0
    assert pushed(server)["README.md"].endswith(b"mine")


def test_a_dry_run_shows_files_and_card_offline(run, server, folder):
    result = run("push", folder, NAME, *PUSH, "--dry-run")
    assert result.code == 0 and not server.requests
    for words in ("model.safetensors (82.7 kB)", "README.md", 'license: "apache-2.0"', f'from_pretrained("{NAME}"'):
        assert words in result.out
    planned = json.loads(run("push", folder, NAME, *PUSH, "--dry-run", "--json").out)
    assert planned["dry_run"] and {file["state"] for file in planned["files"]} == {"planned"}


@pytest.mark.parametrize("name", ["nezha", "a/b/c", "owner/", "-/x", "owner/na me"])
def test_a_name_that_no_repository_has_is_2(run, folder, name):
    result = run("push", folder, name, *PUSH)
    assert result.code == 2


def test_a_folder_that_nobody_converted_is_4(run, tmp_path):
    result = run("push", tmp_path, NAME, *PUSH)
    assert result.code == 4 and "no conversion.json" in result.err


# A stranger's process


LOAD = """
import sys
sys.path.insert(0, {tests!r})
from goldens import GOLDENS, errors
from transformers import AutoModelForPreTraining
model, info = AutoModelForPreTraining.from_pretrained({name!r}, trust_remote_code=True, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
for case, expected in GOLDENS[0].cases():
    for name, error in errors(GOLDENS[0], model.eval(), case, expected).items():
        assert error <= GOLDENS[0].tolerance, (case, name, error)
print("equal")
"""


def test_a_stranger_loads_the_pushed_model_and_computes_what_the_original_computed(run, server, folder, tmp_path):
    assert run("push", folder, NAME, *PUSH).code == 0
    code = WITHOUT_PACKAGES + LOAD.format(tests=str(HELPERS), name=NAME)
    done = process(server, "-c", code, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"


# A trained model


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A folder with base/, verified, and model/, trained from it and recorded."""
    place = tmp_path_factory.mktemp("recorded")
    trainings.train(trainings.make_base(place), place / "model")
    assert trainings.record(place / "model", place / "base").doubts() == ()
    return place


@pytest.fixture
def trained(recorded, tmp_path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "place")) / "model"


def test_a_trained_model_goes_out_with_its_record_and_without_what_its_trainer_left(run, server, trained):
    result = run("push", trained, NAME, *PUSH)
    assert (result.code, commits(server)) == (0, 1)
    files = pushed(server)
    names = {file["name"] for file in json.loads((trained / "training.json").read_text())["output_files"]}
    assert set(files) == names | {"README.md", "training.json", ".gitattributes"}
    assert all(files[name] == (trained / name).read_bytes() for name in names | {"training.json"})
    assert {"checkpoint-1", "training_args.bin"} <= {path.name for path in trained.iterdir()}
    assert "training_args.bin: not of the record" in result.out and "checkpoint-1: not of the record" in result.out
    card = huggingface_hub.ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.model_name) == ("apache-2.0", "nezha-tiny")
    assert [result.metric_value for result in card.data.eval_results] == [0.9533, 0.95]
    assert server.repositories[NAME].history("main")[0].title == "NezhaForSequenceClassification, trained from base"


LOAD_TRAINED = """
import json
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model, info = AutoModelForSequenceClassification.from_pretrained(
    {name!r}, trust_remote_code=True, output_loading_info=True
)
assert not info["missing_keys"] and not info["unexpected_keys"], info
tokenizer = AutoTokenizer.from_pretrained({name!r}, trust_remote_code=True)
with torch.no_grad():
    found = model.eval()(**tokenizer({texts!r}, padding=True, return_tensors="pt")).logits
print(json.dumps(found.tolist()))
"""


def test_a_stranger_loads_the_trained_model_and_computes_what_its_trainer_computed(run, server, trained, tmp_path):
    assert run("push", trained, NAME, *PUSH).code == 0
    code = WITHOUT_PACKAGES + LOAD_TRAINED.format(name=NAME, texts=trainings.TEXTS)
    done = process(server, "-c", code, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    expected = trainings.logits(trained)
    assert np.abs(np.array(json.loads(done.stdout)) - expected.numpy()).max() < 1e-6
    assert np.ptp(expected.numpy(), axis=0).min() > 1e-3  # else any weights would do


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "modeling_nezha.py"])
def test_a_trained_model_that_was_changed_since_is_refused_by_name(run, server, trained, name):
    (trained / name).write_bytes((trained / name).read_bytes() + b"\n")
    result = run("push", trained, NAME, *PUSH)
    assert result.code == 6 and f"{name} was changed" in result.err and "record_training" in result.err
    assert not server.requests


def test_a_model_whose_base_is_not_proved_needs_force_and_its_card_says_so(run, server, trained):
    base = trained.parent / "base"
    recorded = json.loads((base / "conversion.json").read_text())
    del recorded["parity"]
    (base / "conversion.json").write_text(json.dumps(recorded))
    trainings.record(trained, base)
    refused = run("push", trained, NAME, *PUSH)
    assert refused.code == 6 and "trained from base: its parity with the original was never measured" in refused.err
    assert (
        "nezha-convert verify SOURCE base proves what it was trained from; then push looks at it again" in refused.err
    )
    assert not server.requests
    forced = run("push", trained, NAME, *PUSH, "--force")
    assert forced.code == 0 and "never measured" in forced.out
    card = pushed(server)["README.md"].decode()
    assert "Pushed with `--force`, although not all that its card says is proved" in card
    assert card.count("never measured") == 2


def test_a_base_that_was_verified_since_is_looked_at_again(run, server, trained):
    base = trained.parent / "base" / "conversion.json"
    verified = base.read_text()
    base.write_text(json.dumps({name: value for name, value in json.loads(verified).items() if name != "parity"}))
    trainings.record(trained, base.parent)
    before = (trained / "training.json").read_bytes()
    base.write_text(verified)
    assert run("push", trained, NAME, *PUSH).code == 0
    assert (trained / "training.json").read_bytes() == before
    files = pushed(server)
    assert json.loads(files["training.json"])["base"]["conversion"]["parity"]["passed"]
    assert "**Not proved:**" not in files["README.md"].decode()

    again = record(trained).record
    assert {**json.loads(files["training.json"]), "card": again["card"]} == again


def test_a_trained_model_s_license_is_demanded_unless_its_record_has_one(run, server, trained):
    result = run("push", trained, NAME)
    assert result.code == 2 and "no license is stated, and none is assumed" in result.err
    trainings.record(trained, trained.parent / "base", license="mit")
    assert run("push", trained, NAME).code == 0
    assert huggingface_hub.ModelCard(pushed(server)["README.md"].decode()).data.license == "mit"


def test_a_trained_model_s_own_card_keeps_its_words_and_its_metrics(run, server, trained):
    text = (trained / "README.md").read_text("utf-8").replace("# Nezha", "# My own Nezha")
    (trained / "README.md").write_text(text, "utf-8")
    assert run("push", trained, NAME, *PUSH).code == 0
    card = huggingface_hub.ModelCard(pushed(server)["README.md"].decode())
    assert card.data.license == "apache-2.0" and "# My own Nezha" in card.text
    assert [result.metric_value for result in card.data.eval_results] == [0.9533, 0.95]


@pytest.mark.parametrize("name", ["vocab.txt", "training.json", "README.md"])
def test_a_trained_folder_with_a_link_makes_no_file_from_elsewhere_public(run, server, trained, name):
    (trained / name).rename(trained.parent / "secret")
    (trained / name).symlink_to(trained.parent / "secret")
    result = run("push", trained, NAME, *PUSH, "--force")
    assert result.code == 4 and name in result.err and "link" in result.err
    assert not server.requests


def test_a_trained_model_that_was_pulled_is_pushed_again_with_its_record(run, server, trained, tmp_path):
    assert run("push", trained, NAME, *PUSH).code == 0
    assert run("pull", f"hf://{NAME}", tmp_path / "here").code == 0
    assert (tmp_path / "here" / "training.json").read_bytes() == (trained / "training.json").read_bytes()
    assert run("push", tmp_path / "here", "owner/again", *PUSH).code == 0
    assert "nothing changed" in run("push", tmp_path / "here", NAME, *PUSH).out


def test_a_base_of_the_hub_is_recorded_with_its_commit_and_its_proof(run, server, trained, monkeypatch):
    base = trained.parent / "base"
    repository = server.create("owner/base", {path.name: path.read_bytes() for path in base.iterdir()})
    pull("hf://owner/base", endpoint=server.endpoint)  # as a training did, that the base was loaded for
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = trainings.record(trained, "owner/base", revision="main")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert found.record["base"]["source"] == f"hf://owner/base@{repository.branches['main']}"
    assert found.doubts() == () and found.record["base"]["conversion"]["parity"]["passed"]
    assert run("push", trained, NAME, *PUSH).code == 0
    assert huggingface_hub.ModelCard(pushed(server)["README.md"].decode()).data.base_model == "owner/base"


def test_the_python_api_is_the_command_line_s(server, folder):
    done = push(folder, NAME, license="mit", token=CANARY, endpoint=server.endpoint)
    assert done.commit == server.repositories[NAME].branches["main"] and done.created
    assert [file.state for file in done.files] == ["uploaded"] * len(done.files)
