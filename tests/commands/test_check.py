"""`check`: what is as recorded passes, each kind of change is named, and a list of changed files may be given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_fixtures import TF
from stranger import without
from swapped import swap

import nezha_convert
from nezha_convert.commands.check import RECORDS
from nezha_convert.errors import MappingError, UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A folder of three folders: converted, exported, and one with the record of a training."""
    models = tmp_path_factory.mktemp("models") / "模型 们"
    nezha_convert.convert(TF, models / "converted")
    nezha_convert.export(models / "converted", models / "exported", "huawei-tf")
    shutil.copytree(models / "converted", models / "trained")
    (models / "trained" / "conversion.json").rename(models / "trained" / "training.json")
    return models


@pytest.fixture
def models(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / original.name))


def test_every_folder_is_as_recorded_when_it_was_just_written(models):
    checked = nezha_convert.check(models)
    assert checked.same and checked.others == 0
    assert {(Path(folder.folder).name, folder.record) for folder in checked.folders} == {
        ("converted", "conversion.json"),
        ("exported", "export.json"),
        ("trained", "training.json"),
    }
    for folder in checked.folders:
        recorded = json.loads(Path(folder.folder, folder.record).read_text("utf-8"))["output_files"]
        assert (folder.files, folder.nbytes) == (len(recorded), sum(file["nbytes"] for file in recorded))
        assert folder.files > 2 and folder.problems == () and folder.hint == ""


@pytest.mark.parametrize("name", ["converted", "exported", "trained"])
def test_every_recorded_file_of_every_folder_is_looked_at(name, models):
    folder = models / name
    (record,) = (folder / mark for mark in RECORDS if (folder / mark).is_file())
    for file in json.loads(record.read_text("utf-8"))["output_files"]:
        path = folder / file["name"]
        whole = path.read_bytes()
        changes = {
            "SHA-256": bytes([whole[0] ^ 1]) + whole[1:],
            f"{len(whole) + 1:,} bytes, recorded {len(whole):,}": whole + b" ",
            "missing": None,
        }
        for said, content in changes.items():
            path.unlink() if content is None else path.write_bytes(content)
            (problem,) = nezha_convert.check(folder).folders[0].problems
            assert problem.startswith(f"{path}: {said}")
            path.write_bytes(whole)
    assert nezha_convert.check(folder).same


def test_a_swapped_projection_is_a_change_of_the_weights(models):
    swap(models / "converted", recorded=False)
    (folder,) = nezha_convert.check(models / "converted").folders
    assert folder.problems[0].startswith(f"{models}/converted/model.safetensors: SHA-256 ")
    assert folder.hint.endswith(f"Convert again: nezha-convert convert SOURCE '{models}/converted' --force")


@pytest.mark.parametrize(
    ("name", "again"), [("exported", "Export again: "), ("trained", "Record the training again: ")]
)
def test_what_to_do_is_said_by_the_record(name, again, models):
    (models / name / "vocab.txt").write_text("changed")
    record = next(path for mark in RECORDS if (path := models / name / mark).is_file())
    content = json.loads(record.read_text("utf-8"))
    content["output_files"] = [{"name": "vocab.txt", "nbytes": 1, "sha256": "0" * 64}]
    record.write_text(json.dumps(content), "utf-8")
    assert again in nezha_convert.check(models / name).folders[0].hint


def test_files_stand_for_their_folders_and_others_are_passed_over(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("of the repository")
    base = models.relative_to(tmp_path)
    named = [base / "converted" / "config.json", base / "converted" / "vocab.txt", Path("README.md")]
    named[1].write_text("not of the record")
    checked = nezha_convert.check(*named)
    assert [folder.folder for folder in checked.folders] == [str(base / "converted")] and checked.others == 1


def test_a_file_below_a_folder_belongs_to_it(models):
    (models / "converted" / "1_Pooling").mkdir()
    (models / "converted" / "1_Pooling" / "config.json").write_text("{}")
    checked = nezha_convert.check(models / "converted" / "1_Pooling" / "config.json")
    assert [Path(folder.folder).name for folder in checked.folders] == ["converted"]


def test_a_pointer_of_git_lfs_is_called_one(models):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (models / "converted" / "model.safetensors").write_bytes(pointer)
    (problem,) = nezha_convert.check(models / "converted").folders[0].problems
    assert problem.endswith("it is a pointer of Git LFS, and `git lfs pull` brings the file")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../b", "", "a\\b"])
def test_a_record_that_names_a_file_outside_of_its_folder_is_refused(name, models):
    record = models / "exported" / "export.json"
    content = json.loads(record.read_text("utf-8"))
    content["output_files"][0]["name"] = name
    record.write_text(json.dumps(content), "utf-8")
    with pytest.raises(MappingError, match="expected a file of the folder itself") as error:
        nezha_convert.check(models / "exported")
    assert error.value.hint.startswith("Export again: nezha-convert export OUTPUT ")


def test_a_name_that_no_file_can_have_is_missing(models):
    record = models / "exported" / "export.json"
    content = json.loads(record.read_text("utf-8"))
    content["output_files"][0]["name"] = "a" * 300
    record.write_text(json.dumps(content), "utf-8")
    assert nezha_convert.check(models / "exported").folders[0].problems[0].endswith("a: missing")


def test_what_is_no_folder_of_ours_is_refused(models, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MappingError, match=r"no training\.json, conversion\.json or export\.json in it or below"):
        nezha_convert.check(tmp_path / "empty")
    with pytest.raises(UsageError, match="nowhere: not there"):
        nezha_convert.check(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="nothing to check"):
        nezha_convert.check()


def command(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = without("torch", "transformers") + "from nezha_convert.cli.app import main; main(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_exit_code_tells_by_the_core_alone(models):
    done = command("check", "converted", "exported", cwd=models)
    assert (done.returncode, done.stdout.splitlines()[-1].split()) == (0, ["verdict", "as", "recorded"])
    (models / "converted" / "config.json").write_text("{}")
    done = command("check", "converted/config.json", cwd=models)
    assert done.returncode == 1 and done.stdout.splitlines()[-1].split() == ["verdict", "CHANGED"]
    assert (
        "converted/config.json: 2 bytes, recorded " in done.stdout and "convert SOURCE converted --force" in done.stdout
    )
    found = json.loads(command("check", "converted", "--json", cwd=models).stdout)
    assert found["same"] is False and len(found["folders"][0]["problems"]) == 1


# The hook


HOOK = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))[0]


@pytest.fixture
def repository(models, monkeypatch) -> Path:
    """A git repository with the folders in it, and pre-commit with this hook, which runs this environment's program."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    pytest.importorskip("pre_commit", reason="pre-commit is not installed: pip install -e '.[dev]'")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PRE_COMMIT_HOME", str(models.parent / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    entry = HOOK["entry"].replace("nezha-convert", f"{sys.executable} -m nezha_convert", 1)
    hook = {**HOOK, "language": "system", "entry": entry}
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    (models / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    (models / "notes.txt").write_text("no model")
    git(models, "init", "-q")
    git(models, "add", "-A")
    git(models, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "models")
    return models


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def hooked(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pre_commit", "run", "--verbose", *words]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)


def test_the_hook_passes_and_fails_by_what_is_committed(repository):
    (repository / "notes.txt").write_text("still no model")
    git(repository, "add", "-A")
    done = hooked(repository)
    assert done.returncode == 0 and "passed over  1 file, in" in done.stdout, done.stdout + done.stderr
    swap(repository / "converted", recorded=False)
    git(repository, "add", "-A")
    done = hooked(repository)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "converted/model.safetensors: SHA-256 " in done.stdout and "exported" not in done.stdout


def test_the_hook_is_one_that_pre_commit_takes():
    clientlib = pytest.importorskip("pre_commit.clientlib", reason="pre-commit is not installed")
    (hook,) = clientlib.load_manifest(ROOT / ".pre-commit-hooks.yaml")
    assert hook["entry"].split()[0] == "nezha-convert" and hook["pass_filenames"] and hook["language"] == "python"
