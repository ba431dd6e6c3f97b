"""Cuts documents into sequences for pre-training: full ones, or pairs of segments for next-sentence prediction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase
from whole_word_masking import encode

SENTENCE_END = re.compile(r"\n|(?<=[。！？!?…])(?=[^。！？!?…”’」』）])")
SHORT = 0.1
"""Share of the documents with short pairs, of a uniformly drawn length; BERT's and Huawei's ``short_seq_prob``."""


def sentences(text: str) -> list[str]:
    """The sentences of a text. A line break ends one, or an end mark with the quotation mark that follows it."""
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


def pack(
    documents: Mapping[str, Sequence[Sequence[str]]],
    indices: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    next_sentence: bool,
    seed: int,
    user_dict: tuple[str, str] | None = None,
) -> dict[str, list[Any]]:
    """Examples of a batch of documents, for datasets' map with ``batched`` and ``with_indices``.

    Args:
        documents: under "text", the sentences of each document.
        indices: the documents' numbers; together with the seed they decide every random draw.
        tokenizer: a fast one with [CLS] and [SEP].
        max_length: tokens of an example, [CLS] and [SEP] included.
        next_sentence: make pairs; otherwise single sequences that are as full as their document allows.
        seed: seed of the random draws.
        user_dict: a file of words for jieba, and its hash, by which datasets' cache knows a changed one.
    """
    sentences = [sentence for document in documents["text"] for sentence in document]
    encoded = iter(encode(sentences, tokenizer, user_dict[0] if user_dict else None))
    longest = (max_length - 3) // 2 if next_sentence else max_length - 2
    cut = [[piece for _ in document for piece in pieces(next(encoded), longest)] for document in documents["text"]]
    examples: dict[str, list[Any]] = {"input_ids": [], "word_starts": [], "token_type_ids": []}
    if not next_sentence:
        for document in cut:
            for sequence in full_sequences(document, max_length - 2):
                add(examples, [sequence], tokenizer)
        return examples
    examples["next_sentence_label"] = []
    rng = np.random.default_rng([seed, *indices[:1]])
    for first, second, label in pairs([document for document in cut if document], max_length - 3, rng):
        add(examples, [first, second], tokenizer)
        examples["next_sentence_label"].append(label)
    return examples


def add(examples: dict[str, list[Any]], segments: Sequence[np.ndarray], tokenizer: PreTrainedTokenizerBase) -> None:
    """Append [CLS] A [SEP] or [CLS] A [SEP] B [SEP]; segments are [2, tokens], ids and word starts."""
    end = np.array([[tokenizer.sep_token_id], [1]])
    parts = [np.array([[tokenizer.cls_token_id], [1]])]
    for segment in segments:
        parts += [segment, end]
    ids, starts = np.concatenate(parts, 1)
    types = np.zeros(len(ids), np.int8)
    types[segments[0].shape[1] + 2 :] = 1
    examples["input_ids"].append(ids.astype(np.int32))
    examples["word_starts"].append(starts.astype(np.int8))
    examples["token_type_ids"].append(types)


def pieces(sentence: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """A sentence [2, tokens] in pieces of at most `longest` tokens, cut between words where a word allows it."""
    while sentence.shape[1] > longest:
        # The next piece may begin at any token that begins a word.
        boundaries = np.flatnonzero(sentence[1, 1 : longest + 1])
        end = int(boundaries[-1]) + 1 if len(boundaries) else longest
        yield sentence[:, :end]
        sentence = sentence[:, end:]
    if sentence.shape[1]:
        yield sentence


def full_sequences(document: Sequence[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Join a document's sentences, and cut them into sequences of at most `length` tokens."""
    if document:
        yield from pieces(np.concatenate(document, 1), length)


def pairs(
    documents: Sequence[Sequence[np.ndarray]], length: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Pairs of segments with at most `length` tokens together, and 1 if the second one is from another document.

    This is the method of BERT's create_pretraining_data.py, which Huawei uses too. Sentences are gathered up to the
    length, and a random number of them become A. For half of the pairs, B is the rest. For the others, B starts at a
    random sentence of another document, and the rest goes into the next pair. Pairs that are too long are cut at both
    ends, at random.

    A single document gives no pairs, since there is no other document.
    """
    for number, document in enumerate(documents if len(documents) > 1 else ()):
        target = int(rng.integers(2, length + 1)) if rng.random() < SHORT else length
        start = 0
        while start < len(document):
            end, tokens = start, 0
            while end < len(document) and tokens < target:
                tokens += document[end].shape[1]
                end += 1
            middle = int(rng.integers(start + 1, end)) if end - start > 1 else end
            first = document[start:middle]
            follows = middle < end and rng.random() < 0.5
            if follows:
                second = document[middle:end]
            else:
                room = target - sum(sentence.shape[1] for sentence in first)
                second, end = other_segment(documents, number, room, rng), middle
            yield (*truncate(np.concatenate(first, 1), np.concatenate(second, 1), length, rng), int(not follows))
            start = end


def other_segment(
    documents: Sequence[Sequence[np.ndarray]], number: int, tokens: int, rng: np.random.Generator
) -> Sequence[np.ndarray]:
    """Sentences from a random place of another document: at least one, and more until they have `tokens` tokens."""
    other = int(rng.integers(len(documents) - 1))
    document = documents[other + (other >= number)]
    start = int(rng.integers(len(document)))
    end = start + 1
    while end < len(document) and sum(sentence.shape[1] for sentence in document[start:end]) < tokens:
        end += 1
    return document[start:end]


def truncate(
    first: np.ndarray, second: np.ndarray, length: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Remove tokens from the longer segment, at its front or back at random, until both have `length` together."""
    segments = [first, second]
    while (over := segments[0].shape[1] + segments[1].shape[1] - length) > 0:
        longer = int(segments[1].shape[1] >= segments[0].shape[1])
        # Remove as many at once as leave this segment the longer one.
        count = min(over, max(abs(segments[1].shape[1] - segments[0].shape[1]), 1))
        front = int(rng.binomial(count, 0.5))
        segments[longer] = segments[longer][:, front : segments[longer].shape[1] - (count - front)]
    return segments[0], segments[1]
