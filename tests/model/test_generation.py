"""NEZHA that generates: causal and prefix attention, keys and values that are kept, padding, segments, losses."""

from __future__ import annotations

import inspect
import json
import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import upstream
from goldens import FIXTURES
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

import nezha
from nezha import attention_nezha, modeling_nezha
from nezha_convert import convert
from nezha_convert.releases import TRANSFORMERS

ROOT = Path(__file__).parents[2]
GOLDEN = FIXTURES / "transformers-4.40.2-causal-lm"
TOLERANCE = 3e-5
PROMPT, GENERATED = 8, 24
CLOSE = {"rtol": 0, "atol": 2e-5}

prefix_or_not = pytest.mark.parametrize("prefix", [False, True], ids=["causal", "prefix"])


def tiny(prefix: bool = False, seed: int = 0, **given: object) -> nezha.NezhaForCausalLM:
    """A model with random weights, whose scores differ from word to word."""
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 40, "max_relative_position": 4, "eos_token_id": None}
    config = nezha.NezhaConfig(**{**sizes, "is_decoder": True, "prefix_lm": prefix, **given})
    model = nezha.NezhaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def prompts(batch: int = 3, length: int = 9) -> dict[str, torch.Tensor]:
    """Rows of several lengths, with their padding in front, and two segments."""
    ids = torch.randint(1, 40, (batch, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    for row in range(batch):
        mask[row, : 3 * row] = 0
    types = (torch.arange(length) >= 7).long().expand(batch, length)
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types * mask}


def generated(model: nezha.NezhaForCausalLM, **given: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Words that are never repeated, so that they differ from each other; and the scores of each step [B, steps, V]."""
    options = {"max_new_tokens": 12, "no_repeat_ngram_size": 1, "do_sample": False}
    out = model.generate(**{**options, **given}, output_logits=True, return_dict_in_generate=True)
    return out.sequences[:, -len(out.logits) :], torch.stack(out.logits, 1)


def golden(case: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "expected.npz") as arrays:
        return {k.split("/")[1]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith(f"{case}/")}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal") / "out"
    assert convert(GOLDEN, folder).head == "causal-lm"
    return folder


# What transformers 4.40.2 computed.


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_text_is_the_one_that_4_40_2_scores_highest(converted: Path, use_cache: bool) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(converted).eval()
    assert type(model) is nezha.NezhaForCausalLM
    expected = golden("greedy")
    model.generation_config.eos_token_id = None
    found, scores = generated(
        model, inputs=expected["input_ids"][:, :PROMPT], max_new_tokens=GENERATED, use_cache=use_cache
    )
    assert torch.equal(found, expected["input_ids"][:, PROMPT:])
    recorded = expected["logits"][:, PROMPT - 1 : -1]
    assert (scores - recorded).abs().max() <= TOLERANCE * (recorded.max() - recorded.min())


@pytest.mark.parametrize("case", ["short", "clipped"])
@pytest.mark.parametrize("pieces", [(1,), (5, 1), (4, 4)], ids=str)
def test_scores_in_pieces_are_those_of_4_40_2(converted: Path, case: str, pieces: tuple[int, ...]) -> None:
    model = nezha.NezhaForCausalLM.from_pretrained(converted).eval()
    expected = golden(case)
    found = in_pieces(model, pieces, **{k: v for k, v in expected.items() if k != "logits"})
    seen = expected["attention_mask"].bool()
    spread = expected["logits"].max() - expected["logits"].min()
    assert (found - expected["logits"])[seen].abs().max() <= TOLERANCE * spread


def in_pieces(
    model: nezha.NezhaForCausalLM,
    pieces: tuple[int, ...],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor,
) -> torch.Tensor:
    """The scores of a batch that is given a few tokens at a time; the last number of `pieces` repeats itself."""
    cache, scores, done = None, [], 0
    while done < input_ids.shape[1]:
        size = pieces[min(len(scores), len(pieces) - 1)]
        now = slice(done, done + size)
        with torch.inference_mode():
            out = model(
                input_ids[:, now], attention_mask[:, : done + size], token_type_ids[:, now], past_key_values=cache
            )
        cache, done = out.past_key_values, done + size
        scores.append(out.logits)
    return torch.cat(scores, 1)


# Keys and values that are kept.


@prefix_or_not
@pytest.mark.parametrize("types", ["given", "none", "of the reply", "of each reply"])
def test_with_and_without_a_cache_the_text_is_the_same_token_by_token(prefix: bool, types: str) -> None:
    model, inputs = tiny(prefix), prompts()
    if types == "none" or prefix:
        inputs["token_type_ids"] *= 0
    if types == "none":
        del inputs["token_type_ids"]
    more = {"of the reply": {"generated_token_type_id": 1}}.get(types, {})
    if types == "of each reply":
        more = {"generated_token_type_id": torch.tensor([[1], [1 if prefix else 0], [1]])}
    kept, kept_scores = generated(model, **inputs, **more, use_cache=True)
    fresh, fresh_scores = generated(model, **inputs, **more, use_cache=False)
    assert torch.equal(kept, fresh)
    torch.testing.assert_close(kept_scores, fresh_scores, **CLOSE)
    assert len(set(kept[0].tolist())) == 12


@prefix_or_not
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_batch_with_padding_in_front_gives_each_row_s_own_text(prefix: bool, use_cache: bool) -> None:
    model, inputs = tiny(prefix), prompts()
    del inputs["token_type_ids"]
    # Not repeating words would count those of the padding: here the scores of a fixed text are compared, too.
    together, scores = generated(model, **inputs, use_cache=use_cache, no_repeat_ngram_size=0)
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        alone, own = generated(
            model, input_ids=inputs["input_ids"][row : row + 1, mask], use_cache=use_cache, no_repeat_ngram_size=0
        )
        assert torch.equal(together[row], alone[0])
        torch.testing.assert_close(scores[row], own[0], **CLOSE)


@prefix_or_not
def test_a_padded_row_continues_with_any_words_as_it_does_alone(prefix: bool) -> None:
    model, inputs = tiny(prefix), prompts(length=20)
    inputs["token_type_ids"] = (torch.arange(20) >= 8).long() * inputs["attention_mask"]
    together = in_pieces(model, (8, 1), **inputs)
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        alone = model(**{name: tensor[row : row + 1, mask] for name, tensor in inputs.items()}).logits
        torch.testing.assert_close(together[row : row + 1, mask], alone, **CLOSE)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("length", [6, 300])
def test_distances_count_from_the_first_kept_token(length: int, implementation: str) -> None:
    model = tiny(max_relative_position=7)
    model.config._attn_implementation = implementation
    ids = torch.randint(1, 40, (2, length), generator=torch.Generator().manual_seed(2))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": ids % 2}
    with torch.inference_mode():
        whole = model(**inputs, use_cache=False)
    assert whole.past_key_values is None
    torch.testing.assert_close(in_pieces(model, (length - 3, 1), **inputs), whole.logits, **CLOSE)


def test_distances_that_begin_anew_with_each_piece_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = tiny(), prompts()
    whole = model(**inputs).logits[0]
    right = attention_nezha.expand_relative_positions

    def wrong(table: torch.Tensor, length: int, past: int = 0) -> torch.Tensor:
        return right(table, past + length)[:length]

    monkeypatch.setattr(attention_nezha, "expand_relative_positions", wrong)
    assert (in_pieces(model, (4, 1), **inputs)[0] - whole).abs().max() > 0.1


def test_beams_keep_their_own_past() -> None:
    model, inputs = tiny(), prompts()
    one, two = (generated(model, **inputs, use_cache=kept, num_beams=3)[0] for kept in (True, False))
    assert torch.equal(one, two)


def test_embeddings_may_take_the_place_of_the_prompt() -> None:
    model, inputs = tiny(), prompts()
    expected, _ = generated(model, **inputs, no_repeat_ngram_size=0)
    ids = inputs.pop("input_ids")
    found, _ = generated(model, inputs_embeds=model.get_input_embeddings()(ids), **inputs, no_repeat_ngram_size=0)
    assert torch.equal(found, expected)


def test_attention_is_returned_for_the_kept_keys_too() -> None:
    model, inputs = tiny(), prompts(batch=1)
    whole = model(**inputs, output_attentions=True).attentions
    cache = model(**{name: tensor[:, :-2] for name, tensor in inputs.items()}).past_key_values
    rest = {"input_ids": inputs["input_ids"][:, -2:], "token_type_ids": inputs["token_type_ids"][:, -2:]}
    part = model(**rest, past_key_values=cache, output_attentions=True).attentions
    for one, other in zip(whole, part, strict=True):
        torch.testing.assert_close(other, one[:, :, -2:], **CLOSE)


# Prefixes.


def test_a_prefix_sees_itself_and_what_follows_sees_what_is_before() -> None:
    model, ids = tiny(prefix=True), torch.arange(1, 11)[None]
    types = (torch.arange(10) >= 6).long()[None]

    def changed(at: int) -> list[int]:
        """The positions whose scores change with the word at `at`."""
        other = ids.clone()
        other[0, at] = 30
        differ = (model(ids, token_type_ids=types).logits - model(other, token_type_ids=types).logits).abs().amax(-1)
        return (differ[0] > 1e-4).nonzero().flatten().tolist()

    assert changed(4) == [*range(10)]
    assert changed(7) == [7, 8, 9]


def test_a_prefix_in_several_pieces_is_refused_with_what_to_do() -> None:
    model, ids = tiny(prefix=True), torch.arange(1, 11)[None]
    cache = model(ids[:, :5]).past_key_values
    with pytest.raises(ValueError, match="Pass the whole prefix at once, and token_type_ids of 1 after it"):
        model(ids[:, 5:], past_key_values=cache)


# The class.


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_keys_and_values_may_come_by_the_name_of_any_release(name: str) -> None:
    model, ids = tiny(), torch.arange(1, 11)[None]
    before = model(ids[:, :6]).past_key_values
    torch.testing.assert_close(model(ids[:, 6:], **{name: before}).logits, model(ids).logits[:, 6:])


def test_they_go_out_by_the_name_of_this_release_which_trainer_does_not_take_for_scores() -> None:
    names = {"past_key_values", "cache"} & CausalLMOutputWithPast.__dataclass_fields__.keys()
    output = tiny()(torch.ones(1, 3, dtype=torch.long))
    assert {"past_key_values", "cache"} & output.keys() == names and len(names) == 1
    assert names <= set(nezha.NezhaConfig.keys_to_ignore_at_inference)


def test_keys_and_values_by_both_names_are_refused() -> None:
    with pytest.raises(ValueError, match="two names of one thing: not both"):
        tiny()(torch.ones(1, 3, dtype=torch.long), past_key_values=DynamicCache(), cache=DynamicCache())


def test_it_is_always_a_decoder_and_leaves_the_config_that_it_was_given_alone(tmp_path: Path) -> None:
    config = nezha.NezhaConfig(hidden_size=12, num_attention_heads=2, num_hidden_layers=1, vocab_size=9)
    model = nezha.NezhaForCausalLM(config)
    assert not config.is_decoder and model.config.is_decoder and model.nezha.config.is_decoder
    model.save_pretrained(tmp_path)
    assert nezha.NezhaModel.from_pretrained(tmp_path).config.is_decoder


def test_an_encoder_keeps_nothing() -> None:
    config = nezha.NezhaConfig(hidden_size=12, num_attention_heads=2, num_hidden_layers=1, vocab_size=9)
    encoder = nezha.NezhaModel(config).eval()
    assert encoder(torch.ones(1, 3, dtype=torch.long), use_cache=True).past_key_values is None
    with pytest.raises(ValueError, match=r"if config\.is_decoder is true, found false"):
        encoder(torch.ones(1, 3, dtype=torch.long), past_key_values=DynamicCache())


def test_a_cache_of_a_fixed_length_is_refused_in_a_sentence() -> None:
    # transformers 4.52 refuses it by itself
    ours, theirs = "such as DynamicCache, found StaticCache, whose length is fixed", "does not support .*='static'"
    with pytest.raises(ValueError, match=f"{ours}|{theirs}"):
        generated(tiny(), **prompts(), cache_implementation="static")


def test_another_model_may_guess_ahead() -> None:
    model, inputs = tiny(), prompts(batch=1)
    # transformers 4.52 guesses only where a word ends the text
    options = {**inputs, "generated_token_type_id": 1, "no_repeat_ngram_size": 0, "eos_token_id": 0}
    expected, _ = generated(model, **options)
    found, _ = generated(model, **options, prompt_lookup_num_tokens=3)
    assert expected.shape[1] == 12
    assert torch.equal(found, expected)


def test_the_loss_compares_each_score_with_the_next_word() -> None:
    model, inputs = tiny(), prompts()
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    out = model(**inputs, labels=labels)
    expected = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(out.loss, expected)
    half = model(**inputs, labels=labels, num_items_in_batch=2 * int((labels[:, 1:] != -100).sum()))
    torch.testing.assert_close(half.loss, expected / 2)
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(model(**inputs, labels=labels * 0, shift_labels=shifted).loss, expected)


@pytest.mark.parametrize("kept", [1, 3, torch.tensor([0, 4])], ids=str)
def test_only_the_scores_that_are_asked_for_are_computed(kept: int | torch.Tensor) -> None:
    model, inputs = tiny(), prompts()
    whole = model(**inputs).logits
    expected = whole[:, -kept:] if isinstance(kept, int) else whole[:, kept]
    torch.testing.assert_close(model(**inputs, logits_to_keep=kept).logits, expected, **CLOSE)


def test_training_keeps_nothing_and_checkpoints_gradients_all_the_same() -> None:
    model, inputs = tiny(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train(), prompts()
    labels = inputs["input_ids"]
    model(**inputs, labels=labels).loss.backward()
    expected = model.nezha.encoder.layer[0].attention.self.key.weight.grad.clone()
    model.zero_grad()
    model.gradient_checkpointing_enable()
    out = model(**inputs, labels=labels, use_cache=True)
    assert out.past_key_values is None
    out.loss.backward()
    torch.testing.assert_close(model.nezha.encoder.layer[0].attention.self.key.weight.grad, expected)


def test_generation_takes_what_transformers_looks_for_in_its_signature() -> None:
    names = inspect.signature(nezha.NezhaForCausalLM.prepare_inputs_for_generation).parameters
    assert {"inputs_embeds", "generated_token_type_id", "kwargs"} <= names.keys()
    assert "position_ids" not in inspect.signature(nezha.NezhaForCausalLM.forward).parameters
    assert modeling_nezha.NezhaForCausalLM.can_generate()


# Other releases.

PROGRAM = """
import json, sys
from pathlib import Path
import numpy, torch, transformers
folder, expected = Path(sys.argv[1]), numpy.load(sys.argv[2])
model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules."), type(model)
assert (model.generation_config.bos_token_id, model.generation_config.eos_token_id) == (2, 3)
ids = torch.from_numpy(expected["greedy/input_ids"])
options = {"max_new_tokens": 24, "no_repeat_ngram_size": 1, "do_sample": False}
model.generation_config.eos_token_id = None
for use_cache in (True, False):
    found = model.generate(ids[:, :8], use_cache=use_cache, **options)
    assert torch.equal(found, ids), (use_cache, found)
padded = torch.cat((torch.zeros(2, 3, dtype=torch.long), ids[:, :8]), 1)
types = torch.zeros_like(padded)
more = {"token_type_ids": types, "generated_token_type_id": 1, "num_beams": 2, "max_new_tokens": 8}
one, two = (
    model.generate(padded, attention_mask=(padded != 0).long(), use_cache=kept, **{**options, **more})
    for kept in (True, False)
)
assert torch.equal(one, two)
print(transformers.__version__)
"""


@pytest.mark.parametrize("release", list(chain.from_iterable(TRANSFORMERS)))
def test_the_folder_generates_by_its_own_code_on(release: str, converted: Path) -> None:
    if release not in (TRANSFORMERS[0][0], TRANSFORMERS[-1][-1]) and os.environ.get("NEZHA_MATRIX") != "all":
        pytest.skip("inside the range: NEZHA_MATRIX=all runs it")
    try:
        printed = upstream.run_isolated(release, PROGRAM, str(converted), str(GOLDEN / "expected.npz"))
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    assert printed.split()[-1] == release


def test_the_folder_says_that_it_generates(converted: Path) -> None:
    config = json.loads((converted / "config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_nezha.NezhaForCausalLM"
    assert (config["architectures"], config["is_decoder"]) == (["NezhaForCausalLM"], True)
