"""The source's JSON and the names of its labels, by the rules of the programs that read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import CheckpointError


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in `path`; Paddle's older form of it, arguments of a class in arguments of a class, as one object.

    Raises:
        CheckpointError: it is none.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a JSON file ({error})", hint="Name the config: --config FILE") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object of fields", hint="Name the config: --config FILE")
    if not isinstance(content.get("init_args"), list) or "init_class" not in content:
        return content
    layers = [content, *(one for one in content["init_args"] if isinstance(one, dict))]
    merged = {name: value for one in reversed(layers) for name, value in one.items()}  # what stands outside wins
    return {k: v for k, v in merged.items() if k not in ("init_args", "init_class")} | {
        "architectures": [content["init_class"]]
    }


_PUBLISHED = {  # what bert_config.json of NEZHA-PyTorch's and NEZHA-TensorFlow's models says; and the paper's table 1
    "huawei/nezha-cn-base": (768, 12, 21128, 64),
    "huawei/nezha-cn-large": (1024, 24, 21128, 64),
    "huawei/nezha-base-wwm": (768, 12, 21128, 64),
    "huawei/nezha-large-wwm": (1024, 24, 21128, 64),
    "huawei/nezha-en-base": (768, 12, 28996, 127),
    "huawei/nezha-base-vocab-100503": (768, 12, 100503, 64),
}
"""Width, layers, tokens and clip distance, by name. A head has 64 numbers; the inner layer is four times as wide."""


def published(name: str) -> dict[str, Any] | None:
    """The config of the published model `name`; None if there is none by that name."""
    if name not in _PUBLISHED:
        return None
    width, layers, tokens, clip = _PUBLISHED[name]
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "vocab_size": tokens,
        "max_relative_position": clip,
        "hidden_act": "gelu",
    }


def labels_of(config: Mapping[str, Any], path: Path | None, rows: int) -> list[str] | None:
    """The names of a classifier's rows, by id; None where the source has none.

    transformers takes `id2label`. It fills that in itself, as LABEL_0 and so on, so those are no names. Huawei's script
    for tokens numbers its labels from 1, for 0 is padding.
    """
    said = config.get("id2label")
    if isinstance(said, dict) and len(said) == rows:
        names = [str(said.get(str(i))) for i in range(rows)]
        if names != [f"LABEL_{i}" for i in range(rows)]:
            return names
    if path is None:
        return None
    names = _listed(path)
    return ["[PAD]", *names] if len(names) == rows - 1 else names


def _listed(path: Path) -> list[str]:
    """The names in a file, by id: one a line, or a JSON list, or a JSON object of ids and names, either way round."""
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix != ".json":
            return [line.strip() for line in text.split("\n") if line.strip()]
        content = json.loads(text)
        if isinstance(content, dict):
            turned = {value: key for key, value in content.items() if isinstance(value, int)}
            by_id = turned or {int(key): value for key, value in content.items()}
            content = [by_id[i] for i in sorted(by_id)]
        return [str(name) for name in content]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a file of labels ({error})") from error
