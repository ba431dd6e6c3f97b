"""Whether random counts are as expected."""

from __future__ import annotations

import math

SIGMAS = 5  # one false alarm in a million


def within(count, trials, probability):
    """Whether `count` successes are likely in so many trials of this probability."""
    return abs(count - trials * probability) < SIGMAS * math.sqrt(trials * probability * (1 - probability))
