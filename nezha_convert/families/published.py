"""The sizes of the models that Huawei published, by their names.

Sources: NEZHA-PyTorch/pretrained_models/nezha-cn-base/bert_config.json and nezha-en-base/bert_config.json, and
NEZHA-TensorFlow/nezha/bert_base_rel_config_vocab_100503.json, of huawei-noah/Pretrained-Language-Model at commits
cef06a9 and d3fee07; config.json of sijunhe/nezha-cn-large, nezha-base-wwm and nezha-large-wwm on the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COMMON: Mapping[str, Any] = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "max_relative_position": 64,
    "type_vocab_size": 2,
    "use_relative_position": True,
    "vocab_size": 21128,
}
_BASE = {**_COMMON, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_LARGE = {**_COMMON, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "huawei/nezha-cn-base": _BASE,
    "huawei/nezha-cn-large": _LARGE,
    "huawei/nezha-base-wwm": _BASE,
    "huawei/nezha-large-wwm": _LARGE,
    "huawei/nezha-en-base": {**_BASE, "vocab_size": 28996, "max_relative_position": 127},
    "huawei/nezha-base-vocab-100503": {**_BASE, "vocab_size": 100503},
}
"""What --config takes instead of a file: the fields of the model's JSON. Models trained from one another share them."""
