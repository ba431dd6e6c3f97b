"""The plan: every tensor used once or dropped for a reason, every target filled once, or every problem at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nezha_convert.checkpoint import TensorEntry
from nezha_convert.errors import MappingError
from nezha_convert.families import FAMILIES, HUAWEI_TF, HUAWEI_TORCH, TRANSFORMERS, TRANSFORMERS_BASE
from nezha_convert.families.heads import HEADS, NSP, POOLER, TARGETS, TIES, Head
from nezha_convert.families.rules import Family, Op, numbered
from nezha_convert.mapping.plan import Dropped, Mismatch, Plan, make_plan

CONFIG = {
    "vocab_size": 11,
    "hidden_size": 4,
    "intermediate_size": 6,
    "type_vocab_size": 2,
    "num_labels": 3,
    "num_hidden_layers": 2,
}
TIED = [tie.target for tie in TIES]
DECODER, DECODER_BIAS, BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "cls.predictions.bias"
FULL = (HUAWEI_TF, HUAWEI_TORCH, TRANSFORMERS)
HEAD = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)


def no_data(limit: int) -> Iterator[np.ndarray]:
    raise AssertionError("planning reads no tensor")


def entry(name: str, shape: tuple[int, ...], at: int = 0) -> TensorEntry:
    return TensorEntry(name, "float32", shape, 4 * int(np.prod(shape, dtype=int)), no_data, (0, at))


def checkpoint(
    table: Family, head: Head, config: Mapping[str, int] = CONFIG, tied: bool = False
) -> dict[str, TensorEntry]:
    """All tensors of `head` by `table`'s own names; the tied ones only if `tied`."""
    back = table.inverse()
    found: dict[str, TensorEntry] = {}
    for part in head.parts:
        for name in numbered(TARGETS[part], config["num_hidden_layers"]):
            match = back.match(name)
            if match is None or (name in TIED and not tied):
                continue
            pattern = name
            for layer in range(config["num_hidden_layers"]):
                pattern = pattern.replace(f".layer.{layer}.", ".layer.{i}.")
            shape = tuple(config[dim] if isinstance(dim, str) else dim for dim in TARGETS[part][pattern])
            if match.rule.op is Op.TRANSPOSE:
                shape = shape[::-1]
            found[match.rule.target] = entry(match.rule.target, shape, 1000 - len(found))
    return found


def ends_of(plan: Plan) -> Counter[str]:
    """How often each source name ends somewhere; a collision's names count once, wherever else they are."""
    colliding = {name for _, names in plan.collisions for name in names}
    used = {step.entry.name for step in plan.steps} | {mismatch.source for mismatch in plan.mismatched}
    beside = (*(dropped.name for dropped in plan.dropped), *(kept.entry.name for kept in plan.kept))
    return Counter([*colliding, *(used - colliding), *beside, *plan.unmatched])


def wanted(head: Head, layers: int = 2) -> list[str]:
    names = numbered([name for part in head.parts for name in TARGETS[part]], layers)
    return [name.removeprefix("nezha.") for name in names] if head.name == "encoder" else names


# Plans that can be carried out


@HEAD
@pytest.mark.parametrize("table", FULL, ids=lambda table: table.name)
def test_a_whole_checkpoint_fills_every_target_of_its_head_once(table: Family, head: Head) -> None:
    source = checkpoint(table, head)
    plan = make_plan(table, head, source, CONFIG)
    assert plan.ok
    plan.check()
    assert Counter(step.target for step in plan.steps) == Counter(set(wanted(head)) - set(TIED))
    assert Counter(step.entry.name for step in plan.steps) == Counter(source.keys())
    assert plan.dropped == ()
    assert [tie.target for tie in plan.tied] == [name for name in TIED if name in wanted(head)]


@HEAD
@pytest.mark.parametrize("table", FULL, ids=lambda table: table.name)
def test_steps_carry_the_targets_shape_and_the_rules_operation(table: Family, head: Head) -> None:
    for step in make_plan(table, head, checkpoint(table, head), CONFIG).steps:
        assert step.shape == (step.entry.shape[::-1] if step.op is Op.TRANSPOSE else step.entry.shape)
        assert (step.op is Op.TRANSPOSE) == step.entry.name.endswith("/kernel")


def test_the_model_without_a_head_converts_to_itself() -> None:
    source = checkpoint(TRANSFORMERS_BASE, HEADS["encoder"])
    plan = make_plan(TRANSFORMERS_BASE, HEADS["encoder"], source, CONFIG)
    assert plan.ok
    assert {step.target: step.entry.name for step in plan.steps} == {name: name for name in source}


@pytest.mark.parametrize("layers", [0, 1, 3, 12, 24])
def test_any_number_of_layers_is_planned(layers: int) -> None:
    config = CONFIG | {"num_hidden_layers": layers}
    plan = make_plan(HUAWEI_TF, HEADS["encoder"], checkpoint(HUAWEI_TF, HEADS["encoder"], config), config)
    assert plan.ok
    assert len(plan.steps) == 4 + 16 * layers + 2


# What is left out, and why


@pytest.mark.parametrize("table", FULL, ids=lambda table: table.name)
def test_what_the_head_does_not_have_is_kept_beside_the_model(table: Family) -> None:
    source = checkpoint(table, HEADS["pretraining"])
    plan = make_plan(table, HEADS["masked-lm"], source, CONFIG)
    assert plan.ok
    assert not plan.dropped
    assert len(plan.kept) == 4
    assert {match.part for step in plan.kept if (match := table.match(step.target))} == {POOLER, NSP}
    assert all(step.entry is source[step.target] for step in plan.kept)


def test_training_state_is_dropped_with_its_reason_and_its_size() -> None:
    source = checkpoint(HUAWEI_TF, HEADS["encoder"])
    slots = {
        f"{name}/{slot}": entry(f"{name}/{slot}", e.shape)
        for name, e in source.items()
        for slot in ("adam_m", "adam_v")
    }
    plan = make_plan(HUAWEI_TF, HEADS["encoder"], source | slots | {"global_step": entry("global_step", ())}, CONFIG)
    assert plan.ok
    assert len(plan.steps) == len(source)
    assert sum(d.nbytes for d in plan.dropped if d.optimizer) == 2 * sum(e.nbytes for e in source.values())
    assert plan.dropped[-1] == Dropped("global_step", 4, "the training's step counter")
    assert {dropped.reason for dropped in plan.dropped[:-1]} == {"Adam's first moment", "Adam's second moment"}


def test_an_equal_decoder_is_dropped_for_the_tie() -> None:
    source = checkpoint(TRANSFORMERS, HEADS["masked-lm"], tied=True)
    plan = make_plan(TRANSFORMERS, HEADS["masked-lm"], source, CONFIG)
    assert plan.ok
    assert {dropped.name: dropped.reason for dropped in plan.dropped} == {
        DECODER: "equal to nezha.embeddings.word_embeddings.weight, to which it is tied",
        DECODER_BIAS: "equal to cls.predictions.bias, to which it is tied",
    }
    assert plan.tied == TIES


def test_an_untied_decoder_is_written() -> None:
    source = checkpoint(TRANSFORMERS, HEADS["masked-lm"], tied=True)
    plan = make_plan(TRANSFORMERS, HEADS["masked-lm"], source, CONFIG, untied=True)
    assert plan.ok
    assert plan.tied == plan.dropped == ()
    assert {step.target for step in plan.steps} == set(wanted(HEADS["masked-lm"]))


@pytest.mark.parametrize("present", [BIAS, DECODER_BIAS])
def test_an_untied_decoder_with_one_bias_has_it_twice(present: str) -> None:
    source = checkpoint(TRANSFORMERS, HEADS["masked-lm"], tied=True)
    del source[{BIAS: DECODER_BIAS, DECODER_BIAS: BIAS}[present]]
    plan = make_plan(TRANSFORMERS, HEADS["masked-lm"], source, CONFIG, untied=True)
    assert plan.ok
    assert {s.target: s.entry.name for s in plan.steps if s.target in (BIAS, DECODER_BIAS)} == {
        BIAS: present,
        DECODER_BIAS: present,
    }


def test_an_untied_decoder_without_a_bias_lacks_both() -> None:
    source = checkpoint(TRANSFORMERS, HEADS["masked-lm"], tied=True)
    del source[BIAS], source[DECODER_BIAS]
    assert make_plan(TRANSFORMERS, HEADS["masked-lm"], source, CONFIG, untied=True).missing == (BIAS, DECODER_BIAS)


def test_an_untied_decoder_that_is_not_there_is_missing() -> None:
    source = checkpoint(TRANSFORMERS, HEADS["masked-lm"])
    assert make_plan(TRANSFORMERS, HEADS["masked-lm"], source, CONFIG, untied=True).missing == (DECODER,)


def test_a_tie_whose_source_is_missing_does_not_hide_that() -> None:
    source = checkpoint(TRANSFORMERS, HEADS["masked-lm"], tied=True)
    del source[BIAS]
    assert make_plan(TRANSFORMERS, HEADS["masked-lm"], source, CONFIG).missing == (BIAS,)


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("table", [*FULL, TRANSFORMERS_BASE], ids=lambda table: str(len(table.backbone)) + table.title)
def test_the_encoder_converts_from_a_checkpoint_whose_head_is_unknown(table: Family, wrapper: str) -> None:
    if wrapper and not table.wrappers:
        wrapper = ""
    source = {wrapper + name: entry(wrapper + name, e.shape) for name, e in checkpoint(table, HEADS["encoder"]).items()}
    head = ["lstm.weight_ih_l0", "slot_classifier.bias", "my_head/kernel"]
    plan = make_plan(table, HEADS["encoder"], source | {wrapper + n: entry(wrapper + n, (9,)) for n in head}, CONFIG)
    assert plan.ok
    assert [kept.target for kept in plan.kept] == [wrapper + name for name in head]
    assert not plan.dropped


def test_what_is_asked_to_be_dropped_is_dropped_by_its_glob() -> None:
    source = checkpoint(HUAWEI_TORCH, HEADS["encoder"]) | {n: entry(n, (9,)) for n in ("crf.a", "crf.b", "lstm.a")}
    plan = make_plan(HUAWEI_TORCH, HEADS["encoder"], source, CONFIG, drop=["crf.*"])
    assert plan.ok
    assert [kept.target for kept in plan.kept] == ["lstm.a"]
    assert {d.name: d.reason for d in plan.dropped} == dict.fromkeys(("crf.a", "crf.b"), "asked for: --drop crf.*")


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize(
    "table, name",
    [
        (HUAWEI_TF, "bert/encoder/layer_0/adapter/kernel"),
        (HUAWEI_TORCH, "bert.encoder.layer.0.adapter.weight"),
        (TRANSFORMERS, "nezha.encoder.layer.0.adapter.weight"),
        (TRANSFORMERS_BASE, "encoder.layer.0.adapter.weight"),
    ],
)
def test_an_unknown_tensor_inside_the_encoder_is_never_dropped(table: Family, name: str, wrapper: str) -> None:
    if not table.wrappers:
        wrapper = ""
    source = {wrapper + n: entry(wrapper + n, e.shape) for n, e in checkpoint(table, HEADS["encoder"]).items()}
    plan = make_plan(table, HEADS["encoder"], source | {wrapper + name: entry(wrapper + name, (4,))}, CONFIG)
    assert plan.unmatched == (wrapper + name,)
    assert not plan.ok


def test_an_unknown_tensor_beside_a_model_with_a_head_is_kept() -> None:
    source = checkpoint(HUAWEI_TORCH, HEADS["question-answering"]) | {"lstm.weight": entry("lstm.weight", (9,))}
    plan = make_plan(HUAWEI_TORCH, HEADS["question-answering"], source, CONFIG)
    assert plan.ok
    assert "lstm.weight" in [kept.target for kept in plan.kept]


# Plans that cannot


def test_every_problem_is_told_at_once() -> None:
    source = checkpoint(HUAWEI_TORCH, HEADS["sequence-classification"])
    del source["bert.pooler.dense.bias"]
    source["bert.encoder.layer.0.output.LayerNorm.gamma"] = entry("bert.encoder.layer.0.output.LayerNorm.gamma", (4,))
    surprise = "bert.encoder.layer.0.surprise"
    source[surprise] = entry(surprise, (4,))
    source["classifier.bias"] = entry("classifier.bias", (5,))
    plan = make_plan(HUAWEI_TORCH, HEADS["sequence-classification"], source, CONFIG)
    norm = "nezha.encoder.layer.0.output.LayerNorm.weight"
    assert plan.missing == ("nezha.pooler.dense.bias",)
    assert plan.unmatched == (surprise,)
    assert plan.mismatched == (Mismatch("classifier.bias", "classifier.bias", (5,), (3,)),)
    assert plan.collisions == (
        (norm, ("bert.encoder.layer.0.output.LayerNorm.weight", "bert.encoder.layer.0.output.LayerNorm.gamma")),
    )
    assert not plan.ok
    with pytest.raises(MappingError, match=r"4 problem\(s\)") as caught:
        plan.check()
    assert caught.value.problems == (
        "missing: nezha.pooler.dense.bias",
        f"unmatched: {surprise} is in no table of this family",
        "shape: classifier.bias gives classifier.bias [5], expected [3]",
        "collision: bert.encoder.layer.0.output.LayerNorm.weight and bert.encoder.layer.0.output.LayerNorm.gamma "
        f"both become {norm}",
    )
    assert "inspect" in caught.value.hint


def test_a_wrapped_and_a_bare_name_collide() -> None:
    source = checkpoint(HUAWEI_TORCH, HEADS["encoder"])
    name = "module.bert.pooler.dense.bias"
    plan = make_plan(HUAWEI_TORCH, HEADS["encoder"], source | {name: entry(name, (4,))}, CONFIG)
    assert plan.collisions == (("nezha.pooler.dense.bias", ("bert.pooler.dense.bias", name)),)


def test_an_untransposed_kernel_is_a_mismatch_in_the_targets_layout() -> None:
    source = checkpoint(HUAWEI_TF, HEADS["encoder"])
    name = "bert/encoder/layer_1/intermediate/dense/kernel"
    plan = make_plan(HUAWEI_TF, HEADS["encoder"], source | {name: entry(name, (6, 4))}, CONFIG)
    target = "nezha.encoder.layer.1.intermediate.dense.weight"
    assert plan.mismatched == (Mismatch(name, target, (4, 6), (6, 4)),)


@pytest.mark.parametrize("shape", [(), (4,), (4, 4, 1), (0, 4)])
def test_a_kernel_of_another_rank_is_a_mismatch(shape: tuple[int, ...]) -> None:
    source = checkpoint(HUAWEI_TF, HEADS["encoder"])
    name = "bert/pooler/dense/kernel"
    plan = make_plan(HUAWEI_TF, HEADS["encoder"], source | {name: entry(name, shape)}, CONFIG)
    assert [mismatch.found for mismatch in plan.mismatched] == [shape[::-1]]


@HEAD
def test_a_wrong_hidden_size_is_one_cause_and_not_a_problem_a_tensor(head: Head) -> None:
    source = checkpoint(HUAWEI_TORCH, head, CONFIG | {"hidden_size": 8})
    plan = make_plan(HUAWEI_TORCH, head, source, CONFIG)
    assert len(plan.problems()) == 1
    assert plan.problems()[0].startswith("hidden_size: the config says 4, the tensors say 8 (")
    assert not plan.ok


@pytest.mark.parametrize("dim, size", [("vocab_size", 12), ("intermediate_size", 7), ("type_vocab_size", 3)])
def test_each_dimension_that_the_config_has_wrong_is_its_own_cause(dim: str, size: int) -> None:
    source = checkpoint(HUAWEI_TF, HEADS["pretraining"], CONFIG | {dim: size, "hidden_size": 8})
    plan = make_plan(HUAWEI_TF, HEADS["pretraining"], source, CONFIG)
    causes = sorted(cause.split(":")[0] for cause in plan.problems())
    assert causes == sorted([dim, "hidden_size"])


def test_a_dimension_on_which_the_tensors_disagree_is_no_cause() -> None:
    source = checkpoint(HUAWEI_TORCH, HEADS["encoder"])
    name = "bert.pooler.dense.bias"
    plan = make_plan(HUAWEI_TORCH, HEADS["encoder"], source | {name: entry(name, (8,))}, CONFIG)
    assert plan.causes == ()
    assert [mismatch.source for mismatch in plan.mismatched] == [name]


def test_an_odd_tensor_is_still_told_beside_a_cause() -> None:
    source = checkpoint(HUAWEI_TORCH, HEADS["encoder"], CONFIG | {"hidden_size": 8})
    name = "bert.encoder.layer.0.intermediate.dense.bias"
    source[name] = entry(name, (6, 1))
    plan = make_plan(HUAWEI_TORCH, HEADS["encoder"], source, CONFIG)
    assert [mismatch.source for mismatch in plan.mismatched] == [name]
    assert len(plan.causes) == 1


@pytest.mark.parametrize("has, says", [(2, 12), (3, 2), (1, 2), (12, 1)])
def test_a_wrong_number_of_layers_is_one_cause(has: int, says: int) -> None:
    source = checkpoint(HUAWEI_TF, HEADS["encoder"], CONFIG | {"num_hidden_layers": has})
    plan = make_plan(HUAWEI_TF, HEADS["encoder"], source, CONFIG | {"num_hidden_layers": says})
    assert plan.problems() == (f"num_hidden_layers: the config says {says}, the tensors have {has}",)


def test_a_gap_in_the_layers_is_missing_tensors_and_not_a_cause() -> None:
    source = checkpoint(HUAWEI_TF, HEADS["encoder"], CONFIG | {"num_hidden_layers": 3})
    source = {name: e for name, e in source.items() if "layer_1/" not in name}
    plan = make_plan(HUAWEI_TF, HEADS["encoder"], source, CONFIG | {"num_hidden_layers": 3})
    assert plan.causes == ()
    assert len(plan.missing) == 16
    assert all(".layer.1." in name for name in plan.missing)


def test_a_stray_layer_is_unmatched() -> None:
    source = checkpoint(HUAWEI_TF, HEADS["encoder"])
    name = "bert/encoder/layer_9/output/dense/bias"
    plan = make_plan(HUAWEI_TF, HEADS["encoder"], source | {name: entry(name, (4,))}, CONFIG)
    assert plan.unmatched == (name,)
    assert plan.problems() == (f"unmatched: {name} is in no table of this family",)


@pytest.mark.parametrize("layers", [10**5, 2**31 - 1])
def test_an_absurd_number_of_layers_takes_neither_time_nor_memory(layers: int) -> None:
    source = checkpoint(HUAWEI_TF, HEADS["encoder"])
    plan = make_plan(HUAWEI_TF, HEADS["encoder"], source, CONFIG | {"num_hidden_layers": layers})
    assert plan.problems() == (f"num_hidden_layers: the config says {layers}, the tensors have 2",)


def test_an_empty_checkpoint_misses_everything() -> None:
    plan = make_plan(HUAWEI_TF, HEADS["encoder"], {}, CONFIG)
    assert len(plan.missing) == len(wanted(HEADS["encoder"]))


def test_a_new_plan_is_ok_and_has_no_problem() -> None:
    assert Plan().ok
    assert Plan().problems() == ()
    Plan().check()


# Whatever the checkpoint

NAMES = st.sampled_from(
    sorted(
        {
            wrapper + variant
            for table in FAMILIES
            for rules in table.rules.values()
            for rule in rules
            for variant in (rule.source.replace("{i}", "0"), rule.source.replace("{i}", "1"), rule.source + "/adam_m")
            for wrapper in ("", "module.")
        }
        | {"global_step", "bert/encoder/layer_9/output/dense/bias", "{i}", "bert.encoder.layer.{i}.output.dense.bias"}
    )
) | st.text(max_size=9)
SHAPES = st.lists(st.sampled_from([1, 2, 3, 4, 6, 11]), max_size=3).map(tuple)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    st.sampled_from(list(HEADS.values())),
    st.dictionaries(NAMES, SHAPES, max_size=12),
    st.sets(st.integers(0, 60), max_size=3),
    st.booleans(),
)
def test_every_source_name_ends_in_exactly_one_place(
    table: Family, head: Head, more: dict[str, tuple[int, ...]], less: set[int], untied: bool
) -> None:
    source = checkpoint(table, head, tied=untied) | {name: entry(name, shape) for name, shape in more.items()}
    for number in sorted(less, reverse=True):
        if number < len(source):
            del source[list(source)[number]]
    plan = make_plan(table, head, source, CONFIG, untied)
    ends = ends_of(plan)
    assert set(ends.values()) <= {1}
    assert set(ends) <= set(source)
    if not plan.causes:
        assert set(ends) == set(source)
    filled = {step.target for step in plan.steps}
    accounted = {m.target for m in plan.mismatched} | set(plan.missing) | {tie.target for tie in plan.tied}
    if not plan.causes:
        prefix = "" if head.name != "encoder" else "nezha."
        assert filled | {name.removeprefix(prefix) for name in accounted} >= set(wanted(head))
        assert not filled & {name.removeprefix(prefix) for name in accounted}
    assert len(filled) == len(plan.steps)
    assert plan.ok == (not plan.problems())


@HEAD
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "bool", "complex64"])
@pytest.mark.parametrize("family", FULL, ids=lambda family: family.name)
def test_a_weight_that_is_no_floating_point_number_is_a_problem(family: Family, dtype: str, head: Head) -> None:
    entries = checkpoint(family, head)
    name = next(iter(entries))
    plan = make_plan(family, head, {**entries, name: replace(entries[name], dtype=dtype)}, CONFIG)
    assert plan.problems() == (f"type: {name} is {dtype}, expected one of float16, bfloat16, float32, float64",)
    with pytest.raises(MappingError) as caught:
        plan.check()
    assert "before it was quantized" in caught.value.hint == plan.hint
