"""NezhaConfig: the sizes and choices that define a NEZHA model."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class NezhaConfig(PretrainedConfig):
    """Configuration of a NEZHA model (arXiv 1909.00204). The defaults are those of NEZHA-base, Chinese.

    The fields and defaults are those of transformers 4.40.2's `NezhaConfig`, so its `config.json` files load unchanged.

    Args:
        vocab_size: rows of the word embedding.
        hidden_size: width of the hidden states; a multiple of `num_attention_heads`.
        num_hidden_layers: transformer layers.
        num_attention_heads: heads a layer; `hidden_size / num_attention_heads` is the head size.
        intermediate_size: width of the feed-forward layer.
        hidden_act: name in transformers' `ACT2FN`. Huawei's PyTorch code computes GELU with erf (`"gelu"`), their
            TensorFlow code with tanh (`"gelu_pytorch_tanh"`); a checkpoint needs the one it was trained with.
        hidden_dropout_prob: dropout on hidden states.
        attention_probs_dropout_prob: dropout on attention probabilities.
        max_position_embeddings: the length that the model was trained for, in tokens. Only tokenizers and readers use
            it: NEZHA has no table of positions and takes sequences of any length.
        max_relative_position: clip distance K, in tokens; two tokens further apart count as K apart. Every released
            Chinese model has 64 (hard-coded in Huawei's NEZHA-TensorFlow/modeling.py), the English one 127.
        type_vocab_size: how many segments `token_type_ids` can distinguish.
        initializer_range: standard deviation of freshly initialised weights.
        layer_norm_eps: epsilon of every layer norm.
        classifier_dropout: dropout before a classifier; None means `hidden_dropout_prob`.
        pad_token_id: the id of `[PAD]`; its row of the word embeddings is not trained. None: every row is.
        bos_token_id: the id of `[CLS]`, with which a text begins.
        eos_token_id: the id of `[SEP]`, with which a text ends.
        tie_word_embeddings: whether masked-language-model logits use the word embedding as their weight.
        add_pooling_layer: whether `NezhaModel` has a pooler. Of a converted folder: whether the checkpoint has one. The
            heads that need a pooler always make one, and those that need none never do.
        is_decoder: whether a token attends only to itself and to the tokens before it.
        prefix_lm: of a decoder, whether the prefix sees itself in both directions, as in UniLM: the tokens of type 0 in
            front. `token_type_ids` say which these are.
        use_cache: whether `NezhaForCausalLM` keeps keys and values, so that the next token needs no others.
        masked_rows: what a query does whose keys are all masked. `"even"`: it attends to all of them equally, as in
            transformers. `"unmasked"`: it attends as if none were masked, as in Huawei's programs, which add -10000 to
            each score.
        **kwargs: the fields of every model of transformers: `num_labels`, `id2label`, `problem_type`,
            `output_hidden_states`, `output_attentions`, `return_dict`, `chunk_size_feed_forward` and others.

    Raises:
        ValueError: a field has a value that no NEZHA model can have; the message names it.

    Example:
        >>> from nezha import NezhaConfig
        >>> base = NezhaConfig()
        >>> base.hidden_size, base.num_hidden_layers, base.max_relative_position
        (768, 12, 64)
        >>> NezhaConfig(hidden_size=770)
        Traceback (most recent call last):
        ValueError: NezhaConfig: hidden_size must be a multiple of num_attention_heads (12), found 770.
    """

    model_type = "nezha"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012  as transformers' own

    def __init__(
        self,
        vocab_size: int = 21128,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        max_relative_position: int = 64,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        classifier_dropout: float | None = 0.1,
        pad_token_id: int | None = 0,
        bos_token_id: int | None = 2,
        eos_token_id: int | None = 3,
        tie_word_embeddings: bool = True,
        add_pooling_layer: bool = True,
        is_decoder: bool = False,
        prefix_lm: bool = False,
        use_cache: bool = True,
        masked_rows: str = "even",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.max_relative_position = max_relative_position
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.classifier_dropout = classifier_dropout
        # transformers 4 has the next five in its base class and writes only what differs from its own defaults;
        # transformers 5 does not have them. Setting them here gives both the same values.
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.tie_word_embeddings = tie_word_embeddings
        self.add_pooling_layer = add_pooling_layer
        self.is_decoder = is_decoder
        self.prefix_lm = prefix_lm
        self.use_cache = use_cache
        self.masked_rows = masked_rows
        self._refuse_nonsense()

    def _refuse_nonsense(self) -> None:
        at_least_one = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "type_vocab_size")
        for field in (*at_least_one, "max_relative_position"):
            if getattr(self, field) < 1:
                raise ValueError(f"NezhaConfig: {field} must be at least 1, found {getattr(self, field)}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"NezhaConfig: hidden_size must be a multiple of num_attention_heads ({self.num_attention_heads}), "
                f"found {self.hidden_size}."
            )
        if getattr(self, "add_cross_attention", False):
            raise ValueError("NezhaConfig: add_cross_attention must be false, NEZHA has one input; found true.")
        if self.prefix_lm and not self.is_decoder:
            raise ValueError("NezhaConfig: prefix_lm needs is_decoder, which is false.")
        if self.masked_rows not in ("even", "unmasked"):
            raise ValueError(f'NezhaConfig: masked_rows must be "even" or "unmasked", found {self.masked_rows!r}.')
