"""A converted folder in which two projections were exchanged: the mistake that every check of parity has to notice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors.numpy import load_file, save_file


def swap(folder: Path, layer: int = 1, *, recorded: bool = True) -> Path:
    """Exchange query and key of a layer of `folder`, weights and biases. From `layer_N` on its outputs depart.

    Args:
        recorded: whether conversion.json takes the new hash. Then the numbers alone tell.
    """
    weights, record = folder / "model.safetensors", folder / "conversion.json"
    tensors = load_file(weights)
    at = f"nezha.encoder.layer.{layer}.attention.self"
    for kind in ("weight", "bias"):
        query, key = f"{at}.query.{kind}", f"{at}.key.{kind}"
        tensors[query], tensors[key] = tensors[key], tensors[query]
    save_file(tensors, weights, {"format": "pt"})
    if recorded:
        content = json.loads(record.read_text("utf-8"))
        for file in content["output_files"]:
            if file["name"] == weights.name:
                file["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        record.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    return folder
