"""The model card: valid metadata, all that a stranger needs to know, and nothing about this machine."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import transformers
import warm_python
from goldens import FIXTURES, GOLDENS
from hub_server import hub
from huggingface_hub import ModelCard, constants
from stranger import WITHOUT_PACKAGES

from nezha_convert import convert, verify
from nezha_convert.families.heads import HEADS
from nezha_convert.folder.card import LICENSES, conversion_card

TF = FIXTURES / "huawei-tf-pretraining"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *map(chr, range(0x4E00, 0x4E00 + 49))]


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> dict:
    """The conversion.json of a verified folder."""
    folder = tmp_path_factory.mktemp("card") / "out"
    convert(TF, folder)
    assert verify(TF, folder).passed
    return json.loads((folder / "conversion.json").read_text())


def section(card: str, title: str) -> str:
    """The text below a heading."""
    (text,) = re.findall(rf"^## {re.escape(title)}\n\n(.*?)(?=\n## |\Z)", card, re.DOTALL | re.MULTILINE)
    return text


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its heading."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def of_size(record: dict, vocabulary: int, hidden: int, layers: int, **changes) -> dict:
    """The record of a model that has another size."""
    names = ["nezha.embeddings.word_embeddings.weight"]
    names += [f"nezha.encoder.layer.{i}.output.dense.bias" for i in range(layers)]
    shapes = [[vocabulary, hidden]] + [[hidden]] * layers
    written = [{"target": name, "shape": shape} for name, shape in zip(names, shapes, strict=True)]
    return record | {"written": written} | changes


# Metadata


@pytest.mark.parametrize("golden", GOLDENS, ids=str)
def test_every_converted_folder_has_a_card_that_the_hub_s_client_reads(golden, tmp_path):
    convert(golden.folder, tmp_path / "out", head=golden.head if golden.asked else None)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "transformers"
    assert {"nezha", "nezha-convert"} <= set(card.data.tags)


@pytest.mark.skipif(huggingface_hub.__version__[0] == "0", reason="clients before 1.0 ask the public Hub alone")
@pytest.mark.parametrize("options", [{}, {"license": "mit"}, {"repo_id": "owner/name", "doubts": ["changed"]}])
def test_the_metadata_passes_the_client_s_own_validation(record, monkeypatch, options):
    card = ModelCard(conversion_card(record | {"source": "hf://owner/name"}, **options))
    with hub("unused") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        card.validate()
        assert server.count("POST /api/validate-yaml") == 1


@pytest.mark.parametrize(
    ("head", "tag"),
    [
        ("encoder", "feature-extraction"),
        ("pretraining", "fill-mask"),
        ("masked-lm", "fill-mask"),
        ("next-sentence-prediction", None),
        ("sequence-classification", "text-classification"),
        ("multiple-choice", "multiple-choice"),
        ("token-classification", "token-classification"),
        ("question-answering", "question-answering"),
    ],
)
def test_the_pipeline_tag_is_what_the_head_is_for(record, head, tag):
    assert head in HEADS
    assert ModelCard(conversion_card(record | {"head": head})).data.pipeline_tag == tag


def test_a_license_is_stated_when_it_is_given(record):
    card = ModelCard(conversion_card(record, license="cc-by-nc-4.0"))
    assert card.data.license == "cc-by-nc-4.0"
    assert "`cc-by-nc-4.0`" in section(str(card), "License")
    assert "apache" not in str(card).lower()


def test_a_license_is_left_out_with_the_reason_when_it_is_not(record):
    card = ModelCard(conversion_card(record))
    assert card.data.license is None
    assert "do not say what holds for its weights" in section(str(card), "License")


def test_the_licenses_are_spelt_as_the_hub_spells_them():
    assert {"apache-2.0", "mit", "cc-by-nc-4.0", "unknown", "other"} <= set(LICENSES)
    assert len(set(LICENSES)) == len(LICENSES)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name) for name in LICENSES)


def test_the_language_is_chinese_where_the_vocabulary_is(tmp_path):
    for name, tokens, language in (("zh", VOCABULARY, "zh"), ("other", VOCABULARY[:17], None)):
        (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
        report = convert(TF, tmp_path / name, vocab=tmp_path / "vocab.txt")
        assert ModelCard.load(tmp_path / name / "README.md").data.language == language
        assert {d.field: d.value for d in report.decisions}.get("language") == language


def test_the_base_model_is_the_repository_that_it_was_converted_from(record):
    assert ModelCard(conversion_card(record | {"source": "hf://owner/name@0123"})).data.base_model == "owner/name"
    assert ModelCard(conversion_card(record)).data.base_model is None


# What it says


def test_it_names_what_was_read_and_written_with_hashes(record):
    card = section(conversion_card(record), "What was converted from what")
    weights = [file for file in record["output_files"] if file["name"] == "model.safetensors"]
    expected = [
        [role, f"`{file['name']}`", f"{file['nbytes']:,}", f"`{file['sha256']}`"]
        for role, files in (("read", record["source_files"]), ("written", weights))
        for file in files
    ]
    assert rows(card) == expected


def test_it_gives_every_decision_with_its_reason(record):
    cells = rows(section(conversion_card(record), "Decisions"))
    assert [row[0].strip("`") for row in cells] == [decision["field"] for decision in record["decisions"]]
    assert all(row[2] for row in cells)


def test_it_counts_what_was_left_out_by_reason(record):
    cells = rows(section(conversion_card(record), "Left out"))
    assert sum(int(row[0]) for row in cells) == len(record["dropped"])
    assert sum(int(row[1].replace(",", "")) for row in cells) == sum(tensor["nbytes"] for tensor in record["dropped"])


def test_it_shows_the_parity_that_was_measured(record):
    (row,) = rows(section(conversion_card(record), "Parity with the original"))
    (comparison,) = record["parity"]["comparisons"]
    assert row[:4] == [
        comparison["reference"],
        comparison["arithmetic"],
        f"{comparison['tolerance']:.0e}",
        f"{comparison['worst_error']:.1e}",
    ]
    assert comparison["worst_tensor"] in row[4]
    assert "**Passed.**" in conversion_card(record)


def test_it_shows_a_failure_and_a_value_that_is_no_number(record):
    comparison = record["parity"]["comparisons"][0] | {"worst_error": None}
    failed = record["parity"] | {"passed": False, "failures": ["layer_0 departs"], "comparisons": [comparison]}
    text = section(conversion_card(record | {"parity": failed}), "Parity with the original")
    assert "**Failed.**" in text and "not finite" in text and "layer\\_0 departs" in text


def test_it_says_when_nothing_was_measured(record):
    unverified = {name: value for name, value in record.items() if name != "parity"}
    assert "Not measured" in section(conversion_card(unverified), "Parity with the original")


@pytest.mark.parametrize(("hidden", "layers", "name"), [(768, 12, "NEZHA-base"), (1024, 24, "NEZHA-large")])
def test_the_authors_figures_are_marked_as_theirs(record, hidden, layers, name):
    text = section(conversion_card(of_size(record, 21128, hidden, layers)), "The authors' figures for their originals")
    assert [row[0] for row in rows(text)] == [name, f"{name}-WWM"]
    assert "These are not measurements of this conversion" in text.replace("\n", " ")


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((21128, 768, 6), {}),
        ((28996, 768, 12), {}),
        ((21128, 312, 12), {}),
        ((21128, 768, 12), {"head": "sequence-classification"}),
    ],
)
def test_the_authors_figures_are_left_out_where_they_do_not_apply(record, size, changes):
    assert "authors' figures" not in conversion_card(of_size(record, *size, **changes))


def test_its_lines_load_the_model(record, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    convert(TF, tmp_path / "out", vocab=tmp_path / "vocab.txt")
    code, *_ = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text("utf-8"), re.DOTALL)
    assert code.count("\n") == 3
    names: dict = {}
    exec(code.replace("path/to/this/folder", str(tmp_path / "out")), names)
    assert type(names["model"]).__name__ == "NezhaForPreTraining"
    assert isinstance(names["tokenizer"], transformers.PreTrainedTokenizerBase)


def test_its_lines_load_the_model_where_no_package_is_installed_and_nobody_answers(tmp_path):
    """Without `import nezha` the classes are unknown, so transformers asks before it runs the folder's code."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    convert(TF, tmp_path / "out", vocab=tmp_path / "vocab.txt")
    code, *_ = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text("utf-8"), re.DOTALL)
    program = (
        WITHOUT_PACKAGES
        + code.replace("path/to/this/folder", str(tmp_path / "out"))
        + 'print(tokenizer("a").input_ids)'
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules"), "PATH": ""}
    done = warm_python.run(["-c", program], cwd=tmp_path, env=environment | {"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[2, 5, 3]\n"  # and it asked nothing


def test_a_pushed_card_names_its_repository(record):
    assert 'from_pretrained("owner/name", trust_remote_code=True)' in conversion_card(record, repo_id="owner/name")


def test_it_says_so_when_the_folder_was_not_proved(record):
    assert "not proved" in conversion_card(record, doubts=["config.json was changed"])
    assert "not proved" not in conversion_card(record)


def test_no_folder_of_one_s_own_is_in_it(tmp_path):
    source = Path(shutil.copytree(TF, tmp_path / "secret-place" / "source"))
    (tmp_path / "secret-place" / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    convert(source, tmp_path / "out", vocab=tmp_path / "secret-place" / "vocab.txt")
    for name in ("README.md", "conversion.json"):
        assert "secret-place" not in (tmp_path / "out" / name).read_text("utf-8")


@pytest.mark.parametrize(
    "hostile", ["a|b", "`x`", "<script>", "two\nlines", "[link](http://x)", "---", 'q"uote', "*b*"]
)
def test_words_from_elsewhere_stay_words(record, hostile):
    decision = {"field": "id2label", "value": hostile, "reason": f"because {hostile}"}
    changed = record | {"source": hostile, "head_reason": hostile, "decisions": [decision]}
    card = ModelCard(conversion_card(changed))
    (row,) = rows(section(str(card), "Decisions"))
    assert len(row) == 3
    assert not re.search(r"(?<!\\)[<\[`*|]", row[2])
    assert set(card.data.to_dict()) == {"library_name", "pipeline_tag", "tags"}


@pytest.mark.parametrize("name", ["a|b`<b>x</b>", "two\nlines", "x\\|<script>"])
def test_a_stranger_s_file_name_stays_a_name(record, name):
    file = {"name": name, "nbytes": 1, "sha256": "0" * 64}
    text = section(conversion_card(record | {"source_files": [file]}), "What was converted from what")
    line = next(line for line in text.splitlines() if line.startswith("| read"))
    # After an odd number of backslashes a bar is part of the cell. Between two grave accents everything is code.
    cells = re.findall(r"\| ((?:\\.|[^\\|])*) ", line)
    assert len(cells) == 4 and line.endswith("|")
    assert cells[1][0] == cells[1][-1] == "`" and "`" not in cells[1][1:-1]
