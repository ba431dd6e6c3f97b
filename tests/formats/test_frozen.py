"""A frozen graph is named, with a command that saves its weights."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from bundles import message

from nezha_convert.errors import CheckpointError
from nezha_convert.formats.open import open_checkpoint


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """The head of a graph: a constant."""
    file = tmp_path / "a folder 中" / "ner_model.pb"
    file.parent.mkdir()
    file.write_bytes(message(1, message(1, b"output_bias") + message(2, b"Const")))
    return file


@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_frozen_graph_is_named_and_its_way_out_is_a_command(graph: Path, named: str) -> None:
    with pytest.raises(CheckpointError, match="a frozen graph of TensorFlow") as caught:
        open_checkpoint(graph if named == "file" else graph.parent)
    words = shlex.split(caught.value.hint.partition(": ")[2])
    assert words[:2] == ["python", "-c"] and words[3:] == [str(graph), str(graph.with_suffix(".ckpt"))]
    compile(words[2], "hint", "exec")
    assert "\n" not in caught.value.hint


def test_the_command_of_the_hint_saves_the_weights(graph: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    import subprocess
    import sys

    with tf.Graph().as_default() as made:
        read = tf.identity(tf.constant([1.5, 2.5], name="output_bias"))
        tf.identity(read, name="out")
    graph.write_bytes(made.as_graph_def().SerializeToString())
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(graph)
    words = shlex.split(caught.value.hint.partition(": ")[2])
    subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
    assert open_checkpoint(graph.parent).entries["output_bias"].read().tolist() == [1.5, 2.5]
