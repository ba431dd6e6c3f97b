"""Whole-word masking of Chinese: jieba finds the word boundaries once; every batch gets new masks.

    encoded = encode(texts, tokenizer)              # once, in datasets' map
    batch = WholeWordMasking(tokenizer)(examples)   # in the workers of the DataLoader

A word is a word of jieba's or of the tokenizer's, whichever is longer: the characters of a Chinese word are masked
together, and so are the pieces of a Latin one. The shares are those of BERT: words in random order, up to 15 % of the
tokens; then each token on its own becomes [MASK] (80 %), becomes any token of the vocabulary (10 %) or stays (10 %).
Google's create_pretraining_data.py with ``do_whole_word_mask`` does the same, but skips a word that would exceed the
limit, so it masks long words less often than short ones. Here the last word is taken with the probability that makes
the mean right. Huawei published only the masking of single tokens, with the same shares; the paper (arXiv 1909.00204)
says that they used jieba's words.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jieba
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback

jieba.setLogLevel(logging.WARNING)

IGNORED = -100
"""The label of a token that is not to be predicted."""


@cache
def segmenter(user_dict: str) -> jieba.Tokenizer:
    """jieba, with the words of a file in jieba's form besides its own."""
    words = jieba.Tokenizer()
    words.load_userdict(user_dict)
    return words


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, user_dict: str | None = None) -> list[np.ndarray]:
    """Token ids and word starts of each text, without [CLS] and [SEP].

    Args:
        texts: plain text, not segmented.
        tokenizer: a fast one.
        user_dict: a file of more words, in jieba's form.

    Returns:
        For each text [2, tokens]: its ids, and 1 where a word begins, 0 where it continues. The results of several
        texts can be joined along the tokens.
    """
    encoded = tokenizer(
        list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
    )
    encoded_texts = []
    for number, text in enumerate(texts):
        offsets = np.array(encoded["offset_mapping"][number], np.int64).reshape(-1, 2)
        words = (segmenter(user_dict) if user_dict else jieba).cut(text)
        starts = word_starts(text, words, offsets, encoded.word_ids(number))
        encoded_texts.append(np.stack([np.array(encoded["input_ids"][number], np.int64), starts]))
    return encoded_texts


def word_starts(text: str, cut: Iterable[str], offsets: np.ndarray, words: Sequence[int | None]) -> np.ndarray:
    """1 for each token that begins a word of `text`, 0 for each token that continues one.

    A word begins where both jieba and the tokenizer see a boundary: jieba cuts "café" into "caf" and "é", and to the
    tokenizer every Chinese character is a word.

    Args:
        text: the text that the tokenizer was given.
        cut: jieba's words of it.
        offsets: for each token, its first character and the one after its last [tokens, 2].
        words: for each token, the number of the tokenizer's word that it belongs to.
    """
    lengths = [len(word) for word in cut]
    word_at = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.ones(len(offsets), np.int64)
    if len(offsets) > 1:
        first, last = offsets[:, 0], np.maximum(offsets[:, 1] - 1, offsets[:, 0])
        pieces = np.array(words)
        starts[1:] = (word_at[first[1:]] != word_at[last[:-1]]) & (pieces[1:] != pieces[:-1])
    return starts


@dataclass
class WholeWordMasking(TrainerCallback):
    """A data collator that pads and masks.

    An example has ``input_ids`` and ``word_starts`` of the same length, and may have ``token_type_ids`` and
    ``next_sentence_label``. A token after a special token always begins a word. The batch has ``input_ids``,
    ``attention_mask``, ``token_type_ids`` and ``labels`` [rows, width], and ``next_sentence_label`` [rows].

    The masks depend only on the seed, the epoch and the batch's own tokens. So they are the same with any number of
    workers and in a resumed run; each process and each shuffled epoch gets other masks; an evaluation without shuffling
    gets the same masks each time. Pass this object to the Trainer as a callback too, so that it learns the epoch.
    (Persistent workers do not learn it: their masks then change only with the order of the examples.)

    Args:
        tokenizer: has [MASK].
        probability: share of the tokens to predict; each row meets it to within one word, and has at least one word.
        seed: seed of the masks.
        pad_to_multiple_of: the width of a batch is a multiple of it.
        epoch: number of the epoch; every epoch has other masks.
    """

    tokenizer: PreTrainedTokenizerBase
    probability: float = 0.15
    seed: int = 0
    pad_to_multiple_of: int = 1
    epoch: int = 0
    _special: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.tokenizer.mask_token_id is None or self.tokenizer.pad_token_id is None:
            raise ValueError(f"expected a tokenizer with a mask and a padding token, found {self.tokenizer!r}")
        self._special = np.zeros(len(self.tokenizer), bool)
        self._special[self.tokenizer.all_special_ids] = True

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Learn the epoch from the Trainer, when one begins or is resumed in its middle."""
        self.epoch = int(state.epoch)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch of examples."""
        lengths = np.array([len(example["input_ids"]) for example in examples])
        width = -(-int(lengths.max()) // self.pad_to_multiple_of) * self.pad_to_multiple_of
        real = np.arange(width) < lengths[:, None]

        def padded(name: str, filler: int) -> np.ndarray:
            table = np.full(real.shape, filler, np.int64)
            table[real] = np.concatenate([example[name] for example in examples])
            return table

        ids = padded("input_ids", self.tokenizer.pad_token_id)
        rng = np.random.default_rng([self.seed, self.epoch, zlib.crc32(ids.tobytes())])
        chosen = choose_words(padded("word_starts", 0), ~self._special[ids], self.probability, rng)
        batch = {"labels": np.where(chosen, ids, IGNORED), "attention_mask": real.astype(np.int64)}
        batch["input_ids"] = replace(ids, chosen, self.tokenizer.mask_token_id, len(self.tokenizer), rng)
        if "token_type_ids" in examples[0]:
            batch["token_type_ids"] = padded("token_type_ids", 0)
        if "next_sentence_label" in examples[0]:
            batch["next_sentence_label"] = np.array([int(example["next_sentence_label"]) for example in examples])
        return {name: torch.from_numpy(table) for name, table in batch.items()}


def choose_words(starts: np.ndarray, maskable: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Choose whole words to predict: True for each of their tokens [rows, width].

    Args:
        starts: not 0 where a word begins [rows, width].
        maskable: False for special tokens and padding [rows, width].
        probability: share of each row's maskable tokens to choose.
        rng: source of random numbers.
    """
    rows = len(starts)
    begins = maskable & (starts != 0)
    begins[:, 0] = maskable[:, 0]
    begins[:, 1:] |= maskable[:, 1:] & ~maskable[:, :-1]
    words = max(int(begins.sum(1).max()), 1)
    # Number the words of the batch: row r has the numbers from r * words on.
    word = np.cumsum(begins, 1) - 1 + words * np.arange(rows)[:, None]
    sizes = np.bincount(word[maskable], minlength=rows * words).reshape(rows, words)
    keys = rng.random(sizes.shape)
    keys[sizes == 0] = 2  # numbers that no word has come last
    order = np.argsort(keys, 1)
    shuffled = np.take_along_axis(sizes, order, 1)
    before = np.cumsum(shuffled, 1) - shuffled
    # True for the words within the share. The word in which the share ends is taken with a probability: the part of it
    # that is within the share.
    taken = before + rng.random((rows, 1)) * shuffled < probability * maskable.sum(1, keepdims=True)
    taken[:, 0] = True
    chosen = np.zeros(sizes.shape, bool)
    np.put_along_axis(chosen, order, taken & (shuffled > 0), 1)
    return maskable & chosen.ravel()[np.maximum(word, 0)]


def replace(ids: np.ndarray, chosen: np.ndarray, mask: int, vocabulary: int, rng: np.random.Generator) -> np.ndarray:
    """The model's input [rows, width]: of the chosen tokens, 80 % become `mask`, 10 % any token, 10 % stay."""
    seen = ids.copy()
    original = ids[chosen]
    draw = rng.random(original.shape)
    other = rng.integers(vocabulary, size=original.shape)
    seen[chosen] = np.where(draw < 0.8, mask, np.where(draw < 0.9, other, original))
    return seen
