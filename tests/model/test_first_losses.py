"""The first 50 training losses of every head are those of transformers 4.40.2's NEZHA, from one converted folder."""

from __future__ import annotations

import json
from pathlib import Path

import first_losses
import pytest
import upstream
from first_losses import HEADS, NO_DROPOUT
from goldens import FIXTURES, HELPERS

import nezha
from nezha_convert import convert

TOLERANCE = 1e-4

PROGRAM = """
import json, sys
import torch, transformers
from first_losses import HEADS, NO_DROPOUT, losses

assert transformers.__version__ == "4.40.2"
torch.set_num_threads(1)
found = {}
for head, name in HEADS.items():
    # Its table of positions has to be as long as the longest sequence.
    options = {"max_position_embeddings": 192, **NO_DROPOUT}
    model = getattr(transformers, name).from_pretrained(f"{sys.argv[1]}/{head}", **options)
    found[head] = losses(head, model)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    for head in HEADS:
        convert(FIXTURES / f"transformers-4.40.2-{head}", folder / head)
    return folder


@pytest.fixture(scope="module")
def expected(converted) -> dict[str, list[float]]:
    """4.40.2's own losses, by head."""
    try:
        printed = upstream.run_isolated("4.40.2", PROGRAM, str(converted), path=HELPERS)
    except upstream.UnavailableError as reason:
        pytest.skip(str(reason))
    return json.loads(printed.splitlines()[-1])


def difference(head, converted, expected, **changes):
    """The largest difference of a loss, with changes to our model's config."""
    model = getattr(nezha, HEADS[head]).from_pretrained(converted / head, **NO_DROPOUT, **changes)
    found = first_losses.losses(head, model)
    assert len(found) == len(expected[head]) == first_losses.STEPS
    return max(abs(ours - theirs) for ours, theirs in zip(found, expected[head], strict=True))


@pytest.mark.parametrize("head", HEADS)
def test_the_first_50_losses_are_those_of_4_40_2(head, converted, expected):
    first, last = (sum(expected[head][part]) for part in (slice(None, 10), slice(-10, None)))
    assert last < 0.95 * first  # over the same ten batches: it learned, so the losses depend on the gradients
    assert difference(head, converted, expected) < TOLERANCE


@pytest.mark.parametrize("change", [{"max_relative_position": 48}, {"hidden_act": "gelu_pytorch_tanh"}], ids=str)
def test_they_tell_another_clip_distance_and_another_gelu(change, converted, expected):
    assert difference("masked-lm", converted, expected, **change) > TOLERANCE
