"""The converted model and its tokenizer, loaded from their folder by the installed package's own classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CPU_INDEX, MappingError, UsageError, pip_install
from ..releases import TORCH, TRANSFORMERS
from .oracle.formulas import Array
from .oracle.model import HEADS
from .results import WeightStatistics

LEAST = {"torch": TORCH[0], "transformers": TRANSFORMERS[0][0]}
"""The lowest versions that the extra `torch` allows. A core in an environment of others may meet older ones."""


def need_torch(what: str, extra: str = "torch") -> None:
    """Raises UsageError, with the command that installs them, if torch or transformers is missing or too old.

    Args:
        what: what needs them: the message's subject.
        extra: the extra that brings them.
    """
    lacking = [f"no {name}" for name in LEAST if find_spec(name) is None]
    for name, least in LEAST.items() if not lacking else ():
        with suppress(PackageNotFoundError):  # its files may lie somewhere without their metadata
            if _numbers(found := version(name)) < _numbers(least):
                lacking.append(f"{name} {found}")
    if lacking:
        raise UsageError(
            f"{what} needs {' and '.join(map(' '.join, LEAST.items()))} or newer; found {' and '.join(lacking)}",
            hint=pip_install(f"'nezha-convert[{extra}]' {CPU_INDEX}"),
        )


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


class LoadedModel:
    """The model in `folder`, in evaluation mode on the CPU. The folder's own code is not run.

    Args:
        folder: the converted folder.
        architecture: the name of its class in the package `nezha`.
        head: its head, one of the oracle's `HEADS`.

    Raises:
        MappingError: the weights do not fit the config, or the config describes no model.
    """

    def __init__(self, folder: Path, architecture: str, head: str) -> None:
        import nezha

        self.head = head
        model_class = getattr(nezha, architecture)
        try:
            with _silent_transformers():
                self.model, info = model_class.from_pretrained(
                    folder,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # the error below lists all of them
                    use_safetensors=True,
                    local_files_only=True,
                    torch_dtype="auto",  # the name in transformers 4.52; later releases still accept it
                )
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise MappingError(f"{folder}: {architecture} cannot be loaded from it ({error})") from error
        kinds = {"missing_keys": "no weight", "unexpected_keys": "unknown weight", "mismatched_keys": "wrong shape"}
        problems = [f"{problem}: {key}" for kind, problem in kinds.items() for key in sorted(info[kind], key=str)]
        said = nezha.NezhaConfig.from_pretrained(folder, local_files_only=True)
        if self.model.config.is_decoder and not said.is_decoder:
            problems.append(f"is_decoder: false, with which AutoModel would not compute what {architecture} does")
        if problems:
            raise MappingError(
                f"{folder}: its weights do not fit its config.json",
                problems=tuple(problems),
                hint="Convert again: nezha-convert convert SOURCE OUTPUT --force",
            )
        self.model.eval()
        self._backbone = getattr(self.model, "nezha", self.model)

    @property
    def layers(self) -> int:
        """How many layers the encoder has."""
        return int(self.model.config.num_hidden_layers)

    def run(self, case: Mapping[str, Array], dtype: str) -> dict[str, Array]:
        """Every tensor that the model computes, by the oracle's names and in its order.

        Args:
            case: `input_ids`, `attention_mask`, `token_type_ids`.
            dtype: the element type to compute in; the weights are cast to it.
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
        tensors |= dict(zip(["pooler"], pooled, strict=False))  # empty when the model has no pooler
        tensors |= {name: outputs[name] for name in HEADS[self.head]}
        return {name: _array(tensor) for name, tensor in tensors.items()}

    def statistics(self) -> tuple[WeightStatistics, ...]:
        """The weights by part, in the order in which the model uses them; tied weights count once."""
        parts: dict[str, list[Any]] = {}
        for name, parameter in self.model.named_parameters():
            layer = re.search(r"encoder\.layer\.(\d+)\.", name)
            other = next((part for part in ("embeddings", "pooler") if f"{part}." in name), "head")
            parts.setdefault(f"layer_{layer[1]}" if layer else other, []).append(parameter.detach())
        return tuple(_statistics(part, parameters) for part, parameters in parts.items())


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`, as a user loads it.

    Raises:
        MappingError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    import nezha  # noqa: F401  (it tells AutoTokenizer the model's type)

    try:
        with _silent_transformers():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises a plain Exception for a file that it cannot read
        raise MappingError(f"{folder}: its tokenizer cannot be loaded ({error})") from error


def _array(tensor: Any) -> Array:
    import torch

    halves = (torch.float16, torch.bfloat16)  # NumPy itself has no bfloat16
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
def _silent_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and remarks: the problems that matter are raised as errors."""
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
