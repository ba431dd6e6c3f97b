"""The names by which trainings keep a moving average of the weights: keys of dictionaries, and parts of tensors' names.

Sources: torch.optim.swa_utils (`n_averaged`), MMEngine (`ema_state_dict`), timm (`state_dict_ema`), ema-pytorch
(`ema_model`), Lightning (`swa_model`), and the class EMA of competitors' code, which keeps the average in `shadow`, and
in `backup` the weights that it has taken the place of.
"""

from __future__ import annotations

import re

from ..checkpoint import Decision, Origin

COUNTER = "n_averaged"
"""The tensor by which torch's AveragedModel is known: how many weights the mean is of."""

FIELD = "average"
"""The field of the decisions about an average."""

_AVERAGE = re.compile(r"(?<![A-Za-z])(?i:ema|swa|shadow|avg|averaged?|moving)(?![A-Za-z])|EMA|SWA")
_REPLACED = re.compile(r"(?i)backup|collected|online")


def is_average(key: str) -> bool:
    """Whether `key`, or one of its parts, is what programs call an average.

    Example:
        >>> is_average("ema.shadow"), is_average("ema.backup"), is_average("schema")
        (True, False, False)
    """
    return bool(_AVERAGE.search(key)) and not is_replaced(key)


def is_replaced(key: str) -> bool:
    """Whether `key` is what programs call the weights that an average has taken the place of."""
    return bool(_REPLACED.search(key))


def left_out(where: str) -> Decision:
    """The decision to leave the average at `where` in its place."""
    reason = f"a moving average of the weights is at {where}; --average takes it instead"
    return Decision(FIELD, "left out", reason, Origin.DEFAULT)
