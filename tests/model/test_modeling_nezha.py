"""The NEZHA model and its heads: numbers, masks, losses, loading and saving."""

from __future__ import annotations

import copy
import json
import math
import shutil
import sys
import warnings
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import transformers
import upstream
from packaging.version import Version
from safetensors.torch import load_file, save_file

import nezha
from nezha import attention_nezha, modeling_nezha
from nezha_convert.releases import TRANSFORMERS

ROOT = Path(__file__).parents[2]
FIXTURES = sorted((ROOT / "fixtures").glob("transformers-4.40.2-*"))
TOLERANCE = 3e-5  # of a tensor's range: what the goldens are reproducible to in float32

AUTO_CLASSES = {
    nezha.NezhaModel: transformers.AutoModel,
    nezha.NezhaForPreTraining: transformers.AutoModelForPreTraining,
    nezha.NezhaForMaskedLM: transformers.AutoModelForMaskedLM,
    nezha.NezhaForCausalLM: transformers.AutoModelForCausalLM,
    nezha.NezhaForNextSentencePrediction: transformers.AutoModelForNextSentencePrediction,
    nezha.NezhaForSequenceClassification: transformers.AutoModelForSequenceClassification,
    nezha.NezhaForMultipleChoice: transformers.AutoModelForMultipleChoice,
    nezha.NezhaForTokenClassification: transformers.AutoModelForTokenClassification,
    nezha.NezhaForQuestionAnswering: transformers.AutoModelForQuestionAnswering,
}
WITH_PREDICTIONS = (nezha.NezhaForPreTraining, nezha.NezhaForMaskedLM, nezha.NezhaForCausalLM)

every_class = pytest.mark.parametrize("model_class", AUTO_CLASSES, ids=lambda one: one.__name__)
every_fixture = pytest.mark.parametrize("folder", FIXTURES, ids=lambda folder: folder.name)


def tiny_config(**given):
    sizes = {
        "vocab_size": 30,
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "max_relative_position": 4,
        "num_labels": 3,
    }
    return nezha.NezhaConfig(**{**sizes, **given})


def tiny_model(model_class=nezha.NezhaModel, seed=0, **given):
    """A model in evaluation mode, every parameter of which is random: biases, norms and the padding row too."""
    model = model_class(tiny_config(**given)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def eager_model(*args, **given):
    model = tiny_model(*args, **given)
    model.config._attn_implementation = "eager"
    return model


def tiny_inputs(length=7, batch=2, seed=0, vocab_size=30):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, length * 2 // 3 :] = 0
    return {
        "input_ids": torch.randint(0, vocab_size, (batch, length), generator=generator),
        "attention_mask": mask,
        "token_type_ids": (torch.arange(length) > length // 2).long().expand(batch, length),
    }


def inputs_for(model_class, **given):
    """Inputs and labels that the model's loss needs."""
    inputs = tiny_inputs(**given)
    ids = inputs["input_ids"]
    if model_class is nezha.NezhaForMultipleChoice:
        inputs = {name: torch.stack((tensor, tensor.flip(0)), dim=1) for name, tensor in inputs.items()}
    first = torch.arange(len(ids)) % 2
    labels = {
        nezha.NezhaModel: {},
        nezha.NezhaForPreTraining: {"labels": ids, "next_sentence_label": first},
        nezha.NezhaForMaskedLM: {"labels": ids},
        nezha.NezhaForCausalLM: {"labels": ids},
        nezha.NezhaForTokenClassification: {"labels": ids % 3},
        nezha.NezhaForQuestionAnswering: {"start_positions": first, "end_positions": first + 2},
    }
    return {**inputs, **labels.get(model_class, {"labels": first})}


def relative_error(actual, expected):
    """The largest difference, in units of the expected tensor's range."""
    actual, expected = (torch.as_tensor(one).double() for one in (actual, expected))
    assert actual.shape == expected.shape
    spread = (expected.max() - expected.min()).item() or expected.abs().max().item()
    return (actual - expected).abs().max().item() / spread


# Checkpoints and numbers of transformers 4.40.2.


def golden_cases(folder):
    """Each case's inputs and expected outputs, by name."""
    arrays = np.load(folder / "expected.npz")
    for case in sorted({key.split("/")[0] for key in arrays}):
        named = {key.split("/")[1]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith(f"{case}/")}
        inputs = {name: tensor for name, tensor in named.items() if not tensor.is_floating_point()}
        yield inputs, {name: tensor for name, tensor in named.items() if name not in inputs}


def named_outputs(outputs):
    """A model's outputs under the goldens' names: `hidden_states_0` and so on."""
    for name, value in outputs.items():
        if isinstance(value, tuple):
            yield from ((f"{name}_{i}", one) for i, one in enumerate(value))
        else:
            yield name, value


def load_fixture(folder, **options):
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    return getattr(nezha, name).from_pretrained(folder, **options)


def test_there_is_a_golden_for_the_encoder_and_every_head():
    architectures = {json.loads((folder / "config.json").read_text())["architectures"][0] for folder in FIXTURES}
    # 4.40.2 has no class that generates: its decoder is a masked-LM model.
    assert architectures == {model_class.__name__ for model_class in AUTO_CLASSES} - {"NezhaForCausalLM"}


@every_fixture
def test_a_checkpoint_of_4_40_2_loads_with_nothing_missing_left_over_or_misshapen(folder):
    _, loading = load_fixture(folder, output_loading_info=True)
    assert not any(loading.values()), loading


@every_fixture
def test_outputs_and_losses_are_those_of_4_40_2(folder):
    model = load_fixture(folder).eval()
    for inputs, expected in golden_cases(folder):
        with torch.no_grad():
            outputs = dict(named_outputs(model(**inputs, output_hidden_states=True, output_attentions=True)))
        assert expected.keys() <= outputs.keys()
        errors = {name: relative_error(outputs[name], tensor) for name, tensor in expected.items()}
        assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize("name", ["masked-lm", "pretraining"])
def test_a_checkpoint_of_4_40_2_loads_with_its_embeddings_tied(name):
    model = load_fixture(ROOT / "fixtures" / f"transformers-4.40.2-{name}")
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight


def test_constants_that_old_releases_saved_are_ignored_without_a_word(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for i in range(2):
        buffer = f"encoder.layer.{i}.attention.self.relative_positions_encoding.positions_encoding"
        state[buffer] = torch.zeros(8, 8, 6)
    state["embeddings.token_type_ids"] = torch.zeros(1, 8, dtype=torch.long)
    state["embeddings.position_ids"] = torch.arange(8)[None]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, loading = nezha.NezhaModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading


# The whole encoder, once more, in NumPy: no line of it shared with the model.


def encode_by_numpy(model, input_ids, attention_mask, token_type_ids):
    """Every hidden state of a NEZHA, [B, L, D] each, in float64 and one query at a time."""
    config = model.config
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    clip, heads = config.max_relative_position, config.num_attention_heads
    size = config.hidden_size // heads
    erf = np.vectorize(math.erf)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    table = np.zeros((2 * clip + 1, size))
    for index in range(2 * clip + 1):
        for pair in range(size // 2):
            angle = index / 10000 ** (2 * pair / size)
            table[index, 2 * pair : 2 * pair + 2] = math.sin(angle), math.cos(angle)

    def attend(x, present, name):
        length = len(x)
        context = np.zeros((length, heads * size))
        query, key, value = (linear(x, f"{name}.{projection}") for projection in ("query", "key", "value"))
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            for i in range(length):
                relation = table[[min(max(j - i, -clip), clip) + clip for j in range(length)]]
                score = (key[:, columns] + relation) @ query[i, columns] / math.sqrt(size)
                score[~present] = -np.inf
                weight = np.exp(score - score.max())
                context[i, columns] = weight / weight.sum() @ (value[:, columns] + relation)
        return context

    states = []
    for ids, present, segments in zip(
        *(one.numpy() for one in (input_ids, attention_mask, token_type_ids)), strict=True
    ):
        words = weights["embeddings.word_embeddings.weight"][ids]
        x = norm(words + weights["embeddings.token_type_embeddings.weight"][segments], "embeddings.LayerNorm")
        state = [x]
        for i in range(config.num_hidden_layers):
            layer = f"encoder.layer.{i}"
            context = attend(x, present.astype(bool), f"{layer}.attention.self")
            x = norm(x + linear(context, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
            wide = linear(x, f"{layer}.intermediate.dense")
            wide = wide * (1 + erf(wide / math.sqrt(2))) / 2
            x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
            state.append(x)
        states.append(state)
    return [np.stack(one) for one in zip(*states, strict=True)]


def error_against_numpy(model, **inputs):
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
    expected = encode_by_numpy(model, **inputs)
    return max(relative_error(*pair) for pair in zip(outputs.hidden_states, expected, strict=True))


@pytest.mark.parametrize(
    ("length", "config"),
    [
        (3, {}),
        (40, {"max_relative_position": 4}),
        (90, {"max_relative_position": 64}),
        (200, {"max_relative_position": 4, "num_hidden_layers": 1}),
        (330, {"max_relative_position": 64, "num_hidden_layers": 1}),
        (30, {"hidden_size": 15, "num_attention_heads": 3}),  # heads of size 5: the odd case
        (30, {"hidden_size": 9, "num_attention_heads": 3, "max_relative_position": 1}),
        (12, {"num_attention_heads": 12}),  # heads of size 1: a table of zeros
    ],
)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_hidden_states_equal_an_independent_float64_computation(length, config, implementation):
    model = tiny_model(**config)
    model.config._attn_implementation = implementation
    inputs = tiny_inputs(length)
    assert error_against_numpy(model, **inputs) < 1e-5
    assert error_against_numpy(model.double(), **inputs) < 1e-12


def signed_table(clip, head_size, **options):
    """The paper's table: of the distance instead of the shifted index."""
    distance = torch.arange(-clip, clip + 1, dtype=torch.float64)[:, None]
    angle = distance / 10000 ** (torch.arange(0, head_size, 2) / head_size)
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1).to(**options)


def halves_table(clip, head_size, **options):
    """Sines in the first half, cosines in the second, as other models have them."""
    table = attention_nezha.relative_position_table(clip, head_size, **options)
    return torch.cat((table[:, 0::2], table[:, 1::2]), dim=1)


expand_relative_positions = attention_nezha.expand_relative_positions
relative_attention = attention_nezha.relative_attention


def expand_clipped_one_short(table, length, past=0):
    position = torch.arange(length)
    clip = len(table) // 2
    return table[(position[None] - position[:, None]).clamp(1 - clip, clip - 1) + clip]


def expand_backwards(table, length, past=0):
    return expand_relative_positions(table, length).transpose(0, 1)


def attention_with(scores=1.0, values=1.0, scale=1.0, masked=True):
    """`relative_attention` with a share of its relations in the scores and in the values."""

    def attention(query, key, value, relations, mask, **options):
        query, mask = query * scale, mask if masked else None
        _, probabilities = relative_attention(query, key, value, relations * scores, mask, **options)
        return probabilities @ value + torch.einsum("bhij,ijd->bhid", probabilities, relations * values), None

    return attention


@pytest.mark.parametrize(
    ("function", "mutation"),
    [
        ("relative_position_table", signed_table),
        ("relative_position_table", halves_table),
        ("expand_relative_positions", expand_clipped_one_short),
        ("expand_relative_positions", expand_backwards),
        ("relative_attention", attention_with(scores=0.0)),
        ("relative_attention", attention_with(values=0.0)),
        ("relative_attention", attention_with(scores=0.5)),
        ("relative_attention", attention_with(scale=1.01)),
        ("relative_attention", attention_with(masked=False)),
    ],
    ids=[
        "a table of signed distances",
        "a table that is not interleaved",
        "a clip off by one",
        "distances backwards",
        "no relations in the scores",
        "no relations in the values",
        "relations not scaled like the rest",
        "scores scaled by another head size",
        "no mask",
    ],
)
def test_the_independent_computation_tells_a_model_that_is_wrong_in(function, mutation, monkeypatch):
    monkeypatch.setattr(
        modeling_nezha if function == "relative_position_table" else attention_nezha, function, mutation
    )
    assert error_against_numpy(eager_model().double(), **tiny_inputs(12)) > 10 * TOLERANCE


def test_the_unmutated_parts_of_those_mutations_are_right(monkeypatch):
    monkeypatch.setattr(attention_nezha, "relative_attention", attention_with())
    assert error_against_numpy(eager_model().double(), **tiny_inputs(12)) < 1e-12


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("gelu", torch.nn.functional.gelu),
        ("gelu_pytorch_tanh", partial(torch.nn.functional.gelu, approximate="tanh")),
        ("relu", torch.nn.functional.relu),
    ],
)
def test_the_activation_is_the_one_the_config_names(name, activation, training):
    intermediate = tiny_model(hidden_act=name).encoder.layer[0].intermediate
    inputs = torch.linspace(-3, 3, 12).expand(1, 12)
    given = inputs.clone()
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(intermediate(given), activation(intermediate.dense(inputs)), rtol=0, atol=0)
    assert torch.equal(given, inputs)


# Building.


def test_relative_positions_are_no_parameter_and_no_buffer():
    model = tiny_model(nezha.NezhaForPreTraining)
    assert not list(model.buffers())
    assert not [name for name in model.state_dict() if "relative" in name or "position" in name]


@pytest.mark.parametrize(
    ("implementation", "length", "expansions"), [("sdpa", 7, 1), ("sdpa", 192, 0), ("eager", 7, 1)]
)
def test_relative_positions_are_made_once_a_pass_and_shared_by_the_layers(
    implementation, length, expansions, monkeypatch
):
    tables, expanded, used = [], [], []

    def table(*args, **options):
        tables.append(attention_nezha.relative_position_table(*args, **options))
        return tables[-1]

    def expand(*args):
        expanded.append(expand_relative_positions(*args))
        return expanded[-1]

    monkeypatch.setattr(modeling_nezha, "relative_position_table", table)
    monkeypatch.setattr(attention_nezha, "expand_relative_positions", expand)
    model = tiny_model(num_hidden_layers=3)
    model.config._attn_implementation = implementation
    for layer in model.encoder.layer:
        layer.register_forward_pre_hook(lambda module, given: used.append(given[2]))
    model(**tiny_inputs(length))
    assert len(tables) == 1 and len(expanded) == expansions
    assert len(used) == 3 and all(relations is used[0] for relations in used)


def test_new_weights_are_drawn_as_in_bert():
    torch.manual_seed(0)
    model = nezha.NezhaForPreTraining(tiny_config(vocab_size=2000, hidden_size=48, initializer_range=0.5))
    words = model.get_input_embeddings().weight
    assert not words[0].any(), "the padding row"
    assert words[1:].std().item() == pytest.approx(0.5, rel=0.02)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "LayerNorm" in name:
            assert (parameter == 1).all(), name


@every_class
def test_heads_over_tokens_have_no_pooler(model_class):
    over_tokens = (
        nezha.NezhaForMaskedLM,
        nezha.NezhaForCausalLM,
        nezha.NezhaForTokenClassification,
        nezha.NezhaForQuestionAnswering,
    )
    pooled = any("pooler" in name for name in tiny_model(model_class).state_dict())
    assert pooled == (model_class not in over_tokens)


def test_question_answering_has_two_rows_and_multiple_choice_one_whatever_num_labels_says():
    assert tiny_model(nezha.NezhaForQuestionAnswering, num_labels=7).qa_outputs.out_features == 2
    assert tiny_model(nezha.NezhaForMultipleChoice, num_labels=7).classifier.out_features == 1
    assert tiny_model(nezha.NezhaForNextSentencePrediction, num_labels=7).cls.seq_relationship.out_features == 2
    assert tiny_model(nezha.NezhaForTokenClassification, num_labels=7).classifier.out_features == 7


@pytest.mark.parametrize(("given", "expected"), [(0.25, 0.25), (None, 0.5), (0.0, 0.0)])
def test_a_classifier_without_a_dropout_of_its_own_has_that_of_the_hidden_states(given, expected):
    model = tiny_model(nezha.NezhaForSequenceClassification, classifier_dropout=given, hidden_dropout_prob=0.5)
    assert model.dropout.p == expected


# Inputs.


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.long, torch.float32])
def test_a_mask_says_the_same_in_every_form_and_type(dtype):
    model = tiny_model()
    inputs = tiny_inputs()
    keys = inputs.pop("attention_mask")
    expected = model(**inputs, attention_mask=keys).last_hidden_state
    square = keys[:, None, :].expand(2, 7, 7)
    forms = [keys, square, square[:, None], square[:, None].expand(2, 2, 7, 7)]
    for mask in forms:
        if mask.dim() < 4 or not dtype.is_floating_point:  # one of four dimensions is added to the scores
            assert torch.equal(model(**inputs, attention_mask=mask.to(dtype)).last_hidden_state, expected)


@pytest.mark.parametrize("lowest", [torch.finfo(torch.float32).min, -math.inf, -1e9])
def test_a_floating_mask_of_four_dimensions_is_added_to_the_scores(lowest):
    model, inputs = tiny_model(), tiny_inputs()
    seen = inputs.pop("attention_mask")[:, None, None, :].bool()
    added = torch.zeros(2, 1, 7, 7).masked_fill(~seen, lowest)
    expected = model(**inputs, attention_mask=seen).last_hidden_state
    torch.testing.assert_close(model(**inputs, attention_mask=added).last_hidden_state, expected)


def test_a_small_number_in_such_a_mask_weakens_a_key_as_in_bert():
    model, inputs = tiny_model(num_hidden_layers=1), tiny_inputs()
    inputs["attention_mask"] = torch.zeros(2, 1, 7, 7)
    before = model(**inputs, output_attentions=True).attentions[0]
    inputs["attention_mask"][..., 3] = -1.5
    after = model(**inputs, output_attentions=True).attentions[0]
    odds = torch.log(after[..., 3] / after[..., 2]) - torch.log(before[..., 3] / before[..., 2])
    torch.testing.assert_close(odds, torch.full_like(odds, -1.5))


def test_ones_in_such_a_mask_are_refused_with_what_to_pass():
    with pytest.raises(ValueError, match=r"added to the scores.*found a positive value.*attention_mask.bool\(\)"):
        tiny_model()(**{**tiny_inputs(), "attention_mask": torch.ones(2, 1, 7, 7)})


@pytest.mark.parametrize("name", ["head_mask", "position_ids"])
@pytest.mark.parametrize("architecture", ["NezhaModel", "NezhaForTokenClassification"])
def test_arguments_of_transformers_4_are_refused_in_a_sentence(name, architecture):
    model = getattr(nezha, architecture)(tiny_model().config).eval()
    with pytest.raises(TypeError, match=f"takes no {name}: "):
        model(**tiny_inputs(), **{name: torch.ones(2, 7)})
    with pytest.raises(TypeError, match="no argument 'posture'"):
        model(**tiny_inputs(), posture=1)


def test_a_decoder_sees_itself_and_what_is_before():
    decoder = tiny_model(is_decoder=True)
    encoder = tiny_model()
    encoder.load_state_dict(decoder.state_dict())
    inputs = tiny_inputs()
    keys = inputs.pop("attention_mask")
    square = keys[:, None, :].bool() & torch.ones(7, 7, dtype=torch.bool).tril()
    expected = encoder(**inputs, attention_mask=square).last_hidden_state
    assert torch.equal(decoder(**inputs, attention_mask=keys).last_hidden_state, expected)
    alone = encoder(**inputs, attention_mask=torch.ones(2, 7, 7).tril()).last_hidden_state
    assert torch.equal(decoder(**inputs).last_hidden_state, alone)
    added = torch.zeros(2, 1, 1, 7)
    torch.testing.assert_close(decoder(**inputs, attention_mask=added).last_hidden_state, alone)


def test_a_row_that_is_masked_throughout_is_even_as_in_transformers_or_unmasked_as_in_huawei_s_programs():
    even, unmasked = tiny_model(), tiny_model(masked_rows="unmasked")
    unmasked.load_state_dict(even.state_dict())
    inputs = tiny_inputs()
    inputs["attention_mask"] = torch.tensor([[1] * 7, [0] * 7])
    ones = torch.ones_like(inputs["attention_mask"])
    whole = even(**{**inputs, "attention_mask": ones}).last_hidden_state
    assert torch.equal(unmasked(**inputs).last_hidden_state, whole)
    assert not torch.allclose(even(**inputs).last_hidden_state[1], whole[1], atol=1e-3)


def test_a_mask_of_queries_and_keys_lets_each_query_see_its_own_keys():
    model = tiny_model(num_hidden_layers=1)
    inputs = {**tiny_inputs(), "attention_mask": torch.ones(7, 7).tril().expand(2, 7, 7)}
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][:, 4] = 29 - changed["input_ids"][:, 4]
    before, after = (model(**one).last_hidden_state for one in (inputs, changed))
    assert torch.equal(before[:, :4], after[:, :4]), "no query before the changed token sees it"
    assert not torch.equal(before[:, 5], after[:, 5])


def test_a_mask_may_differ_from_head_to_head():
    mask = torch.ones(2, 2, 7, 7, dtype=torch.bool)
    mask[:, 1, :, 3] = False
    attentions = tiny_model()(**{**tiny_inputs(), "attention_mask": mask}, output_attentions=True).attentions
    assert attentions[0][:, 0, :, 3].all()
    assert not attentions[0][:, 1, :, 3].any()


def test_no_mask_and_no_segments_mean_all_tokens_and_the_first_segment():
    model, ids = tiny_model(), tiny_inputs()["input_ids"]
    spelt_out = model(ids, attention_mask=torch.ones_like(ids), token_type_ids=torch.zeros_like(ids))
    assert torch.equal(model(ids).last_hidden_state, spelt_out.last_hidden_state)


def test_padding_changes_nothing_for_the_tokens_before_it():
    model, ids = tiny_model(), tiny_inputs()["input_ids"]
    padded = torch.nn.functional.pad(ids, (0, 5))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 5))
    actual = model(padded, attention_mask=mask).last_hidden_state[:, :7]
    torch.testing.assert_close(actual, model(ids).last_hidden_state)


def test_a_sequence_that_is_padding_alone_stays_finite():
    outputs = tiny_model()(**{**tiny_inputs(), "attention_mask": torch.zeros(2, 7)})
    assert outputs.last_hidden_state.isfinite().all()


@pytest.mark.parametrize("shape", [(7,), (2, 6), (2, 7, 6), (2, 1, 1, 7, 7)])
def test_a_mask_of_another_shape_is_refused_with_the_shapes_that_are_not(shape):
    with pytest.raises(ValueError, match=r"attention_mask must be \[batch, 7\].*found \[" + str(shape[0])):
        tiny_model()(**{**tiny_inputs(), "attention_mask": torch.ones(shape)})


def test_word_embeddings_can_be_given_in_place_of_ids():
    model, inputs = tiny_model(), tiny_inputs()
    expected = model(**inputs)
    embedded = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.equal(model(**inputs, inputs_embeds=embedded).last_hidden_state, expected.last_hidden_state)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(**inputs)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(torch.ones(2, 7, dtype=torch.long), inputs_embeds=embedded)


# Outputs.


@every_class
def test_return_dict_false_gives_the_same_outputs_as_a_tuple(model_class):
    model, inputs = tiny_model(model_class, use_cache=False), inputs_for(model_class)
    options = {"output_attentions": True, "output_hidden_states": True}
    by_name = model(**inputs, **options)
    as_tuple = model(**inputs, **options, return_dict=False)
    assert type(as_tuple) is tuple
    expected = [value for value in by_name.values() if value is not None]
    assert len(as_tuple) == len(expected)
    torch.testing.assert_close(as_tuple, tuple(expected), rtol=0, atol=0)
    model.config.return_dict = False
    assert type(model(**inputs)) is tuple


@every_class
def test_hidden_states_and_attentions_come_on_request_or_by_the_config(model_class):
    model, inputs = tiny_model(model_class), inputs_for(model_class)
    plain = model(**inputs)
    assert plain.hidden_states is None and plain.attentions is None
    model = eager_model(model_class)  # as in every model, transformers refuses this field for "sdpa"
    model.config.output_hidden_states = model.config.output_attentions = True
    full = model(**inputs)
    rows = inputs["input_ids"].flatten(0, -2).shape[0]
    assert [tuple(one.shape) for one in full.hidden_states] == [(rows, 7, 12)] * 3
    assert [tuple(one.shape) for one in full.attentions] == [(rows, 2, 7, 7)] * 2


def test_an_argument_that_no_nezha_takes_is_refused_by_name():
    with pytest.raises(TypeError, match="head_mask"):
        tiny_model(nezha.NezhaForMaskedLM)(**tiny_inputs(), head_mask=None)


def test_feed_forward_in_chunks_changes_nothing():
    expected = tiny_model()(**tiny_inputs()).last_hidden_state
    torch.testing.assert_close(tiny_model(chunk_size_feed_forward=1)(**tiny_inputs()).last_hidden_state, expected)


def test_the_model_compiles_without_a_graph_break():
    model, inputs = tiny_model(nezha.NezhaForMaskedLM), tiny_inputs()
    expected = model(**inputs, output_attentions=True)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs, output_attentions=True)
    torch.testing.assert_close(compiled.logits, expected.logits)
    torch.testing.assert_close(compiled.attentions, expected.attentions)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_model_takes_any_batch_and_any_length(strict):
    model, inputs = tiny_model(nezha.NezhaForMaskedLM), tiny_inputs()
    batch, length = torch.export.Dim("batch", min=1, max=100), torch.export.Dim("length", min=2, max=2000)
    shapes = {name: {0: batch, 1: length} for name in inputs}
    exported = torch.export.export(model, (), inputs, dynamic_shapes=shapes, strict=strict).module()
    for size in ({"length": 250, "batch": 3}, {"length": 5, "batch": 1}):
        torch.testing.assert_close(exported(**tiny_inputs(**size)).logits, model(**tiny_inputs(**size)).logits)


def test_a_model_compiled_for_any_length_is_compiled_once_a_form():
    """For inference, longer sequences call the long form; with gradients, the reference form serves every length."""
    model, graphs = tiny_model(), []

    def count(graph, example):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=count)
    for with_gradients, forms in ((False, [0, 2]), (True, [0])):
        graphs.clear()
        for size in ({"length": 7, "batch": 2}, {"length": 40}, {"length": 250, "batch": 3}, {"length": 300}):
            with torch.set_grad_enabled(with_gradients):
                inputs = tiny_inputs(**size)
                actual = compiled(**inputs).last_hidden_state
                torch.testing.assert_close(actual, model(**inputs).last_hidden_state)
        assert [sum("long_form" in node for node in nodes) for nodes in graphs] == forms


def test_a_compiled_model_in_half_precision_is_the_plain_one():
    model, inputs = tiny_model().to(torch.bfloat16), tiny_inputs(length=250)
    with torch.inference_mode():
        actual = torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs).last_hidden_state
        torch.testing.assert_close(actual, model(**inputs).last_hidden_state, rtol=0, atol=0.05)


def test_a_compiled_model_trains_as_the_plain_one_does():
    plain = tiny_model(nezha.NezhaForMaskedLM, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    compiled = copy.deepcopy(plain)
    compiled.forward = torch.compile(compiled.forward, fullgraph=True, backend="aot_eager")
    inputs = inputs_for(nezha.NezhaForMaskedLM)
    torch.testing.assert_close(gradients(compiled, inputs), gradients(plain, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [7, 200])
def test_a_model_can_be_traced(length):
    model, inputs = tiny_model(), tiny_inputs(length)
    model.config.return_dict = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (inputs["input_ids"], inputs["attention_mask"]), strict=False)
    actual = traced(inputs["input_ids"], inputs["attention_mask"])[0]
    torch.testing.assert_close(actual, model(inputs["input_ids"], inputs["attention_mask"])[0])


@pytest.mark.parametrize("length", [7, 200])
@pytest.mark.parametrize("mask", ["keys", "queries and keys", "nothing"])
def test_the_fast_forms_and_the_reference_give_one_model(length, mask):
    inputs = tiny_inputs(length)
    square = torch.ones(length, length).tril().expand(2, length, length)
    inputs["attention_mask"] = {"keys": inputs["attention_mask"], "queries and keys": square}.get(
        mask, torch.zeros(2, length)
    )
    fast, reference = tiny_model(), eager_model()
    torch.testing.assert_close(fast(**inputs).last_hidden_state, reference(**inputs).last_hidden_state)
    assert torch.equal(fast(**inputs, output_attentions=True).last_hidden_state, reference(**inputs).last_hidden_state)


# Losses.


def logsumexp_loss(logits, labels, ignored=-100):
    """Cross entropy, a mean over the labels that count."""
    losses = [
        math.log(sum(math.exp(one) for one in row)) - row[label]
        for row, label in zip(logits.flatten(0, -2).tolist(), labels.flatten().tolist(), strict=True)
        if label != ignored
    ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    "model_class",
    [
        nezha.NezhaForMaskedLM,
        nezha.NezhaForNextSentencePrediction,
        nezha.NezhaForSequenceClassification,
        nezha.NezhaForMultipleChoice,
        nezha.NezhaForTokenClassification,
    ],
    ids=lambda one: one.__name__,
)
def test_the_loss_is_the_mean_cross_entropy_of_the_labels_that_count(model_class):
    inputs = inputs_for(model_class)
    if inputs["labels"].dim() == 2:
        inputs["labels"] = inputs["labels"].masked_fill(inputs["attention_mask"] == 0, -100)
    outputs = tiny_model(model_class)(**inputs)
    assert outputs.loss.item() == pytest.approx(logsumexp_loss(outputs.logits, inputs["labels"]), rel=1e-5)


def test_the_loss_of_pretraining_is_the_sum_of_both_and_takes_both_labels():
    model, inputs = tiny_model(nezha.NezhaForPreTraining), inputs_for(nezha.NezhaForPreTraining)
    outputs = model(**inputs)
    words = logsumexp_loss(outputs.prediction_logits, inputs["labels"])
    order = logsumexp_loss(outputs.seq_relationship_logits, inputs["next_sentence_label"])
    assert outputs.loss.item() == pytest.approx(words + order, rel=1e-5)
    assert model(**{**inputs, "next_sentence_label": None}).loss is None
    assert model(**{**inputs, "labels": None}).loss is None


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem_type"),
    [
        (1, torch.tensor([0.5, -1.0]), "regression"),
        (1, torch.tensor([[1], [2]]), "regression"),
        (3, torch.tensor([2, 0]), "single_label_classification"),
        (3, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), "multi_label_classification"),
    ],
)
def test_the_labels_decide_which_problem_a_sequence_classifier_solves(num_labels, labels, problem_type):
    model = tiny_model(nezha.NezhaForSequenceClassification, num_labels=num_labels)
    outputs = model(**tiny_inputs(), labels=labels)
    assert model.config.problem_type == problem_type
    logits = outputs.logits.detach()
    expected = {
        "regression": lambda: ((logits.flatten() - labels.flatten()) ** 2).mean().item(),
        "single_label_classification": lambda: logsumexp_loss(logits, labels),
        "multi_label_classification": lambda: (
            -(labels * logits.sigmoid().log() + (1 - labels) * (-logits).sigmoid().log()).mean().item()
        ),
    }
    assert outputs.loss.item() == pytest.approx(expected[problem_type](), rel=1e-5)


def test_a_problem_type_in_the_config_decides_over_the_labels():
    model = tiny_model(nezha.NezhaForSequenceClassification, problem_type="regression", num_labels=3)
    labels = torch.tensor([[1, 0, 1], [0, 0, 1]])
    outputs = model(**tiny_inputs(), labels=labels)
    assert outputs.loss.item() == pytest.approx(((outputs.logits - labels) ** 2).mean().item(), rel=1e-5)


def test_an_answer_beyond_the_sequence_does_not_count():
    model, inputs = tiny_model(nezha.NezhaForQuestionAnswering), tiny_inputs()
    outputs = model(**inputs, start_positions=torch.tensor([1, 99]), end_positions=torch.tensor([[-3], [4]]))
    start = logsumexp_loss(outputs.start_logits[:1], torch.tensor([1]))
    end = logsumexp_loss(outputs.end_logits, torch.tensor([0, 4]))
    assert outputs.loss.item() == pytest.approx((start + end) / 2, rel=1e-5)
    assert model(**inputs, start_positions=torch.tensor([1, 2])).loss is None


def test_multiple_choice_scores_each_choice_as_a_sequence_of_its_own():
    model, inputs = tiny_model(nezha.NezhaForMultipleChoice), inputs_for(nezha.NezhaForMultipleChoice)
    inputs.pop("labels")
    together = model(**inputs).logits
    apart = [model(**{name: tensor[:, i : i + 1] for name, tensor in inputs.items()}).logits for i in range(2)]
    torch.testing.assert_close(together, torch.cat(apart, dim=1))


# Training.


def gradients(model, inputs, seed=0):
    model.train()
    torch.manual_seed(seed)
    model(**inputs).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")  # its new name is not in 4.x
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("model_class", [one for one in AUTO_CLASSES if one is not nezha.NezhaModel])
def test_gradient_checkpointing_changes_no_gradient(model_class, use_reentrant):
    length = 200 if model_class is nezha.NezhaForTokenClassification else 7
    plain, inputs = tiny_model(model_class), inputs_for(model_class, length=length)
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    assert all(layer.gradient_checkpointing for layer in checkpointed.nezha.encoder.layer)
    expected = gradients(plain, inputs)
    actual = gradients(checkpointed, inputs)
    assert len(expected) > 30
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@every_class
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(model_class, dtype):
    inputs = inputs_for(model_class)
    inputs = {name: tensor for name, tensor in inputs.items() if name in tiny_inputs()}
    exact, half = (tiny_model(model_class).to(one)(**inputs)[0] for one in (torch.float32, dtype))
    assert half.dtype == dtype
    assert relative_error(half, exact) < (0.02 if dtype == torch.float16 else 0.15)


def test_training_drops_attention_and_evaluation_does_not():
    model, inputs = tiny_model(attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0), tiny_inputs()
    inputs.pop("attention_mask")
    assert (model(**inputs, output_attentions=True).attentions[0] > 0).all()
    dropped = model.train()(**inputs, output_attentions=True).attentions[0] == 0
    assert 0.2 < dropped.float().mean() < 0.8


def test_the_padding_row_takes_no_gradient():
    model, inputs = tiny_model(), tiny_inputs()
    inputs["input_ids"][0, 2] = 0
    model(**inputs).last_hidden_state.sum().backward()
    assert not model.get_input_embeddings().weight.grad[0].any()


# Tied, untied and resized embeddings.


@pytest.mark.parametrize("model_class", WITH_PREDICTIONS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("tied", [True, False])
def test_tying_is_as_the_config_says_and_survives_saving(model_class, tied, tmp_path):
    model = tiny_model(model_class, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert ("cls.predictions.decoder.weight" in saved) == (not tied)
    assert "cls.predictions.decoder.bias" not in saved and "cls.predictions.bias" in saved
    read, loading = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    for one in (model, read.eval()):
        predictions = one.cls.predictions
        assert (predictions.decoder.weight is one.get_input_embeddings().weight) == tied
    assert torch.equal(model(**tiny_inputs())[0], read(**tiny_inputs())[0])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [37, 30, 21])
def test_resizing_the_vocabulary_keeps_old_scores_and_lets_the_bias_follow(tied, size, tmp_path):
    model = tiny_model(nezha.NezhaForMaskedLM, tie_word_embeddings=tied)
    inputs = tiny_inputs(vocab_size=20)
    before = model(**inputs).logits
    model.resize_token_embeddings(size)
    predictions = model.cls.predictions
    assert model.config.vocab_size == size == len(predictions.bias)
    assert predictions.decoder.bias is None
    assert (predictions.decoder.weight is model.get_input_embeddings().weight) == tied
    after = model(**inputs).logits
    assert after.shape[-1] == size
    common = min(size, 30)
    torch.testing.assert_close(after[..., :common], before[..., :common])

    model.save_pretrained(tmp_path)
    read = nezha.NezhaForMaskedLM.from_pretrained(tmp_path).eval()
    assert torch.equal(read(**inputs).logits, after)


def test_a_new_output_layer_brings_its_own_bias():
    model = tiny_model(nezha.NezhaForMaskedLM, tie_word_embeddings=False)
    layer = torch.nn.Linear(12, 30)
    bias = layer.bias
    model.set_output_embeddings(layer)
    assert model.get_output_embeddings() is layer
    assert model.cls.predictions.bias is bias
    assert layer.bias is None  # it is added once


# Loading and saving.


@every_class
def test_a_model_comes_back_from_its_own_file_padding_row_and_all(model_class, tmp_path):
    model = tiny_model(model_class)
    assert model.get_input_embeddings().weight[0].any()
    model.save_pretrained(tmp_path)
    read, loading = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    expected = model.state_dict()
    assert read.state_dict().keys() == expected.keys()
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@every_class
def test_no_model_has_a_buffer_that_loading_by_way_of_the_meta_device_would_lose(model_class):
    assert not list(tiny_model(model_class).buffers())


@every_class
def test_an_encoder_gives_its_weights_to_every_head_and_the_head_is_new(model_class, tmp_path):
    encoder = tiny_model()
    encoder.save_pretrained(tmp_path)
    model = model_class.from_pretrained(tmp_path)
    inner = model if model_class is nezha.NezhaModel else model.nezha
    for name, tensor in inner.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[name]), name
    assert not any(parameter.is_meta for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        if name.startswith(("cls", "classifier", "qa_outputs")) and name.endswith("bias"):
            assert not parameter.any(), name
    if model_class in WITH_PREDICTIONS:
        assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight


@every_class
def test_the_auto_classes_know_every_model(model_class, tmp_path):
    tiny_model(model_class).save_pretrained(tmp_path)
    assert type(AUTO_CLASSES[model_class].from_pretrained(tmp_path)) is model_class
    assert type(transformers.AutoConfig.from_pretrained(tmp_path)) is nezha.NezhaConfig


def test_the_auto_tokenizer_gives_a_bert_tokenizer(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "华", "为"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(tokenizer, (transformers.BertTokenizer, transformers.BertTokenizerFast))
    assert tokenizer("华为").input_ids == [2, 5, 6, 3]


def test_sdpa_is_the_default_and_eager_the_reference(monkeypatch):
    used = []
    for name in ("relative_attention", "fast_relative_attention"):
        original = getattr(attention_nezha, name)
        monkeypatch.setattr(
            attention_nezha, name, lambda *args, _name=name, _original=original, **options: (
                used.append(_name), _original(*args, **options)
            )[1],
        )  # fmt: skip
    assert tiny_model().config._attn_implementation == "sdpa"
    model = nezha.NezhaModel._from_config(tiny_config(num_hidden_layers=1), attn_implementation="eager")
    assert model.config._attn_implementation == "eager"
    model.eval()(**tiny_inputs())
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("sdpa")
    else:  # transformers 4.52
        model.config._attn_implementation = "sdpa"
    model(**tiny_inputs())
    model(**tiny_inputs(), output_attentions=True)
    assert used == ["relative_attention", "fast_relative_attention", "relative_attention"]


# Other interpreters and other releases.

SHIPPED = [ROOT / "nezha" / f"{name}_nezha.py" for name in ("configuration", "attention", "modeling")]

REMOTE_CODE = """
import shutil, sys, torch, transformers
sys.modules["nezha"] = None  # as if the package were not installed: importing it fails
folder, out = sys.argv[1:]
model, loading = transformers.AutoModelForMaskedLM.from_pretrained(
    folder, trust_remote_code=True, output_loading_info=True)
assert "transformers_modules" in type(model).__module__, type(model)
assert not any(loading.values()), loading
predictions = model.cls.predictions
assert predictions.decoder.weight is model.get_input_embeddings().weight
inputs = torch.load(out)
logits = model.eval()(**inputs).logits
model.save_pretrained(folder + "/again")
if transformers.__version__.startswith("4.52."):  # it saves a model without its code
    for name in ("attention_nezha.py", "configuration_nezha.py", "modeling_nezha.py"):
        shutil.copy(folder + "/" + name, folder + "/again")
again = transformers.AutoModelForMaskedLM.from_pretrained(folder + "/again", trust_remote_code=True).eval()
assert torch.equal(again(**inputs).logits, logits)
encoder = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)
assert type(encoder).__name__ == "NezhaModel"
torch.save(logits.detach(), out)
"""

GOLDENS = """
import json, pathlib, sys, numpy, torch, transformers, nezha
assert transformers.__version__ == sys.argv[1]
worst = 0.0
for folder in map(pathlib.Path, sys.argv[2:]):
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    auto = name.replace("Nezha", "Auto" if name == "NezhaModel" else "AutoModel")
    model, loading = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    assert type(model) is getattr(nezha, name), type(model)
    assert not any(loading.values()), loading
    if hasattr(getattr(model, "cls", None), "predictions"):
        assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    arrays = numpy.load(folder / "expected.npz")
    for case in {key.split("/")[0] for key in arrays}:
        named = {key.split("/")[1]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith(case + "/")}
        with torch.no_grad():
            outputs = model.eval()(**{name: one for name, one in named.items() if not one.is_floating_point()})
        for name in outputs.keys() & named.keys():
            spread = (named[name].max() - named[name].min()).item() or named[name].abs().item()
            worst = max(worst, (outputs[name] - named[name]).abs().max().item() / spread)
print(worst)
"""


def test_the_files_alone_load_as_remote_code_where_the_package_is_not_installed(tmp_path):
    folder, out = tmp_path / "model", tmp_path / "tensors.pt"
    model, inputs = tiny_model(nezha.NezhaForMaskedLM), tiny_inputs()
    model.save_pretrained(folder)
    for source in SHIPPED:
        shutil.copy(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_nezha.NezhaConfig",
        **{auto.__name__: f"modeling_nezha.{one.__name__}" for one, auto in AUTO_CLASSES.items()},
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(inputs, out)
    upstream.run_python(REMOTE_CODE, str(folder), str(out), warm=True)
    assert torch.equal(torch.load(out), model(**inputs).logits)


def test_the_files_import_torch_transformers_and_each_other_and_nothing_else():
    allowed = (
        "torch",
        "transformers",
        "__future__",
        "collections.abc",
        "copy",
        "dataclasses",
        "sys",
        "typing",
        "zlib",
        ".attention_nezha",
        ".configuration_nezha",
    )
    for source in SHIPPED:
        for line in source.read_text().splitlines():
            if line.startswith(("import ", "from ")):
                assert line.split()[1].startswith(allowed), f"{source.name}: {line}"


@pytest.mark.parametrize("release", [first for first, _ in TRANSFORMERS])
def test_an_older_release_gives_the_goldens_too_and_uses_our_class_over_its_own(release):
    if Version(transformers.__version__) == Version(release):
        pytest.skip("this is the installed release, which the tests above run on")
    try:
        printed = upstream.run_isolated(release, GOLDENS, release, *map(str, FIXTURES), path=ROOT)
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    assert float(printed.split()[-1]) < TOLERANCE


def test_peft_is_told_which_modules_to_adapt_and_is_not_imported(monkeypatch):
    constants = ModuleType("peft.utils.constants")
    constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING = {"bert": ["query", "value"], "t5": ["q", "v"]}
    constants.TRANSFORMERS_MODELS_TO_OFT_TARGET_MODULES_MAPPING = {"bert": ["query"], "nezha": ["key"]}
    constants.TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING = {"t5": ["q"]}
    monkeypatch.setitem(sys.modules, "peft.utils.constants", constants)
    model = tiny_model()
    lora = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING["nezha"]
    assert {name.rpartition(".")[2] for name, _ in model.named_modules()} >= {*lora} == {"query", "value"}
    assert constants.TRANSFORMERS_MODELS_TO_OFT_TARGET_MODULES_MAPPING["nezha"] == ["key"]  # PEFT's own stays
    assert "nezha" not in constants.TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING
    monkeypatch.delitem(sys.modules, "peft.utils.constants")
    tiny_model()
    assert "peft" not in sys.modules


def test_the_encoder_is_a_text_encoder_too(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    assert type(transformers.AutoModelForTextEncoding.from_pretrained(tmp_path)) is nezha.NezhaModel
