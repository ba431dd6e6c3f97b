"""The oracle against outputs of the original programs; each mistake in it is noticed."""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from recorded import HEAD_OF, TOLERANCE, cross_entropy, departures, goldens, inputs_of, log_softmax, near, source

from nezha_convert.errors import MappingError, UsageError
from nezha_convert.parity.oracle import dialects, formulas
from nezha_convert.parity.oracle import model as oracle
from nezha_convert.parity.oracle.model import HEADS, Oracle

TENSORFLOW, TORCH = "huawei-tf-pretraining", "huawei-torch-pretraining"


@pytest.mark.parametrize("name", HEAD_OF)
def test_agrees_with_the_original_program_to_its_float32_precision(name: str, record_property: Any) -> None:
    model = Oracle(*source(name))
    worst = {
        f"{case}/{tensor}": error
        for case, golden in goldens(name).items()
        for tensor, error in departures(model, golden).items()
    }
    record_property("largest_error", max(worst.values()))
    assert {tensor: error for tensor, error in worst.items() if not error < TOLERANCE} == {}
    assert {"short", "clipped"} <= {tensor.split("/")[0] for tensor in worst}


def test_the_goldens_reach_past_512_tokens() -> None:
    assert goldens(TENSORFLOW)["long"]["input_ids"].shape == (1, 560)


@pytest.mark.parametrize("name", [name for name in HEAD_OF if name.startswith("huawei-tf-") and "squad" not in name])
def test_gives_the_losses_of_the_tensorflow_original(name: str) -> None:
    model = Oracle(*source(name))
    for golden in goldens(name).values():
        out = model.forward(**inputs_of(golden))
        if "loss" in golden:  # the NER script sums over the tokens, the classifier takes the mean
            scale = golden["labels"].size if "ner" in name else 1
            loss = cross_entropy(out["logits"], golden["labels"]) * scale
            assert loss == near(golden["loss"], out["logits"] * scale)
        else:
            labels, weights = golden["mlm_labels"], golden["mlm_weights"].astype(np.float64)
            picked = np.take_along_axis(log_softmax(out["prediction_logits"]), labels[..., None], -1)[..., 0]
            loss = -(picked * weights).sum() / (weights.sum() + 1e-5)
            assert loss == near(golden["mlm_loss"], out["prediction_logits"])
            next_sentence = cross_entropy(out["seq_relationship_logits"], golden["nsp_labels"])
            assert next_sentence == near(golden["nsp_loss"], out["seq_relationship_logits"])


@pytest.mark.parametrize(
    "name", [n for n in HEAD_OF if n.startswith("transformers-") and not n.endswith(("encoder", "causal-lm"))]
)
def test_gives_the_losses_of_transformers(name: str) -> None:
    model = Oracle(*source(name))
    for golden in goldens(name).values():
        out = model.forward(**inputs_of(golden))
        if model.head == "question-answering":
            ends = ("start", "end")
            loss = sum(cross_entropy(out[f"{end}_logits"], golden[f"{end}_positions"]) for end in ends) / 2
        elif model.head == "pretraining":
            loss = cross_entropy(out["prediction_logits"], golden["labels"])
            loss += cross_entropy(out["seq_relationship_logits"], golden["next_sentence_label"])
        else:
            loss = cross_entropy(out["logits"], golden["labels"])
        logits = next(out[name] for name in out if name.endswith("logits"))
        assert loss == near(golden["loss"], logits)


# Mistakes that must be noticed.


def _first_departure(model: Oracle) -> str:
    """The first tensor that departs, on the two goldens that have all layers and exceed the clip distance."""
    name = TENSORFLOW if model.dialect.name == "tensorflow" else TORCH
    for case in ("short", "clipped"):
        errors = departures(model, goldens(name)[case])
        order = ["embedding_output", "hidden_state_0", "layer_0", "hidden_state_1", "layer_1", "hidden_state_2"]
        for tensor in [*order, *errors]:
            if errors.get(tensor, 0.0) > 5 * TOLERANCE:
                return f"{case}/{tensor}"
    return "nothing"


def _swapped(entries: dict[str, Any], one: str, other: str) -> None:
    for name in [name for name in entries if one in name]:
        twin = name.replace(one, other)
        entries[name], entries[twin] = entries[twin], entries[name]


def _changed(entries: dict[str, Any], name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    array = change(entries[name].read())
    entries[name] = SimpleNamespace(read=lambda: array)


def _bit_flipped(array: np.ndarray) -> np.ndarray:
    bits = array.view(np.uint32).copy()
    bits[3] ^= 1 << 23  # the lowest bit of the exponent
    return bits.view(np.float32)


LAYER_0 = "bert/encoder/layer_0/"
MUTATIONS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "query and key swapped": (
        lambda entries: _swapped(entries, "layer_0/attention/self/query/kernel", "layer_0/attention/self/key/kernel"),
        "short/layer_0",
    ),
    "a square kernel left untransposed": (
        lambda entries: _changed(entries, f"{LAYER_0}attention/output/dense/kernel", np.transpose),
        "short/layer_0",
    ),
    "one layer taken from its neighbour": (
        lambda entries: _swapped(entries, "layer_1/intermediate", "layer_0/intermediate"),
        "short/layer_0",
    ),
    "one bit of one layer norm": (
        lambda entries: _changed(entries, "bert/encoder/layer_1/output/LayerNorm/gamma", _bit_flipped),
        "short/layer_1",
    ),
    "the padding row zeroed": (
        lambda entries: _changed(
            entries, "bert/embeddings/word_embeddings", lambda a: a * (np.arange(64) > 0)[:, None]
        ),
        "short/embedding_output",
    ),
    "the token types swapped": (
        lambda entries: _changed(entries, "bert/embeddings/token_type_embeddings", lambda a: a[::-1]),
        "short/embedding_output",
    ),
    "the head's bias shifted": (
        lambda entries: _changed(entries, "cls/predictions/output_bias", lambda a: np.roll(a, 1)),
        "short/mlm_log_probs",
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mistaken_weight_shows_at_the_tensor_that_it_touches(mutation: str) -> None:
    entries, config, head = source(TENSORFLOW)
    change, place = MUTATIONS[mutation]
    change(entries)
    assert _first_departure(Oracle(entries, config, head)) == place


def test_an_unchanged_source_departs_nowhere() -> None:
    assert _first_departure(Oracle(*source(TENSORFLOW))) == _first_departure(Oracle(*source(TORCH))) == "nothing"


def test_erf_in_place_of_tanh_shows_in_the_first_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dialects.TENSORFLOW.activations, "gelu", formulas.gelu_erf)
    assert _first_departure(Oracle(*source(TENSORFLOW))) == "short/layer_0"


def test_tanh_in_place_of_erf_shows_in_the_first_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dialects.PYTORCH.activations, "gelu", formulas.gelu_tanh)
    assert _first_departure(Oracle(*source(TORCH))) == "short/hidden_state_1"


@pytest.mark.parametrize("clip", [63, 65])
def test_another_clip_distance_shows_even_on_short_texts(clip: int) -> None:
    """The distance shifts the sinusoid's argument, so it affects every pair of tokens."""
    assert _first_departure(Oracle(*source(TORCH, max_relative_position=clip))) == "short/hidden_state_1"


def test_a_table_of_signed_distances_shows_in_the_first_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def signed(clip: int, size: int) -> np.ndarray:
        angles = np.arange(-clip, clip + 1)[:, None] / 10000.0 ** (2 * np.arange(size // 2) / size)
        return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(2 * clip + 1, size)

    monkeypatch.setattr(oracle, "relative_table", signed)
    assert _first_departure(Oracle(*source(TENSORFLOW))) == "short/layer_0"


def test_the_mirrored_direction_shows_in_the_first_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "relative_table", lambda clip, size: formulas.relative_table(clip, size)[::-1])
    assert _first_departure(Oracle(*source(TENSORFLOW))) == "short/layer_0"


def test_a_mask_left_out_shows_in_the_first_layer() -> None:
    golden = dict(goldens(TENSORFLOW)["short"])
    golden["input_mask"] = np.ones_like(golden["input_mask"])
    errors = departures(Oracle(*source(TENSORFLOW)), golden)
    assert errors["embedding_output"] < TOLERANCE < errors["layer_0"]


# The formulas by themselves.


def test_attention_is_the_same_whatever_the_block_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    query, key, value = rng.standard_normal((3, 2, 3, 17, 6))
    mask, table = np.where(rng.random((2, 17)) < 0.3, -1e4, 0.0), formulas.relative_table(4, 6)
    whole = formulas.attention(query, key, value, mask, table)
    monkeypatch.setattr(formulas, "_BLOCK", 3 * 17 * 6)
    np.testing.assert_allclose(formulas.attention(query, key, value, mask, table), whole, atol=1e-14)


def test_attention_is_the_formula_written_out_pair_by_pair() -> None:
    rng = np.random.default_rng(2)
    query, key, value = rng.standard_normal((3, 1, 1, 9, 4))
    mask, table, clip = np.array([[0.0] * 7 + [-1e4] * 2]), formulas.relative_table(3, 4), 3
    expected = np.zeros((9, 4))
    for i in range(9):
        relative = [table[max(-clip, min(clip, j - i)) + clip] for j in range(9)]
        scores = [query[0, 0, i] @ (key[0, 0, j] + relative[j]) / math.sqrt(4) + mask[0, j] for j in range(9)]
        weights = np.exp(np.array(scores) - max(scores))
        for j in range(9):
            expected[i] += weights[j] / weights.sum() * (value[0, 0, j] + relative[j])
    np.testing.assert_allclose(formulas.attention(query, key, value, mask, table)[0], expected, atol=1e-14)


def test_a_fully_masked_row_attends_evenly_in_transformers_and_as_if_unmasked_in_huaweis() -> None:
    ids, none = np.array([[5, 6, 7, 8]]), np.zeros((1, 4))
    for name, alike in ((TENSORFLOW, True), (TORCH, True), ("transformers-4.40.2-pretraining", False)):
        model = Oracle(*source(name))
        masked, unmasked = model.forward(ids, none)["layer_1"], model.forward(ids)["layer_1"]
        assert np.allclose(masked, unmasked, atol=1e-9) == alike
    query, key, value = np.random.default_rng(3).standard_normal((3, 1, 1, 4, 2))
    lowest = np.full((1, 4), float(np.finfo(np.float32).min))
    even = formulas.attention(query, key, value, lowest, np.zeros((3, 2)))
    np.testing.assert_allclose(even[0], np.tile(value[0, 0].mean(0), (4, 1)), atol=1e-14)


def test_the_table_of_an_odd_size_ends_in_a_column_of_zeros() -> None:
    table = formulas.relative_table(2, 5)
    assert table.shape == (5, 5)
    assert not table[:, 4].any()
    assert table[3].tolist() == pytest.approx(
        [math.sin(3), math.cos(3), math.sin(3 / 10000 ** (2 / 5)), math.cos(3 / 10000 ** (2 / 5)), 0], abs=1e-15
    )


def test_erf_is_exact_in_float64() -> None:
    x = np.linspace(-6, 6, 2001).reshape(3, -1).T
    assert np.array_equal(formulas.erf(x), np.vectorize(math.erf)(x))


# Inputs, names and errors.


def test_several_batches_at_once_give_what_each_gives_alone() -> None:
    model, cases = Oracle(*source(TENSORFLOW)), [inputs_of(golden) for golden in goldens(TENSORFLOW).values()]
    steps: list[tuple[int, int]] = []
    together = model.forward_all(cases, progress=lambda done, total, what: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]
    for case, outputs in zip(cases, together, strict=True):
        alone = model.forward(**case)
        assert list(alone) == list(outputs) == ["embeddings", "layer_0", "layer_1", "pooler", *HEADS["pretraining"]]
        assert all(np.array_equal(alone[name], outputs[name]) for name in alone)


def test_reads_each_layer_once_however_many_the_batches() -> None:
    entries, config, head = source(TENSORFLOW)
    read: list[str] = []
    for name, entry in list(entries.items()):
        entries[name] = SimpleNamespace(read=lambda name=name, entry=entry: read.append(name) or entry.read())
    Oracle(entries, config, head).forward_all([{"input_ids": np.ones((1, n), int)} for n in (3, 5, 80)])
    layers = [name for name in read if "/layer_" in name]
    assert len(layers) == len(set(layers)) == 32
    assert not [name for name in read if name.endswith(("lamb_m", "lamb_v"))]


def test_masks_and_token_types_may_be_left_out() -> None:
    model, ids = Oracle(*source(TORCH)), np.array([[1, 2, 3]])
    spelt = model.forward(ids, np.ones_like(ids), np.zeros_like(ids))
    assert all(np.array_equal(array, spelt[name]) for name, array in model.forward(ids).items())


def test_without_recording_only_the_head_comes_back() -> None:
    ids = np.array([[1, 2, 3]])
    assert list(Oracle(*source(TORCH)).forward(ids, record=False)) == list(HEADS["pretraining"])
    assert list(Oracle(*source(TORCH, "encoder")).forward(ids, record=False)) == ["layer_1", "pooler"]


def test_padding_does_not_reach_the_tokens_before_it() -> None:
    model, ids = Oracle(*source("transformers-4.40.2-encoder")), np.array([[5, 6, 7]])
    padded = model.forward(np.array([[5, 6, 7, 0, 9]]), np.array([[1, 1, 1, 0, 0]]))
    np.testing.assert_allclose(padded["layer_1"][:, :3], model.forward(ids)["layer_1"], atol=1e-12)


def untied(words: np.ndarray, **config: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    """A source of transformers whose decoder has rows and a bias of its own."""
    entries, raw, head = source("transformers-4.40.2-pretraining", **config)
    bias = np.arange(64, dtype=np.float32)
    entries["cls.predictions.decoder.weight"] = SimpleNamespace(read=lambda: words)
    entries["cls.predictions.decoder.bias"] = SimpleNamespace(read=lambda: bias)
    return entries, raw, head


@pytest.mark.parametrize("tie", [{}, {"tie_word_embeddings": True}])
def test_a_decoder_of_transformers_is_loaded_over_the_words_it_is_tied_to(tie: dict[str, Any]) -> None:
    rows, ids = np.random.default_rng(4).standard_normal((64, 32)), np.array([[4, 5, 6]])
    entries, config, head = untied(rows, **tie)
    outputs = Oracle(entries, config, head).forward(ids)
    tied = {name: entry for name, entry in entries.items() if "decoder" not in name}
    tied["nezha.embeddings.word_embeddings.weight"] = entries["cls.predictions.decoder.weight"]
    tied["cls.predictions.bias"] = entries["cls.predictions.decoder.bias"]
    expected = Oracle(tied, config, head).forward(ids)
    assert all(np.array_equal(outputs[name], expected[name]) for name in expected)
    # Without a decoder in the head, nothing is loaded over the words.
    encoder = Oracle(entries, config, "encoder").forward(ids)
    assert not np.allclose(encoder["embeddings"], outputs["embeddings"])


@pytest.mark.parametrize("false", [False, None])
def test_an_untied_decoder_has_its_own_rows_and_bias_and_leaves_the_words_alone(false: object) -> None:
    rows, ids = np.random.default_rng(4).standard_normal((64, 32)), np.array([[4, 5, 6]])
    outputs = Oracle(*untied(rows, tie_word_embeddings=false)).forward(ids)
    entries, config, head = source("transformers-4.40.2-pretraining")
    tied = Oracle(entries, config, head).forward(ids)
    assert np.array_equal(outputs["layer_1"], tied["layer_1"])
    # The logits are linear in rows and bias: with equal rows, tied and untied models give the same.
    words = entries["nezha.embeddings.word_embeddings.weight"].read()
    hidden = np.linalg.lstsq(
        words.astype(float), (tied["prediction_logits"] - entries["cls.predictions.bias"].read())[0].T, rcond=None
    )[0]
    np.testing.assert_allclose(outputs["prediction_logits"][0], (rows @ hidden).T + np.arange(64), atol=1e-6)


def test_an_untied_model_without_a_decoder_is_refused_since_the_original_draws_one() -> None:
    with pytest.raises(MappingError, match=r"cls\.predictions\.decoder\.weight"):
        Oracle(*source("transformers-4.40.2-pretraining", tie_word_embeddings=False)).forward(np.array([[1]]))


@pytest.mark.parametrize("spelling", ["module.{}", "{}", "bare"])
def test_old_spellings_of_torch_names_are_the_same_model(spelling: str) -> None:
    entries, config, _ = source(TORCH)
    ids = np.array([[4, 5, 6]])
    renamed = {}
    for name, entry in entries.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        renamed[name.removeprefix("bert.") if spelling == "bare" else spelling.format(name)] = entry
    expected = Oracle(entries, config, "pretraining").forward(ids)
    actual = Oracle(renamed, config, "pretraining").forward(ids)
    assert all(np.array_equal(expected[name], actual[name]) for name in expected)


def test_the_token_classifier_of_jaber_is_found_under_its_name() -> None:
    entries, config, head = source("huawei-torch-classifier", "token-classification")
    expected = Oracle(entries, config, head).forward(np.array([[4, 5, 6]]))
    jaber = {name.replace("classifier.", "dense."): entry for name, entry in entries.items()}
    assert np.array_equal(Oracle(jaber, config, head).forward(np.array([[4, 5, 6]]))["logits"], expected["logits"])


def test_every_head_that_a_pretraining_checkpoint_holds_can_be_asked_for() -> None:
    ids = np.array([[4, 5, 6]])
    whole = Oracle(*source(TENSORFLOW)).forward(ids)
    masked = Oracle(*source(TENSORFLOW, "masked-lm")).forward(ids)
    following = Oracle(*source(TENSORFLOW, "next-sentence-prediction")).forward(ids)
    assert np.array_equal(masked["logits"], whole["prediction_logits"])
    assert np.array_equal(following["logits"], whole["seq_relationship_logits"])


def test_a_head_whose_tensors_are_missing_is_named() -> None:
    with pytest.raises(MappingError, match=r"question-answering.*qa_outputs\.weight"):
        Oracle(*source(TENSORFLOW, "question-answering")).forward(np.array([[1]]))


def test_a_plain_bert_is_refused() -> None:
    entries, config, head = source(TENSORFLOW)
    entries["bert/embeddings/position_embeddings"] = entries["bert/embeddings/word_embeddings"]
    with pytest.raises(MappingError, match="plain BERT"):
        Oracle(entries, config, head)


@pytest.mark.parametrize(
    ("name", "activation"),
    [(TENSORFLOW, "swish"), (TORCH, "tanh"), (TENSORFLOW, 5), ("transformers-4.40.2-encoder", ["gelu"])],
)
def test_an_activation_that_the_original_lacks_is_refused(name: str, activation: object) -> None:
    with pytest.raises(MappingError, match=r"hidden_act is .* known of the .* original: gelu") as error:
        Oracle(*source(name, hidden_act=activation))
    assert str(activation) in error.value.message and "--config COPY" in error.value.hint


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": np.array([[64]])}, "input_ids run from 64 to 64"),
        ({"input_ids": np.array([[-1]])}, "input_ids run from -1"),
        ({"input_ids": np.array([[1]]), "token_type_ids": np.array([[2]])}, "token_type_ids run from 2"),
        ({"input_ids": np.array([1, 2])}, r"shape \(2,\)"),
        ({"input_ids": np.zeros((1, 0), int)}, r"shape \(1, 0\)"),
        ({"input_ids": np.array([[1, 2]]), "attention_mask": np.array([[1]])}, "attention_mask has shape"),
    ],
)
def test_inputs_that_the_model_cannot_take_are_refused(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Oracle(*source(TORCH)).forward(**inputs)


def test_an_unknown_head_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as error:
        Oracle(*source(TORCH, "ner"))
    assert "token-classification" in error.value.hint


MODULES = sorted(Path(oracle.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_oracle_imports_nothing_of_what_it_checks(path: Path) -> None:
    siblings = {module.stem for module in MODULES}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= {"numpy", *sys.stdlib_module_names}
        elif isinstance(node, ast.ImportFrom):
            names = {None: {alias.name for alias in node.names}}.get(node.module, {str(node.module).split(".")[0]})
            allowed = {0: {"numpy", *sys.stdlib_module_names}, 1: siblings, 3: {"errors"}}
            assert names <= allowed.get(node.level, set()), f"{path.name} imports {node.module}"
