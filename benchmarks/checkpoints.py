"""Write TensorFlow checkpoints of NEZHA's sizes with random weights, for the benchmarks.

    python benchmarks/checkpoints.py FOLDER base|large|base+lamb|large+lamb

Prints the bundle's prefix. A checkpoint that exists is kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from bundles import write_bundle

from nezha_convert.families import HUAWEI_TF
from nezha_convert.families.heads import MLM, NSP, TARGETS
from nezha_convert.families.rules import Op, numbered

SIZES = {
    "base": {
        "vocab_size": 21128,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "type_vocab_size": 2,
    },
    "large": {
        "vocab_size": 21128,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "type_vocab_size": 2,
    },
}


def write_checkpoint(folder: Path, size: str) -> Path:
    """Write a pre-training checkpoint of `size`, with LAMB's slots if it ends in +lamb; return the bundle's prefix."""
    size, _, lamb = size.partition("+")
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / "model.ckpt-1"
    config = SIZES[size] | {"hidden_act": "gelu", "use_relative_position": True}
    (folder / "bert_config.json").write_text(json.dumps(config))
    if not Path(f"{prefix}.index").exists():
        write_bundle(prefix, _tensors(SIZES[size], bool(lamb)))
    return prefix


def _tensors(sizes: dict[str, int], lamb: bool) -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)
    parts = [part for part in HUAWEI_TF.rules if part in ("encoder", "pooler", MLM, NSP)]
    for part in parts:
        rules = {rule.source: rule for rule in HUAWEI_TF.rules[part]}
        for source, rule in rules.items():
            dims = TARGETS[part][rule.target]
            shape = [sizes[dim] if isinstance(dim, str) else dim for dim in dims]
            if rule.op is Op.TRANSPOSE:
                shape.reverse()
            for name in numbered([source], sizes["num_hidden_layers"]):
                for slot in ("", "/lamb_m", "/lamb_v") if lamb else ("",):
                    yield name + slot, random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)


if __name__ == "__main__":
    print(write_checkpoint(Path(sys.argv[1]), sys.argv[2]))
