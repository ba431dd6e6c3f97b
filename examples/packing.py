"""Documents to sequences for pre-training: full ones, or pairs of segments for next-sentence prediction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase
from whole_word_masking import encode

SENTENCE_END = re.compile(r"\n|(?<=[。！？!?…])(?=[^。！？!?…”’」』）])")
SHORT = 0.1
"""Share of the documents whose pairs are short, of a length drawn evenly; BERT's and Huawei's ``short_seq_prob``."""


def sentences(text: str) -> list[str]:
    """The sentences of a text: its lines, and within them after their end marks and the quotation mark that follows."""
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


def pack(
    documents: Mapping[str, Sequence[Sequence[str]]],
    indices: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    next_sentence: bool,
    seed: int,
) -> dict[str, list[Any]]:
    """Examples of a batch of documents, for datasets' map with ``batched`` and ``with_indices``.

    Args:
        documents: under "text" the sentences of each document.
        indices: numbers of the documents; with the seed they decide every draw.
        tokenizer: a fast one with [CLS] and [SEP].
        max_length: tokens of an example, [CLS] and [SEP] included.
        next_sentence: pairs, or single sequences that are as full as their document allows.
        seed: of the draws.
    """
    encoded = iter(encode([sentence for document in documents["text"] for sentence in document], tokenizer))
    longest = (max_length - 3) // 2 if next_sentence else max_length - 2
    cut = [[piece for _ in document for piece in pieces(next(encoded), longest)] for document in documents["text"]]
    found: dict[str, list[Any]] = {"input_ids": [], "word_starts": [], "token_type_ids": []}
    if not next_sentence:
        for document in cut:
            for sequence in full_sequences(document, max_length - 2):
                add(found, [sequence], tokenizer)
        return found
    found["next_sentence_label"] = []
    rng = np.random.default_rng([seed, *indices[:1]])
    for first, second, label in pairs([document for document in cut if document], max_length - 3, rng):
        add(found, [first, second], tokenizer)
        found["next_sentence_label"].append(label)
    return found


def add(found: dict[str, list[Any]], segments: Sequence[np.ndarray], tokenizer: PreTrainedTokenizerBase) -> None:
    """Append [CLS] A [SEP] or [CLS] A [SEP] B [SEP]; segments are [2, tokens], ids and word starts."""
    end = np.array([[tokenizer.sep_token_id], [1]])
    parts = [np.array([[tokenizer.cls_token_id], [1]])]
    for segment in segments:
        parts += [segment, end]
    ids, starts = np.concatenate(parts, 1)
    types = np.zeros(len(ids), np.int8)
    types[segments[0].shape[1] + 2 :] = 1
    found["input_ids"].append(ids.astype(np.int32))
    found["word_starts"].append(starts.astype(np.int8))
    found["token_type_ids"].append(types)


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
    """A document's sentences joined, and cut into sequences of at most `length` tokens."""
    if document:
        yield from pieces(np.concatenate(document, 1), length)


def pairs(
    documents: Sequence[Sequence[np.ndarray]], length: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Pairs of segments of together at most `length` tokens, and 1 where the second one is from another document.

    As BERT's create_pretraining_data.py and Huawei's, which is the same: sentences are gathered up to the length, a
    random number of them are A; for half of the pairs B is the rest, for the others it starts at a random sentence of
    another document, and the rest is gathered again. What is too long is cut at both ends, at random.

    A single document has no other one beside it: no pairs come of it.
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
    """Sentences from a random place of another document: at least one, then until there are `tokens`."""
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
    """Take tokens off the longer segment, at its front or its back at random, until both together have `length`."""
    segments = [first, second]
    while (over := segments[0].shape[1] + segments[1].shape[1] - length) > 0:
        longer = int(segments[1].shape[1] >= segments[0].shape[1])
        # As many at once as make no difference to which one is longer.
        count = min(over, max(abs(segments[1].shape[1] - segments[0].shape[1]), 1))
        front = int(rng.binomial(count, 0.5))
        segments[longer] = segments[longer][:, front : segments[longer].shape[1] - (count - front)]
    return segments[0], segments[1]
