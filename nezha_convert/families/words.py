"""Keys of a config that NezhaConfig has no field for: what each one does in the program that reads it.

Sources: transformers 4.40.2, configuration_utils.py (PretrainedConfig) and models/nezha; bert4torch 0.6.0,
models/bert.py, models/nezha.py and models/__init__.py; Huawei's modeling.py, whose BertConfig.from_dict keeps every key
and reads nine; PaddleNLP 2.8.1, transformers/configuration_utils.py and nezha/configuration.py; bert4keras 0.11.5,
models.py; MindSpore's bert_model.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """A key of a program's JSON.

    Attributes:
        effect: what it does, in words.
        harmless: the values with which it changes no output; None: it never changes one.
    """

    effect: str
    harmless: tuple[Any, ...] | None = None


def _never(effect: str, names: Iterable[str]) -> dict[str, Word]:
    return {name: Word(effect) for name in names}


_NONE: tuple[Any, ...] = (None, False, 0, [], {}, "")

BERT_WORDS = _never(
    "a key of Google's BERT that no NEZHA program reads",
    (
        *("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"),
        *("pooler_size_per_head", "pooler_type"),
    ),
)

PRETRAINED_WORDS: Mapping[str, Word] = {
    **BERT_WORDS,
    **_never(
        "bookkeeping",
        (
            *("_name_or_path", "name_or_path", "architectures", "auto_map", "model_type", "transformers_version"),
            *("torch_dtype", "dtype", "paddlenlp_version", "finetuning_task", "task_specific_params"),
            *(
                "use_cache",
                "embedding_size",
                "_commit_hash",
                "paddle_dtype",
                "custom_pipelines",
                "gradient_checkpointing",
                "torchscript",
            ),
            *("attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "use_bfloat16"),
        ),
    ),
    **_never(
        "what a call returns",
        (
            *("return_dict", "output_attentions", "output_hidden_states", "output_past"),
            *("output_scores", "return_dict_in_generate", "keys_to_ignore_at_inference"),
        ),
    ),
    **_never(
        "a setting of text generation",
        (
            *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
            *("diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty"),
            *("length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids"),
            *("num_return_sequences", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values"),
            *("exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "prefix"),
            *("decoder_start_token_id", "sep_token_id"),
        ),
    ),
    **_never("memory is saved, and no output changes", ("chunk_size_feed_forward",)),
    **_never("which parts are built, as the tensors tell", ("add_pooling_layer",)),
    **_never("a setting of the loss or of training", ("num_labels", "num_choices", "tf_legacy_loss")),
    **_never("the tokenizer's class, which its own files name", ("tokenizer_class",)),
    **_never("NEZHA has no absolute positions, and its program does not read the key", ("position_embedding_type",)),
    **_never("names of labels", ("id2label", "label2id")),  # carried for the heads that have labels
    **_never(
        "a key of ALBERT that the port's config class kept and its model does not read",
        (
            *("inner_group_num", "num_hidden_groups", "classifier_dropout_prob"),
            *("net_structure_type", "gap_size", "num_memory_blocks", "down_scale_factor"),
        ),
    ),
    "is_encoder_decoder": Word("the model has an encoder and a decoder", _NONE),
    "add_cross_attention": Word("each layer attends to a second input, too", _NONE),
    "cross_attention_hidden_size": Word("the size of a second input", _NONE),
    "tie_encoder_decoder": Word("encoder and decoder share weights", _NONE),
    "pruned_heads": Word("heads of attention are left out", _NONE),
    "use_relative_position": Word("decided by the tensors"),
}
"""transformers' and PaddleNLP's, which has the same base class."""

TRANSFORMERS_WORDS: Mapping[str, Word] = {
    **PRETRAINED_WORDS,
    "is_decoder": Word("a token attends to what is before it, where that is true", _NONE),  # else the config takes it
}

BERT4TORCH_WORDS: Mapping[str, Word] = {
    **PRETRAINED_WORDS,
    **_never("keys and values of earlier tokens are kept, and no output changes", ("is_decoder",)),
    "application": Word("another kind of attention", (None, False, "encoder")),  # "lm", "unilm": the config takes it
    **_never(
        "which parts are built, as the tensors tell",
        ("with_pool", "with_nsp", "with_mlm", "add_pooler", "output_all_encoded_layers", "ignore_invalid_weights"),
    ),
    **_never(
        "how the weights are loaded", ("skip_init", "low_cpu_mem_usage", "device_map", "checkpoint_path", "verbose")
    ),
    **_never("memory is saved, and no output changes", ("gradient_checkpoint", "flash_attention")),
    **_never("read as tie_word_embeddings", ("tie_emb_prj_weight",)),
    **_never("the same number as type_vocab_size or max_position_embeddings", ("segment_vocab_size", "max_position")),
    **_never("training alone", ("is_dropout", "dropout_rate", "add_trainer")),
    "model": Word("another model", ("nezha",)),
    "residual_attention_scores": Word("each layer adds the scores of the one before", _NONE),
    "conditional_size": Word("layer norms depend on a second input", _NONE),
    "shared_segment_embeddings": Word("token types take the words' embeddings", _NONE),
    "additional_embs": Word("there are more embeddings than words and token types", _NONE),
    "hierarchical_position": Word("positions are put together of two", _NONE),
    "custom_attention_mask": Word("each call gives a mask of its own", _NONE),
    "keep_hidden_layers": Word("some layers are left out", _NONE),
    "use_logn_attn": Word("scores grow with the length", _NONE),
    "num_key_value_heads": Word("heads share their keys and values", _NONE),
    "attention_head_size": Word("heads have a size of their own", _NONE),
    "p_bias": Word("another kind of positions", (*_NONE, "typical_relative")),
    "pre_layernorm": Word("layer norms come first", _NONE),
    "mlp_type": Word("another feed-forward layer", (*_NONE, "PositionWiseFeedForward")),
    "use_segment_embedding": Word("there are no token types", (None, True)),
}

HUAWEI_TORCH_WORDS: Mapping[str, Word] = {
    **BERT4TORCH_WORDS,
    "is_decoder": Word("Huawei's program does not read it, and ports of it mask what comes later", _NONE),
}
"""Huawei's, and the others' that write the same names."""

PADDLE_WORDS: Mapping[str, Word] = {
    **PRETRAINED_WORDS,
    "use_relative_position": Word("positions do not count where it is false", (True,)),
}

MINDSPORE_WORDS: Mapping[str, Word] = {
    **PRETRAINED_WORDS,
    "use_relative_positions": Word("decided by the tensors"),
    **_never("the length, or the precision, for which the program is built", ("seq_length", "dtype", "compute_type")),
}

BERT4KERAS_WORDS: Mapping[str, Word] = {
    **PRETRAINED_WORDS,
    "residual_attention_scores": Word("each layer adds the scores of the one before", _NONE),
    "layer_norm_cond": Word("layer norms depend on a second input", _NONE),
    "shared_segment_embeddings": Word("token types take the words' embeddings", _NONE),
    "embedding_size": Word("a factorised embedding"),
    "attention_head_size": Word("heads have a size of their own", _NONE),
    "attention_key_size": Word("keys have a size of their own", _NONE),
}
