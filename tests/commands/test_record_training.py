"""A recorded training: the folder is complete and describes itself; changed and hostile folders are noticed."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import trainings
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from trainings import VOCABULARY, record
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import nezha
import nezha_convert
from nezha_convert import (
    MappingError,
    NezhaConvertError,
    TrainedFolder,
    TrainingData,
    UsageError,
    export,
    inspect,
    verify,
)
from nezha_convert.folder.base import base_folder
from nezha_convert.folder.model_code import MODEL_FILES
from nezha_convert.folder.trained import is_name

CODE = Path(nezha.__file__).parent
TRANSFORMERS_4_TOO = "special_tokens_map.json"
"""What a Trainer of transformers 4 saves besides."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with base/, converted and verified, and model/, trained from it and saved, but not recorded."""
    folder = tmp_path_factory.mktemp("made")
    trainings.train(trainings.make_base(folder), folder / "model")
    return folder


@pytest.fixture
def place(made, tmp_path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(made, tmp_path / "place"))


@pytest.fixture
def folder(place) -> Path:
    """A trained model that is recorded, and whose base is proved."""
    assert record(place / "model", place / "base").doubts() == ()
    return place / "model"


def read(folder: Path) -> dict:
    return json.loads((folder / "training.json").read_text("utf-8"))


def change(path: Path, how) -> None:
    """Apply `how` to the content of a JSON file."""
    content = json.loads(path.read_text("utf-8"))
    how(content)
    path.write_text(json.dumps(content), "utf-8")


def second(folder: Path) -> Path:
    """A stand-in for a model that is trained further from `folder`: a copy of it."""
    ignored = shutil.ignore_patterns("training.json", "README.md", "checkpoint-*")
    return Path(shutil.copytree(folder, folder.parent / "second", ignore=ignored))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# The folder


def test_the_folder_is_made_whole(folder):
    assert {"README.md", "training.json", "vocab.txt", *MODEL_FILES} <= {path.name for path in folder.iterdir()}
    for name in MODEL_FILES:
        assert (folder / name).read_bytes() == (CODE / name).read_bytes()
    assert len(json.loads((folder / "config.json").read_text())["auto_map"]) == 10
    assert (folder / "vocab.txt").read_text("utf-8").split("\n") == [*VOCABULARY, ""]


def test_the_tokenizer_s_class_is_one_that_every_release_knows(folder):
    known = ("PreTrainedTokenizerFast", "PreTrainedTokenizer")  # the latter is transformers 4.52's, which 5 loads alike
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] in known
    assert AutoTokenizer.from_pretrained(folder)("一丁").input_ids == [2, 15, 16, 3]


def test_the_weights_stay_as_they_were_saved(made, folder):
    assert (folder / "model.safetensors").read_bytes() == (made / "model" / "model.safetensors").read_bytes()


def test_the_same_training_is_recorded_by_the_same_bytes(folder):
    before = contents(folder)
    record(folder, folder.parent / "base")
    assert contents(folder) == before
    assert not list(folder.glob(".*"))


def test_what_a_trainer_leaves_is_not_of_the_record(folder):
    assert {"checkpoint-1", "training_args.bin"} <= {path.name for path in folder.iterdir()}
    names = {file["name"] for file in read(folder)["output_files"]}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    assert names - {TRANSFORMERS_4_TOO} == {"config.json", "model.safetensors", *tokenizer, *MODEL_FILES}


def test_the_kernel_of_an_old_folder_is_recorded_since_its_code_does_not_load_without_it(place):
    (place / "model" / "triton_nezha.py").write_text("# saved with the model's own code\n")
    record(place / "model", place / "base")
    assert "triton_nezha.py" in {file["name"] for file in read(place / "model")["output_files"]}


def test_the_shards_of_large_weights_are_recorded(place):
    model = AutoModelForSequenceClassification.from_pretrained(place / "model")
    model.save_pretrained(place / "model", max_shard_size="40KB")
    with pytest.raises(MappingError, match="are both in it, and transformers loads the first"):
        record(place / "model", place / "base")
    (place / "model" / "model.safetensors").unlink()
    names = {file["name"] for file in record(place / "model", place / "base").record["output_files"]}
    shards = {path.name for path in (place / "model").glob("model-*.safetensors")}
    assert len(shards) > 1 and {*shards, "model.safetensors.index.json"} <= names
    assert len(names - {TRANSFORMERS_4_TOO}) == 5 + len(MODEL_FILES) + len(shards)


def test_code_that_was_saved_with_the_model_is_what_it_ran_and_stays(place):
    own = (CODE / "modeling_nezha.py").read_text("utf-8") + "\n# mine\n"
    (place / "model" / "modeling_nezha.py").write_text(own, "utf-8")
    record(place / "model", place / "base")
    assert (place / "model" / "modeling_nezha.py").read_text("utf-8") == own


def test_a_base_of_another_repository_leaves_no_reference_to_its_code(place):
    """transformers writes "owner/name--module.Class" into the config of a model that came from the Hub."""
    auto_map = {"AutoModel": "owner/name--modeling_nezha.NezhaModel"}
    change(place / "model" / "config.json", lambda config: config.update(auto_map=auto_map))
    record(place / "model", place / "base")
    assert "--" not in str(json.loads((place / "model" / "config.json").read_text())["auto_map"])


# The record


def test_it_says_what_was_trained_how_and_on_what(place):
    os.utime(place / "model" / "model.safetensors", (1_000_000_000, 1_000_000_000))
    content = record(place / "model", place / "base", license="mit").record
    assert (content["date"], content["task"], content["license"]) == ("2001-09-09", "text-classification", "mit")
    assert (content["head"], content["architecture"]) == ("sequence-classification", "NezhaForSequenceClassification")
    assert content["metrics"] == {"validation": {"accuracy": 0.9533, "f1_macro": 0.95}}
    file = (place / "train.tsv").read_bytes()
    assert content["data"] == [
        {
            "split": "train",
            "name": "ChnSenti",
            "files": [{"name": "train.tsv", "nbytes": len(file), "sha256": sha256(file).hexdigest()}],
            "rows": 1,
            "revision": None,
        },
        {"split": "validation", "name": "owner/ChnSenti", "files": [], "rows": 2, "revision": "0123"},
    ]
    assert {"torch", "transformers", "python"} <= set(content["versions"])


def test_it_keeps_the_chain_to_the_original(folder):
    base, conversion = read(folder)["base"], json.loads((folder.parent / "base" / "conversion.json").read_text("utf-8"))
    weights = (folder.parent / "base" / "model.safetensors").read_bytes()
    assert [file["sha256"] for file in base["weights"]] == [sha256(weights).hexdigest()]
    for name in ("family", "source", "source_files", "decisions", "parity"):
        assert base["conversion"][name] == conversion[name]
    assert base["conversion"]["parity"]["passed"] and base["source"] == "base"
    assert read(folder)["language"] == "zh"


def test_a_trainer_s_arguments_are_the_settings(place):
    arguments = trainings.train(place / "base", place / "again")
    stored = record(place / "again", place / "base", settings=arguments).record["settings"]
    assert stored["learning_rate"] == 0.003 and stored["seed"] == 7 and stored["max_steps"] == 1
    assert stored["lr_scheduler_type"] == "linear" and stored["bf16"] is False
    assert not any("dir" in name for name in stored)


def test_no_folder_of_one_s_own_is_in_it(folder):
    for name in ("training.json", "README.md"):
        assert str(folder.parent) not in (folder / name).read_text("utf-8")
        assert "place" not in (folder / name).read_text("utf-8").replace("placement", "")


def test_a_model_trained_from_a_trained_one_leads_back_to_the_original(folder):
    again = record(second(folder), folder)
    base = again.record["base"]
    assert base["conversion"] is None and base["training"]["base"]["conversion"]["family"] == "huawei-tf"
    assert again.doubts() == () and again.record["language"] == "zh"
    card = (again.path / "README.md").read_text("utf-8")
    assert card.index("trained from `model`") < card.index("trained from `base`") < card.index("converted by")
    assert "compared with the original, layer by layer, and passed" in card


# What is not proved


def unverified(place: Path) -> None:
    change(place / "base" / "conversion.json", lambda content: content.pop("parity"))


def failed(place: Path) -> None:
    bad = {"passed": False, "failures": ["first departs layer_0"]}
    change(place / "base" / "conversion.json", lambda content: content["parity"].update(bad))


def unrecorded(place: Path) -> None:
    (place / "base" / "conversion.json").unlink()


def broken(place: Path) -> None:
    (place / "base" / "conversion.json").write_text("{")


def other_weights(place: Path) -> None:
    path = place / "base" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (unverified, "its parity with the original was never measured"),
        (failed, "first departs layer_0"),
        (unrecorded, "it has no conversion.json"),
        (broken, "conversion.json: not readable"),
        (other_weights, "model.safetensors was changed since it was written"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_unproved_base_is_a_doubt_and_stands_in_the_card(place, spoil, words):
    spoil(place)
    doubts = record(place / "model", place / "base").doubts()
    assert len(doubts) == 1 and doubts[0].startswith("trained from base: ") and words in doubts[0]
    card = (place / "model" / "README.md").read_text("utf-8")
    assert "**Not proved:**" in card and "and passed" not in card
    assert len(record(second(place / "model"), place / "model").doubts()) == 1  # the one about the base's base


def test_a_doubt_goes_once_the_base_is_verified_and_the_training_recorded_again(place):
    unverified(place)
    assert record(place / "model", place / "base").doubts()
    assert verify(trainings.SOURCE, place / "base", vocab=place / "vocab.txt").passed
    assert not record(place / "model", place / "base").doubts()


def test_record_renews_what_is_said_of_a_base_that_was_verified_since(place):
    unverified(place)
    model, before = place / "model", record(place / "model", place / "base").record
    assert "was never measured" in nezha_convert.record(model).doubts()[0] and read(model) == before
    assert verify(trainings.SOURCE, place / "base", vocab=place / "vocab.txt").passed
    elsewhere = (place / "base").rename(place / "base-of-another-name")
    with pytest.raises(MappingError, match="trained from base, which is neither in") as error:
        nezha_convert.record(model)
    assert error.value.hint == f"nezha-convert record {model} --base FOLDER"
    assert nezha_convert.record(model, base=elsewhere).doubts() == ()
    after = read(model)
    assert after["base"]["source"] == "base" and after["base"]["conversion"]["parity"]["passed"]
    assert {name for name in after if after[name] != before[name]} == {"base", "card"}
    assert "**Not proved:**" not in (model / "README.md").read_text("utf-8")


def test_record_takes_neither_another_base_nor_a_model_that_was_changed(place):
    unverified(place)
    record(place / "model", place / "base")
    other = Path(shutil.copytree(place / "base", place / "other"))
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(MappingError, match=r"other: expected the weights of base .*, found others"):
        nezha_convert.record(place / "model", base=other)
    shutil.rmtree(place / "base")
    other.rename(place / "base")
    with pytest.raises(MappingError, match="trained from base, which is neither in"):
        nezha_convert.record(place / "model")
    (place / "model" / "config.json").write_bytes((place / "model" / "config.json").read_bytes() + b"\n")
    with pytest.raises(MappingError, match="its metrics are of other files") as error:
        nezha_convert.record(place / "model", base=place / "base")
    assert error.value.problems[0].startswith("config.json was changed")


@pytest.mark.parametrize("change", [{"source": ".."}, {"source": "../base"}, {"source": "."}])
def test_a_base_is_not_looked_for_outside_of_the_two_folders(place, change):
    unverified(place)
    trained = record(place / "model", place / "base")
    base = trained.record["base"]
    assert base_folder(trained) == place / "base"
    for changed in ({**base, **change}, {**base, "weights": [{**base["weights"][0], "name": "../base/x"}]}):
        assert base_folder(TrainedFolder(trained.path, {**trained.record, "base": changed})) is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "modeling_nezha.py"])
def test_a_file_that_was_changed_since_it_was_recorded_is_a_doubt(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    assert [doubt.split(" was changed")[0] for doubt in TrainedFolder(folder).doubts()] == [name]


# The card


def test_the_metrics_are_the_card_s_model_index(folder):
    card = ModelCard.load(folder / "README.md")
    assert [(r.metric_type, r.metric_value, r.dataset_split, r.dataset_type) for r in card.data.eval_results] == [
        ("accuracy", 0.9533, "validation", "owner/ChnSenti"),
        ("f1_macro", 0.95, "validation", "owner/ChnSenti"),
    ]
    assert card.data.pipeline_tag == card.data.eval_results[0].task_type == "text-classification"
    assert (card.data.language, card.data.library_name, card.data.datasets) == (
        "zh",
        "transformers",
        ["owner/ChnSenti"],
    )
    assert card.data.license is None and card.data.base_model is None
    assert "| validation | owner/ChnSenti | accuracy | 0.9533 |" in card.text


@pytest.mark.parametrize("where", ["base", "origin"])
def test_the_base_model_is_the_nearest_repository_of_the_hub(folder, where):
    trained = TrainedFolder(folder)
    base = trained.record["base"]
    (base if where == "base" else base["conversion"])["source"] = "hf://owner/name@0123"
    assert ModelCard(trained.card(None, None, ())).data.base_model == "owner/name"


def test_a_card_without_metrics_is_valid_and_says_so(place):
    record(place / "model", place / "base", metrics={})
    card = ModelCard.load(place / "model" / "README.md")
    assert card.data.eval_results is None and "Nothing was measured" in card.text


def test_a_readme_of_one_s_own_stays(place):
    (place / "model" / "README.md").write_text("mine")
    record(place / "model", place / "base")
    record(place / "model", place / "base", metrics={})
    assert (place / "model" / "README.md").read_text() == "mine"


def test_a_card_that_was_written_here_is_renewed_and_one_edited_since_is_not(folder):
    record(folder, folder.parent / "base", metrics={})
    assert "Nothing was measured" in (folder / "README.md").read_text("utf-8")
    (folder / "README.md").write_text("edited")
    record(folder, folder.parent / "base")
    assert (folder / "README.md").read_text() == "edited"


@pytest.mark.parametrize("hostile", ["a|b", "`x`", "<script>", "two\nlines", "[x](http://x)", "---", "*b*", "x: y"])
def test_words_from_elsewhere_stay_words_in_the_card(place, hostile):
    name = hostile.replace("\n", " ")
    data = [TrainingData("a|b", name, (place / "vocab.txt",))]
    metrics, settings = {"a|b": {name: 1.0}}, {hostile: hostile}
    trained = record(place / "model", place / "base", data=data, metrics=metrics, settings=settings)
    card = ModelCard(trained.card("mit", "owner/name", [hostile]))
    assert card.data.eval_results[0].metric_type == name and card.data.license == "mit"
    for title, cells in (("Results", 4), ("Data", 5), ("Settings", 2)):
        lines = [line for line in card.text.split(f"## {title}\n")[1].split("\n## ")[0].splitlines() if line[:1] == "|"]
        assert len(lines) == 3 and lines[2].replace("\\|", "").count("|") == cells + 1
    assert "<script>" not in card.text.replace("`<script>`", "").replace('`"<script>"`', "")


# What is refused


FILE = (Path(__file__),)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "Text Classification"}, "not one of the Hub's names"),
        ({"license": "Apache"}, "the Hub does not know it"),
        ({"metrics": {"test": {"accuracy": 1.0}}}, "metrics are of 'test', and the data has train, validation"),
        ({"metrics": {"validation": {"loss": math.nan}}}, "loss = nan; expected finite numbers"),
        ({"metrics": {"validation": {"loss": math.inf}}}, "expected finite numbers"),
        ({"metrics": {"validation": {"loss": True}}}, "expected finite numbers"),
        ({"metrics": {"validation": {"loss": "0.1"}}}, "expected finite numbers"),
        ({"metrics": {"validation": {"loss": 10**400}}}, "expected finite numbers"),
        ({"data": [TrainingData("validation", "my data")]}, "not the name of a data set on the Hub"),
        ({"data": [TrainingData("validation", "x", ("nowhere.tsv",))]}, "nowhere.tsv not there"),
        ({"metrics": {"validation": {"two\nlines": 1}}}, "expected printable characters"),
        ({"settings": {"path": Path("x")}}, "JSON cannot hold them"),
        ({"settings": {"rate": math.nan}}, "JSON cannot hold them"),
        ({"base": "no such folder"}, "not the name of a repository"),
    ],
)
def test_an_argument_that_a_record_cannot_hold_is_refused_before_anything_is_written(place, changes, words):
    before = contents(place / "model")
    with pytest.raises(UsageError, match=words):
        record(place / "model", **{"base": place / "base"} | changes)
    assert contents(place / "model") == before


def converted_in_place(folder: Path) -> None:
    shutil.copy(folder.parent / "base" / "conversion.json", folder)


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def of_another_model(folder: Path) -> None:
    change(folder / "config.json", lambda config: config.update(architectures=["BertForMaskedLM"]))


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (converted_in_place, "conversion.json is in it"),
        (without_config, "no config.json in it"),
        (of_another_model, "names 'BertForMaskedLM'; expected one of NezhaModel"),
        (without_weights, "no checkpoint in it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_without_a_trained_nezha_is_refused(place, spoil, words):
    spoil(place / "model")
    with pytest.raises(NezhaConvertError, match=words):
        record(place / "model", place / "base")
    assert not (place / "model" / "training.json").exists()


def test_a_model_is_not_its_own_base(folder):
    with pytest.raises(UsageError, match="its own base"):
        record(folder, folder)


# A hostile training.json


def twice(record: dict) -> None:
    record["base"]["training"] = copy.deepcopy(record)
    record["base"]["training"]["metrics"] = {"elsewhere": {}}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda r: r["output_files"][0].update(name="../x"), "names '../x'; expected a file of the folder itself"),
        (lambda r: r["output_files"][0].update(name="/etc/passwd"), "expected a file of the folder itself"),
        (lambda r: r["output_files"][0].update(name=5), r"output_files\[0\].name is 5; expected a text"),
        (lambda r: r["output_files"][0].update(nbytes="1"), "expected a number"),
        (lambda r: r.update(head="ner"), "head is 'ner'"),
        (lambda r: r.update(architecture="BertModel"), "expected NezhaForSequenceClassification"),
        (
            lambda r: r["metrics"]["validation"].update(accuracy=math.nan),
            "metrics.validation.accuracy is nan; expected a finite",
        ),
        (
            lambda r: r["metrics"]["validation"].update(accuracy=True),
            "metrics.validation.accuracy is True; expected a finite",
        ),
        (lambda r: r["metrics"]["validation"].update({" x": 1}), "expected a name of printable characters"),
        (lambda r: r["metrics"].update(validation=1), "metrics.validation is no JSON object"),
        (lambda r: r["metrics"].update(test={}), "metrics has 'test'; expected one of train, validation"),
        (lambda r: r["settings"].update(rate=math.inf), "holds NaN or an infinity"),
        (lambda r: r["data"][0].update(rows=1.5), r"data\[0\].rows is 1.5; expected a number or null"),
        (lambda r: r["data"][0]["files"].append("x"), r"data\[0\].files\[1\] is no JSON object"),
        (lambda r: r.pop("base"), "no base in it"),
        (lambda r: r["base"].update(doubts=[1]), r"base.doubts\[0\] is 1; expected a text"),
        (lambda r: r["base"].update(conversion=[]), "base.conversion is no JSON object"),
        (lambda r: r["base"]["conversion"].pop("decisions"), "no decisions in base.conversion"),
        (twice, "base.training.metrics has 'elsewhere'"),
    ],
    ids=range(19),
)
def test_a_foreign_training_json_is_refused_and_says_what_is_wrong(folder, how, words):
    change(folder / "training.json", how)
    with pytest.raises(MappingError, match=rf"training\.json: not as record_training writes it: .*{words}") as error:
        TrainedFolder(folder)
    assert "record_training" in error.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 5000])
def test_a_training_json_that_is_no_object_is_refused(folder, text):
    (folder / "training.json").write_text(text)
    with pytest.raises(MappingError, match=r"training\.json: not "):
        TrainedFolder(folder)


def test_a_recorded_file_that_is_a_link_is_not_for_others(folder, tmp_path):
    (tmp_path / "secret").write_bytes((folder / "vocab.txt").read_bytes())
    (folder / "vocab.txt").unlink()
    (folder / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(MappingError, match=r"'vocab\.txt', a link"):
        TrainedFolder(folder).names()


def test_a_recorded_file_that_is_missing_is_told(folder):
    (folder / "vocab.txt").unlink()
    with pytest.raises(MappingError, match=r"vocab\.txt: missing; record_training wrote it"):
        TrainedFolder(folder).doubts()


_QUICK = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(is_name)
_NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30)
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)


@_QUICK
@given(
    metrics=st.dictionaries(_NAMES, st.dictionaries(_NAMES, _NUMBERS, max_size=3), max_size=2),
    given_settings=st.dictionaries(_NAMES, _JSON, max_size=4),
    rows=st.none() | st.integers(0, 10**12),
)
def test_what_is_recorded_is_read_again(folder, metrics, given_settings, rows):
    file = folder / "config.json"
    data = [TrainingData(split, f"of {split}", (file,), rows) for split in metrics]
    trained = record(folder, folder.parent / "base", metrics=metrics, data=data, settings=given_settings)
    assert trained.record["metrics"] == metrics and trained.record["settings"] == given_settings
    assert TrainedFolder(folder).record == trained.record and trained.doubts() == ()
    results = ModelCard.load(folder / "README.md").data.eval_results or []
    measured = [(split, name, value) for split, values in metrics.items() for name, value in values.items()]
    assert sorted((r.dataset_split, r.metric_type, r.metric_value) for r in results) == sorted(measured)


@_QUICK
@given(draw=st.data())
def test_a_changed_record_is_refused_or_makes_a_card(folder, draw):
    """Any content is either refused, or gives a card that can be read."""
    original = (folder / "training.json").read_bytes()
    content = node = json.loads(original)
    while node:
        key = draw.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], (dict, list)) or not node[key] or draw.draw(st.integers(0, 3)) == 0:
            node[key] = draw.draw(_JSON)
            break
        node = node[key]
    (folder / "training.json").write_text(json.dumps(content), "utf-8")
    try:
        trained = TrainedFolder(folder)
        trained.names(), trained.doubts()
        assert trained.title and trained.summary
        ModelCard(trained.card("mit", "owner/name", trained.doubts()))
    except MappingError as error:
        assert error.hint
    finally:
        (folder / "training.json").write_bytes(original)


# The other commands


def test_inspect_tells_that_it_is_a_trained_one_and_what_to_do(folder):
    inspection = inspect(folder)
    assert inspection.training.startswith("text-classification, trained from base on 2")
    assert "validation accuracy 0.9533" in inspection.training
    assert inspection.hint == f"nezha-convert push {folder} OWNER/NAME" and not inspection.problems
    assert inspect(folder.parent / "base").training == ""


def test_inspect_tells_of_a_broken_record(folder):
    (folder / "training.json").write_text("{}")
    inspection = inspect(folder)
    assert inspection.training == "" and "training.json: not as record_training writes it" in inspection.problems[0]
    assert inspection.family == "transformers"


def test_verify_says_that_there_is_no_original_and_what_to_do(folder):
    with pytest.raises(UsageError, match="there is no original that it should be equal to") as error:
        verify(trainings.SOURCE, folder)
    assert "nezha-convert verify SOURCE BASE" in error.value.hint and "--dry-run" in error.value.hint


def test_export_takes_it_like_a_converted_one(folder, tmp_path):
    report = export(folder, tmp_path / "out", "huawei-tf")
    assert report.head == "sequence-classification"
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()
