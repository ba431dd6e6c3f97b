"""The documents run as they stand: a reader of each runs its blocks in order, and they print what it says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from goldens import FIXTURES
from hub_fixtures import CANARY
from hub_server import Hub, hub
from reader import BLOCK, LANGUAGES, ROOT, Block, Reader, as_pattern, blocks, clone

VENV = "python3 -m venv .venv && . .venv/bin/activate"
INSTALLED = f"{VENV} && pip install nezha-convert"
SOURCE = f"cp -r {FIXTURES}/huawei-tf-pretraining NEZHA-Base && cp {FIXTURES}/training/vocab.txt NEZHA-Base/"
CONVERTED = f"{SOURCE} && nezha-convert convert NEZHA-Base nezha-base"
CLASSIFIER = (
    f"nezha-convert convert {FIXTURES}/huawei-tf-classifier NAME --head sequence-classification"
    f" --vocab {FIXTURES}/training/vocab.txt"
)
TRAINER = f"""
cp {FIXTURES}/training/ChnSentiCorp/train.tsv {FIXTURES}/training/ChnSentiCorp/dev.tsv .
{CLASSIFIER.replace("NAME", "started")}
pip install 'nezha-convert[train]'
"""

DOCUMENTS = {
    "README.md": ":",
    "docs/ci.md": f"{INSTALLED}\n{CONVERTED}",
    "docs/batch.md": f"{INSTALLED}\nmkdir checkpoints && cp -r {FIXTURES}/transformers-4.40.2-pretraining"
    f" checkpoints/base && cp -r {FIXTURES}/jaber-token checkpoints/ner"
    f" && cp -r {FIXTURES}/huawei-tf-pretraining checkpoints/draft",
    "docs/container.md": ":",
    "docs/convert.md": f"{INSTALLED}\npip install 'nezha-convert[torch]'\n{SOURCE}\nseq 3 > labels.txt\n"
    f"cp -r {FIXTURES}/huawei-tf-classifier my-classifier && cp -r {FIXTURES}/huawei-tf-ner my-tagger",
    "docs/export.md": f"{INSTALLED}\n{CONVERTED}\n{CLASSIFIER.replace('NAME', 'my-classifier')}",
    "docs/from-transformers.md": f"{INSTALLED}\n{CONVERTED}",
    "docs/generation.md": f"{INSTALLED}\ncp -r {FIXTURES}/bert4torch-causal-lm nezha_gpt_dialog\n"
    f"head -40 {FIXTURES}/training/vocab.txt > nezha_gpt_dialog/vocab.txt",
    "docs/hub.md": f"{INSTALLED}\n{SOURCE}{TRAINER}",
    "docs/index.md": f"{INSTALLED}\npip install 'nezha-convert[torch]'\n{SOURCE}",
    "docs/libraries.md": f"{INSTALLED}\npip install 'nezha-convert[onnx]'\n{SOURCE}",
    "docs/performance.md": ":",
    "docs/reference.md": ":",
    "docs/real.md": ":",
    "docs/reliability.md": ":",
    "docs/scale.md": ":",
    "docs/space.md": ":",
    "docs/tokenizers.md": ":",
    "docs/tool.md": ":",
    "docs/training.md": f"{INSTALLED}\npip install 'nezha-convert[train]'\n{CLASSIFIER.replace('NAME', 'sentiment')}",
    "docs/verify.md": f"{INSTALLED}\n{CONVERTED}\necho 这家店很好 > reviews.txt\n"
    f"cp -r {FIXTURES}/huawei-torch-classifier my-classifier && nezha-convert convert my-classifier converted",
}
"""What the reader of a document has done before. The reader of the README has a clone, the others an empty folder."""

CHINESE = (
    *("batch", "ci", "container", "convert", "from-transformers", "hub", "index", "libraries", "real", "scale"),
    *("space", "training", "verify"),
)
TRANSLATED = {
    "README.zh-CN.md": "README.md",
    **{f"docs/zh/{name}.md": f"docs/{name}.md" for name in CHINESE},
}
"""The Chinese pages, by whose blocks nobody has to go twice: they are those of the English ones."""

BEFORE = {
    "docs/hub.md": {
        "from nezha_convert import TrainingData, record_training": """
import nezha
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments
trainer = Trainer(
    AutoModelForSequenceClassification.from_pretrained("started"),
    TrainingArguments("chnsenti", use_cpu=True, report_to="none"),
    processing_class=AutoTokenizer.from_pretrained("started"),
)
"""
    }
}
"""Lines of the reader's own program before a block that begins so."""

ELSEWHERE = {
    r"^(python examples/|torchrun |accelerate launch )": "it trains: tests/examples/test_examples.py and "
    "tests/examples/test_many_machines.py run these commands",
    r"^class Tagger": "it needs tensors beside the model: tests/examples/test_own_head.py runs it",
    r"python -m pytest": "it runs all tests: .ci/run runs it, word by word",
    r"^(pip install|import|from) (text2vec|sentence|setfit|peft|accel|openv|torchao|bits|Flag|optimum)"
    "|BitsAndBytesConfig|offload_folder": "it needs a library of its own: tests/matrix/test_libraries.py runs it",
    r"^pip install .*python spaces/": "it serves until it is stopped: tests/spaces/test_page.py runs it",
    r"^docker ": "it needs a daemon: .ci/container runs such lines, and tests/test_container.py reads these",
    r"^hf upload ": "it needs the Hub's Spaces: tests/spaces/test_parts.py reads what is sent",
    r"--original": "it needs a clone of Huawei's repository: tests/parity/originals/test_programs.py runs it",
}
"""Blocks that another test runs: a pattern of a line, and where and why."""


def elsewhere(block: Block) -> list[str]:
    return [reason for pattern, reason in ELSEWHERE.items() if re.search(pattern, block.text, re.MULTILINE)]


def as_program(document: str, block: Block) -> Block:
    """The block, within what the reader's program has before it."""
    before = [text for begin, text in BEFORE.get(document, {}).items() if block.text.startswith(begin)]
    return replace(block, text="".join([*before, block.text]))


@pytest.fixture
def a_hub(tmp_path) -> Iterator[Hub]:
    """The reader's Hub: it has an old copy of a model."""
    copy = FIXTURES / "transformers-4.40.2-masked-lm"
    with hub(CANARY) as server:
        server.create("owner/name", {path.name: path.read_bytes() for path in copy.iterdir() if path.suffix != ".npz"})
        yield server


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_of_the_document_runs_and_prints_what_it_says(document, a_hub, tmp_path):
    found = blocks(ROOT / document)
    todo = [as_program(document, block) for block in found if not elsewhere(block)]
    if todo:
        folder = clone(tmp_path / "clone") if "README" in document else tmp_path / "work"
        environment = {
            "HF_ENDPOINT": a_hub.endpoint,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": CANARY,
            "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"],
        }
        fresh = bool(os.environ.get("NEZHA_FRESH"))
        environment |= {name: value for name, value in os.environ.items() if fresh and name.startswith("PIP_")}
        Reader(folder, tmp_path / "home", environment, fresh).read(todo, DOCUMENTS[document])


@pytest.mark.parametrize("document", TRANSLATED)
def test_a_translation_has_the_blocks_of_the_original(document):
    chinese, english = (
        [(block.language, block.text, block.prints) for block in blocks(ROOT / path)]
        for path in (document, TRANSLATED[document])
    )
    assert chinese == english


def test_the_translations_name_the_commands_and_options_of_the_originals_and_no_others():
    english, chinese = (
        "\n".join((ROOT / path).read_text("utf-8") for path in paths) for paths in (DOCUMENTS, TRANSLATED)
    )
    inline = re.compile(r"`((?:nezha-convert|python examples/|--)[^`]+)`")
    assert {one for one in inline.findall(chinese) if one not in english} == set()
    assert {one for one in inline.findall(english) if one.startswith("python examples/")} <= {*inline.findall(chinese)}


@pytest.mark.parametrize("document", TRANSLATED)
def test_each_language_links_to_the_other_on_top(document):
    for here, there, other in (
        (document, TRANSLATED[document], "English"),
        (TRANSLATED[document], document, "简体中文"),
    ):
        text = (ROOT / here).read_text("utf-8")
        (target,) = re.findall(rf"\[{other}\][\[(](.+?)[\])]", "\n".join(text.splitlines()[:4]))
        target = re.findall(rf"^\[{target}\]: .*/blob/main/(.+)$", text, re.MULTILINE) or [target]
        base = ROOT if here.startswith("README") else (ROOT / here).parent
        assert (base / target[0]).resolve() == ROOT / there


def test_every_page_stands_in_the_navigation_of_the_site():
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md"))


def test_every_document_has_a_reader_and_every_reason_is_one():
    documents = {path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("README*.md"), *ROOT.glob("docs/**/*.md")]}
    assert documents == {*DOCUMENTS, *TRANSLATED}
    every = [block for document in DOCUMENTS for block in blocks(ROOT / document)]
    for pattern, reason in ELSEWHERE.items():
        assert any(re.search(pattern, block.text, re.MULTILINE) for block in every), f"no block is {pattern}"
        for path in re.findall(r"tests/[\w/]+\.py|\.ci/run", reason):
            assert (ROOT / path).exists(), path
    for document, begins in BEFORE.items():
        for begin in begins:
            assert sum(block.text.startswith(begin) for block in blocks(ROOT / document)) == 1
    assert sum(not elsewhere(block) for block in every) >= 20


def test_every_block_of_the_documents_is_of_a_language_that_is_run_or_shown():
    for document in DOCUMENTS:
        found = BLOCK.findall((ROOT / document).read_text("utf-8"))
        assert {language for _, language, _ in found} <= {*LANGUAGES, "text", "yaml"}, document  # yaml: test_ci.py


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```sh\nfalse\n```\n", "stops"),
        ("```sh\nnezha-convert --version\n```\n", "not found"),  # before it is installed
        (f"```sh\n{INSTALLED}\nnezha-convert verify NEZHA-Base nezha-base\n```\n", "needs torch"),  # before its extra
        ("```python\nimport nezha\n```\n", "not found"),
        ("```sh\necho 1\necho 2\n```\n\n```text\n1\n3\n```\n", "prints something else"),
        ("```sh\necho 1\necho 2\n```\n\n```text\n1\n```\n", "prints something else"),
        (f"```sh\n{INSTALLED}\npip install 'nezha-convert[nothing]'\n```\n", "no extra"),
        (f"```sh\n{INSTALLED} -c constraints.txt\n```\n", "constraints.txt"),
    ],
    ids=["error", "name", "extra", "python", "other", "more", "no-extra", "constraints"],
)
def test_a_block_that_stops_a_reader_is_noticed(text, said, tmp_path):
    document = tmp_path / "page.md"
    document.write_text(text, "utf-8")
    with pytest.raises(AssertionError, match=said):
        Reader(tmp_path / "work", tmp_path / "home", {}).read(blocks(document), f"({VENV}; {SOURCE})")


def test_the_parts_of_an_output_that_differ_from_run_to_run_are_left_out():
    pattern = as_pattern("...\nsaved  ... kB of 3\n...\nend\n")
    assert pattern.fullmatch("a\nb\nsaved  1.5 kB of 3\nend\n") and pattern.fullmatch("saved  2 kB of 3\nmore\nend\n")
    assert not pattern.fullmatch("saved  2 kB of 4\nend\n") and not pattern.fullmatch("saved  2 kB of 3\nmore\n")
