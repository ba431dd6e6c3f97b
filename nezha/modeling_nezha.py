"""NEZHA in PyTorch: the encoder and its heads.

A NEZHA (arXiv 1909.00204) is a BERT without absolute positions; its self-attention uses the clipped distance of every
two tokens instead (`attention_nezha.py`). Modules and weights have the names of transformers 4.40.2's NEZHA, so its
checkpoints load unchanged. Runs on transformers 4.52 and later.

Shapes below: B sequences of L tokens, hidden size D, vocabulary V. A decoder may keep the keys and values of P tokens
before these; elsewhere P is 0.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    NextSentencePredictorOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.pytorch_utils import apply_chunking_to_forward
from transformers.utils import ModelOutput, can_return_tuple

from .attention_nezha import (
    Attention,
    choose_attention,
    fast_dropout,
    is_traced,
    relative_position_table,
    type_of_products,
)
from .configuration_nezha import NezhaConfig

_ARGUMENTS_OF_4 = {
    "head_mask": "NezhaModel takes no head_mask: no model of transformers 5 does. To silence a head, set its rows of "
    "attention.output.dense.weight to 0.",
    "position_ids": "NezhaModel takes no position_ids: NEZHA sees the distance between two tokens, which follows from "
    "their order. Leave it out.",
}
"""Arguments that the model had in transformers 4.40.2, and what to do without them."""

_CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""What this release of transformers calls a decoder's keys and values: `cache` from 5.24 on."""

Forward = TypeVar("Forward", bound=Callable[..., ModelOutput])


def tuple_on_request(forward: Forward) -> Forward:
    """transformers' `can_return_tuple` (with `return_dict=False` a model returns a tuple), for type checkers."""
    return cast(Forward, can_return_tuple(forward))


class NezhaDropout(nn.Dropout):
    """Dropout of hidden states that needs fewer random numbers on the CPU."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Any shape."""
        if not self.training or self.p == 0 or is_traced() or hidden_states.device.type != "cpu":
            return super().forward(hidden_states)
        return fast_dropout(hidden_states, self.p)


class NezhaEmbeddings(nn.Module):
    """Word plus segment embeddings, normalised. NEZHA has no position embeddings."""

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__()
        # padding_idx keeps the padding row out of training; a row from a checkpoint keeps its values. Typed as a
        # module, since `set_input_embeddings` may put any other module here.
        self.word_embeddings: nn.Module = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = NezhaDropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor | None, token_type_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Ids and segments [B, L], or word embeddings [B, L, D] in place of ids, to [B, L, D]."""
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            token_type_ids = torch.zeros(words.shape[:-1], dtype=torch.long, device=words.device)
        embeddings: Tensor = self.dropout(self.LayerNorm(words + self.token_type_embeddings(token_type_ids)))
        return embeddings


class NezhaSelfAttention(nn.Module):
    """Project to queries, keys and values, then attend in the form that `choose_attention` chose."""

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__()
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(
        self, hidden_states: Tensor, attend: Attention, relations: Tensor, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """[L, B, D] to [L, B, D], and the attention probabilities [B, heads, L, L] if `attend` returns them.

        Here and in the layers, `relations` belongs to `attend`, and `attention_mask` broadcasts to [B, heads, L, L].
        """
        context, probabilities = attend(
            self._split_heads(self.query(hidden_states)),
            self._split_heads(self.key(hidden_states)),
            self._split_heads(self.value(hidden_states)),
            relations,
            attention_mask,
            dropout=self.dropout.p if self.training else 0.0,
        )
        return context.permute(2, 0, 1, 3).flatten(2), probabilities

    def _split_heads(self, projected: Tensor) -> Tensor:
        """[L, B, D] to [B, heads, L, head_size]."""
        heads: Tensor = projected.unflatten(-1, (-1, self.head_size))
        return heads.permute(1, 2, 0, 3)


class NezhaResidual(nn.Module):
    """The end of both halves of a layer: project, drop out, add the half's input, normalise."""

    def __init__(self, config: NezhaConfig, in_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = NezhaDropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, residual: Tensor) -> Tensor:
        """[L, B, in_features] and the half's input [L, B, D] to [L, B, D]."""
        normalised: Tensor = self.LayerNorm(self.dropout(self.dense(hidden_states)) + residual)
        return normalised


class NezhaAttention(nn.Module):
    """The first half of a layer."""

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__()
        self.self = NezhaSelfAttention(config)
        self.output = NezhaResidual(config, config.hidden_size)

    def forward(
        self, hidden_states: Tensor, attend: Attention, relations: Tensor, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """As in `NezhaSelfAttention`."""
        context, probabilities = self.self(hidden_states, attend, relations, attention_mask)
        return self.output(context, hidden_states), probabilities


class NezhaIntermediate(nn.Module):
    """The first layer of the feed-forward half, and its activation."""

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.gelu = {"gelu": "none", "gelu_pytorch_tanh": "tanh"}.get(config.hidden_act)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[L, B, D] to [L, B, intermediate_size]."""
        wide: Tensor = self.dense(hidden_states)
        if self.gelu is None or torch.is_grad_enabled() or is_traced():
            wide = self.activation(wide)
        else:
            # In place. The system would have to clear the memory of a second tensor of this size, which takes 4 % of a
            # pass of 4 x 512 tokens.
            torch.ops.aten.gelu_(wide, approximate=self.gelu)
        return wide


class NezhaLayer(GradientCheckpointingLayer):
    """One transformer layer.

    It takes and returns [B, L, D]. Inside, the sequence comes first, so that batch and heads merge without a copy.
    """

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__()
        self.chunk_size_feed_forward = config.chunk_size_feed_forward
        self.attention = NezhaAttention(config)
        self.intermediate = NezhaIntermediate(config)
        self.output = NezhaResidual(config, config.intermediate_size)

    def forward(
        self, hidden_states: Tensor, attend: Attention, relations: Tensor, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """[B, L, D], best as a view of [L, B, D], to [B, L, D]; the rest as in `NezhaSelfAttention`."""
        attended, probabilities = self.attention(hidden_states.transpose(0, 1), attend, relations, attention_mask)
        hidden_states = apply_chunking_to_forward(self._feed_forward, self.chunk_size_feed_forward, 0, attended)
        return hidden_states.transpose(0, 1), probabilities

    def _feed_forward(self, attended: Tensor) -> Tensor:
        output: Tensor = self.output(self.intermediate(attended), attended)
        return output


class NezhaEncoder(nn.Module):
    """The layers, and the table of relative positions that they share."""

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__()
        self.config = config
        self.max_relative_position = config.max_relative_position
        self.head_size = config.hidden_size // config.num_attention_heads
        self.layer = nn.ModuleList(NezhaLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """Embeddings [B, L, D] to the last layer's output [B, L, D], and on request everything before it.

        Each layer adds its keys and values to the `cache`.
        """
        # Computed in each pass, which costs next to nothing. As a buffer, it would be unset after `from_pretrained`:
        # transformers 5 builds a model on the meta device and restores only what the checkpoint holds.
        dtype = type_of_products(hidden_states)
        table = relative_position_table(
            self.max_relative_position,
            self.head_size,
            device=hidden_states.device,
            dtype=torch.promote_types(dtype, torch.float32),
        )
        reference = output_attentions or self.config._attn_implementation == "eager"
        past, length = _past(cache), hidden_states.shape[1]
        attend, relations = choose_attention(table, length, attention_mask, dtype=dtype, past=past, reference=reference)

        all_hidden_states, all_attentions = [hidden_states], []
        hidden_states = hidden_states.transpose(0, 1).contiguous().transpose(0, 1)
        for index, layer in enumerate(self.layer):
            form = attend if cache is None else _attend_with(cache, index, attend)
            # All arguments by position: reentrant gradient checkpointing passes no gradient through keywords.
            hidden_states, probabilities = layer(hidden_states, form, relations, attention_mask)
            if output_hidden_states:
                all_hidden_states.append(hidden_states)
            if output_attentions:
                all_attentions.append(probabilities)
        hidden_states = all_hidden_states[-1] = hidden_states.contiguous()
        return BaseModelOutput(
            last_hidden_state=hidden_states,
            hidden_states=tuple(all_hidden_states) if output_hidden_states else None,
            attentions=tuple(all_attentions) if output_attentions else None,
        )


def _named(cache: Cache | None) -> dict[str, Any]:
    """`cache` as a field of an output, by the name that this release has for it: the other one logs a warning."""
    return {_CACHE: cache}


def _past(cache: Cache | None) -> int:
    return 0 if cache is None else int(cache.get_seq_length())


def _attend_with(cache: Cache, layer: int, attend: Attention) -> Attention:
    """`attend`, with the keys and values of a layer that are in `cache` before its own, which go there too."""

    def attend_with(query: Tensor, key: Tensor, value: Tensor, *others: Any, **options: Any) -> Any:
        return attend(query, *cache.update(key, value, layer), *others, **options)

    return attend_with


class NezhaPooler(nn.Module):
    """Projects the first token's hidden state, for the heads that classify whole sequences."""

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, L, D] to [B, D]."""
        first: Tensor = self.dense(hidden_states[:, 0])
        return first.tanh()


class NezhaPredictionTransform(nn.Module):
    """Transforms a hidden state before it is compared with every word."""

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        transformed: Tensor = self.LayerNorm(self.activation(self.dense(hidden_states)))
        return transformed


class NezhaPredictions(nn.Module):
    """Hidden states to a score for every word of the vocabulary.

    The bias is a parameter of this module, as in every checkpoint, and the decoder has none. FSDP2 puts the word
    embeddings and the decoder, which share a weight, into one group; a parameter cannot be in two groups.
    """

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__()
        self.transform = NezhaPredictionTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, L, D] to [B, L, V]."""
        # In place: the scores are the largest tensor of a pass, and under autocast a new sum would be in float32.
        scores: Tensor = self.decoder(self.transform(hidden_states))
        return scores.add_(self.bias)


class NezhaPretrainingHeads(nn.Module):
    """The heads of pretraining, under the names that every checkpoint has for them."""

    def __init__(self, config: NezhaConfig, *, predictions: bool, seq_relationship: bool) -> None:
        super().__init__()
        if predictions:
            self.predictions = NezhaPredictions(config)
        if seq_relationship:
            self.seq_relationship = nn.Linear(config.hidden_size, 2)


def _tell_peft() -> None:
    """Give PEFT, where it is imported, the modules to adapt: BERT's, whose names NEZHA's modules have."""
    constants = sys.modules.get("peft.utils.constants")
    for name, modules in vars(constants).items() if constants else ():
        if name.startswith("TRANSFORMERS_MODELS_TO_") and "bert" in modules:
            modules.setdefault(NezhaConfig.model_type, modules["bert"])


class NezhaPreTrainedModel(PreTrainedModel):
    """Common to every NEZHA: initialisation, and what transformers has to know to load and run it.

    Use one of its subclasses; its own part is what `from_pretrained` and `save_pretrained` need.

    Args:
        config: sizes and choices.
        *inputs, **kwargs: as of transformers' `PreTrainedModel`, which takes none.

    Example:
        >>> from nezha import NezhaForMaskedLM, NezhaPreTrainedModel
        >>> issubclass(NezhaForMaskedLM, NezhaPreTrainedModel)
        True
    """

    config_class = NezhaConfig
    base_model_prefix = "nezha"
    supports_gradient_checkpointing = True
    # Whether Trainer passes `num_items_in_batch`, so that the loss divides by it and Trainer does not. Without this
    # attribute, Trainer would assume True wherever it sees **kwargs. The heads with `labels`, which Trainer counts,
    # set it to True.
    accepts_loss_kwargs = False
    _no_split_modules = ["NezhaEmbeddings", "NezhaLayer"]  # noqa: RUF012  a ClassVar may not override transformers' own
    # "sdpa", the default, means the fast forms of `attention_nezha.py`; "eager" means the reference form.
    _supports_sdpa = True
    # Older releases of transformers wrote these constants, and a second name of the decoder's bias, into checkpoints.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"relative_positions_encoding\.positions_encoding$",
        r"embeddings\.token_type_ids$",
        r"embeddings\.position_ids$",
        r"predictions\.decoder\.bias$",
    ]

    def __init__(self, config: NezhaConfig, *inputs: Any, **kwargs: Any) -> None:
        super().__init__(config, *inputs, **kwargs)
        _tell_peft()

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """`set_attn_implementation` works; transformers would otherwise look for its own functions in this source."""
        return True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        # While transformers 5 loads a model, `nn.init` skips loaded parameters, but not one row of a loaded parameter.
        loaded = getattr(getattr(module, "weight", None), "_is_hf_initialized", False)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None and not loaded:
            nn.init.zeros_(module.weight[module.padding_idx])
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, (nn.Linear, nn.LayerNorm, NezhaPredictions)) and module.bias is not None:
            nn.init.zeros_(module.bias)


class NezhaModel(NezhaPreTrainedModel):
    """The encoder: a hidden state for each token and, from the pooler, one for the sequence.

    The heads are on top of it, and take the arguments of its `forward` too.

    Args:
        config: sizes and choices.
        add_pooling_layer: whether it has a pooler; None takes what the config says. True goes into the config, so that
            a model saved with its pooler is loaded with it.

    Example:
        >>> from nezha import NezhaConfig, NezhaModel
        >>> config = NezhaConfig(
        ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        ... )
        >>> NezhaModel(config, add_pooling_layer=False).pooler is None
        True
    """

    def __init__(self, config: NezhaConfig, add_pooling_layer: bool | None = None) -> None:
        super().__init__(config)
        if add_pooling_layer is None:
            add_pooling_layer = config.add_pooling_layer
        elif add_pooling_layer:
            config.add_pooling_layer = True
        self.embeddings = NezhaEmbeddings(config)
        self.encoder = NezhaEncoder(config)
        self.pooler = NezhaPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embedding, for transformers to tie and resize."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embedding."""
        self.embeddings.word_embeddings = value

    @tuple_on_request
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **others: Any,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Encode B sequences of any length L.

        Args:
            input_ids: token ids [B, L].
            attention_mask: not 0 (or True) where a token may be attended to. [B, P + L] for keys, [B, L, P + L] for
                every query and key, or [B, 1 or heads, L, P + L]. None lets every token attend to every token. A
                floating mask of four dimensions is added to the scores, as in transformers 5: 0 shows a key, a large
                negative number hides it.
            token_type_ids: segment of each token [B, L]; None means all 0.
            inputs_embeds: word embeddings [B, L, D], in place of `input_ids`.
            output_attentions: also return every layer's attention probabilities. None takes what the config says.
            output_hidden_states: also return the embeddings and every layer's output. None takes what the config says.
            past_key_values: of a decoder, the keys and values of the P tokens before these; it gets those of these too.
            use_cache: of a decoder, True makes a new `past_key_values` where none is given.
            cache: `past_key_values`, by the name that transformers has for it from 5.24 on.
            **others: `return_dict`: False returns a tuple of the fields that are not None. No other argument is known.

        Returns:
            `BaseModelOutputWithPoolingAndCrossAttentions` with

            * `last_hidden_state` [B, L, D]: the last layer's output.
            * `pooler_output` [B, D]: tanh of a linear layer on the first token's state. None without a pooler.
            * `past_key_values`: of a decoder with a cache, the cache; it is `cache` from transformers 5.24 on.
            * `hidden_states`, with `output_hidden_states`: the embeddings and every layer's output, [B, L, D] each.
            * `attentions`, with `output_attentions`: every layer's probabilities, [B, heads, L, P + L] each.

        Raises:
            TypeError: there is another argument; code for transformers 4 may pass head_mask or position_ids.
            ValueError: both or none of `input_ids` and `inputs_embeds` are there, the mask has another shape, or it is
                added to the scores and has a positive value; or there are `past_key_values` of a fixed length, or
                where tokens that come later may be attended to.

        Example:
            >>> import torch
            >>> from nezha import NezhaConfig, NezhaModel
            >>> config = NezhaConfig(
            ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
            ... )
            >>> model = NezhaModel(config).eval()
            >>> ids = torch.tensor([[2, 10, 11, 12, 3], [2, 13, 3, 0, 0]])
            >>> outputs = model(ids, attention_mask=(ids != 0).long(), output_hidden_states=True)
            >>> outputs.last_hidden_state.shape, outputs.pooler_output.shape, len(outputs.hidden_states)
            (torch.Size([2, 5, 16]), torch.Size([2, 16]), 3)
            >>> alone = model(ids[1:, :3]).last_hidden_state  # padding changes nothing
            >>> torch.allclose(outputs.last_hidden_state[1:, :3], alone, atol=1e-5)
            True
        """
        for name in others:
            raise TypeError(_ARGUMENTS_OF_4.get(name, f"NezhaModel.forward() has no argument {name!r}."))
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("NezhaModel takes either input_ids or inputs_embeds: one of them, not both.")
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states

        cache = self._cache(past_key_values, cache, use_cache)
        embeddings = self.embeddings(input_ids, token_type_ids, inputs_embeds)
        mask = self._mask(attention_mask, token_type_ids, embeddings, _past(cache))
        encoded = self.encoder(embeddings, mask, cache, output_attentions, output_hidden_states)
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=None if self.pooler is None else self.pooler(encoded.last_hidden_state),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            **_named(cache),
        )

    def _cache(self, past_key_values: Cache | None, cache: Cache | None, use_cache: bool | None) -> Cache | None:
        """Where this pass finds keys and values, and adds its own."""
        if cache is None:
            cache = past_key_values
        elif past_key_values is not None:
            raise ValueError("NezhaModel takes either past_key_values or cache, two names of one thing: not both.")
        if cache is not None and not self.config.is_decoder:
            raise ValueError(
                f"NezhaModel takes {_CACHE} if config.is_decoder is true, found false: a token that attends to those "
                "after it changes with them."
            )
        if getattr(cache, "is_compileable", False):
            raise ValueError(
                f"NezhaModel takes as {_CACHE} one that grows, such as DynamicCache, found {type(cache).__name__}, "
                "whose length is fixed."
            )
        # A layer that is computed a second time for its gradient would add to the cache twice.
        twice = self.training and any(layer.gradient_checkpointing for layer in self.encoder.layer)
        if not self.config.is_decoder or twice:
            return None
        return DynamicCache() if cache is None and use_cache else cache

    def _mask(
        self, attention_mask: Tensor | None, token_type_ids: Tensor | None, embeddings: Tensor, past: int
    ) -> Tensor | None:
        """The user's mask with what the config says of it: boolean or added to the scores, for [B, heads, L, P + L]."""
        length = embeddings.shape[1]
        mask = None if attention_mask is None else _broadcastable_mask(attention_mask, length, past + length)
        if mask is not None and mask.dtype == torch.bool and self.config.masked_rows == "unmasked":
            mask = mask | ~mask.any(-1, keepdim=True)
        if not self.config.is_decoder:
            return mask
        causal = torch.ones(length, past + length, dtype=torch.bool, device=embeddings.device).tril(past)[None, None]
        if self.config.prefix_lm:
            causal = causal | _prefix_mask(token_type_ids, embeddings, past)
        if mask is None:
            return causal
        if mask.dtype == torch.bool:
            return mask & causal
        return mask.masked_fill(~causal, torch.finfo(mask.dtype).min)


def _prefix_mask(token_type_ids: Tensor | None, embeddings: Tensor, past: int) -> Tensor:
    """Whether a query sees a key [B, 1, L, P + L], by UniLM's rule: the types up to the key have no larger sum."""
    if token_type_ids is None:
        token_type_ids = torch.zeros(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
    if past and not is_traced() and bool((token_type_ids == 0).any()):
        raise ValueError(
            "With past_key_values, a prefix LM takes tokens of other types than 0: those of its prefix, which are of "
            "type 0, see one another. Pass the whole prefix at once, and token_type_ids of 1 after it."
        )
    sums = token_type_ids.cumsum(-1)
    return functional.pad(sums[:, None, None, :] <= sums[:, None, :, None], (past, 0))


def _broadcastable_mask(attention_mask: Tensor, length: int, keys: int) -> Tensor:
    """A user's mask for [B, heads, L, P + L]: boolean, or floating if it is to be added to the scores."""
    if attention_mask.dim() not in (2, 3, 4) or attention_mask.shape[-1] != keys:
        raise ValueError(
            f"attention_mask must be [batch, {keys}], [batch, {length}, {keys}] or "
            f"[batch, 1 or heads, {length}, {keys}], found {list(attention_mask.shape)}."
        )
    if attention_mask.dim() == 4 and attention_mask.is_floating_point():
        if not is_traced() and bool((attention_mask > 0).any()):
            raise ValueError(
                "attention_mask has four dimensions and floating values, so it is added to the scores: expected 0 "
                "where a token may be attended to and a large negative number where not, found a positive value. For a "
                "mask of ones and zeros pass attention_mask.bool()."
            )
        return attention_mask
    mask = attention_mask != 0
    if mask.dim() == 2:
        return mask[:, None, None, :]
    return mask[:, None] if mask.dim() == 3 else mask


class _NezhaWithPredictions(NezhaPreTrainedModel):
    """A model whose `cls.predictions` scores the vocabulary."""

    cls: NezhaPretrainingHeads
    _tied_weights_keys = {  # noqa: RUF012
        "cls.predictions.decoder.weight": "nezha.embeddings.word_embeddings.weight"
    }

    def tie_weights(self, missing_keys: set[str] | None = None, *args: Any, **kwargs: Any) -> None:
        """Tie the weights, also if a checkpoint holds one tensor under both names, as 4.40.2's `.bin` files do.

        transformers 5.0 would not tie the two then. It does if the second name counts as missing.
        """
        if missing_keys is None:
            super().tie_weights(*((None, *args) if args else ()), **kwargs)  # transformers 4's takes no argument
            return
        for second, first in self.get_expanded_tied_weights_keys().items():
            both = [self.get_parameter(name) for name in (first, second) if name not in missing_keys]
            if len(both) == 2 and not any(weight.is_meta for weight in both) and torch.equal(*both):
                missing_keys.add(second)
        super().tie_weights(missing_keys, *args, **kwargs)

    def get_output_embeddings(self) -> nn.Linear:
        """The layer over the vocabulary, for transformers to tie and resize."""
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the layer over the vocabulary; if it has a bias, that becomes the bias of `cls.predictions`."""
        self.cls.predictions.decoder = new_embeddings
        if new_embeddings.bias is not None:
            self.cls.predictions.bias = new_embeddings.bias
            new_embeddings.register_parameter("bias", None)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize as every transformers model does; the bias of a new word is 0."""
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        bias = self.cls.predictions.bias
        bias.data = functional.pad(bias.data, (0, embeddings.num_embeddings - len(bias)))
        return embeddings


@dataclass
class NezhaForPreTrainingOutput(ModelOutput):
    """What `NezhaForPreTraining` returns.

    Attributes:
        loss: [], the sum of both losses, if the call had both labels.
        prediction_logits: [B, L, V], the scores of the words.
        seq_relationship_logits: [B, 2]; column 0 means "the second segment follows the first".
        hidden_states: on request, the embeddings and every layer's output, [B, L, D] each.
        attentions: on request, every layer's probabilities, [B, heads, L, L] each.

    Example:
        >>> from nezha import NezhaForPreTrainingOutput
        >>> import torch
        >>> NezhaForPreTrainingOutput(prediction_logits=torch.zeros(1, 4, 40)).prediction_logits.shape
        torch.Size([1, 4, 40])
    """

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class NezhaForPreTraining(_NezhaWithPredictions):
    """Both heads of pre-training: masked words, and whether the second segment follows the first.

    It has a pooler. The decoder of the words shares its weight with the word embeddings (`config.tie_word_embeddings`).

    Args:
        config: sizes and choices.

    Example:
        >>> from nezha import NezhaConfig, NezhaForPreTraining
        >>> config = NezhaConfig(
        ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        ... )
        >>> NezhaForPreTraining(config).cls.seq_relationship
        Linear(in_features=16, out_features=2, bias=True)
    """

    accepts_loss_kwargs = True

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__(config)
        self.nezha = NezhaModel(config, add_pooling_layer=True)
        self.cls = NezhaPretrainingHeads(config, predictions=True, seq_relationship=True)
        self.post_init()

    @tuple_on_request
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        num_pairs_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> NezhaForPreTrainingOutput:
        """Score words and sentence order.

        Args:
            input_ids: token ids [B, L].
            attention_mask: [B, L]: 1 where a token may be attended to, 0 where it is padding. Also a mask of three or
                four dimensions, as in `NezhaModel`. None lets every token attend to every token.
            token_type_ids: the segment of each token [B, L]: 0 for the first text, 1 for the second. None means all 0.
            inputs_embeds: word embeddings [B, L, D], in place of `input_ids`.
            labels: the word at each position [B, L]; -100 where the loss ignores it.
            next_sentence_label: [B]; 0 if the second segment follows the first, 1 if not. A loss needs both labels.
            num_items_in_batch: how many words with a label all batches of an optimizer step have; the loss is then this
                batch's share of their mean. Trainer passes it. None: the mean over this batch.
            num_pairs_in_batch: the same for `next_sentence_label`. Trainer does not count these; if it is None, the
                loss of the sentence order has the same weight in each batch as the loss of the words.
            **kwargs: `output_attentions`, `output_hidden_states` and `return_dict`, as in `NezhaModel`.

        Returns:
            `NezhaForPreTrainingOutput` with

            * `loss` [], with both labels: the mean of -log softmax(prediction_logits)[label] over the words whose label
              is not -100, plus the mean of -log softmax(seq_relationship_logits)[next_sentence_label].
            * `prediction_logits` [B, L, V].
            * `seq_relationship_logits` [B, 2]; column 0 means "the second segment follows the first".
            * `hidden_states`, with `output_hidden_states`: the embeddings and every layer's output, [B, L, D] each.
            * `attentions`, with `output_attentions`: every layer's probabilities, [B, heads, L, L] each.

        Raises:
            TypeError: there is another argument; code for transformers 4 may pass head_mask or position_ids.
            ValueError: both or none of `input_ids` and `inputs_embeds` are there, or the mask has another shape.

        Example:
            >>> import torch
            >>> from nezha import NezhaConfig, NezhaForPreTraining
            >>> config = NezhaConfig(
            ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
            ... )
            >>> model = NezhaForPreTraining(config).eval()
            >>> ids = torch.tensor([[2, 10, 4, 3, 11, 3]])
            >>> segments = torch.tensor([[0, 0, 0, 0, 1, 1]])
            >>> words = torch.tensor([[-100, -100, 12, -100, -100, -100]])
            >>> order = torch.tensor([0])
            >>> outputs = model(ids, token_type_ids=segments, labels=words, next_sentence_label=order)
            >>> outputs.prediction_logits.shape, outputs.seq_relationship_logits.shape
            (torch.Size([1, 6, 40]), torch.Size([1, 2]))
            >>> word = -outputs.prediction_logits.log_softmax(-1)[0, 2, 12]
            >>> torch.allclose(outputs.loss, word - outputs.seq_relationship_logits.log_softmax(-1)[0, 0])
            True
        """
        outputs = self.nezha(input_ids, attention_mask, token_type_ids, inputs_embeds, return_dict=True, **kwargs)
        prediction_logits = self.cls.predictions(outputs.last_hidden_state)
        seq_relationship_logits = self.cls.seq_relationship(outputs.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            order = _cross_entropy(seq_relationship_logits, next_sentence_label, num_pairs_in_batch)
            if num_items_in_batch is not None and num_pairs_in_batch is None:
                order = order * ((labels != -100).sum() / num_items_in_batch).to(order.device)
            loss = _cross_entropy(prediction_logits, labels, num_items_in_batch) + order
        return NezhaForPreTrainingOutput(
            loss=loss,
            prediction_logits=prediction_logits,
            seq_relationship_logits=seq_relationship_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class NezhaForMaskedLM(_NezhaWithPredictions):
    """The head for masked words.

    It has no pooler. The decoder shares its weight with the word embeddings (`config.tie_word_embeddings`).

    Args:
        config: sizes and choices.

    Example:
        >>> from nezha import NezhaConfig, NezhaForMaskedLM
        >>> config = NezhaConfig(
        ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        ... )
        >>> NezhaForMaskedLM(config).cls.predictions.decoder
        Linear(in_features=16, out_features=40, bias=False)
    """

    accepts_loss_kwargs = True

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__(config)
        self.nezha = NezhaModel(config, add_pooling_layer=False)
        self.cls = NezhaPretrainingHeads(config, predictions=True, seq_relationship=False)
        self.post_init()

    @tuple_on_request
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Score words.

        Args:
            input_ids: token ids [B, L].
            attention_mask: [B, L]: 1 where a token may be attended to, 0 where it is padding. Also a mask of three or
                four dimensions, as in `NezhaModel`. None lets every token attend to every token.
            token_type_ids: the segment of each token [B, L]: 0 for the first text, 1 for the second. None means all 0.
            inputs_embeds: word embeddings [B, L, D], in place of `input_ids`.
            labels: the word at each position [B, L]; -100 where the loss ignores it.
            num_items_in_batch: how many labels all batches of an optimizer step have; the loss is then this batch's
                share of their mean. Trainer passes it. None: the mean over this batch.
            **kwargs: `output_attentions`, `output_hidden_states` and `return_dict`, as in `NezhaModel`.

        Returns:
            `MaskedLMOutput` with

            * `loss` [], with `labels`: the mean of -log softmax(logits)[label] over the positions whose label is not
              -100.
            * `logits` [B, L, V]: a score for each word of the vocabulary at each position.
            * `hidden_states`, with `output_hidden_states`: the embeddings and every layer's output, [B, L, D] each.
            * `attentions`, with `output_attentions`: every layer's probabilities, [B, heads, L, L] each.

        Raises:
            TypeError: there is another argument; code for transformers 4 may pass head_mask or position_ids.
            ValueError: both or none of `input_ids` and `inputs_embeds` are there, or the mask has another shape.

        Example:
            >>> import torch
            >>> from nezha import NezhaConfig, NezhaForMaskedLM
            >>> config = NezhaConfig(
            ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
            ... )
            >>> model = NezhaForMaskedLM(config).eval()
            >>> ids = torch.tensor([[2, 10, 4, 3]])
            >>> outputs = model(ids, labels=torch.tensor([[-100, -100, 12, -100]]))
            >>> outputs.logits.shape
            torch.Size([1, 4, 40])
            >>> torch.allclose(outputs.loss, -outputs.logits.log_softmax(-1)[0, 2, 12])
            True
        """
        outputs = self.nezha(input_ids, attention_mask, token_type_ids, inputs_embeds, return_dict=True, **kwargs)
        logits = self.cls.predictions(outputs.last_hidden_state)
        return MaskedLMOutput(
            loss=None if labels is None else _cross_entropy(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class NezhaForCausalLM(_NezhaWithPredictions, GenerationMixin):
    """The masked words' head on a decoder: scores the word after each token, and generates text.

    It is always a decoder: where the config does not say `is_decoder`, the model's own copy does. It has no pooler.

    Args:
        config: sizes and choices.

    Example:
        >>> from nezha import NezhaConfig, NezhaForCausalLM
        >>> config = NezhaConfig(
        ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        ... )
        >>> NezhaForCausalLM(config).config.is_decoder
        True
    """

    accepts_loss_kwargs = True
    _supports_cache_class = True  # what transformers up to 4.53 asks

    def __init__(self, config: NezhaConfig) -> None:
        if not config.is_decoder:
            config = copy.deepcopy(config)
            config.is_decoder = True
        super().__init__(config)
        self.nezha = NezhaModel(config, add_pooling_layer=False)
        self.cls = NezhaPretrainingHeads(config, predictions=True, seq_relationship=False)
        self.post_init()

    @tuple_on_request
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        logits_to_keep: int | Tensor = 0,
        shift_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Score the word after each token.

        Args:
            input_ids: token ids [B, L].
            attention_mask: [B, L]: 1 where a token may be attended to, 0 where it is padding. Also a mask of three or
                four dimensions, as in `NezhaModel`. None lets every token attend to every token.
            token_type_ids: the segment of each token [B, L]: 0 for the first text, 1 for the second. None means all 0.
            inputs_embeds: word embeddings [B, L, D], in place of `input_ids`.
            labels: the words themselves [B, L], as in every causal model of transformers: the scores at a position are
                compared with the label at the next. -100 where the loss ignores it.
            num_items_in_batch: how many labels all batches of an optimizer step have; the loss is then this batch's
                share of their mean. Trainer passes it. None: the mean over this batch.
            past_key_values, cache: two names of the keys and values of the P tokens before these, as in `NezhaModel`.
            use_cache: whether to return them; None takes `config.use_cache` outside of training.
            logits_to_keep: score this many tokens at the end, or those of these numbers; 0 scores all.
            shift_labels: in place of `labels`, the next word of each position [B, L], as Trainer passes it where each
                machine has a part of the sequence.
            **kwargs: `output_attentions`, `output_hidden_states` and `return_dict`, as in `NezhaModel`.

        Returns:
            `CausalLMOutputWithPast` with

            * `loss` [], with labels: the mean of -log softmax(logits[:, i])[labels[:, i + 1]] over the labels that are
              not -100.
            * `logits` [B, L, V], or of the tokens of `logits_to_keep`.
            * `past_key_values`, which is `cache` from transformers 5.24 on: with `use_cache`.
            * `hidden_states`, with `output_hidden_states`: the embeddings and every layer's output, [B, L, D] each.
            * `attentions`, with `output_attentions`: every layer's probabilities, [B, heads, L, P + L] each.

        Raises:
            TypeError: there is another argument; code for transformers 4 may pass head_mask or position_ids.
            ValueError: both or none of `input_ids` and `inputs_embeds` are there, or the mask or `past_key_values` are
                not as in `NezhaModel`.

        Example:
            >>> import torch
            >>> from nezha import NezhaConfig, NezhaForCausalLM
            >>> config = NezhaConfig(
            ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
            ... )
            >>> model = NezhaForCausalLM(config).eval()
            >>> ids = torch.tensor([[2, 10, 11, 3]])
            >>> outputs = model(ids, labels=ids)
            >>> following = torch.nn.functional.cross_entropy(outputs.logits[0, :-1], ids[0, 1:])
            >>> outputs.logits.shape, torch.allclose(outputs.loss, following)
            (torch.Size([1, 4, 40]), True)
            >>> model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=0).shape
            torch.Size([1, 7])
        """
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and not is_traced()
        kwargs.pop("cache_position", None)  # what `generate` of transformers up to 5.0 passes; the cache says it
        outputs = self.nezha(
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            cache=cache,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.cls.predictions(outputs.last_hidden_state[:, kept])
        loss = None
        if shift_labels is not None:
            loss = _cross_entropy(logits, shift_labels, num_items_in_batch)
        elif labels is not None:
            loss = _cross_entropy(logits[:, :-1], labels[:, 1:], num_items_in_batch)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **_named(getattr(outputs, _CACHE)),
        )

    def generate(
        self,
        inputs: Tensor | None = None,
        *args: Any,
        generated_token_type_id: int | Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate text, as every causal model of transformers does.

        Args:
            inputs: the prompts' ids [B, L].
            *args: as of `GenerationMixin.generate`.
            generated_token_type_id: the segment of what is generated: a number, or one a sequence [B, 1]. None means 1
                in a prefix LM, and elsewhere the segment of the last token given.
            **kwargs: as of `GenerationMixin.generate`: `attention_mask`, `token_type_ids`, `max_new_tokens`,
                `do_sample`, `num_beams` and others.

        Returns:
            Ids [B, L + new tokens], or what `return_dict_in_generate` asks for.

        Raises:
            ValueError: an option of `generate` is not one that the model knows, or the cache has a fixed length.

        Example:
            >>> import torch
            >>> from nezha import NezhaConfig, NezhaForCausalLM
            >>> config = NezhaConfig(
            ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
            ... )
            >>> model = NezhaForCausalLM(config).eval()
            >>> prompt = torch.tensor([[2, 10, 11]])
            >>> asked = {"max_new_tokens": 2, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
            >>> model.generate(prompt, generated_token_type_id=1, **asked).shape
            torch.Size([1, 5])
        """
        if generated_token_type_id is None and self.config.prefix_lm:
            generated_token_type_id = 1
        if generated_token_type_id is not None:
            kwargs["generated_token_type_id"] = generated_token_type_id
            prompts = (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
            given = next((prompt for prompt in prompts if prompt is not None), None)
            if kwargs.get("token_type_ids") is None and given is not None:
                kwargs["token_type_ids"] = torch.zeros(given.shape[:2], dtype=torch.long, device=given.device)
        mixin: Any = super()  # its methods are typed for their own protocol of models
        return mixin.generate(inputs, *args, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        *args: Any,
        inputs_embeds: Tensor | None = None,
        generated_token_type_id: int | Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What `generate` passes to `forward`, which needs no `generated_token_type_id`.

        `generate` takes the arguments that it finds here.
        """
        mixin: Any = super()
        prepared: dict[str, Any] = mixin.prepare_inputs_for_generation(
            input_ids, *args, inputs_embeds=inputs_embeds, **kwargs
        )
        return prepared

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """As in transformers, which repeats the last segment; but with `generated_token_type_id`."""
        before = model_kwargs.get("token_type_ids")
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        segment = model_kwargs.get("generated_token_type_id")
        if before is not None and segment is not None:
            model_kwargs["token_type_ids"][:, before.shape[1] :] = segment
        return model_kwargs


class NezhaForNextSentencePrediction(NezhaPreTrainedModel):
    """The head that says whether the second segment follows the first.

    It has a pooler, of which the head is a linear layer.

    Args:
        config: sizes and choices.

    Example:
        >>> from nezha import NezhaConfig, NezhaForNextSentencePrediction
        >>> config = NezhaConfig(
        ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        ... )
        >>> NezhaForNextSentencePrediction(config).cls.seq_relationship
        Linear(in_features=16, out_features=2, bias=True)
    """

    accepts_loss_kwargs = True

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__(config)
        self.nezha = NezhaModel(config, add_pooling_layer=True)
        self.cls = NezhaPretrainingHeads(config, predictions=False, seq_relationship=True)
        self.post_init()

    @tuple_on_request
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> NextSentencePredictorOutput:
        """Score both answers.

        Args:
            input_ids: token ids [B, L].
            attention_mask: [B, L]: 1 where a token may be attended to, 0 where it is padding. Also a mask of three or
                four dimensions, as in `NezhaModel`. None lets every token attend to every token.
            token_type_ids: the segment of each token [B, L]: 0 for the first text, 1 for the second. None means all 0.
            inputs_embeds: word embeddings [B, L, D], in place of `input_ids`.
            labels: [B]; 0 if the second segment follows the first, 1 if not.
            num_items_in_batch: how many labels all batches of an optimizer step have; the loss is then this batch's
                share of their mean. Trainer passes it. None: the mean over this batch.
            **kwargs: `output_attentions`, `output_hidden_states` and `return_dict`, as in `NezhaModel`.

        Returns:
            `NextSentencePredictorOutput` with

            * `loss` [], with `labels`: the mean of -log softmax(logits)[label].
            * `logits` [B, 2]; column 0 means "the second segment follows the first".
            * `hidden_states`, with `output_hidden_states`: the embeddings and every layer's output, [B, L, D] each.
            * `attentions`, with `output_attentions`: every layer's probabilities, [B, heads, L, L] each.

        Raises:
            TypeError: there is another argument; code for transformers 4 may pass head_mask or position_ids.
            ValueError: both or none of `input_ids` and `inputs_embeds` are there, or the mask has another shape.

        Example:
            >>> import torch
            >>> from nezha import NezhaConfig, NezhaForNextSentencePrediction
            >>> config = NezhaConfig(
            ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
            ... )
            >>> model = NezhaForNextSentencePrediction(config).eval()
            >>> ids, segments = torch.tensor([[2, 10, 3, 11, 3]]), torch.tensor([[0, 0, 0, 1, 1]])
            >>> outputs = model(ids, token_type_ids=segments, labels=torch.tensor([1]))
            >>> outputs.logits.shape, torch.allclose(outputs.loss, -outputs.logits.log_softmax(-1)[0, 1])
            (torch.Size([1, 2]), True)
        """
        outputs = self.nezha(input_ids, attention_mask, token_type_ids, inputs_embeds, return_dict=True, **kwargs)
        logits = self.cls.seq_relationship(outputs.pooler_output)
        return NextSentencePredictorOutput(
            loss=None if labels is None else _cross_entropy(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class NezhaForSequenceClassification(NezhaPreTrainedModel):
    """A label, several labels or a number for each sequence.

    It has a pooler, of which the head is a linear layer after `config.classifier_dropout`.

    Args:
        config: sizes and choices; `num_labels`, or `id2label` with the labels' names, says how many labels, and
            `problem_type` which loss.

    Example:
        >>> from nezha import NezhaConfig, NezhaForSequenceClassification
        >>> config = NezhaConfig(
        ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        ...     num_labels=3
        ... )
        >>> NezhaForSequenceClassification(config).classifier
        Linear(in_features=16, out_features=3, bias=True)
    """

    accepts_loss_kwargs = True

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__(config)
        self.num_labels = _num_labels(config)
        self.nezha = NezhaModel(config, add_pooling_layer=True)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @tuple_on_request
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Score labels.

        Args:
            input_ids: token ids [B, L].
            attention_mask: [B, L]: 1 where a token may be attended to, 0 where it is padding. Also a mask of three or
                four dimensions, as in `NezhaModel`. None lets every token attend to every token.
            token_type_ids: the segment of each token [B, L]: 0 for the first text, 1 for the second. None means all 0.
            inputs_embeds: word embeddings [B, L, D], in place of `input_ids`.
            labels: [B] class ids; or numbers, [B, num_labels] or with one label [B]; or [B, num_labels] of 0.0 and
                1.0 for several labels at once. `config.problem_type` says which of the three. If it is None, the type
                of the labels decides, as in every transformers model, and the config keeps the decision.
            num_items_in_batch: how many labels all batches of an optimizer step have; the loss is then this batch's
                share of their mean. Trainer passes it. None: the mean over this batch.
            **kwargs: `output_attentions`, `output_hidden_states` and `return_dict`, as in `NezhaModel`.

        Returns:
            `SequenceClassifierOutput` with

            * `loss` [], with `labels`, by `config.problem_type`:
              "single_label_classification": the mean of -log softmax(logits)[label];
              "multi_label_classification": the mean of -(y log s + (1 - y) log(1 - s)) over all B x num_labels numbers,
              s the sigmoid of the logits and y the labels;
              "regression": the mean of (logits - labels)^2.
            * `logits` [B, num_labels].
            * `hidden_states`, with `output_hidden_states`: the embeddings and every layer's output, [B, L, D] each.
            * `attentions`, with `output_attentions`: every layer's probabilities, [B, heads, L, L] each.

        Raises:
            TypeError: there is another argument; code for transformers 4 may pass head_mask or position_ids.
            ValueError: both or none of `input_ids` and `inputs_embeds` are there, or the mask has another shape.

        Example:
            >>> import torch
            >>> from nezha import NezhaConfig, NezhaForSequenceClassification
            >>> config = NezhaConfig(
            ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            ...     intermediate_size=32, num_labels=3
            ... )
            >>> model = NezhaForSequenceClassification(config).eval()
            >>> ids = torch.tensor([[2, 10, 11, 3]])
            >>> outputs = model(ids, labels=torch.tensor([2]))
            >>> outputs.logits.shape, torch.allclose(outputs.loss, -outputs.logits.log_softmax(-1)[0, 2])
            (torch.Size([1, 3]), True)
            >>> model.config.problem_type = "multi_label_classification"
            >>> several = torch.tensor([[1.0, 0.0, 1.0]])
            >>> s = model(ids).logits.sigmoid()
            >>> loss = -(several * s.log() + (1 - several) * (1 - s).log()).mean()
            >>> torch.allclose(model(ids, labels=several).loss, loss)
            True
        """
        outputs = self.nezha(input_ids, attention_mask, token_type_ids, inputs_embeds, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(outputs.pooler_output))
        return SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _loss(self, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        if self.config.problem_type is None:
            if self.num_labels == 1:
                self.config.problem_type = "regression"
            elif labels.dtype in (torch.long, torch.int):
                self.config.problem_type = "single_label_classification"
            else:
                self.config.problem_type = "multi_label_classification"
        if self.config.problem_type == "regression":
            return _loss(functional.mse_loss, logits, labels.view_as(logits), num_items_in_batch)
        if self.config.problem_type == "single_label_classification":
            return _cross_entropy(logits, labels, num_items_in_batch)
        return _loss(functional.binary_cross_entropy_with_logits, logits, labels, num_items_in_batch)


class NezhaForMultipleChoice(NezhaPreTrainedModel):
    """One of C choices, each of them encoded as a sequence of its own.

    It has a pooler, of which the head is a linear layer of one row after `config.classifier_dropout`.

    Args:
        config: sizes and choices.

    Example:
        >>> from nezha import NezhaConfig, NezhaForMultipleChoice
        >>> config = NezhaConfig(
        ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        ... )
        >>> NezhaForMultipleChoice(config).classifier
        Linear(in_features=16, out_features=1, bias=True)
    """

    accepts_loss_kwargs = True

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__(config)
        self.nezha = NezhaModel(config, add_pooling_layer=True)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @tuple_on_request
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput:
        """Score choices. Every input has a dimension C after its first.

        Args:
            input_ids: token ids [B, C, L].
            attention_mask: [B, C, L]: 1 where a token may be attended to, 0 where it is padding. None lets every token
                attend to every token.
            token_type_ids: the segment of each token [B, C, L]: 0 for the first text, 1 for the second. None means all
                0.
            inputs_embeds: word embeddings [B, C, L, D], in place of `input_ids`.
            labels: the number of the right choice [B].
            num_items_in_batch: how many labels all batches of an optimizer step have; the loss is then this batch's
                share of their mean. Trainer passes it. None: the mean over this batch.
            **kwargs: `output_attentions`, `output_hidden_states` and `return_dict`, as in `NezhaModel`.

        Returns:
            `MultipleChoiceModelOutput` with

            * `loss` [], with `labels`: the mean of -log softmax(logits)[label].
            * `logits` [B, C].
            * `hidden_states`, with `output_hidden_states`: the embeddings and every layer's output, [B x C, L, D] each.
            * `attentions`, with `output_attentions`: every layer's probabilities, [B x C, heads, L, L] each.

        Raises:
            TypeError: there is another argument; code for transformers 4 may pass head_mask or position_ids.
            ValueError: both or none of `input_ids` and `inputs_embeds` are there, or the mask has another shape.

        Example:
            >>> import torch
            >>> from nezha import NezhaConfig, NezhaForMultipleChoice
            >>> config = NezhaConfig(
            ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
            ... )
            >>> model = NezhaForMultipleChoice(config).eval()
            >>> ids = torch.tensor([[[2, 10, 3, 11, 3], [2, 10, 3, 12, 3]]])
            >>> outputs = model(ids, labels=torch.tensor([1]))
            >>> outputs.logits.shape, torch.allclose(outputs.loss, -outputs.logits.log_softmax(-1)[0, 1])
            (torch.Size([1, 2]), True)
        """
        choices = next((tensor.shape[1] for tensor in (input_ids, inputs_embeds) if tensor is not None), 1)
        sequences = (
            None if tensor is None else tensor.flatten(0, 1)
            for tensor in (input_ids, attention_mask, token_type_ids, inputs_embeds)
        )
        outputs = self.nezha(*sequences, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(outputs.pooler_output)).view(-1, choices)
        return MultipleChoiceModelOutput(
            loss=None if labels is None else _cross_entropy(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class NezhaForTokenClassification(NezhaPreTrainedModel):
    """A label for each token, as in named entity recognition.

    It has no pooler. The head is a linear layer on each hidden state after `config.classifier_dropout`.

    Args:
        config: sizes and choices; `num_labels`, or `id2label` with the labels' names, says how many labels.

    Example:
        >>> from nezha import NezhaConfig, NezhaForTokenClassification
        >>> config = NezhaConfig(
        ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        ...     num_labels=3
        ... )
        >>> NezhaForTokenClassification(config).classifier
        Linear(in_features=16, out_features=3, bias=True)
    """

    accepts_loss_kwargs = True

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__(config)
        self.num_labels = _num_labels(config)
        self.nezha = NezhaModel(config, add_pooling_layer=False)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @tuple_on_request
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Score labels for each token.

        Args:
            input_ids: token ids [B, L].
            attention_mask: [B, L]: 1 where a token may be attended to, 0 where it is padding. Also a mask of three or
                four dimensions, as in `NezhaModel`. None lets every token attend to every token.
            token_type_ids: the segment of each token [B, L]: 0 for the first text, 1 for the second. None means all 0.
            inputs_embeds: word embeddings [B, L, D], in place of `input_ids`.
            labels: each token's label [B, L]; -100 where the loss ignores it.
            num_items_in_batch: how many labels all batches of an optimizer step have; the loss is then this batch's
                share of their mean. Trainer passes it. None: the mean over this batch.
            **kwargs: `output_attentions`, `output_hidden_states` and `return_dict`, as in `NezhaModel`.

        Returns:
            `TokenClassifierOutput` with

            * `loss` [], with `labels`: the mean of -log softmax(logits)[label] over the tokens whose label is not -100.
            * `logits` [B, L, num_labels].
            * `hidden_states`, with `output_hidden_states`: the embeddings and every layer's output, [B, L, D] each.
            * `attentions`, with `output_attentions`: every layer's probabilities, [B, heads, L, L] each.

        Raises:
            TypeError: there is another argument; code for transformers 4 may pass head_mask or position_ids.
            ValueError: both or none of `input_ids` and `inputs_embeds` are there, or the mask has another shape.

        Example:
            >>> import torch
            >>> from nezha import NezhaConfig, NezhaForTokenClassification
            >>> config = NezhaConfig(
            ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            ...     intermediate_size=32, num_labels=3
            ... )
            >>> model = NezhaForTokenClassification(config).eval()
            >>> ids = torch.tensor([[2, 10, 11, 3]])
            >>> outputs = model(ids, labels=torch.tensor([[-100, 1, 2, -100]]))
            >>> scores = outputs.logits.log_softmax(-1)
            >>> outputs.logits.shape, torch.allclose(outputs.loss, -(scores[0, 1, 1] + scores[0, 2, 2]) / 2)
            (torch.Size([1, 4, 3]), True)
        """
        outputs = self.nezha(input_ids, attention_mask, token_type_ids, inputs_embeds, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        return TokenClassifierOutput(
            loss=None if labels is None else _cross_entropy(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class NezhaForQuestionAnswering(NezhaPreTrainedModel):
    """Finds the span of a text that answers a question: its first and its last token.

    It has no pooler. The head is a linear layer of two rows on each hidden state: start and end, whatever `num_labels`
    is.

    Args:
        config: sizes and choices.

    Example:
        >>> from nezha import NezhaConfig, NezhaForQuestionAnswering
        >>> config = NezhaConfig(
        ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        ... )
        >>> NezhaForQuestionAnswering(config).qa_outputs
        Linear(in_features=16, out_features=2, bias=True)
    """

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__(config)
        self.nezha = NezhaModel(config, add_pooling_layer=False)
        # Always two rows, start and end, whatever num_labels is.
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @tuple_on_request
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Score each token as the span's start and as its end.

        Args:
            input_ids: token ids [B, L].
            attention_mask: [B, L]: 1 where a token may be attended to, 0 where it is padding. Also a mask of three or
                four dimensions, as in `NezhaModel`. None lets every token attend to every token.
            token_type_ids: the segment of each token [B, L]: 0 for the first text, 1 for the second. None means all 0.
            inputs_embeds: word embeddings [B, L, D], in place of `input_ids`.
            start_positions: the number of the span's first token [B]; the loss ignores a position outside the sequence,
                where the answer was cut off.
            end_positions: the number of the span's last token [B]; the same. A loss needs both.
            **kwargs: `output_attentions`, `output_hidden_states` and `return_dict`, as in `NezhaModel`.

        Returns:
            `QuestionAnsweringModelOutput` with

            * `loss` [], with both positions: the mean of -log softmax(start_logits)[start], and that of the end, and of
              these two the mean.
            * `start_logits` [B, L], `end_logits` [B, L].
            * `hidden_states`, with `output_hidden_states`: the embeddings and every layer's output, [B, L, D] each.
            * `attentions`, with `output_attentions`: every layer's probabilities, [B, heads, L, L] each.

        Raises:
            TypeError: there is another argument; code for transformers 4 may pass head_mask or position_ids.
            ValueError: both or none of `input_ids` and `inputs_embeds` are there, or the mask has another shape.

        Example:
            >>> import torch
            >>> from nezha import NezhaConfig, NezhaForQuestionAnswering
            >>> config = NezhaConfig(
            ...     vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
            ... )
            >>> model = NezhaForQuestionAnswering(config).eval()
            >>> ids, segments = torch.tensor([[2, 10, 3, 11, 12, 3]]), torch.tensor([[0, 0, 0, 1, 1, 1]])
            >>> start, end = torch.tensor([3]), torch.tensor([4])
            >>> outputs = model(ids, token_type_ids=segments, start_positions=start, end_positions=end)
            >>> scores = outputs.start_logits.log_softmax(-1)[0, 3] + outputs.end_logits.log_softmax(-1)[0, 4]
            >>> outputs.start_logits.shape, torch.allclose(outputs.loss, -scores / 2)
            (torch.Size([1, 6]), True)
        """
        outputs = self.nezha(input_ids, attention_mask, token_type_ids, inputs_embeds, return_dict=True, **kwargs)
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (_span_loss(start_logits, start_positions) + _span_loss(end_logits, end_positions)) / 2
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits.contiguous(),
            end_logits=end_logits.contiguous(),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def _num_labels(config: NezhaConfig) -> int:
    if config.num_labels is None:
        raise ValueError("NezhaConfig: a classifier needs id2label or num_labels, found neither.")
    return config.num_labels


def _classifier_dropout(config: NezhaConfig) -> nn.Dropout:
    rate = config.classifier_dropout
    return nn.Dropout(config.hidden_dropout_prob if rate is None else rate)


def _cross_entropy(logits: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
    """Cross entropy over all labels except -100."""
    return _loss(functional.cross_entropy, logits.flatten(0, -2), labels.flatten(), num_items)


def _loss(function: Callable[..., Tensor], logits: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
    """The mean over this batch's labels; with `num_items`, this batch's share of the mean over several batches.

    Computed in float32 or better, since a sum soon leaves the range of float16, and on the device of the logits.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labels = labels.to(logits.device) if function is functional.cross_entropy else labels.to(logits)
    if num_items is None:
        return function(logits, labels)
    return function(logits, labels, reduction="sum") / torch.as_tensor(num_items, device=logits.device)


def _span_loss(logits: Tensor, positions: Tensor) -> Tensor:
    """Cross entropy over the tokens of each sequence [B, L]; a position outside the sequence does not count."""
    length = logits.shape[1]
    positions = positions.flatten().to(logits.device).clamp(0, length)
    return functional.cross_entropy(logits, positions, ignore_index=length)
