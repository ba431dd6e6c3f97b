"""Whole-word masking: which tokens are chosen, and what becomes of them."""

import inspect
from pathlib import Path

import jieba
import numpy as np
import pytest
import torch
from chance import within
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer, TrainerState
from whole_word_masking import IGNORED, WholeWordMasking, choose_words, encode, replace

FIXTURES = Path(__file__).parents[2] / "fixtures"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


TOKENIZER = BertTokenizer(str(FIXTURES / "tokenization" / "vocab.txt"))


def words_of(text, tokenizer):
    """The words as lists of tokens."""
    words = []
    for token, start in encode([text], tokenizer)[0].T:
        if start:
            words.append([])
        words[-1].append(tokenizer.convert_ids_to_tokens(int(token)))
    return words


def rows_of_words(rng, rows=400, words=80, vocabulary=1000):
    """Ids and word starts of rows of [CLS], words of one to four tokens, [SEP] and padding; ids under 5 are special."""
    sizes = rng.choice([1, 1, 1, 2, 2, 2, 3, 4], (rows, words))
    width = int(sizes.sum(1).max()) + 3
    ids, starts = np.zeros((2, rows, width), np.int64)
    for row, size in enumerate(sizes):
        end = size.sum() + 1
        ids[row, 0], ids[row, end] = 2, 3
        ids[row, 1:end] = rng.integers(5, vocabulary, end - 1)
        starts[row, 1 + np.cumsum([0, *size[:-1]])] = 1
    return ids, starts


@pytest.mark.parametrize(
    "text, words",
    [
        ("北京大学在北京。", [["北", "京", "大", "学"], ["在"], ["北", "京"], ["。"]]),
        ("我们today去unaffable的", [["我", "们"], ["today"], ["去"], ["una", "##ffa", "##ble"], ["的"]]),
        ("", []),
    ],
)
def test_words_are_jiebas_or_the_tokenizers(text, words, tmp_path):
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"北京大学在。我们去的",
        "today",
        "una",
        "##ffa",
        "##ble",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    assert words_of(text, BertTokenizer(str(tmp_path / "vocab.txt"))) == words


def test_a_latin_word_that_jieba_cuts_stays_one(tmp_path):
    assert jieba.lcut("café") == ["caf", "é"]
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "caf", "##e"]), "utf-8")
    assert words_of("café café", BertTokenizer(str(tmp_path / "vocab.txt"))) == [["caf", "##e"]] * 2


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("北京大学的我们在aé 1-\n\u3000"), max_size=40))
def test_any_text_has_a_start_for_each_token_and_no_word_is_cut(text):
    tokenizer = TOKENIZER
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, starts = encode([text], tokenizer)[0]
    assert ids.tolist() == encoded["input_ids"]
    assert set(starts.tolist()) <= {0, 1} and (not len(starts) or starts[0] == 1)
    spans, place = [], 0
    for word in jieba.lcut(text):
        spans += [place] * len(word)
        place += len(word)
    pieces = encoded.word_ids()
    for i, (first, second) in enumerate(zip(encoded["offset_mapping"], encoded["offset_mapping"][1:], strict=False), 1):
        same_word = pieces[i - 1] == pieces[i] or spans[max(first[1] - 1, first[0])] == spans[second[0]]
        assert bool(starts[i]) != same_word


def test_the_shares_are_15_and_80_10_10():
    ids, starts = rows_of_words(np.random.default_rng(0), rows=4000)
    maskable, rng = ids >= 5, np.random.default_rng(1)
    chosen = choose_words(starts, maskable, 0.15, rng)
    assert within(chosen.sum(), maskable.sum(), 0.15)
    vocabulary = 1000
    seen = replace(ids, chosen, 4, vocabulary, rng)
    assert (seen[~chosen] == ids[~chosen]).all()
    tokens, masked = chosen.sum(), (seen == 4) & chosen
    kept = (seen == ids) & chosen
    # Of the 10 % that become any token, one in 1,000 is [MASK] and one is the same again.
    assert within(masked.sum(), tokens, 0.8 + 0.1 / vocabulary)
    assert within(kept.sum(), tokens, 0.1 + 0.1 / vocabulary)
    assert within((chosen & ~masked & ~kept).sum(), tokens, 0.1 - 0.2 / vocabulary)


def test_each_row_has_its_share_to_within_a_word():
    ids, starts = rows_of_words(np.random.default_rng(2))
    maskable = ids >= 5
    found = choose_words(starts, maskable, 0.15, np.random.default_rng(3)).sum(1)
    assert (abs(found - 0.15 * maskable.sum(1)) < 4).all(), "no word has more than 4 tokens"


def test_other_tokens_are_drawn_evenly():
    vocabulary, ids = 50, np.full((100, 2000), 60)
    seen = replace(ids, np.ones(ids.shape, bool), 70, vocabulary, np.random.default_rng(4))
    others = np.bincount(seen[seen < 60], minlength=vocabulary)
    assert len(others) == vocabulary
    assert all(within(count, ids.size, 0.1 / vocabulary) for count in others)


def test_each_token_is_decided_by_itself():
    ids = np.full((100, 1000), 60)
    seen = replace(ids, np.ones(ids.shape, bool), 70, 50, np.random.default_rng(5)) == 70
    assert within((seen[:, 1:] & seen[:, :-1]).sum(), 100 * 999, 0.8 * 0.8)


@settings(max_examples=60, deadline=None, phases=[Phase.generate])  # a mutation's failure need not be shrunk
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 30), st.floats(0.01, 0.99))
def test_no_word_is_split_nothing_special_is_chosen(seed, rows, width, probability):
    rng = np.random.default_rng(seed)
    maskable, starts = rng.random((rows, width)) < 0.8, rng.random((rows, width)) < 0.6
    chosen = choose_words(starts.astype(np.int64), maskable, probability, rng)
    assert not (chosen & ~maskable).any()
    assert (chosen.any(1) == maskable.any(1)).all()
    goes_on = maskable[:, 1:] & maskable[:, :-1] & ~starts[:, 1:]
    assert (chosen[:, 1:] == chosen[:, :-1])[goes_on].all()
    lone = np.ones((1, 9), bool)  # words of one token, but for the last two, which a special token divides
    lone[0, 7] = False
    found = [choose_words(np.array([[1] * 8 + [0]]), lone, 0.5, np.random.default_rng([seed, i])) for i in range(12)]
    assert any(one[0, 6] != one[0, 8] for one in found) and any(one[0, 0] != one[0, 1] for one in found)


def test_words_are_equally_likely():
    """Passing over words that no longer fit, as Google does, gives 17 % for one token and 14 % for four here."""
    times, (ids, starts) = 20_000, rows_of_words(np.random.default_rng(6), rows=1)
    many, maskable = np.repeat(starts, times, 0), np.repeat(ids >= 5, times, 0)
    first = np.flatnonzero((starts[0] == 1) & (ids[0] >= 5))
    shares = choose_words(many, maskable, 0.15, np.random.default_rng(7)).mean(0)[first]
    sizes = np.diff([*first, (ids[0] >= 5).sum() + 1])
    for size in set(sizes):
        of_size = shares[sizes == size]
        assert all(within(share * times, times, of_size.mean()) for share in of_size)
        assert abs(of_size.mean() - 0.15) < 0.005


def examples_of(texts, tokenizer, **more):
    found = []
    for ids, starts in encode(texts, tokenizer):
        ids, starts = [2, *ids.tolist(), 3], [1, *starts.tolist(), 1]
        found.append({"input_ids": ids, "word_starts": starts, "token_type_ids": [0] * len(ids), **more})
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tokenizer and examples of the training fixtures."""
    tokenizer = BertTokenizer(str(FIXTURES / "training" / "vocab.txt"))
    lines = (FIXTURES / "training" / "corpus" / "train.txt").read_text("utf-8").split("\n")
    return tokenizer, examples_of([line for line in lines if line], tokenizer, next_sentence_label=1)


def test_a_batch_has_the_models_inputs(small):
    tokenizer, examples = small
    batch = WholeWordMasking(tokenizer, pad_to_multiple_of=8)(examples[:8])
    width = -(-max(len(example["input_ids"]) for example in examples[:8]) // 8) * 8
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels", "next_sentence_label"}
    assert all(table.shape == (8, width) for name, table in batch.items() if name != "next_sentence_label")
    assert all(table.dtype == torch.int64 for table in batch.values())
    assert batch["next_sentence_label"].tolist() == [1] * 8
    for row, example in enumerate(examples[:8]):
        length = len(example["input_ids"])
        labels, ids = batch["labels"][row], batch["input_ids"][row]
        original = torch.where(labels == IGNORED, ids, labels)
        assert original.tolist() == example["input_ids"] + [tokenizer.pad_token_id] * (width - length)
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (width - length)
        assert labels[0] == labels[length - 1] == IGNORED and (labels[length:] == IGNORED).all()


def test_special_tokens_in_the_text_are_never_masked(small):
    tokenizer, _ = small
    examples = examples_of(["王明[MASK]住在[SEP]北京\U0001f600[UNK]"] * 100, tokenizer)
    labels = WholeWordMasking(tokenizer, 0.9)(examples)["labels"]
    assert not np.isin(labels[labels != IGNORED].numpy(), tokenizer.all_special_ids).any()


def test_a_tokenizer_without_a_mask_is_refused(small):
    tokenizer = BertTokenizer(str(FIXTURES / "training" / "vocab.txt"), mask_token=None)
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="mask"):
        WholeWordMasking(tokenizer)


def masks(collator, examples, workers, seed=0):
    loader = torch.utils.data.DataLoader(examples, 8, collate_fn=collator, num_workers=workers)
    return torch.cat([batch["input_ids"].flatten() for batch in loader])


def test_masks_follow_from_seed_epoch_and_batch_whatever_the_number_of_workers(small):
    tokenizer, examples = small
    collator = WholeWordMasking(tokenizer, seed=3)
    first = masks(collator, examples, 0)
    torch.manual_seed(99)
    assert torch.equal(first, masks(collator, examples, 2)) and torch.equal(first, masks(collator, examples, 0))
    assert not torch.equal(first, masks(WholeWordMasking(tokenizer, seed=4), examples, 0))
    state = TrainerState(epoch=1.25)  # resumed in the middle of the second epoch
    collator.on_epoch_begin(None, state, None)
    second = masks(collator, examples, 0)
    assert not torch.equal(first, second) and torch.equal(second, masks(collator, examples, 2))


def test_two_batches_and_two_orders_of_one_get_their_own_masks(small):
    tokenizer, examples = small
    collator = WholeWordMasking(tokenizer)
    one, other = collator([examples[0]] * 4)["labels"], collator([examples[0]] * 5)["labels"]
    assert not torch.equal(one, other[:4])
    batch = examples[:6]
    forth, back = collator(batch)["labels"], collator(batch[::-1])["labels"].flip(0)
    assert not torch.equal(forth != IGNORED, back != IGNORED)


MUTATIONS = {
    "a share too large": (
        "probability * maskable",
        "1.02 * probability * maskable",
        test_the_shares_are_15_and_80_10_10,
    ),
    "the last word always": ("before + rng.random((rows, 1)) * shuffled <", "before <", test_words_are_equally_likely),
    "the first words": ("rng.random(sizes.shape)", "np.zeros(sizes.shape)", test_words_are_equally_likely),
    "rows without a mask": ("taken[:, 0] = True", "pass", test_no_word_is_split_nothing_special_is_chosen),
    "special tokens": ("return maskable &", "return", test_no_word_is_split_nothing_special_is_chosen),
    "single tokens": ("maskable & (starts != 0)", "maskable", test_no_word_is_split_nothing_special_is_chosen),
    "words across [SEP]": ("begins[:, 1:] |=", "begins[:, 1:] &=", test_no_word_is_split_nothing_special_is_chosen),
    "81 %": ("draw < 0.8,", "draw < 0.81,", test_the_shares_are_15_and_80_10_10),
    "11 %": ("draw < 0.9,", "draw < 0.91,", test_the_shares_are_15_and_80_10_10),
    "one draw for all": ("rng.random(original.shape)", "rng.random()", test_each_token_is_decided_by_itself),
    "no last entry": ("integers(vocabulary,", "integers(vocabulary - 1,", test_other_tokens_are_drawn_evenly),
}


@pytest.mark.parametrize("old, new, test", MUTATIONS.values(), ids=MUTATIONS)
def test_a_mutation_makes_its_test_fail(old, new, test, monkeypatch):
    source = inspect.getsource(choose_words) + inspect.getsource(replace)
    assert source.count(old) == 1
    mutated = {"np": np}
    exec(source.replace(old, new), mutated)
    for name in ("choose_words", "replace"):
        monkeypatch.setitem(globals(), name, mutated[name])
    with pytest.raises(AssertionError):
        test()
