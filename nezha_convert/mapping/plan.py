"""The plan of a conversion: each source tensor's way, decided before anything is read. No I/O, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..checkpoint import TensorEntry
from ..errors import MappingError
from ..families.heads import TARGETS, TIES, Head
from ..families.rules import MAX_LAYERS, Drop, Family, Match, Op, Tie, layer_of, numbered, pattern_of

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_UNCLEAR = "Check --head and --config; nezha-convert inspect SOURCE shows what the checkpoint holds."
_UNFIT = (
    "Whole numbers are weights only together with the scales that a quantizing program keeps elsewhere. Name the "
    "checkpoint from before it was quantized: nezha-convert inspect SOURCE --tensors shows the types."
)


@dataclass(frozen=True, slots=True)
class Step:
    """`entry` becomes `target` by `op`; `shape` is the target's."""

    entry: TensorEntry
    target: str
    op: Op
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A source tensor that the output does not hold, and why."""

    name: str
    nbytes: int
    reason: str
    optimizer: bool = False


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A tensor whose shape is not what the config says, both in the target's layout."""

    source: str
    target: str
    found: tuple[int, ...]
    expected: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every source name used once or dropped for a reason, every target filled once; or the list of what is wrong.

    Attributes:
        steps: what is written.
        dropped: what is not.
        kept: what the model has no place for; it is written beside it, under the source's names.
        tied: targets that share another target's values and are not written.
        missing: targets that nothing fills.
        unmatched: source names that the family does not know.
        mismatched: tensors of another shape than the config says.
        collisions: (target, its sources) where several want to fill one.
        unfit: (source, its type) of weights that are no floating-point numbers.
        causes: disagreements between the config and many tensors at once, in words.
    """

    steps: tuple[Step, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    kept: tuple[Step, ...] = ()
    tied: tuple[Tie, ...] = ()
    missing: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    collisions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    unfit: tuple[tuple[str, str], ...] = ()
    causes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the plan can be carried out."""
        return not self.problems()

    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong, in words; causes first."""
        return (
            *self.causes,
            *(f"missing: {name}" for name in self.missing),
            *(f"unmatched: {name} is in no table of this family" for name in self.unmatched),
            *(
                f"shape: {m.source} gives {m.target} {list(m.found)}, expected {list(m.expected)}"
                for m in self.mismatched
            ),
            *(f"collision: {' and '.join(sources)} both become {target}" for target, sources in self.collisions),
            *(f"type: {name} is {dtype}, expected one of {', '.join(_FLOATS)}" for name, dtype in self.unfit),
        )

    @property
    def hint(self) -> str:
        """What to do about the problems."""
        return _UNFIT if self.unfit else _UNCLEAR

    def check(self) -> None:
        """Raises MappingError with every problem at once unless the plan is ok."""
        problems = self.problems()
        if problems:
            raise MappingError(
                f"the tensors do not map: {len(problems)} problem(s)",
                problems=problems,
                hint=self.hint,
            )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor goes: a target of the model, or of a layer that the config does not have (`beyond`)."""

    target: str
    op: Op
    beyond: bool = False


_Fate = Dropped | _Place | TensorEntry | None
"""What becomes of a tensor; an entry is kept beside the model; None: the family does not know it."""


def make_plan(
    family: Family,
    head: Head,
    entries: Mapping[str, TensorEntry],
    dimensions: Mapping[str, int],
    untied: bool = False,
    loaded_over: Sequence[Tie] = (),
    drop: Sequence[str] = (),
    beside: Mapping[str, TensorEntry] | None = None,
    replaced: Mapping[str, TensorEntry] | None = None,
) -> Plan:
    """Plan the conversion of `entries` to `head`.

    Args:
        family: the family of the source.
        head: what to convert to.
        entries: the source's tensors.
        dimensions: what shapes are made of, and ``num_hidden_layers``.
        untied: the masked-LM decoder is a tensor of its own, so it is written.
        loaded_over: ties whose two names hold different values. The originals have one tensor for both and load
            `target` last, so its values are the ones that they compute with.
        drop: globs of names that the user wants to be left out.
        beside: what an earlier conversion kept beside the model.
        replaced: weights whose moving averages are among `entries` by their names.
    """
    family = family.under(head.parts)
    layers = dimensions["num_hidden_layers"]
    symbols = {target: dims for part in head.parts for target, dims in TARGETS[part].items()}
    wanted = dict.fromkeys(numbered(symbols, min(layers, MAX_LAYERS)))  # a config may claim billions
    ties = () if untied else tuple(tie for tie in TIES if tie.target in wanted)

    fates: dict[str, _Fate] = {
        name: _asked_fate(name, entry, drop) or _fate(family, head, name, entry, wanted, ties, loaded_over)
        for name, entry in entries.items()
    }
    kept = {n: _asked_fate(n, entry, drop) or entry for n, entry in (beside or {}).items() if n not in entries}
    fates |= kept
    filled: dict[str, list[TensorEntry]] = {}
    ops: dict[str, Op] = {}
    for name, fate in fates.items():
        if isinstance(fate, _Place) and not fate.beyond:
            filled.setdefault(fate.target, []).append(entries[name])
            ops[fate.target] = fate.op
    if untied:
        filled, ops = _with_both_biases(filled, ops, wanted)

    beyond = {name: fate.target for name, fate in fates.items() if isinstance(fate, _Place) and fate.beyond}
    tied = {tie.target for tie in ties}
    missing = [target for target in wanted if target not in filled and target not in tied]
    cause, missing, unmatched = _explain_layers(layers, filled, beyond, missing)
    steps, mismatches = _steps(filled, ops, symbols, dimensions)
    sizes, mismatched = _explain_sizes(filled, ops, mismatches, symbols, dimensions)
    return Plan(
        steps=tuple(_own_name(step, head) for step in steps),
        dropped=(*(fate for fate in fates.values() if isinstance(fate, Dropped)), *_replaced(replaced or {})),
        kept=tuple(Step(fate, n, Op.COPY, fate.shape) for n, fate in fates.items() if isinstance(fate, TensorEntry)),
        tied=ties,
        missing=tuple(missing),
        unmatched=(*(name for name, fate in fates.items() if fate is None), *unmatched),
        mismatched=mismatched,
        collisions=tuple(
            (target, tuple(entry.name for entry in sources)) for target, sources in filled.items() if len(sources) > 1
        ),
        unfit=tuple((step.entry.name, step.entry.dtype) for step in steps if step.entry.dtype not in _FLOATS),
        causes=(*cause, *sizes),
    )


def _replaced(weights: Mapping[str, TensorEntry]) -> Iterator[Dropped]:
    """The fate of weights whose averages are taken."""
    reason = "its moving average is taken in its place: --average"
    return (Dropped(name, entry.nbytes, reason) for name, entry in weights.items())


def _asked_fate(name: str, entry: TensorEntry, drop: Iterable[str]) -> Dropped | None:
    """The fate of a tensor that the user wants to be left out."""
    pattern = next((pattern for pattern in drop if fnmatchcase(name, pattern)), None)
    return Dropped(entry.name, entry.nbytes, f"asked for: --drop {pattern}") if pattern else None


def _fate(
    family: Family,
    head: Head,
    name: str,
    entry: TensorEntry,
    wanted: Mapping[str, None],
    ties: Iterable[Tie],
    loaded_over: Iterable[Tie],
) -> _Fate:
    """What becomes of the tensor known as `name`. What is no part of the model was trained all the same: it is kept."""

    def dropped(reason: str, optimizer: bool = False) -> Dropped:
        return Dropped(entry.name, entry.nbytes, reason, optimizer)

    match family.find(name):
        case Drop() as rest if rest is family.rest:
            return entry
        case Drop(reason=reason, optimizer=optimizer):
            return dropped(reason, optimizer)
        case None:
            outside = not name.startswith(family.prefix) or not family.unwrapped(name).startswith(family.backbone)
            return entry if outside else None
        case Match(part=part, rule=rule) if part not in head.parts:
            equal = next((tie for tie in TIES if tie.target == rule.target and tie not in loaded_over), None)
            return dropped(f"equal to {equal.of}, to which it is tied") if equal else entry
        case Match(rule=rule):
            over = next((t for t in loaded_over if t.target in wanted and rule.target in (t.of, t.target)), None)
            if over and rule.target == over.of:
                return dropped(f"{over.target} is loaded over it: the original has one tensor for both")
            if over:
                return _Place(over.of, rule.op)
            if tie := next((tie for tie in ties if tie.target == rule.target), None):
                return dropped(f"equal to {tie.of}, to which it is tied")
            return _Place(rule.target, rule.op, beyond=rule.target not in wanted)


def _with_both_biases(
    filled: Mapping[str, list[TensorEntry]], ops: Mapping[str, Op], wanted: Mapping[str, None]
) -> tuple[dict[str, list[TensorEntry]], dict[str, Op]]:
    """An untied decoder has two biases in transformers; a source with one means both."""
    bias, decoder_bias = "cls.predictions.bias", "cls.predictions.decoder.bias"
    copies = {
        target: filled[other]
        for target, other in ((bias, decoder_bias), (decoder_bias, bias))
        if target in wanted and target not in filled and other in filled
    }
    return {**filled, **copies}, {**ops, **dict.fromkeys(copies, Op.COPY)}


def _explain_layers(
    layers: int, filled: Iterable[str], beyond: Mapping[str, str], missing: list[str]
) -> tuple[tuple[str, ...], list[str], tuple[str, ...]]:
    """One sentence where the config's number of layers is wrong, for the hundreds of names that follow from it.

    Returns:
        The sentence, the targets that are missing all the same, and the names that are left unexplained.
    """
    numbers = {number for name in (*filled, *beyond.values()) if (number := layer_of(name)) is not None}
    if numbers and numbers == set(range(len(numbers))) and len(numbers) != layers:
        cause = f"num_hidden_layers: the config says {layers}, the tensors have {len(numbers)}"
        return (cause,), [name for name in missing if (layer_of(name) or 0) < len(numbers)], ()
    return (), missing, tuple(beyond)


def _laid_out(entry: TensorEntry, op: Op) -> tuple[int, ...]:
    """The shape of `entry` in the target's layout."""
    return entry.shape[::-1] if op is Op.TRANSPOSE else entry.shape


def _steps(
    filled: Mapping[str, list[TensorEntry]],
    ops: Mapping[str, Op],
    symbols: Mapping[str, tuple[str | int, ...]],
    dimensions: Mapping[str, int],
) -> tuple[list[Step], list[Mismatch]]:
    """A step for each target whose tensor has the config's shape, and a mismatch for each other one."""
    steps, mismatches = [], []
    for target, sources in filled.items():
        expected = _shape(symbols[pattern_of(target)], dimensions)
        entry = sources[0]  # of several, all are reported as a collision
        shape = _laid_out(entry, ops[target])
        if shape == expected:
            steps.append(Step(entry, target, ops[target], expected))
        else:
            mismatches.append(Mismatch(entry.name, target, shape, expected))
    return steps, mismatches


def _shape(dims: Iterable[str | int], dimensions: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(dimensions[dim] if isinstance(dim, str) else dim for dim in dims)


def _explain_sizes(
    filled: Mapping[str, list[TensorEntry]],
    ops: Mapping[str, Op],
    mismatches: Iterable[Mismatch],
    symbols: Mapping[str, tuple[str | int, ...]],
    dimensions: Mapping[str, int],
) -> tuple[tuple[str, ...], tuple[Mismatch, ...]]:
    """One sentence for each size that all tensors contradict, and the mismatches that these do not explain."""
    votes: dict[str, Counter[int]] = {}
    for target, sources in filled.items():
        dims, shape = symbols[pattern_of(target)], _laid_out(sources[0], ops[target])
        for dim, size in zip(dims, shape, strict=True) if len(dims) == len(shape) else ():
            if isinstance(dim, str):
                votes.setdefault(dim, Counter())[size] += 1
    causes, sizes = [], dict(dimensions)
    for dim, counts in votes.items():
        (size, count), *others = counts.most_common()
        if not others and size != dimensions[dim]:
            sizes[dim] = size
            causes.append(f"{dim}: the config says {dimensions[dim]}, the tensors say {size} ({count} of them)")
    left = tuple(m for m in mismatches if m.found != _shape(symbols[pattern_of(m.target)], sizes))
    return tuple(causes), left


def _own_name(step: Step, head: Head) -> Step:
    """In a model without a head no name begins with "nezha."."""
    if not head.bare:
        return step
    return Step(step.entry, step.target.removeprefix("nezha."), step.op, step.shape)
