"""What the PyTorch families have in common: the targets' own names, spelt with another prefix, and saved buffers."""

from __future__ import annotations

from .heads import TARGETS
from .rules import Drop, Rule


def torch_rules(prefix: str, parts: tuple[str, ...], only_read: tuple[str, ...] = ()) -> dict[str, tuple[Rule, ...]]:
    """The targets' own names with `prefix` for "nezha."; layer norms also by the gamma and beta of 2018.

    `only_read` are those that the family's own files do not have.
    """
    rules: dict[str, tuple[Rule, ...]] = {}
    for part in parts:
        named = [(prefix + t.removeprefix("nezha.") if t.startswith("nezha.") else t, t) for t in TARGETS[part]]
        aged = [
            (source.replace(modern, old), target)
            for modern, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
            for source, target in named
            if source.endswith(modern)
        ]
        rules[part] = tuple(Rule(s, t, written=s not in only_read) for s, t in named + aged)
    return rules


BUFFERS = (
    Drop("*.relative_positions_encoding", "a table of positions that the model computes", positions=True),
    Drop(
        "*.relative_positions_encoding.positions_encoding",
        "a table of positions that the model computes",
        positions=True,
    ),
    Drop(
        "*.relative_positions_encoding.position_embeddings",
        "a table of positions that the model computes",
        positions=True,
    ),
    Drop(  # of CDial-GPT-NEZHA, where it is a parameter
        "*.relative_positions_embeddings.embeddings_table_tensor",
        "a table of positions that the model computes",
        positions=True,
        trained=True,
    ),
    Drop("*embeddings.position_ids", "a buffer of 0, 1, 2, ..."),
    Drop("n_averaged", "the counter of torch's AveragedModel"),
    Drop("*.n_averaged", "the counter of torch's AveragedModel"),
    Drop("*embeddings.token_type_ids", "a buffer of zeros"),
)
