"""The tables against each other and against the state dicts of transformers 4.40.2."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from nezha_convert.families import (
    BERT4KERAS,
    BERT4KERAS_MODERN,
    FAMILIES,
    HUAWEI_TF,
    HUAWEI_TORCH,
    PADDLE,
    PADDLE_BASE,
    TRANSFORMERS,
    TRANSFORMERS_BASE,
)
from nezha_convert.families.foreign import FOREIGN
from nezha_convert.families.heads import CLASSIFIER, ENCODER, HEADS, MLM, NSP, POOLER, QA, TARGETS, TIES, Head
from nezha_convert.families.rules import Drop, Family, Op, numbered
from nezha_convert.formats.open import open_checkpoint

FIXTURES = Path(__file__).parents[2] / "fixtures"
FAMILY = pytest.mark.parametrize("table", FAMILIES, ids=lambda table: f"{table.name}-{len(table.rules)}-parts")
BERT_S_PLACES = ("huawei-tf", "huawei-torch", "transformers")
TIED = {tie.target for tie in TIES}
LAYER = "nezha.encoder.layer.{i}"


def targets_of(table: Family, part: str) -> set[str]:
    return {rule.target for rule in table.rules.get(part, ())}


def all_targets() -> dict[str, tuple[str | int, ...]]:
    return {name: shape for part in TARGETS.values() for name, shape in part.items()}


def test_no_target_stands_in_two_parts() -> None:
    assert len(all_targets()) == sum(len(part) for part in TARGETS.values())


@FAMILY
def test_no_source_stands_twice(table: Family) -> None:
    # PaddleNLP calls the last layer of three heads the same; the head says which it is.
    parts = [part for part in table.rules if table is not PADDLE or part != QA]
    sources = [rule.source for part in parts for rule in table.rules[part]]
    assert len(sources) == len(set(sources))


@FAMILY
def test_every_target_is_one_of_its_part(table: Family) -> None:
    for part in table.rules:
        assert targets_of(table, part) <= set(TARGETS[part])


@pytest.mark.parametrize("table", [HUAWEI_TORCH, TRANSFORMERS], ids=lambda table: table.name)
def test_the_pytorch_families_fill_every_target_of_every_part(table: Family) -> None:
    for part in TARGETS:
        assert targets_of(table, part) == set(TARGETS[part])


def test_tensorflow_fills_every_target_but_the_tied_ones() -> None:
    for part in TARGETS:
        assert targets_of(HUAWEI_TF, part) == set(TARGETS[part]) - TIED


def test_the_model_without_a_head_fills_the_encoder_and_the_pooler_and_knows_a_head_beside_it() -> None:
    for part in TRANSFORMERS_BASE.rules:
        assert targets_of(TRANSFORMERS_BASE, part) == set(TARGETS[part])
    for part, rules in TRANSFORMERS_BASE.rules.items():  # no name of a head is one of the encoder's
        inside = {rule.source for rule in rules if rule.source.startswith(TRANSFORMERS_BASE.backbone)}
        assert bool(inside) == (part in (ENCODER, POOLER))


def test_tensorflow_kernels_are_transposed_and_nothing_else_is() -> None:
    for table in FAMILIES:
        if table.name not in ("paddle", "bert4keras"):  # theirs are not called kernels, or not in both layouts
            for rules in table.rules.values():
                for rule in rules:
                    assert (rule.op is Op.TRANSPOSE) == rule.source.endswith("/kernel")


@pytest.mark.parametrize("table", [PADDLE, PADDLE_BASE, BERT4KERAS, BERT4KERAS_MODERN])
def test_every_matrix_of_paddle_and_keras_is_transposed_but_those_that_rows_are_taken_from(table: Family) -> None:
    shapes = all_targets()
    for rules in table.rules.values():
        for rule in rules:
            of_rows = "embeddings" in rule.target or "decoder" in rule.target
            assert (rule.op is Op.TRANSPOSE) == (len(shapes[rule.target]) == 2 and not of_rows)


@FAMILY
def test_only_matrices_are_transposed(table: Family) -> None:
    shapes = all_targets()
    for rules in table.rules.values():
        for rule in rules:
            assert rule.op is Op.COPY or len(shapes[rule.target]) == 2


@FAMILY
def test_gamma_is_the_weight_of_a_norm_and_beta_its_bias(table: Family) -> None:
    for rules in table.rules.values():
        for rule in rules:
            if rule.source.endswith("gamma"):
                assert rule.target.endswith("LayerNorm.weight")
            if rule.source.endswith("beta") and not rule.source.startswith("MLM-Bias/"):
                assert rule.target.endswith("LayerNorm.bias")


@pytest.mark.parametrize("table", [table for table in FAMILIES if table.name in BERT_S_PLACES])
def test_every_target_lies_at_the_same_place_as_its_source(table: Family) -> None:
    """query never becomes key, and the attention's output never the layer's."""
    for rules in table.rules.values():
        for rule in rules:
            for word in ("query", "key", "value", "attention", "intermediate", "pooler", "token_type", "word_emb"):
                assert (word in rule.source) == (word in rule.target)
            if "encoder" in rule.target:
                assert rule.source.replace("/", ".").count("output") == rule.target.count("output")
                assert ("{i}" in rule.source) and ("{i}" in rule.target)


@pytest.mark.parametrize("table, inside, dot", [(HUAWEI_TORCH, "bert.", "."), (HUAWEI_TF, "bert/", "/")])
def test_sources_of_the_encoder_and_pooler_belong_to_the_backbone(table: Family, inside: str, dot: str) -> None:
    assert inside in table.backbone
    for part, rules in table.rules.items():
        for rule in rules:
            assert rule.source.startswith(inside) == (part in (ENCODER, POOLER))
            assert dot in rule.source or part == CLASSIFIER


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("gamma, beta", [("weight", "bias"), ("gamma", "beta")])
@pytest.mark.parametrize("table, prefix", [(HUAWEI_TORCH, "bert."), (TRANSFORMERS, "nezha.")])
def test_old_norms_and_wrapped_names_are_known(table: Family, prefix: str, gamma: str, beta: str, wrapper: str) -> None:
    for place in (f"{prefix}embeddings", f"{prefix}encoder.layer.7.output", "cls.predictions.transform"):
        target = place.replace(prefix, "nezha.", 1) if place.startswith(prefix) else place
        for old, new in ((gamma, "weight"), (beta, "bias")):
            match = table.match(f"{wrapper}{place}.LayerNorm.{old}")
            assert match
            assert match.rule.target == f"{target}.LayerNorm.{new}"


OPTIMIZER = [
    "bert/embeddings/word_embeddings/adam_m",
    "bert/embeddings/word_embeddings/adam_v",
    "bert/encoder/layer_0/output/dense/kernel/lamb_m",
    "bert/encoder/layer_0/output/dense/kernel/lamb_v",
    "output_bias/adam_m",
    "bert/pooler/dense/kernel/shadow",
    "beta1_power",
    "beta2_power",
]
COUNTERS = ["global_step", "loss_scale", "good_steps", "bad_steps"]


@pytest.mark.parametrize("name", OPTIMIZER + COUNTERS)
def test_tensorflows_training_state_is_dropped(name: str) -> None:
    found = HUAWEI_TF.find(name)
    assert isinstance(found, Drop)
    assert found.reason


@pytest.mark.parametrize("name", OPTIMIZER)
def test_optimizer_state_is_marked_as_such(name: str) -> None:
    found = HUAWEI_TF.find(name)
    assert isinstance(found, Drop)
    assert found.optimizer


@pytest.mark.parametrize("table", [HUAWEI_TORCH, TRANSFORMERS, TRANSFORMERS_BASE], ids=lambda t: str(len(t.rules)))
@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize(
    "name",
    [
        "encoder.layer.11.attention.self.relative_positions_encoding.positions_encoding",
        "encoder.layer.11.attention.self.relative_positions_encoding",
        "embeddings.token_type_ids",
        "embeddings.position_ids",
    ],
)
def test_buffers_of_older_saves_are_dropped(name: str, wrapper: str, table: Family) -> None:
    prefix = {HUAWEI_TORCH.title: "bert.", TRANSFORMERS.title: "nezha."}.get(table.title, "")
    found = table.find(wrapper + prefix + name)
    assert isinstance(found, Drop)
    assert not found.optimizer


@FAMILY
def test_no_drop_hides_a_rule(table: Family) -> None:
    for rules in table.rules.values():
        for rule in rules:
            assert not any(fnmatchcase(rule.source, drop.pattern) for drop in table.drops)


@FAMILY
def test_every_drop_says_why(table: Family) -> None:
    assert all(drop.reason for drop in table.drops)


def test_ties_are_of_one_shape_and_one_part_or_the_embedding() -> None:
    shapes = all_targets()
    for tie in TIES:
        assert tie.target in TARGETS[MLM]
        assert shapes[tie.target] == shapes[tie.of]


# Heads


OF_TRANSFORMERS_4 = [head for head in HEADS.values() if head.name != "prefix-lm"]


def test_the_heads_are_the_ten_of_the_command_line() -> None:
    assert list(HEADS) == [
        "encoder",
        "pretraining",
        "masked-lm",
        "causal-lm",
        "prefix-lm",
        "next-sentence-prediction",
        "sequence-classification",
        "multiple-choice",
        "token-classification",
        "question-answering",
    ]
    assert [head.name for head in HEADS.values()] == list(HEADS)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_every_head_is_made_of_known_parts_and_has_an_encoder(head: Head) -> None:
    assert head.parts[0] == ENCODER
    assert set(head.parts) <= set(TARGETS)


@pytest.mark.parametrize("head", OF_TRANSFORMERS_4, ids=lambda head: head.name)
def test_the_targets_of_a_head_are_the_state_dict_of_transformers_4(head: Head) -> None:
    """The saved file may lack the tied names, which share another's values, and nothing else."""
    checkpoint = open_checkpoint(FIXTURES / f"transformers-4.40.2-{head.name}")
    assert checkpoint.config
    config = json.loads(checkpoint.config.read_text("utf-8"))
    assert config["architectures"] == [{"causal-lm": "NezhaForMaskedLM"}.get(head.name, head.architecture)]
    shapes = {name: shape for part in head.parts for name, shape in TARGETS[part].items()}
    targets = set(numbered(shapes, config["num_hidden_layers"]))
    if head.name == "encoder":
        targets = {name.removeprefix("nezha.") for name in targets}
    assert targets - TIED <= set(checkpoint.entries) <= targets
    if checkpoint.format == "torch":  # torch.save keeps shared tensors by both names
        assert set(checkpoint.entries) == targets


@pytest.mark.parametrize("head", OF_TRANSFORMERS_4, ids=lambda head: head.name)
def test_the_shapes_of_a_heads_targets_are_those_of_transformers_4(head: Head) -> None:
    checkpoint = open_checkpoint(FIXTURES / f"transformers-4.40.2-{head.name}")
    assert checkpoint.config
    config = json.loads(checkpoint.config.read_text("utf-8"))
    labels = len(config.get("id2label", "12"))
    config["num_labels"] = 1 if head.name == "multiple-choice" else labels
    table = TRANSFORMERS_BASE if head.name == "encoder" else TRANSFORMERS
    for name, entry in checkpoint.entries.items():
        match = table.match(name)
        assert match
        dims = TARGETS[match.part][
            match.rule.target.replace(".layer.0.", ".layer.{i}.").replace(".layer.1.", ".layer.{i}.")
        ]
        assert entry.shape == tuple(config[dim] if isinstance(dim, str) else dim for dim in dims)


def test_the_model_has_the_targets_as_its_parameters() -> None:
    import nezha

    for head in HEADS.values():
        config = nezha.NezhaConfig(
            vocab_size=11, hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=6
        )
        names = getattr(nezha, head.architecture)(config).state_dict().keys()
        targets = numbered([name for part in head.parts for name in TARGETS[part]], 2)
        if head.name == "encoder":
            targets = [name.removeprefix("nezha.") for name in targets]
        # The second name of a bias is transformers 4's: written where a decoder is untied, and no parameter of ours.
        assert names == set(targets) - {"cls.predictions.decoder.bias"}


def test_heads_of_every_tensorflow_task_are_there() -> None:
    assert {part for part, rules in HUAWEI_TF.rules.items() if rules} == {
        ENCODER,
        POOLER,
        MLM,
        NSP,
        CLASSIFIER,
        QA,
    }


@pytest.mark.parametrize(
    "name, encoder",
    [
        ("bert/embeddings/position_embeddings", False),
        ("bert.embeddings.position_embeddings.weight", False),
        ("slot_classifier.weight", True),
        ("module.slot_classifier.bias", True),
    ],
)
def test_models_of_other_kinds_are_known(name: str, encoder: bool) -> None:
    matching = [model for model in FOREIGN if fnmatchcase(name, model.pattern)]
    assert {model.encoder_converts for model in matching} == {encoder}
    assert matching[0].message
    assert matching[0].hint
