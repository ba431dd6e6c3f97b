"""Whether a random count is what it should be."""

from __future__ import annotations

import math

SIGMAS = 5  # one false alarm in a million


def within(count, trials, probability):
    """Whether a count is what so many trials with that probability give."""
    return abs(count - trials * probability) < SIGMAS * math.sqrt(trials * probability * (1 - probability))
