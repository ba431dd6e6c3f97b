"""What a verdict rests on: what no tensor and no file of the source says, and no comparison can show."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ..checkpoint import Assumption
from ..errors import UsageError
from ..folder.record import ConvertedFolder
from .oracle.dialects import PYTORCH
from .source import Source


def list_assumptions(folder: ConvertedFolder, source: Source) -> tuple[Assumption, ...]:
    """The conversion's assumptions, and the oracle's own; one a name."""
    recorded = [Assumption(one["name"], one["text"]) for one in folder.record.get("assumptions", ())]
    by_name = {one.name: one for one in (*_of_the_oracle(folder, source), *recorded)}
    return tuple(by_name.values())


def check_accepted(accepted: Sequence[str], assumed: Collection[Assumption]) -> None:
    """Raises UsageError unless `accepted` are names of `assumed`."""
    names = [one.name for one in assumed]
    for name in accepted:
        if name not in names:
            raise UsageError(
                f"--assume {name}: nothing of this name is assumed; "
                + (f"assumed are {', '.join(names)}" if names else "nothing is assumed at all"),
                hint=f"One of them: --assume {names[0]}" if names else "Leave --assume out.",
            )


def _of_the_oracle(folder: ConvertedFolder, source: Source) -> Iterator[Assumption]:
    if source.program == PYTORCH.name:  # the dialect that takes whatever no other knows
        yield Assumption(
            "program",
            "the original is Huawei's NEZHA-PyTorch; other programs write the same names of tensors and the same JSON",
        )
    made_up = [f"LABEL_{i}" for i in range(len(folder.config.get("id2label") or ()))]
    if source.labels is None and made_up:
        named = list((folder.config["id2label"]).values()) != made_up
        yield Assumption(
            "labels",
            "the labels' names are those of a file that is not beside the source; --labels FILE compares them"
            if named
            else f"the labels' names are {made_up[0]} to {made_up[-1]}; no file of the source says them",
        )
