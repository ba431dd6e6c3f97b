"""Every library of docs/libraries.md, in an environment of its own that runs the page's lines (`NEZHA_MATRIX=all`).

A block leaves `vectors` (the mean of each text's states), `states` or `logits`. The same folder in transformers alone
says what they should be, and the page's table says how far apart they may be.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import torch
import upstream
from goldens import FIXTURES
from reader import BLOCK

import nezha
from nezha_convert import convert, export_graph

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "libraries.md").read_text("utf-8")


def sections() -> dict[str, tuple[list[str], str]]:
    """By library: what pip installs, and the block."""
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        shown = [(language, text) for _, language, text in BLOCK.findall(section)]
        if shown and shown[0][1].startswith("pip install "):
            found[section.partition("\n")[0]] = (shlex.split(shown[0][1])[2:], shown[1][1])
    return found


def limits() -> dict[str, float]:
    """By library: the largest difference that the page's table names first."""
    rows = re.findall(r"^\| \[(.+?)\]\(#.+?\) \| .+? \| ([\de.-]+)", PAGE, re.MULTILINE)
    return {name: float(limit) for name, limit in rows}


LIBRARIES, LIMITS = sections(), limits()

COMPARE = """
import nezha, torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

names = globals()
auto, folder = AutoModel, "nezha-encoder"
if "logits" in names:
    auto, folder = AutoModelForSequenceClassification, "my-classifier"
given = [*zip(*pairs)] if "pairs" in names else [texts]
inputs = AutoTokenizer.from_pretrained(folder)(*map(list, given), padding=True, return_tensors="pt")
with torch.no_grad():
    outputs = auto.from_pretrained(folder).eval()(**inputs)
mask = inputs["attention_mask"][..., None]
if "logits" in names:
    found, expected = logits, outputs.logits
elif "vectors" in names:
    found, expected = vectors, (outputs.last_hidden_state * mask).sum(1) / mask.sum(1)
else:
    found, expected = torch.as_tensor(states) * mask, outputs.last_hidden_state * mask
found, expected = (torch.as_tensor(one).detach().double() for one in (found, expected))
assert found.shape == expected.shape, (found.shape, expected.shape)
print("difference", float((found - expected).abs().max() / (expected.max() - expected.min())))
"""

ALSO = {
    "PEFT": """
adapted = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_A" in name}
assert adapted == {"query", "value"}, adapted
""",
    "OpenVINO": """
without = openvino.compile_model("graph/model.onnx", "CPU")
rounded = without(dict(tokenizer(texts, padding=True, return_tensors="np")))["last_hidden_state"]
assert abs(rounded - states).max() <= 6e-3 * (states.max() - states.min())
""",
    "torchao": """
assert type(model.encoder.layer[0].attention.self.query.weight).__name__ == "Int8Tensor"
""",
    "bitsandbytes": """
assert type(model.encoder.layer[0].attention.self.query).__name__ == "Linear4bit"
""",
}
"""What must hold besides, so that a library that does nothing is noticed."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """What the page has before its first library."""
    place, vocab = tmp_path_factory.mktemp("libraries"), FIXTURES / "training" / "vocab.txt"
    convert(FIXTURES / "huawei-tf-pretraining", place / "nezha-encoder", head="encoder", vocab=vocab)
    convert(FIXTURES / "huawei-tf-classifier", place / "my-classifier", head="sequence-classification", vocab=vocab)
    export_graph(place / "nezha-encoder", place / "graph")
    return place


def widened(folder: Path) -> None:
    """Put random weights of a NEZHA-base's width into `folder`: 4 bits need rows of whole blocks."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 2}
    nezha.NezhaModel(nezha.NezhaConfig.from_pretrained(folder, **sizes)).save_pretrained(folder)


def test_the_table_has_every_library_and_its_version():
    assert {*LIBRARIES} == {*LIMITS} and len(LIBRARIES) >= 11
    for name, (install, _) in LIBRARIES.items():
        version = re.findall(r"==([\d.]+)", install[0])[0]
        assert re.search(rf"^\| \[{name}\]\(#.+?\) \| .*{re.escape(version)}", PAGE, re.MULTILINE), name


@pytest.mark.skipif(os.environ.get("NEZHA_MATRIX") != "all", reason="installs libraries: NEZHA_MATRIX=all")
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_library_computes_what_transformers_computes(library, folders, tmp_path_factory):
    install, lines = LIBRARIES[library]
    try:
        python = upstream.environment_with(f"with-{re.sub('[^0-9A-Za-z.-]', '-', install[0])}", *install)
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    place = folders
    if library == "bitsandbytes":
        place = tmp_path_factory.mktemp("wide")
        convert(
            FIXTURES / "huawei-tf-pretraining",
            place / "nezha-encoder",
            head="encoder",
            vocab=FIXTURES / "training" / "vocab.txt",
        )
        widened(place / "nezha-encoder")
    program = f"import os; os.chdir({str(place)!r})\n{lines}{ALSO.get(library, '')}{COMPARE}"
    said = upstream.run_python(program, path=[ROOT], python=python)
    difference = float(re.findall(r"^difference (.+)$", said, re.MULTILINE)[0])
    print(f"{library}: {difference:.1e}")
    assert difference <= LIMITS[library]
