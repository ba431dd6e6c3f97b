"""Rules and how a table finds what a name means: layers, wrappers, drops, and the way back."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nezha_convert.families import FAMILIES
from nezha_convert.families.rules import Defaults, Drop, Family, Match, Op, Rule, layer_of, numbered, pattern_of

LAYERS = st.integers(0, 9999)
FAMILY = pytest.mark.parametrize("table", FAMILIES, ids=lambda table: f"{table.name}-{len(table.rules)}-parts")

SMALL = Family(
    name="small",
    title="a small family",
    known_by="bert/gamma",
    rules={
        "encoder": (
            Rule("bert/layer_{i}/kernel", "nezha.layer.{i}.weight", Op.TRANSPOSE),
            Rule("bert/gamma", "nezha.weight"),
        ),
        "head": (Rule("out", "classifier"), Rule("out_old", "classifier")),
    },
    defaults=Defaults({"gelu": "gelu"}),
    drops=(Drop("*/adam_m", "moment", optimizer=True), Drop("bert/step", "a counter")),
    backbone=("bert/",),
    wrappers=("module.",),
)


def rules_of(table: Family) -> list[tuple[str, Rule]]:
    return [(part, rule) for part, rules in table.rules.items() for rule in rules]


def fill(pattern: str, layer: int) -> str:
    return pattern.replace("{i}", str(layer))


@FAMILY
@given(layer=LAYERS)
def test_every_rule_finds_its_target_in_any_layer(table: Family, layer: int) -> None:
    for part, rule in rules_of(table):
        found = table.under([part]).find(fill(rule.source, layer))
        assert found == Match(part, Rule(fill(rule.source, layer), fill(rule.target, layer), rule.op))


@FAMILY
@given(layer=LAYERS)
def test_every_target_leads_back_to_a_name_that_leads_to_it(table: Family, layer: int) -> None:
    back = table.inverse()
    written = {rule.target for _, rule in rules_of(table) if rule.written}
    for part, rule in rules_of(table):
        if rule.target not in written:
            continue
        target = fill(rule.target, layer)
        returned = back.match(target)
        assert returned
        assert returned.part == part
        assert returned.rule.op == rule.op or not rule.written  # a name that is only read may be of another layout
        again = table.under([part]).find(returned.rule.target)
        assert again == Match(part, Rule(returned.rule.target, target, returned.rule.op))


@FAMILY
def test_the_way_back_takes_the_first_of_several_names_that_are_written(table: Family) -> None:
    back = table.inverse()
    for part, rules in table.rules.items():
        firsts: dict[str, str] = {}
        for rule in rules:
            if rule.written:
                firsts.setdefault(rule.target, rule.source)
        assert {rule.source: rule.target for rule in back.rules[part]} == firsts


@FAMILY
def test_the_inverse_of_the_inverse_is_the_table_of_first_names(table: Family) -> None:
    twice = table.inverse().inverse()
    for _, rule in rules_of(twice):
        assert table.find(rule.source) == twice.find(rule.source)


@given(st.text(), st.text(), st.sampled_from(Op))
def test_a_rule_inverted_twice_is_itself(source: str, target: str, op: Op) -> None:
    rule = Rule(source, target, op)
    assert rule.inverse() == Rule(target, source, op)
    assert rule.inverse().inverse() == rule


def test_no_source_may_stand_twice_in_a_part() -> None:
    with pytest.raises(ValueError, match="family t: 'a' stands in x twice"):
        Family("t", "t", "a", {"x": (Rule("a", "b"), Rule("a", "c"))}, Defaults({}))


def test_a_name_that_two_parts_have_means_the_head_s() -> None:
    table = Family("t", "t", "a", {"x": (Rule("a", "b"),), "y": (Rule("a", "c"),)}, Defaults({}))
    assert table.find("a") == table.under("x").find("a") == Match("x", Rule("a", "b"))
    assert table.under("y").find("a") == Match("y", Rule("a", "c"))
    assert table.parts_of("a") == {"x", "y"}


def test_finding_gives_the_part_the_target_and_the_operation() -> None:
    assert SMALL.find("bert/layer_11/kernel") == Match(
        "encoder",
        Rule("bert/layer_11/kernel", "nezha.layer.11.weight", Op.TRANSPOSE),
    )
    assert SMALL.find("out_old") == Match("head", Rule("out_old", "classifier"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "bert",
        "bert/gamma/",
        "/bert/gamma",
        "BERT/gamma",
        "bert/gamma_1",
        "xbert/gamma",
        "bert/layer_/kernel",
        "bert/layer_x/kernel",
        "bert/layer_-1/kernel",
        "bert/layer_1.5/kernel",
        "bert/layer_1/kernel/layer_2",
        "wrapped.bert/gamma",
    ],
)
def test_a_name_that_is_only_like_a_rule_is_unknown(name: str) -> None:
    assert SMALL.find(name) is None


@pytest.mark.parametrize(
    "number", ["00", "01", "007", " 1", "+1", "1_0", "²", "١", "1١", "10000", "9" * 5000], ids=repr
)
def test_a_layer_number_in_another_spelling_is_unknown(number: str) -> None:
    assert SMALL.find(f"bert/layer_{number}/kernel") is None
    assert layer_of(f"bert/layer_{number}/kernel") is None


def test_a_name_with_the_placeholder_itself_is_unknown() -> None:
    assert SMALL.find("bert/layer_{i}/kernel") is None


@given(st.text(max_size=20))
def test_no_name_at_all_breaks_the_search(name: str) -> None:
    assume(not name.endswith("/adam_m"))
    assume(name.removeprefix("module.") not in ("out", "out_old"))
    assert SMALL.find(name) is None


def test_a_wrapper_in_front_is_ignored_once() -> None:
    assert SMALL.find("module.bert/gamma") == SMALL.find("bert/gamma")
    assert SMALL.unwrapped("module.out") == "out"
    assert SMALL.unwrapped("out.module.") == "out.module."
    assert SMALL.find("module.module.out") is None


def test_a_drop_is_found_before_a_rule_and_gives_its_reason() -> None:
    assert SMALL.find("bert/layer_3/kernel/adam_m") == Drop("*/adam_m", "moment", optimizer=True)
    assert SMALL.find("anything/adam_m") == Drop("*/adam_m", "moment", optimizer=True)
    assert SMALL.find("bert/step") == Drop("bert/step", "a counter")
    assert SMALL.find("bert/step/more") is None


def test_drops_do_not_go_back() -> None:
    assert SMALL.inverse().find("x/adam_m") is None


@given(st.lists(st.sampled_from(["a", "b.layer.{i}.c", "layer_{i}/d"]), unique=True), st.integers(0, 9))
def test_numbered_gives_every_name_once_and_each_leads_to_its_pattern(patterns: list[str], layers: int) -> None:
    names = numbered(patterns, layers)
    layered = [pattern for pattern in patterns if "{i}" in pattern]
    assert len(names) == len(set(names)) == len(patterns) + len(layered) * (layers - 1)
    for name in names:
        assert pattern_of(name) in patterns
    for pattern in layered:
        assert [layer_of(name) for name in names if pattern_of(name) == pattern] == list(range(layers))


@given(LAYERS)
def test_a_layers_number_is_read_from_both_spellings(layer: int) -> None:
    assert layer_of(f"bert/encoder/layer_{layer}/output") == layer
    assert layer_of(f"nezha.encoder.layer.{layer}.output") == layer
    assert pattern_of(f"nezha.encoder.layer.{layer}.output") == "nezha.encoder.layer.{i}.output"


@pytest.mark.parametrize("name", ["nezha.pooler.dense.weight", "player.3.x", "my_layer_3/x", "layer3.x", "layer.3"])
def test_other_numbers_are_no_layers(name: str) -> None:
    assert layer_of(name) is None
    assert pattern_of(name) == name
