"""How far long work has come is told as one growing number."""

from __future__ import annotations

import doctest
from concurrent.futures import ThreadPoolExecutor

from nezha_convert.files import progress
from nezha_convert.files.progress import Counter


def test_the_example_of_its_docstring_runs():
    assert doctest.testmod(progress).failed == 0


def test_what_several_threads_do_adds_up_and_never_goes_back():
    calls = []
    counter = Counter(lambda done, total, what: calls.append((done, total, what)), 400, "writing")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(counter.add, [1] * 400))
    assert calls == [(done, 400, "writing") for done in range(1, 401)]


def test_more_than_there_is_to_do_counts_as_all_of_it():
    calls = []
    counter = Counter(lambda done, total, what: calls.append((done, what)), 3, "first")
    counter.add(2)
    counter.add(5, "second")
    assert calls == [(2, "first"), (3, "second")]


def test_nobody_need_listen():
    Counter(None, 1).add()
