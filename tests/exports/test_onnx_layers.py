"""A graph whose layers repeat one that was traced is the graph of a model that was traced whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import nezha
from nezha_convert.errors import MappingError
from nezha_convert.exports import onnx_layers
from nezha_convert.exports.onnx_graph import INPUTS, write_graph

onnx = pytest.importorskip("onnx", reason="an export to ONNX needs onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="an export to ONNX needs onnxruntime")
pytest.importorskip("onnxscript", reason="an export to ONNX needs onnxscript")

WHOLE = 99
"""So many layers no model of these tests has."""


def model(layers: int, head: type = nezha.NezhaForSequenceClassification) -> torch.nn.Module:
    torch.manual_seed(layers)
    config = nezha.NezhaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=24,
        initializer_range=0.5,
    )
    return head(config).eval()


def outputs(path: Path) -> list[np.ndarray]:
    """What the graph gives for a batch with padding and two segments."""
    ids = np.random.default_rng(0).integers(50, size=(3, 20))
    mask, types = np.ones_like(ids), np.zeros_like(ids)
    mask[0, 12:], types[:, 9:] = 0, 1
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(INPUTS, (ids, mask, types), strict=True)))


def weights(path: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(path).graph
    return {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}


@pytest.mark.parametrize(
    ("layers", "head", "cls"),
    [
        (1, "sequence-classification", nezha.NezhaForSequenceClassification),
        (2, "sequence-classification", nezha.NezhaForSequenceClassification),
        (5, "sequence-classification", nezha.NezhaForSequenceClassification),
        (3, "encoder", nezha.NezhaModel),
    ],
)
def test_it_is_the_graph_of_a_model_traced_whole(layers, head, cls, tmp_path, monkeypatch):
    repeated, whole = tmp_path / "repeated.onnx", tmp_path / "whole.onnx"
    write_graph(model(layers, cls), head, "float32", repeated)
    monkeypatch.setattr(onnx_layers, "TRACED", WHOLE)
    write_graph(model(layers, cls), head, "float32", whole)
    kinds = [sorted(node.op_type for node in onnx.load(path).graph.node) for path in (repeated, whole)]
    assert kinds[0] == kinds[1]
    own, other = weights(repeated), weights(whole)
    named = {name for name in other if ".layer." in name}
    assert {name for name in own if ".layer." in name} == named
    assert all(np.array_equal(own[name], other[name]) for name in named)
    for one, two in zip(outputs(repeated), outputs(whole), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6 * np.ptp(two))


def test_two_layers_that_were_not_traced_are_in_their_order(tmp_path):
    changed = model(4)
    write_graph(changed, "sequence-classification", "float32", tmp_path / "exact.onnx")
    third, fourth = changed.nezha.encoder.layer[2:]
    changed.nezha.encoder.layer[2], changed.nezha.encoder.layer[3] = fourth, third
    write_graph(changed, "sequence-classification", "float32", tmp_path / "changed.onnx")
    [one], [two] = outputs(tmp_path / "exact.onnx"), outputs(tmp_path / "changed.onnx")
    assert np.abs(one - two).max() > 0.01 * np.ptp(one)


def test_the_model_keeps_all_its_layers_also_if_the_export_fails(tmp_path, monkeypatch):
    kept = model(4)
    write_graph(kept, "sequence-classification", "float32", tmp_path / "model.onnx")
    assert len(kept.nezha.encoder.layer) == 4

    def fail(*args, **options):
        raise torch.onnx.OnnxExporterError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(MappingError, match="no such operator"):
        write_graph(kept, "sequence-classification", "float32", tmp_path / "other.onnx")
    assert len(kept.nezha.encoder.layer) == 4


def test_a_weight_that_two_traced_layers_have_alike_is_not_that_of_the_others(tmp_path):
    whole = model(4)
    with torch.no_grad():
        for layer in whole.nezha.encoder.layer[2:]:
            layer.output.LayerNorm.weight.uniform_(0.5, 2)
    write_graph(whole, "sequence-classification", "float32", tmp_path / "model.onnx")
    own = weights(tmp_path / "model.onnx")
    for number, layer in enumerate(whole.nezha.encoder.layer[2:], 2):
        name = f"model.nezha.encoder.layer.{number}.output.LayerNorm.weight"
        assert np.array_equal(own[name], layer.output.LayerNorm.weight.detach())


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_smaller_graph_repeats_its_layers_too(precision, tmp_path, monkeypatch):
    repeated, whole = tmp_path / "repeated" / "model.onnx", tmp_path / "whole" / "model.onnx"
    for path in (repeated, whole):
        path.parent.mkdir()
        write_graph(model(4), "sequence-classification", precision, path)
        monkeypatch.setattr(onnx_layers, "TRACED", WHOLE)
    [one], [two] = outputs(repeated), outputs(whole)
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-3 * np.ptp(two))
