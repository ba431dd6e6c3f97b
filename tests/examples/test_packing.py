"""Documents to sequences: what is kept, where it is cut, and which pairs follow each other."""

import numpy as np
import packing
import pytest
from chance import SIGMAS, within
from goldens import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer


@st.composite
def documents(draw, longest=20):
    """Documents of sentences [2, tokens]; each token's id says where it stands, and words have one to three tokens."""
    lengths = draw(st.lists(st.lists(st.integers(1, longest), min_size=1, max_size=8), min_size=2, max_size=6))
    rng, found, token = np.random.default_rng(draw(st.integers(0, 1000))), [], 100
    for document in lengths:
        sentences = []
        for length in document:
            starts = (rng.random(length) < 0.6).astype(np.int64)
            starts[0] = 1
            sentences.append(np.stack([np.arange(token, token + length), starts]))
            token += length
        found.append(sentences)
    return found


@pytest.mark.parametrize(
    "text, sentences",
    [
        ("今天很好。我去了！你呢？不去", ["今天很好。", "我去了！", "你呢？", "不去"]),
        ("他说：“好。”然后走了。", ["他说：“好。”然后走了。"]),
        ("第一行\n\n第二行……完", ["第一行", "第二行……", "完"]),
        (" \n", []),
    ],
)
def test_sentences_end_at_lines_and_marks(text, sentences):
    assert packing.sentences(text) == sentences


@settings(max_examples=100, deadline=None)
@given(documents(), st.integers(3, 30))
def test_full_sequences_lose_nothing_and_cut_no_word_that_fits(found, length):
    for document in found:
        whole = np.concatenate(document, 1)
        sequences = list(packing.full_sequences(document, length))
        assert (np.concatenate(sequences, 1) == whole).all()
        assert all(0 < sequence.shape[1] <= length for sequence in sequences)
        longest_word = int(np.diff([*np.flatnonzero(whole[1]), whole.shape[1]]).max())
        if longest_word <= length:
            assert all(sequence[1, 0] == 1 for sequence in sequences)
            assert all(sequence.shape[1] > length - longest_word for sequence in sequences[:-1]), "full"


@settings(max_examples=100, deadline=None)
@given(documents(), st.integers(5, 60), st.integers(0, 1000))
def test_pairs_are_two_runs_of_text_and_the_label_says_whether_one_goes_on(found, length, seed):
    document_of = {int(i): number for number, document in enumerate(found) for s in document for i in s[0]}
    for first, second, label in packing.pairs(found, length, np.random.default_rng(seed)):
        assert first.shape[1] >= 1 and second.shape[1] >= 1 and first.shape[1] + second.shape[1] <= length
        for segment in (first, second):
            assert (np.diff(segment[0]) == 1).all()
            assert len({document_of[int(i)] for i in segment[0]}) == 1
        same = document_of[int(first[0, 0])] == document_of[int(second[0, 0])]
        assert same == (label == 0)
        if same:
            assert first[0, -1] < second[0, 0]


@settings(max_examples=50, deadline=None)
@given(documents(), st.integers(0, 1000))
def test_pairs_lose_no_sentence_where_there_is_room(found, seed):
    taken = set()
    for first, second, label in packing.pairs(found, 10_000, np.random.default_rng(seed)):
        taken |= {*first[0].tolist(), *(second[0].tolist() if label == 0 else ())}
    assert taken == {int(i) for document in found for sentence in document for i in sentence[0]}


def long_documents(count=200, sentences=40):
    token = np.arange(count * sentences * 10).reshape(count, sentences, 10)
    return [[np.stack([ids, np.ones_like(ids)]) for ids in document] for document in token]


def test_half_of_the_pairs_follow_where_there_is_something_to_follow(monkeypatch):
    monkeypatch.setattr(packing, "SHORT", 0)
    found = packing.pairs(long_documents(), 125, np.random.default_rng(0))
    labels = [label for first, _, label in found if first[0, -1] // 10 % 40 != 39]  # not a document's last sentence
    assert len(labels) > 900 and within(sum(labels), len(labels), 0.5)


def test_a_tenth_of_the_documents_has_short_pairs():
    short = 0
    for document in long_documents(400):
        pairs = packing.pairs([document, document], 125, np.random.default_rng(short + int(document[0][0, 0])))
        first, second, _ = next(pairs)
        short += first.shape[1] + second.shape[1] < 115
    assert within(short, 400, 0.1 * 114 / 124)


def test_random_segments_come_evenly_from_all_other_documents():
    documents, rng = long_documents(10), np.random.default_rng(1)
    counts = np.zeros(10)
    for _ in range(5000):
        counts[packing.other_segment(documents, 3, 50, rng)[0][0, 0] // 400] += 1
    assert counts[3] == 0
    assert all(within(count, 5000, 1 / 9) for count in np.delete(counts, 3))


def test_too_long_pairs_are_cut_at_both_ends():
    segment, rng, fronts = np.stack([np.arange(100)] * 2), np.random.default_rng(2), []
    for _ in range(500):
        first, second = packing.truncate(segment, segment[:, :80], 100, rng)
        assert first.shape[1] == second.shape[1] == 50
        fronts += [first[0, 0], second[0, 0]]
    assert abs(np.mean(fronts) - (25 + 15) / 2) < SIGMAS * 4 / np.sqrt(500)


def test_a_single_document_gives_no_pairs():
    assert not list(packing.pairs(long_documents(1), 125, np.random.default_rng(0)))


def test_packed_examples_have_the_tokenizers_marks_and_types():
    tokenizer = BertTokenizer(str(FIXTURES / "training" / "vocab.txt"))
    texts = {"text": [["王明住在北京。", "也去大学。"], ["张红的菜店很新。"], []]}
    single = packing.pack(texts, [0, 1, 2], tokenizer, 32, False, 0)
    assert [tokenizer.decode(ids).replace(" ", "") for ids in single["input_ids"]] == [
        "[CLS]王明住在北京。也去大学。[SEP]",
        "[CLS]张红的菜店很新。[SEP]",
    ]
    assert not any(types.any() for types in single["token_type_ids"]) and "next_sentence_label" not in single
    paired = packing.pack(texts, [0, 1, 2], tokenizer, 32, True, 0)
    assert paired["next_sentence_label"]
    for ids, types, starts in zip(paired["input_ids"], paired["token_type_ids"], paired["word_starts"], strict=True):
        ends = np.flatnonzero(ids == tokenizer.sep_token_id)
        assert len(ends) == 2 and ends[1] == len(ids) - 1 and ids[0] == tokenizer.cls_token_id
        assert types.tolist() == [0] * (ends[0] + 1) + [1] * (len(ids) - ends[0] - 1)
        assert len(starts) == len(ids) <= 32
    again = packing.pack(texts, [0, 1, 2], tokenizer, 32, True, 0)
    assert all((one == other).all() for one, other in zip(paired["input_ids"], again["input_ids"], strict=True))
