"""The plan of a conversion: each source tensor's way, decided before anything is read. No I/O, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..checkpoint import TensorEntry
from ..errors import MappingError
from ..families import ENCODER, POOLER, TARGETS, TIES, Head
from ..families.rules import MAX_LAYERS, Drop, Op, Table, Tie, layer_of, numbered, pattern_of


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


@dataclass(slots=True)
class Plan:
    """Every source name used once or dropped for a reason, every target filled once; or the list of what is wrong.

    Attributes:
        steps: what is written.
        dropped: what is not.
        tied: targets that share another target's values and are not written.
        missing: targets that nothing fills.
        unmatched: source names that no table knows.
        mismatched: tensors of another shape than the config says.
        collisions: (target, its sources) where several want to fill one.
        causes: disagreements between the config and many tensors at once, in words.
    """

    steps: list[Step] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    tied: list[Tie] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    mismatched: list[Mismatch] = field(default_factory=list)
    collisions: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)

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
        )

    def check(self) -> None:
        """Raises MappingError with every problem at once unless the plan is ok."""
        problems = self.problems()
        if problems:
            raise MappingError(
                f"the tensors do not map: {len(problems)} problem(s)",
                problems=problems,
                hint="Check --head and --config; nezha-convert inspect SOURCE shows what the checkpoint holds.",
            )


def make_plan(
    table: Table,
    head: Head,
    entries: Mapping[str, TensorEntry],
    config: Mapping[str, int],
    untied: bool = False,
    loaded_over: Sequence[Tie] = (),
) -> Plan:
    """Plan the conversion of `entries` to `head`.

    Args:
        table: the family of the source.
        head: what to convert to.
        entries: the source's tensors.
        config: the dimensions that shapes are made of, and ``num_hidden_layers``.
        untied: the masked-LM decoder is a tensor of its own, so it is written.
        loaded_over: ties whose two names hold different values. The originals have one tensor for both and load
            `target` last, so its values are the ones that they compute with.
    """
    plan = Plan()
    table = table.under(head.parts)
    layers = config["num_hidden_layers"]
    symbols = {target: dims for part in head.parts for target, dims in TARGETS[part].items()}
    wanted = dict.fromkeys(numbered(symbols, min(layers, MAX_LAYERS)))  # a config may claim billions
    ties = [] if untied else [tie for tie in TIES if tie.target in wanted]

    filled: dict[str, list[TensorEntry]] = {}
    ops: dict[str, Op] = {}
    beyond: dict[str, str] = {}
    for name, entry in entries.items():
        found = table.find(name)
        if isinstance(found, Drop):
            plan.dropped.append(Dropped(name, entry.nbytes, found.reason, found.optimizer))
        elif found is None:
            if head.parts == (ENCODER, POOLER) and not table.unwrapped(name).startswith(table.backbone):
                plan.dropped.append(Dropped(name, entry.nbytes, "not part of the encoder"))
            else:
                plan.unmatched.append(name)
        elif found[0] not in head.parts:
            plan.dropped.append(Dropped(name, entry.nbytes, f"the {head.name} model has no {found[0]}"))
        else:
            target, op = found[1].target, found[1].op
            over = next((tie for tie in loaded_over if target in (tie.of, tie.target)), None)
            if over and target == over.of:
                reason = f"{over.target} is loaded over it: the original has one tensor for both"
                plan.dropped.append(Dropped(name, entry.nbytes, reason))
            elif over:
                filled.setdefault(over.of, []).append(entry)
                ops[over.of] = op
            elif tie := next((tie for tie in ties if tie.target == target), None):
                plan.dropped.append(Dropped(name, entry.nbytes, f"equal to {tie.of}, to which it is tied"))
            elif target not in wanted:
                beyond[name] = target
            else:
                filled.setdefault(target, []).append(entry)
                ops[target] = op

    plan.tied = ties
    if untied:
        _fill_decoder_bias(filled, ops, wanted)
    plan.collisions = [
        (target, tuple(entry.name for entry in sources)) for target, sources in filled.items() if len(sources) > 1
    ]
    plan.missing = [target for target in wanted if target not in filled and target not in {tie.target for tie in ties}]
    _explain_layers(plan, layers, filled, beyond)
    _steps(plan, filled, ops, symbols, config)
    if head.parts == (ENCODER, POOLER):  # a model without a head has no name of its own in front
        plan.steps = [Step(s.entry, s.target.removeprefix("nezha."), s.op, s.shape) for s in plan.steps]
    return plan


def _fill_decoder_bias(filled: dict[str, list[TensorEntry]], ops: dict[str, Op], wanted: Mapping[str, None]) -> None:
    """An untied decoder has two biases in transformers; a source with one means both."""
    bias, decoder_bias = "cls.predictions.bias", "cls.predictions.decoder.bias"
    for target, other in ((bias, decoder_bias), (decoder_bias, bias)):
        if target in wanted and target not in filled and other in filled:
            filled[target], ops[target] = filled[other], Op.COPY


def _explain_layers(plan: Plan, layers: int, filled: Mapping[str, object], beyond: Mapping[str, str]) -> None:
    """One sentence where the config's number of layers is wrong, for the hundreds of names that follow from it."""
    numbers = {number for name in (*filled, *beyond.values()) if (number := layer_of(name)) is not None}
    if numbers and numbers == set(range(len(numbers))) and len(numbers) != layers:
        plan.causes.append(f"num_hidden_layers: the config says {layers}, the tensors have {len(numbers)}")
        plan.missing = [name for name in plan.missing if (layer_of(name) or 0) < len(numbers)]
    else:
        plan.unmatched.extend(beyond)


def _steps(
    plan: Plan,
    filled: Mapping[str, list[TensorEntry]],
    ops: Mapping[str, Op],
    symbols: Mapping[str, tuple[str | int, ...]],
    config: Mapping[str, int],
) -> None:
    """Fill in steps and mismatches; a dimension that all tensors contradict becomes one cause."""
    votes: dict[str, Counter[int]] = {}
    mismatched = []
    for target, sources in filled.items():
        dims = symbols[pattern_of(target)]
        expected = tuple(config[dim] if isinstance(dim, str) else dim for dim in dims)
        entry = sources[0]  # of several, all are reported as a collision
        found = entry.shape[::-1] if ops[target] is Op.TRANSPOSE else entry.shape
        if len(found) == len(dims):
            for dim, size in zip(dims, found, strict=True):
                if isinstance(dim, str):
                    votes.setdefault(dim, Counter())[size] += 1
        if found == expected:
            plan.steps.append(Step(entry, target, ops[target], expected))
        else:
            mismatched.append(Mismatch(entry.name, target, found, expected))
    told = {}
    for dim, counts in votes.items():
        (size, count), *others = counts.most_common()
        if not others and size != config[dim]:
            told[dim] = size
            plan.causes.append(f"{dim}: the config says {config[dim]}, the tensors say {size} ({count} of them)")
    for m in mismatched:
        dims = symbols[pattern_of(m.target)]
        if m.found != tuple(told.get(dim, config[dim]) if isinstance(dim, str) else dim for dim in dims):
            plan.mismatched.append(m)
