"""Imports run one way, and a TensorFlow conversion stays light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from goldens import FIXTURES
from layers import ROOMS, violations

ROOT = Path(__file__).parents[1]


def test_imports_go_down_only_and_nothing_private_crosses_a_folder() -> None:
    assert "\n".join(violations(ROOT)) == ""


def test_every_room_of_the_column_is_there_and_has_no_twin() -> None:
    package = ROOT / "nezha_convert"
    there = [path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    assert sorted(there) == sorted({*ROOMS, "__init__"})


HOUSE = {
    "nezha_convert/__init__.py": "from . import commands",
    "nezha_convert/cli/__init__.py": "",
    "nezha_convert/cli/app.py": "import click\nfrom ..commands.convert import convert",
    "nezha_convert/cli/console.py": "import rich\nprint()",
    "nezha_convert/commands/__init__.py": "",
    "nezha_convert/commands/convert.py": "from .. import errors\nfrom ..files import locks\nfrom ..formats import open",
    "nezha_convert/parity/__init__.py": "",
    "nezha_convert/parity/compare.py": "from .oracle import model",
    "nezha_convert/parity/source.py": "from .again.files import find\nfrom ..formats.archive import unpack",
    "nezha_convert/parity/again/__init__.py": "",
    "nezha_convert/parity/again/files.py": "import torch",
    "nezha_convert/parity/oracle/__init__.py": "",
    "nezha_convert/parity/oracle/model.py": "import math\nimport numpy as np\nfrom ...errors import Error",
    "nezha_convert/formats/__init__.py": "",
    "nezha_convert/formats/archive.py": "",
    "nezha_convert/formats/open.py": "from .torch.read import read",
    "nezha_convert/formats/torch/__init__.py": "",
    "nezha_convert/formats/torch/read.py": "from .scan import _scan",
    "nezha_convert/formats/torch/scan.py": "_scan = 1",
    "nezha_convert/files/__init__.py": "",
    "nezha_convert/files/locks.py": "_claim = 1",
    "nezha_convert/errors.py": "Error = Exception",
    "nezha/__init__.py": "import torch",
    "nezha/modeling_nezha.py": "import transformers\nfrom . import attention_nezha",
    "nezha/attention_nezha.py": "",
}
"""A small house in good order."""

PLANTED = {
    "an import upwards": ("formats/open.py", "from ..commands import convert", "upwards: nezha_convert.commands"),
    "an import upwards in a function": ("errors.py", "def f():\n from . import files", "upwards: nezha_convert.files"),
    "an import upwards by its whole name": ("files/locks.py", "import nezha_convert.cli.app", "upwards: nezha_conv"),
    "an import of the API": ("commands/convert.py", "from .. import convert", "imports convert from the package's"),
    "a room that nobody knows": ("attic.py", "", "nezha_convert.attic is in no room"),
    "a cycle of two files": ("files/locks.py", "from .locks2 import x", "a cycle: nezha_convert.files.locks -> "),
    "a cycle of a file and a folder": (
        "formats/torch/scan.py",
        "from .. import open",
        "a cycle: nezha_convert.formats.o",
    ),
    "a cycle of two folders alone": (
        "formats/torch/scan.py",
        "from ..keras.read import x",
        ".formats.keras -> nezha_c",
    ),
    "a private name": (
        "commands/convert.py",
        "from ..files.locks import _claim",
        "the private _claim of nezha_convert.f",
    ),
    "a private name through its module": ("commands/convert.py", "locks._claim", "uses the private _claim of nezha"),
    "a private name of a subfolder": ("formats/open.py", "from .torch.scan import _scan", "imports the private _scan"),
    "click below the command line": ("commands/convert.py", "import click", "imports click, which only cli does"),
    "rich below the command line": ("files/locks.py", "from rich.text import Text", "imports rich.text, which only"),
    "a print below the console": ("cli/app.py", "print('x')", "cli.app:3 prints"),
    "an oracle that uses what it checks": (
        *(
            "parity/oracle/model.py",
            "from ...formats.open import read",
            "model:4 imports nezha_convert.formats.open, wh",
        ),
    ),
    "an oracle that trusts torch": ("parity/oracle/model.py", "import torch", "imports torch, which the oracle"),
    "a second reading by the first reader": (
        *(
            "parity/again/files.py",
            "from ...formats.open import read",
            "files:2 imports nezha_convert.formats.open, by",
        ),
    ),
    "a source that trusts the conversion": (
        "parity/source.py",
        "from ..mapping import config",
        "imports nezha_convert.m",
    ),
    "a model that needs the converter": ("../nezha/modeling_nezha.py", "import nezha_convert", "not shipped with the"),
    "a model that needs numpy": ("../nezha/attention_nezha.py", "import numpy", "imports numpy, which is not shipped"),
}
"""A fault: the file, the line that is added to it, and part of what is said of it."""

BESIDE = {
    "files/locks2.py": "from . import locks",
    "formats/keras/__init__.py": "",
    "formats/keras/read.py": "",
    "formats/keras/write.py": "from ..torch import read",
}
"""Files that a fault needs, and that are in order without it."""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for name, text in {**HOUSE, **{f"nezha_convert/{name}": text for name, text in BESIDE.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    return tmp_path


def test_a_house_in_good_order_has_no_violations(house: Path) -> None:
    assert violations(house) == []


@pytest.mark.parametrize(("name", "added", "words"), PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_named(name: str, added: str, words: str, house: Path) -> None:
    with (house / "nezha_convert" / name).open("a") as file:
        file.write(f"{added}\n")
    said = violations(house)  # an import upwards may close a ring as well
    assert any(words in line for line in said), said


def converting(fixture: str) -> str:
    return (
        "from nezha_convert.cli.app import main\n"
        f"try: main(['convert', {str(FIXTURES / fixture)!r}, 'out', '--json'])\n"
        "except SystemExit as exit: assert not exit.code"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import nezha_convert",
        "import nezha_convert.cli.app",
        converting("huawei-tf-pretraining"),
        converting("transformers-4.40.2-pretraining"),
        converting("huawei-torch-pretraining"),
        converting("transformers-4.40.2-encoder"),
        converting("paddlenlp-pretraining"),
    ],
    ids=[
        *("importing the package", "importing the command line", "a TensorFlow conversion", "a safetensors conversion"),
        *("a legacy PyTorch conversion", "a PyTorch conversion", "a Paddle conversion"),
    ],
)
def test_neither_torch_nor_transformers_nor_tensorflow_nor_the_hub_s_client_nor_the_proof_is_loaded_by(code, tmp_path):
    named = {"torch", "transformers", "tensorflow", "huggingface_hub", "rich", "nezha_convert.parity"}
    heavy = f"import sys, json; json.dump(sorted({named} & set(sys.modules)), sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{heavy}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stderr) == []
