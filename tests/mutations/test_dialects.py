"""Each default of each program, stated wrongly: the comparison with that program's outputs must notice.

There is one table of mutations. Each is made twice: in the tables that convert (`families`), whose output is then
compared, and in the dialect by which the oracle reads the source (`parity.oracle.dialects`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from goldens import GOLDENS
from recorded import departures, goldens, source

from nezha_convert import convert
from nezha_convert.errors import MappingError
from nezha_convert.families import FAMILIES, TRANSFORMERS
from nezha_convert.families.heads import DECODER, HEADS, POOLER
from nezha_convert.families.rules import Default, Family, Op, Rule
from nezha_convert.formats.open import open_checkpoint
from nezha_convert.mapping import config, recognise, survey
from nezha_convert.parity.oracle import formulas
from nezha_convert.parity.oracle import model as oracle
from nezha_convert.parity.oracle.dialects import DIALECTS, Dialect
from nezha_convert.parity.oracle.model import Oracle

BY_NAME = {golden.name: golden for golden in GOLDENS}
CASE = "short"
"""The inputs: 12 tokens, some of them padding, are enough for every mutation."""
REFUSED = math.inf
"""The error of a mutation that makes shapes or names disagree: it is noticed before anything is computed."""


# Mutations of the tables that convert.


def _defaults(**changed: Any) -> Callable[[Family], Family]:
    return lambda table: replace(table, defaults=replace(table.defaults, **changed))


def _number(field: str, value: float) -> Callable[[Family], Family]:
    def mutated(table: Family) -> Family:
        default = Default(value, "a mutation", fixed=True)
        return _defaults(numbers={**table.defaults.numbers, field: default})(table)

    return mutated


def _other_gelu(table: Family) -> Family:
    other = {"gelu": "gelu_pytorch_tanh", "gelu_pytorch_tanh": "gelu"}
    return _defaults(activations={name: other.get(meant, meant) for name, meant in table.defaults.activations.items()})(
        table
    )


def _rules(change: Callable[[Rule], Rule]) -> Callable[[Family], Family]:
    return lambda table: replace(table, rules={part: tuple(map(change, rules)) for part, rules in table.rules.items()})


def _as_it_lies(ending: str) -> Callable[[Family], Family]:
    other = {Op.COPY: Op.TRANSPOSE, Op.TRANSPOSE: Op.COPY}
    return _rules(lambda rule: replace(rule, op=other[rule.op]) if rule.target.endswith(ending) else rule)


def _exchanged(one: str, other: str) -> Callable[[Family], Family]:
    def change(rule: Rule) -> Rule:
        for a, b in ((one, other), (other, one)):
            if a in rule.target:
                return replace(rule, target=rule.target.replace(a, b))
        return rule

    return _rules(change)


# Mutations of the dialects that the oracle reads by.


def _dialect(**changed: Any) -> Callable[[Dialect], Dialect]:
    return lambda dialect: replace(dialect, **changed)


def _other_gelu_of(dialect: Dialect) -> Dialect:
    other = {formulas.gelu_erf: formulas.gelu_tanh, formulas.gelu_tanh: formulas.gelu_erf}
    return replace(dialect, activations={name: other.get(f, f) for name, f in dialect.activations.items()})


def _spelt(one: str, other: str) -> Callable[[Dialect], Dialect]:
    exchange = ((one, "\0"), (other, one.replace("\\", "")), ("\0", other.replace("\\", "")))
    return lambda dialect: replace(dialect, spelling=(*dialect.spelling, *exchange))


@dataclass(frozen=True)
class Mutation:
    """A change of the table, of the dialect, or of the oracle's attention."""

    table: Callable[[Family], Family] | None = None
    dialect: Callable[[Dialect], Dialect] | None = None
    attention: Callable[..., Any] | None = None
    stored_clip: int | None = None
    """What is taken for the clip distance of stored tables of positions."""


def _undivided(query: Any, *rest: Any) -> Any:
    return formulas.attention(query * math.sqrt(query.shape[-1]), *rest)


def _unmasked(query: Any, key: Any, value: Any, mask: Any, table: Any) -> Any:
    return formulas.attention(query, key, value, 0 * mask, table)


def _clipped_at_63(query: Any, key: Any, value: Any, mask: Any, table: Any) -> Any:
    return formulas.attention(query, key, value, mask, formulas.relative_table(63, table.shape[1]))


MUTATIONS = {
    "the other GELU": Mutation(_other_gelu, _other_gelu_of),
    "another epsilon": Mutation(_number("layer_norm_eps", 1e-2), _dialect(epsilon=1e-2)),
    "Huawei's epsilon": Mutation(_number("layer_norm_eps", 1e-12), _dialect(epsilon=1e-12)),
    "another epsilon in the head": Mutation(dialect=_dialect(head_epsilon=1e-1)),
    "another clip distance": Mutation(_number("max_relative_position", 63), attention=_clipped_at_63, stored_clip=63),
    "values transposed": Mutation(_as_it_lies("self.value.weight")),
    "the attention's output transposed": Mutation(_as_it_lies("attention.output.dense.weight")),
    "the pooler transposed": Mutation(_as_it_lies("pooler.dense.weight")),
    "the head's layer transposed": Mutation(_as_it_lies("transform.dense.weight")),
    "linear layers the other way": Mutation(dialect=lambda dialect: replace(dialect, in_out=not dialect.in_out)),
    "classifiers the other way": Mutation(
        _rules(
            lambda rule: (
                _as_it_lies("weight")(Family("", "", "", {"": (rule,)}, FAMILIES[0].defaults)).rules[""][0]
                if rule.target in ("classifier.weight", "qa_outputs.weight", "cls.seq_relationship.weight")
                else rule
            )
        ),
        lambda dialect: replace(dialect, classifiers_in_out=not dialect.classifiers_in_out),
    ),
    "beta for gamma": Mutation(
        _exchanged("LayerNorm.weight", "LayerNorm.bias"), _spelt(r"LayerNorm\.weight", r"LayerNorm\.bias")
    ),
    "query for key": Mutation(_exchanged("self.query", "self.key"), _spelt(r"self\.query", r"self\.key")),
    "a layer norm for the other": Mutation(
        _exchanged("}.attention.output.LayerNorm", "}.output.LayerNorm"),
        _spelt(r"\.attention\.output\.LayerNorm", r"(?<!attention)\.output\.LayerNorm"),
    ),
    "scores not divided": Mutation(attention=_undivided),
    "no mask": Mutation(attention=_unmasked),
    "the decoder tied": Mutation(
        _rules(lambda rule: replace(rule, target="nowhere") if rule.target == DECODER else rule), _dialect(unties=False)
    ),
    "spans by another name": Mutation(dialect=_dialect(spans="qa_outputs")),
}

_LINEAR = ("values transposed", "the attention's output transposed", "linear layers the other way")
ENCODER = (
    *("the other GELU", "another epsilon", "another clip distance", *_LINEAR, "beta for gamma", "query for key"),
    *("a layer norm for the other", "scores not divided"),
)
MASKED_LM = (*ENCODER, "another epsilon in the head", "the head's layer transposed")
PRETRAINING = (*MASKED_LM, "the pooler transposed", "classifiers the other way", "no mask")

TABLE = {
    "huawei-tf-pretraining": PRETRAINING,
    "huawei-tf-squad": ("classifiers the other way",),
    "huawei-torch-pretraining": PRETRAINING,
    "jaber-token": ("classifiers the other way", *ENCODER),
    "lonepatient-masked-lm": MASKED_LM,
    "transformers-4.40.2-encoder": (*ENCODER, "the pooler transposed", "no mask"),
    "transformers-4.40.2-pretraining": PRETRAINING,
    "transformers-4.40.2-causal-lm": ("no mask", "query for key", "the head's layer transposed"),
    "bert4torch-causal-lm": ("no mask", "another clip distance", "scores not divided"),
    "bert4torch-prefix-lm": ("no mask", "another clip distance", "scores not divided"),
    "paddlenlp-pretraining": PRETRAINING,
    "paddlenlp-sequence-classification": ("classifiers the other way",),
    "paddlenlp-question-answering": ("classifiers the other way", "spans by another name"),
    "bert4torch-pretraining": (*PRETRAINING, "the decoder tied"),
    "bert4torch-0.2.7-masked-lm": (*MASKED_LM, "the decoder tied"),
    "bert4keras-pretraining": (*PRETRAINING, "Huawei's epsilon"),
    "bert4keras-masked-lm": (*MASKED_LM, "Huawei's epsilon"),
    "bert4keras-sequence-classification": ("classifiers the other way",),
    "mindspore-pretraining": (*PRETRAINING, "Huawei's epsilon"),
}
"""By fixture, the mutations that it shows."""

ROWS = [(fixture, mutation) for fixture, mutations in TABLE.items() for mutation in mutations]


def worst(name: str, model: Oracle) -> float:
    """The largest error of all recorded outputs, as a part of their range; `REFUSED` if they cannot be computed."""
    golden = goldens(name)[CASE]
    if POOLER not in HEADS[model.head].parts:  # some programs record a pooler all the same
        golden.pop("pooled_output", None)
    try:
        return max(departures(model, golden).values())
    except (ValueError, MappingError):  # shapes that do not fit
        return REFUSED


def of_the_conversion(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> float:
    """The oracle's outputs for a conversion by a mutated table."""
    entries, _, _ = source(name)
    table, mutate = recognise.family_of(entries), mutation.table or (lambda table: table)
    monkeypatch.setattr(config, "TRANSFORMERS", mutate(TRANSFORMERS))  # ports of Huawei's code have its activations
    monkeypatch.setattr(recognise, "FAMILIES", tuple(mutate(one) if one is table else one for one in FAMILIES))
    if mutation.stored_clip:
        read = survey.stored_clip
        monkeypatch.setattr(survey, "stored_clip", lambda *given: read(*given) and mutation.stored_clip)
    try:
        convert(BY_NAME[name].folder, folder, head=BY_NAME[name].head)
    except MappingError:
        return REFUSED
    converted = open_checkpoint(folder).entries
    return worst(name, Oracle(converted, json.loads((folder / "config.json").read_text()), BY_NAME[name].head))


def of_the_source(name: str, monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> float:
    """A mutated oracle's outputs for the source."""
    entries, raw, head = source(name)
    dialect = oracle.dialect_of(entries, raw)
    monkeypatch.setattr(oracle, "dialect_of", lambda *_: mutation.dialect(dialect) if mutation.dialect else dialect)
    if mutation.attention:
        monkeypatch.setattr(oracle, "attention", mutation.attention)
    return worst(name, Oracle(entries, raw, head))


@pytest.mark.parametrize("name", TABLE)
def test_nothing_is_noticed_where_nothing_is_wrong(name, tmp_path, monkeypatch):
    assert of_the_conversion(name, tmp_path / "out", monkeypatch, Mutation()) <= BY_NAME[name].tolerance
    assert of_the_source(name, monkeypatch, Mutation()) <= BY_NAME[name].tolerance


@pytest.mark.parametrize(("name", "mutation"), [row for row in ROWS if MUTATIONS[row[1]].table])
def test_a_wrong_table_is_noticed_in_the_conversion(name, mutation, tmp_path, monkeypatch):
    error = of_the_conversion(name, tmp_path / "out", monkeypatch, MUTATIONS[mutation])
    assert error > 3 * BY_NAME[name].tolerance


@pytest.mark.parametrize(
    ("name", "mutation"), [row for row in ROWS if MUTATIONS[row[1]].dialect or MUTATIONS[row[1]].attention]
)
def test_a_wrong_dialect_is_noticed_by_the_oracle(name, mutation, monkeypatch):
    assert of_the_source(name, monkeypatch, MUTATIONS[mutation]) > 3 * BY_NAME[name].tolerance


def test_every_program_has_its_rows():
    sources = [source(name) for name in TABLE]
    assert {oracle.dialect_of(entries, raw).name for entries, raw, _ in sources} == {d.name for d in DIALECTS}
    assert {recognise.family_of(entries).name for entries, _, _ in sources} == {table.name for table in FAMILIES}
    assert {mutation for _, mutation in ROWS} == set(MUTATIONS)
