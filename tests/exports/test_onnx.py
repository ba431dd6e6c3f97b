"""An exported graph computes what PyTorch computes, at any length and batch size; each mutation is noticed."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from goldens import GOLDENS, Golden

import nezha
from nezha.attention_nezha import expand_relative_positions, relative_attention, relative_position_table
from nezha_convert.commands.convert import convert
from nezha_convert.errors import CPU_INDEX, MappingError, UsageError, pip_install
from nezha_convert.exports import onnx as onnx_export
from nezha_convert.exports import onnx_graph
from nezha_convert.exports.onnx import MODEL, export_onnx
from nezha_convert.exports.onnx_graph import INPUTS, OUTPUTS, Buckets, attention_by_buckets
from nezha_convert.families.heads import HEADS

onnx = pytest.importorskip("onnx", reason="an export to ONNX needs onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="an export to ONNX needs onnxruntime")
pytest.importorskip("onnxscript", reason="an export to ONNX needs onnxscript")

LENGTHS = (1, 12, 64, 65, 66, 200, 600)
TOLERANCE = 2e-5

ONE_OF_EACH = [
    next(golden for golden in GOLDENS if golden.name == name)
    for name in (
        *("huawei-tf-pretraining", "huawei-tf-classifier", "huawei-tf-ner", "huawei-torch-mlm-rel127"),
        *("huawei-torch-multiple-choice", "huawei-torch-qa", "transformers-4.40.2-encoder"),
        *("transformers-4.40.2-next-sentence-prediction", "transformers-4.40.2-causal-lm", "bert4torch-prefix-lm"),
    )
]
"""One checkpoint a head: GELU by erf and by tanh, clip distances 64 and 127."""

SIZES = {
    "vocab_size": 3000,  # the exporter stores a smaller decoder a second time, transposed
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 96,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A converted folder of one layer, for masked words, with a tokenizer."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    nezha.NezhaForMaskedLM(nezha.NezhaConfig(**SIZES, initializer_range=0.2)).save_pretrained(folder / "source")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0x4E00 + SIZES["vocab_size"] - 5))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    convert(folder / "source", folder / "converted", vocab=folder / "vocab.txt")
    return folder / "converted"


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    """The small model exported in a precision: the folder and the result. Each is made once."""

    @functools.cache
    def of(precision: str) -> tuple[Path, onnx_export.OnnxResult]:
        stage = tmp_path_factory.mktemp(precision)
        return stage, export_onnx(small, stage, precision=precision)

    return of


def session(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])


def inputs(head: str, vocab_size: int, length: int) -> dict[str, torch.Tensor]:
    """A batch whose size depends on the length. Its first row is padded, its last one has two segments."""
    shape = (1 + length % 3, length)
    shape = (*shape[:1], 2 + length % 2, length) if head == "multiple-choice" else shape
    ids = torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(length))
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    mask[0, ..., length - length // 4 :] = 0
    types[-1, ..., length // 2 :] = 1
    return dict(zip(INPUTS, (ids, mask, types), strict=True))


def worst(head: str, model: torch.nn.Module, graph: onnxruntime.InferenceSession) -> float:
    """The largest error of any output at any of the `LENGTHS`, as a part of the output's range over all of them."""
    pairs = {name: [] for name in OUTPUTS[head]}
    for length in LENGTHS:
        batch = inputs(head, model.config.vocab_size, length)
        arrays = graph.run(None, {name: tensor.numpy() for name, tensor in batch.items()})
        with torch.no_grad():
            expected = model(**batch, return_dict=True)
        for (name, seen), array in zip(pairs.items(), arrays, strict=True):
            assert array.dtype == np.float32
            seen.append((array, expected[name].numpy()))
    return max(
        max(np.abs(a - b).max() for a, b in seen) / (max(b.max() for _, b in seen) - min(b.min() for _, b in seen))
        for seen in pairs.values()
    )


def loaded(head: str, folder: Path) -> torch.nn.Module:
    return getattr(transformers, HEADS[head].auto_class).from_pretrained(folder, attn_implementation="eager").eval()


@pytest.mark.parametrize("golden", ONE_OF_EACH, ids=str)
def test_one_file_gives_pytorch_s_outputs_at_every_length(golden: Golden, tmp_path):
    folder, stage = tmp_path / "converted", tmp_path / "graph"
    convert(golden.folder, folder, head=golden.head if golden.asked else None)
    stage.mkdir()
    result = export_onnx(folder, stage)
    graph = session(stage)
    assert [item.name for item in graph.get_inputs()] == list(INPUTS)
    assert (
        [item.name for item in graph.get_outputs()] == list(OUTPUTS[golden.head]) == [m.output for m in result.measured]
    )
    assert worst(golden.head, loaded(golden.head, folder), graph) < TOLERANCE
    assert max(item.relative_error for item in result.measured) < TOLERANCE


def test_every_head_is_exported():
    assert {golden.head for golden in ONE_OF_EACH} == set(HEADS) == set(OUTPUTS)


def test_the_attention_by_buckets_is_the_reference():
    for clip, length in [(1, 1), (1, 5), (4, 1), (4, 3), (4, 5), (4, 40), (64, 66), (64, 200)]:
        query, key, value = torch.randn(3, 2, 3, length, 8, generator=torch.Generator().manual_seed(length))
        table = relative_position_table(clip, 8)
        mask = torch.arange(length) < torch.tensor([length, (length + 1) // 2])[:, None, None, None]
        found, _ = attention_by_buckets(query, key, value, Buckets.of(table, length), mask)
        expected, _ = relative_attention(query, key, value, expand_relative_positions(table, length), mask)
        torch.testing.assert_close(found, expected)


def test_the_folder_holds_what_optimum_and_a_tokenizer_need_and_no_other_weights(exported, small):
    stage, result = exported("float32")
    files = {file.name for file in stage.iterdir()}
    assert files == set(result.files)
    assert files == {
        *("attention_nezha.py", "config.json", "configuration_nezha.py", "model.onnx", "modeling_nezha.py"),
        *("tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    }
    assert (stage / "config.json").read_bytes() == (small / "config.json").read_bytes()


def test_the_file_is_one_message_to_those_who_read_protobuf(exported, tmp_path):
    """The weights follow the graph in parts. Written as a whole, the file has the same tensors."""
    stage, _ = exported("float32")
    graph = onnx.load(stage / MODEL)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, tmp_path / "whole.onnx")
    tensors = [
        {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
        for path in (stage / MODEL, tmp_path / "whole.onnx")
    ]
    assert len(tensors[0]) == len(graph.graph.initializer) > 30
    assert all(np.array_equal(array, tensors[1][name]) for name, array in tensors[0].items())


def test_the_graph_states_its_opset_names_its_sizes_and_knows_nothing_of_this_machine(exported):
    stage, result = exported("float32")
    graph = onnx.load(stage / MODEL)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", result.opset)] == [("", 18)]
    assert graph.ir_version == 8
    sizes = [[d.dim_param for d in item.type.tensor_type.shape.dim] for item in graph.graph.input]
    assert sizes == [["batch", "length"]] * 3
    assert str(Path(__file__).parents[2]).encode() not in (stage / MODEL).read_bytes()


def test_a_tied_decoder_is_stored_once(exported, small):
    stage, _ = exported("float32")
    assert (stage / MODEL).stat().st_size < 1.1 * (small / "model.safetensors").stat().st_size


def test_no_tensor_of_the_graph_has_a_vector_for_every_pair_of_positions(exported):
    inferred = onnx.shape_inference.infer_shapes(onnx.load(exported("float32")[0] / MODEL))
    shapes = [
        [d.dim_value or d.dim_param for d in item.type.tensor_type.shape.dim] for item in inferred.graph.value_info
    ]
    head_size = SIZES["hidden_size"] // SIZES["num_attention_heads"]
    assert any(shape[-2:] == ["length", "length"] for shape in shapes)
    assert not any(shape[-3:] == ["length", "length", head_size] for shape in shapes)


@pytest.mark.parametrize(("precision", "bound", "size"), [("float16", 1e-2, 0.6), ("int8", 0.1, 0.4)])
def test_a_smaller_graph_says_how_far_it_departs(precision, bound, size, exported, small):
    stage, result = exported(precision)
    [measured] = result.measured
    assert 1e-5 < measured.relative_error < bound
    assert 0 <= measured.argmax_differs < bound
    assert worst("masked-lm", loaded("masked-lm", small), session(stage)) < 2 * bound
    assert (stage / MODEL).stat().st_size < size * (exported("float32")[0] / MODEL).stat().st_size
    assert set(result.files) == set(exported("float32")[1].files)
    assert {decision.field: decision.value for decision in result.decisions} == {"opset": 18, "precision": precision}


@pytest.mark.parametrize("precision", onnx_export.PRECISIONS)
def test_a_row_with_every_key_masked_is_finite_in_every_precision(precision, exported):
    batch = {name: np.zeros((2, 70), np.int64) for name in INPUTS}
    assert np.isfinite(session(exported(precision)[0]).run(None, batch)[0]).all()


def test_the_weights_of_a_large_model_lie_beside_a_graph_that_is_the_same_otherwise(
    exported, small, tmp_path, monkeypatch
):
    whole, expected = exported("int8")
    monkeypatch.setattr(onnx_graph, "ONE_FILE", 0)
    result = export_onnx(small, tmp_path, precision="int8")
    assert set(result.files) == {*expected.files, f"{MODEL}.data"} == {file.name for file in tmp_path.iterdir()}
    assert result.measured == expected.measured
    assert (tmp_path / MODEL).stat().st_size < (whole / MODEL).stat().st_size / 2
    assert onnx.load(tmp_path / MODEL).graph.node == onnx.load(whole / MODEL).graph.node


def constant(graph: onnx.GraphProto, op: str, number: int, change) -> None:
    """Change the constant that is input `number` of the first node `op`."""
    name = next(node for node in graph.node if node.op_type == op).input[number]
    initializer(graph, name, change)


def initializer(graph: onnx.GraphProto, name: str, change) -> None:
    tensor = next(item for item in graph.initializer if item.name.endswith(name))
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor)), tensor.name))


def equal(graph: onnx.GraphProto, old: np.ndarray, new: np.ndarray) -> None:
    """Change the constant whose value is `old`."""
    [tensor] = [item for item in graph.initializer if np.array_equal(onnx.numpy_helper.to_array(item), old)]
    tensor.CopyFrom(onnx.numpy_helper.from_array(new.astype(old.dtype), tensor.name))


def swap_inputs(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        node.input[:] = ["token_type_ids" if name == "input_ids" else name for name in node.input]


TABLE = relative_position_table(64, SIZES["hidden_size"] // SIZES["num_attention_heads"]).numpy()

MUTATIONS = {
    "a clip distance of one more": lambda graph: constant(graph, "Clip", 1, lambda value: value - 1),
    "a clip distance of one less": lambda graph: constant(graph, "Clip", 1, lambda value: value + 1),
    "a mask of zeros": lambda graph: equal(graph, np.finfo(np.float32).min, np.zeros(())),
    "a table of scores read backwards": lambda graph: equal(graph, TABLE.T, TABLE.T[:, ::-1]),
    "a table of values read backwards": lambda graph: equal(graph, TABLE[1:] - TABLE[0], (TABLE[1:] - TABLE[0])[::-1]),
    "values without the first row of the table": lambda graph: equal(graph, TABLE[0], 0 * TABLE[0]),
    "segments that are alike": lambda graph: initializer(
        graph, "token_type_embeddings.weight", lambda rows: rows[[0, 0]]
    ),
    "a layer norm with another weight": lambda graph: initializer(graph, "LayerNorm.weight", lambda w: w * 1.001),
    "a length of its own": lambda graph: constant(graph, "Range", 2, lambda value: value * 2),
    "ids taken from the segments": swap_inputs,
    "weights that are not finite": lambda graph: initializer(graph, "predictions.bias", lambda bias: bias * np.nan),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_graph_that_computes_something_else_is_refused(mutation, exported, small, tmp_path, monkeypatch):
    sound = exported("float32")[0] / MODEL  # make it now: below, the writer that makes it is replaced

    def write_mutated(model, head, precision, path):
        graph = onnx.load(sound)
        MUTATIONS[mutation](graph.graph)
        onnx.save(graph, path)

    monkeypatch.setattr(onnx_export, "write_graph", write_mutated)
    with pytest.raises(MappingError, match=r"model\.onnx") as raised:
        export_onnx(small, tmp_path)
    assert raised.value.problems or "cannot run" in raised.value.message


def test_a_missing_package_is_named_with_the_command_that_installs_it(small, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UsageError, match="onnxscript, not installed") as raised:
        export_onnx(small, tmp_path)
    assert raised.value.hint == pip_install(f"'nezha-convert[onnx]' {CPU_INDEX}")


def test_an_unknown_precision_and_a_folder_that_is_no_conversion_are_refused(small, tmp_path):
    with pytest.raises(UsageError, match="'int4'"):
        export_onnx(small, tmp_path, precision="int4")
    with pytest.raises(MappingError, match=r"conversion\.json"):
        export_onnx(tmp_path, tmp_path)


def test_every_step_is_told(exported, small, tmp_path, monkeypatch):
    graph, calls = onnx.load(exported("float32")[0] / MODEL), []
    monkeypatch.setattr(onnx_export, "write_graph", lambda *args: onnx.save(graph, args[-1]))
    export_onnx(small, tmp_path, progress=lambda done, steps, what: calls.append((done, steps)))
    assert calls == [(done, 5) for done in range(6)]
