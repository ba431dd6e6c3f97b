"""The converted model, loaded from its folder by the installed package's own classes and run on the CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MappingError
from .oracle.formulas import Array
from .oracle.model import HEADS
from .report import WeightStatistics


class ConvertedModel:
    """The model in `folder`, in evaluation mode. The folder's own code is not run.

    Args:
        folder: the converted folder.
        architecture: the class, one of `nezha`'s.
        head: what it is, one of the oracle's `HEADS`.

    Raises:
        MappingError: the weights do not fit the config, or the config no model.
    """

    def __init__(self, folder: Path, architecture: str, head: str) -> None:
        import nezha

        self._head = head
        model_class = getattr(nezha, architecture)
        try:
            with _quiet():
                self.model, info = model_class.from_pretrained(
                    folder,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # they are listed below, all at once
                    use_safetensors=True,
                    local_files_only=True,
                    torch_dtype="auto",  # 4.52's name of it; later releases still take it
                )
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise MappingError(f"{folder}: {architecture} cannot be loaded from it ({error})") from error
        kinds = {"missing_keys": "no weight", "unexpected_keys": "unknown weight", "mismatched_keys": "wrong shape"}
        problems = [f"{said}: {key}" for kind, said in kinds.items() for key in sorted(info[kind], key=str)]
        if problems:
            raise MappingError(
                f"{folder}: its weights do not fit its config.json",
                problems=tuple(problems),
                hint=f"Convert again: nezha-convert convert SOURCE {folder} --force",
            )
        self.model.eval()
        self._backbone = getattr(self.model, "nezha", self.model)

    def run(self, case: Mapping[str, Array], dtype: str) -> dict[str, Array]:
        """Every tensor that the model computes, under the oracle's names and in its order.

        Args:
            case: `input_ids`, `attention_mask`, `token_type_ids`.
            dtype: the element type to compute in.
        """
        import torch

        pooled: list[Any] = []
        self.model.to(getattr(torch, dtype))
        handle = None
        if self._backbone.pooler is not None:
            handle = self._backbone.pooler.register_forward_hook(lambda module, args, output: pooled.append(output))
        try:
            with torch.inference_mode():
                inputs = {name: torch.from_numpy(array) for name, array in case.items()}
                outputs = self.model(**inputs, output_hidden_states=True, return_dict=True)
        finally:
            if handle is not None:
                handle.remove()
        embeddings, *layers = outputs.hidden_states
        tensors = {"embeddings": embeddings} | {f"layer_{i}": layer for i, layer in enumerate(layers)}
        tensors |= dict(zip(["pooler"], pooled, strict=False))  # none where the head has no pooler
        tensors |= {name: outputs[name] for name in HEADS[self._head]}
        return {name: _array(tensor) for name, tensor in tensors.items()}

    def statistics(self) -> tuple[WeightStatistics, ...]:
        """The weights by part, in the order in which they are used; tied ones count once."""
        parts: dict[str, list[Any]] = {}
        for name, parameter in self.model.named_parameters():
            layer = re.search(r"encoder\.layer\.(\d+)\.", name)
            known = next((part for part in ("embeddings", "pooler") if f"{part}." in name), "head")
            parts.setdefault(f"layer_{layer[1]}" if layer else known, []).append(parameter.detach())
        return tuple(_statistics(part, parameters) for part, parameters in parts.items())


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`, as a user gets it.

    Raises:
        MappingError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    import nezha  # noqa: F401  (so that AutoTokenizer knows the model's type)

    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises plain Exception for a file that it cannot read
        raise MappingError(f"{folder}: its tokenizer cannot be loaded ({error})") from error


def _array(tensor: Any) -> Array:
    import torch

    halves = (torch.float16, torch.bfloat16)  # NumPy has no bfloat16 of its own
    array: Array = (tensor.float() if tensor.dtype in halves else tensor).numpy()
    return array


def _statistics(part: str, parameters: list[Any]) -> WeightStatistics:
    count = nonfinite = 0
    total = squares = 0.0
    low, high = np.inf, -np.inf
    for parameter in parameters:
        values = _array(parameter).reshape(-1)
        finite = values[np.isfinite(values)]
        count, nonfinite = count + values.size, nonfinite + values.size - finite.size
        if finite.size:
            total += float(finite.sum(dtype=np.float64))
            squares += float(np.square(finite, dtype=np.float64).sum())
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    mean = total / max(1, count - nonfinite)
    std = max(0.0, squares / max(1, count - nonfinite) - mean * mean) ** 0.5
    return WeightStatistics(part, count, mean, std, low, high, nonfinite)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars and remarks: the problems that matter are raised here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
