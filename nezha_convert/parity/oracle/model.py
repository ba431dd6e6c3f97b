"""NEZHA's forward pass in NumPy float64, computed from a source checkpoint as it is on disk.

Conversions are measured against this, so it shares nothing with the code that converts: no mapping, no decision about
the config, no torch, no attention code. It reads the SOURCE's own names and layouts and follows the original graphs.
`dialects` says how these differ.

Shapes below: B batch, L length, D hidden size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...errors import MappingError, UsageError
from .dialects import BERT4TORCH, PYTORCH, dialect_of
from .formulas import Array, Function, attention, layer_norm, relative_table

__all__ = ["HEADS", "Oracle"]

HEADS: dict[str, tuple[str, ...]] = {
    "encoder": (),
    "pretraining": ("prediction_logits", "seq_relationship_logits"),
    "masked-lm": ("logits",),
    "causal-lm": ("logits",),
    "prefix-lm": ("logits",),
    "next-sentence-prediction": ("logits",),
    "sequence-classification": ("logits",),
    "multiple-choice": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
}
"""By head, the tensors that it adds to the encoder's, by transformers' names."""

_POOLED = ("pretraining", "next-sentence-prediction", "sequence-classification", "multiple-choice")
"""The heads that need the pooler."""

_PREDICTING = ("pretraining", "masked-lm", "causal-lm", "prefix-lm")
"""The heads that score every word."""

_DECODER = "cls.predictions.decoder.weight"
_POSITIONS = "relative_positions"


class Entry(Protocol):
    """A tensor of the source, read on demand."""

    def read(self) -> Array: ...


class Oracle:
    """One source checkpoint under one head.

    Args:
        entries: the source's tensors by their own names; optimizer slots among them are ignored.
        config: the source's own JSON, unchanged.
        head: one of `HEADS`. It has to be given: TensorFlow's classifiers of sentences and of tokens have equal names.

    Raises:
        UsageError: `HEADS` has no such head.
        MappingError: the source has absolute positions (a plain BERT), or an activation that the original lacks.
    """

    def __init__(self, entries: Mapping[str, Entry], config: Mapping[str, Any], head: str) -> None:
        if head not in HEADS:
            raise UsageError(f"head {head!r} is not known", hint=f"One of: {', '.join(HEADS)}")
        self.head = head
        self.dialect = dialect_of(entries, config)
        self._entries = entries
        self._names = {self.dialect.plain(name): name for name in entries}
        if "embeddings.position_embeddings.weight" in self._names:
            raise MappingError("the source has absolute position_embeddings: a plain BERT, no NEZHA")
        # The originals' defaults. They are the same in all three: 12 layers, 12 heads, "gelu", 1e-12 and 64.
        numbers = [int(found[1]) for found in map(re.compile(r"encoder\.layer\.(\d+)\.").match, self._names) if found]
        self._layers = 1 + max(numbers, default=int(config.get("num_hidden_layers", 12)) - 1)
        self._heads = int(config.get("num_attention_heads", 12))
        self._clip = self.dialect.clip or int(config.get("max_relative_position", 64))
        # A program that asks whether a key is true takes anything that Python calls true.
        says = {
            kind: any(
                config.get(name) in values or (True in values and bool(config.get(name))) for name, values in keys
            )
            for kind, keys in (("causal", self.dialect.causal.items()), ("prefix", self.dialect.prefix.items()))
        }
        self._prefix = says["prefix"] or head == "prefix-lm"
        self._causal = self._prefix or says["causal"] or head == "causal-lm"
        # Both programs that are causal add the smallest number. A folder of nezha itself says what it does.
        self._masked = BERT4TORCH.masked if self._causal else self.dialect.masked
        if config.get("masked_rows") == "unmasked":
            self._masked = PYTORCH.masked
        # 1e-12 is fixed in all of TensorFlow's (modeling.py:486) and in PyTorch's head (modeling_nezha.py:731).
        epsilon = float(config.get("layer_norm_eps", 1e-12))
        self._epsilon = epsilon if self.dialect.epsilon is None else self.dialect.epsilon
        self._head_epsilon = epsilon if self.dialect.head_epsilon is None else self.dialect.head_epsilon
        stated = [config[name] for name in self.dialect.tied_by if name in config]
        tied = any(stated) if stated else self.dialect.tied or _DECODER not in self._names
        self._untied = self.dialect.unties and not tied
        activation = str(config.get("hidden_act", "gelu") or "")
        activation = activation.lower() if self.dialect.lower_case else activation
        if activation not in self.dialect.activations:
            known, name = ", ".join(filter(None, self.dialect.activations)), self.dialect.name
            raise MappingError(
                f"hidden_act is {activation!r} in the source's JSON; known of the {name} original: {known}",
                hint="Put one of these into a copy of the JSON, then convert and verify with: --config COPY",
            )
        self._activation = self.dialect.activations[activation]

    def forward(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        *,
        record: bool = True,
    ) -> dict[str, Array]:
        """All tensors that the model computes for one batch; see `forward_all`."""
        case = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return self.forward_all([case], record=record)[0]

    def forward_all(
        self,
        cases: Sequence[Mapping[str, Array | None]],
        *,
        record: bool = True,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> list[dict[str, Array]]:
        """All tensors for several batches of any lengths.

        All batches go through one layer before the next is read. So each layer is read once, and one is in memory.

        Args:
            cases: each with `input_ids`, [B, L] or for multiple choice [B, choices, L], and optionally `attention_mask`
                (1: attend, 0: do not) and `token_type_ids` of the same shape; left out, all ones and all zeros.
            record: also return what is computed before the head.
            progress: called after each layer with (layers done, layers, what was done).

        Returns:
            For each case, in float64: `embeddings` and `layer_0` ... [B, L, D], `pooler` [B, D] if the source has one,
            and the head's logits by transformers' names. With multiple choice, B is B * choices but for the logits.

        Raises:
            UsageError: inputs that the model cannot take.
            MappingError: a tensor that the head needs is missing.
        """
        inputs = [_Inputs(case, self.head) for case in cases]
        states = self._embeddings(inputs)
        width = states[0].shape[-1]
        if width % self._heads:
            raise MappingError(f"hidden size {width} is not a multiple of {self._heads} attention heads")
        outputs: list[dict[str, Array]] = [{"embeddings": state} if record else {} for state in states]
        tables = self._tables(width // self._heads)
        masks = [(1.0 - self._seen(case)) * self._masked for case in inputs]
        for i in range(self._layers):
            states = self._layer(i, states, masks, tables[i])
            if record or (self.head == "encoder" and i == self._layers - 1):
                for output, state in zip(outputs, states, strict=True):
                    output[f"layer_{i}"] = state
            if progress:
                progress(i + 1, self._layers, f"layer {i + 1} of {self._layers}")
        pooled: list[Array | None] = [None] * len(states)
        if self.head in _POOLED or "pooler.dense.weight" in self._names:
            pooler = self._linear("pooler.dense")
            pooled = [np.tanh(pooler(state[:, 0])) for state in states]
        head = self._head()
        for case, output, state, pool in zip(inputs, outputs, states, pooled, strict=True):
            if pool is not None and (record or self.head == "encoder"):
                output["pooler"] = pool
            output.update(zip(HEADS[self.head], head(state, pool), strict=True))
            if self.head == "multiple-choice":
                output["logits"] = output["logits"].reshape(case.choices)
        return outputs

    def _seen(self, case: _Inputs) -> Array:
        """Which keys each query sees, [B, L] or [B, L, L]: with a causal program none that comes after it.

        UniLM's prefix, of type 0, sees itself: bert4keras and bert4torch compare the sums of the types.
        """
        if self._prefix:
            sums = np.cumsum(case.types, axis=1)
            return case.mask[:, None, :] * (sums[:, None, :] <= sums[:, :, None])
        return case.mask[:, None, :] * np.tri(case.mask.shape[1]) if self._causal else case.mask

    def _tables(self, size: int) -> list[Array]:
        """R of each layer, [2K + 1, size], as the file has it where it has one: it is what the program loads.

        A table may be all layers' or each layer's own. One that is NEZHA's is computed, to more digits than it has.
        """
        shared = "embeddings.relative_positions.weight"
        own = [f"encoder.layer.{layer}.relative_positions.weight" for layer in range(self._layers)]
        names = [name if name in self._names else shared for name in own]
        if not any(name in self._names for name in names):
            return [self._expanded_table(size)] * self._layers
        return [self._compact_table(name, size) for name in names]

    def _compact_table(self, name: str, size: int) -> Array:
        stored = self._read(name)
        table = relative_table(len(stored) // 2, size)
        rounding = 0.01 if stored.dtype.itemsize == 2 else 2.0**-22 * len(stored)
        if stored.shape != table.shape or not np.abs(stored.astype(np.float64) - table).max() < rounding:
            return stored.astype(np.float64)  # it was trained
        return table

    def _expanded_table(self, size: int) -> Array:
        """R of a file that stores R[clip(j - i)] for every i and j in each layer; else computed.

        Row 0 has the distances 0, 1, 2, ... and repeats itself from the clip distance on; column 0 has the others.
        """
        name = next((name for name in self._names if name.startswith("encoder.layer.0.") and _POSITIONS in name), None)
        if name is None:
            return relative_table(self._clip, size)
        stored = self._read(name).astype(np.float64)
        same = (stored[0, 1:] == stored[0, :-1]).all(-1)
        clip = int(same.argmax()) if same.any() else self._clip
        table = relative_table(clip, size)
        ahead = min(clip + 1, len(stored))
        table[clip : clip + ahead] = stored[0, :ahead]
        table[clip - ahead + 1 : clip + 1] = stored[:ahead, 0][::-1]
        return table

    def _embeddings(self, inputs: list[_Inputs]) -> list[Array]:
        """Words plus token types, normalised, without positions (modeling.py:171-195). Row 0 is an ordinary row."""
        words, types = self._read(self._words()), self._read("embeddings.token_type_embeddings.weight")
        for case in inputs:
            for what, ids, table in (("input_ids", case.ids, words), ("token_type_ids", case.types, types)):
                if not 0 <= ids.min() <= ids.max() < len(table):
                    raise UsageError(f"{what} run from {ids.min()} to {ids.max()}; the source has {len(table)} rows")
        norm = self._norm("embeddings.LayerNorm", self._epsilon)
        return [norm(words[case.ids].astype(np.float64) + types[case.types]) for case in inputs]

    def _layer(self, i: int, states: list[Array], masks: list[Array], table: Array) -> list[Array]:
        """One layer on every case (modeling.py:1107-1164; modeling_nezha.py:327-484)."""
        at = f"encoder.layer.{i}"
        projections = [self._linear(f"{at}.attention.self.{name}") for name in ("query", "key", "value")]
        merge, merge_norm = self._linear(f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm"
        attention_norm, norm = (
            self._norm(merge_norm, self._epsilon),
            self._norm(f"{at}.output.LayerNorm", self._epsilon),
        )
        up, down = self._linear(f"{at}.intermediate.dense"), self._linear(f"{at}.output.dense")
        results = []
        for state, mask in zip(states, masks, strict=True):
            query, key, value = (
                part(state).reshape(*state.shape[:2], self._heads, -1).swapaxes(1, 2) for part in projections
            )
            attended = attention_norm(merge(attention(query, key, value, mask, table)) + state)
            results.append(norm(down(self._activation(up(attended))) + attended))
        return results

    def _head(self) -> Callable[[Array, Any], tuple[Array, ...]]:
        """The head as a function of the last layer [B, L, D] and the pooler [B, D]; its outputs in `HEADS`' order."""
        if self.head == "encoder":
            return lambda state, pooled: ()
        if self.head in _PREDICTING:  # run_pretraining.py:271-336
            transform = self._linear("cls.predictions.transform.dense")
            norm = self._norm("cls.predictions.transform.LayerNorm", self._head_epsilon)
            decoder = self._read(_DECODER if self._untied else self._words()).astype(np.float64).T
            bias = self._read(self._decoder_bias())

            def predict(state: Array) -> Array:
                return np.asarray(norm(self._activation(transform(state))) @ decoder + bias)

            if self.head != "pretraining":
                return lambda state, pooled: (predict(state),)
            relation = self._classifier("cls.seq_relationship")
            return lambda state, pooled: (predict(state), relation(pooled))
        if self.head == "question-answering":  # run_squad.py:613-630, before it masks what cannot be an answer
            spans = self._classifier(self.dialect.spans)
            return lambda state, pooled: tuple(np.moveaxis(spans(state), -1, 0))
        if self.head == "token-classification":  # run_classifier_ner.py:605-627
            tag = self._classifier("classifier")
            return lambda state, pooled: (tag(state),)
        # The next sentence and both classifiers: run_classifier.py:699-715, modeling_nezha.py:993-1029.
        classify = self._classifier("cls.seq_relationship" if self.head == "next-sentence-prediction" else "classifier")
        return lambda state, pooled: (classify(pooled),)

    def _words(self) -> str:
        """The name of the table of words.

        Both torch originals tie the decoder to the embeddings before they load, so the decoder's rows, which are loaded
        last, become those of both. transformers 4.40.2 does so unless tie_word_embeddings is false in the JSON;
        tests/commands/test_verify.py runs it.
        """
        tied = self.dialect.tied_to_decoder and self.head in _PREDICTING and not self._untied
        return _DECODER if tied and _DECODER in self._names else "embeddings.word_embeddings.weight"

    def _decoder_bias(self) -> str:
        """The head's bias by name. transformers has one parameter for its two biases, and loads the decoder's last."""
        decoder = "cls.predictions.decoder.bias"
        return decoder if self.dialect.decoder_bias_wins and decoder in self._names else "cls.predictions.bias"

    def _linear(self, name: str) -> Function:
        """x W + b."""
        return self._product(name, self.dialect.in_out)

    def _classifier(self, name: str) -> Function:
        """A head's last linear layer. TensorFlow's `output_weights` are [out, in], unlike its kernels."""
        kernel = self._names.get(f"{name}.weight", "").endswith("/kernel") and self.dialect.dense_heads
        return self._product(name, kernel or self.dialect.classifiers_in_out)

    def _product(self, name: str, in_out: bool) -> Function:
        weight, bias = self._read(f"{name}.weight").astype(np.float64), self._read(f"{name}.bias").astype(np.float64)
        kernel = weight if in_out else weight.T
        return lambda x: np.asarray(x @ kernel + bias)

    def _norm(self, name: str, epsilon: float) -> Function:
        scale, shift = self._read(f"{name}.weight").astype(np.float64), self._read(f"{name}.bias").astype(np.float64)
        return lambda x: layer_norm(x, scale, shift, epsilon)

    def _read(self, name: str) -> Array:
        if name not in self._names:
            raise MappingError(
                f"head {self.head!r} needs what PyTorch calls {name}: not among {len(self._entries)} tensors",
                hint="Choose another --head, or see what is there: nezha-convert inspect SOURCE",
            )
        return self._entries[self._names[name]].read()


class _Inputs:
    """One case's inputs, flattened to [B, L]."""

    def __init__(self, case: Mapping[str, Array | None], head: str) -> None:
        ids = np.asarray(case["input_ids"])
        axes = 3 if head == "multiple-choice" else 2
        if ids.ndim != axes or not ids.size:
            raise UsageError(f"input_ids have shape {ids.shape}; head {head!r} takes {axes} axes, none of them empty")

        def flat(name: str, default: int) -> Array:
            array = case.get(name)
            array = np.full(ids.shape, default) if array is None else np.asarray(array)
            if array.shape != ids.shape:
                raise UsageError(f"{name} has shape {array.shape}, input_ids {ids.shape}: expected the same")
            return array.reshape(-1, ids.shape[-1])

        self.choices = ids.shape[:-1]
        self.ids, self.types = flat("input_ids", 0), flat("token_type_ids", 0)
        self.mask = flat("attention_mask", 1).astype(np.float64)
