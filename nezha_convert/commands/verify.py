"""`verify`: run a converted model and independent computations of its source on the same inputs, and compare."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .._version import __version__
from ..checkpoint import Checkpoint
from ..errors import UsageError
from ..folder.record import ConvertedFolder
from ..formats.open import open_checkpoint
from ..hub import local_source
from ..mapping.config import read_config
from ..parity.converted import ConvertedModel, load_tokenizer
from ..parity.inputs import Inputs, built_in_cases, check_memory, groups, read_texts, text_cases
from ..parity.measure import TOLERANCES, Measurement
from ..parity.oracle.dialects import dialect_of
from ..parity.oracle.formulas import Array
from ..parity.oracle.model import Entry, Oracle
from ..parity.originals.programs import run_original_all
from ..parity.report import Case, ParityReport, shortened
from ..parity.tokenizer import compare_tokenizers

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is being done)."""

_HALVES = ("float16", "bfloat16")
_PYTORCH_POSITIONS = 512
"""The longest sequence that NEZHA-PyTorch takes."""


def verify(
    source: str | Path,
    output: str | Path,
    *,
    config: str | Path | None = None,
    vocab: str | Path | None = None,
    texts: str | Path | Sequence[str] | None = None,
    original: str | None = None,
    tolerance: float | None = None,
    record: bool = True,
    progress: Any = None,
) -> ParityReport:
    """Compare the converted folder `output` with its `source`, tensor by tensor.

    Args:
        source: what `output` was converted from: a folder, a TensorFlow prefix, any file of a checkpoint, hf://owner/name.
        output: the converted folder.
        config, vocab: as they were given to the conversion, where they do not lie beside the source.
        texts: a file with one text a line, or the texts; compared next to the built-in inputs. A tab parts a pair.
        original: a clone of Huawei's repository, or "transformers==4.40.2": runs the original program as well.
        tolerance: the largest error allowed as a part of each tensor's range, instead of the element type's own.
        record: write the outcome into the output's conversion.json; nothing else in the folder is touched.
        progress: called before every step.

    Raises:
        UsageError: the texts, the original or the machine's memory do not allow it.
        CheckpointError: the source cannot be read.
        MappingError: `output` is not a conversion of `source`, or its model cannot be loaded.
    """
    begun = time.monotonic()
    folder = ConvertedFolder(Path(output))
    checkpoint = _inside(open_checkpoint(local_source(source)[0]), folder.decision("prefix") or "")
    config_path, vocab_path = Path(config) if config else checkpoint.config, Path(vocab) if vocab else checkpoint.vocab
    raw = read_config(config_path, checkpoint.path)
    lines = list(texts) if isinstance(texts, Sequence) and not isinstance(texts, str) else None
    lines = read_texts(Path(texts)) if isinstance(texts, (str, Path)) else lines
    if lines and not folder.has_tokenizer:
        raise UsageError(
            f"{output}: it has no tokenizer, so no texts can be compared",
            hint=f"Convert with a vocabulary: nezha-convert convert {source} {output} --vocab FILE --force",
        )
    if folder.has_tokenizer and vocab_path is None:
        raise UsageError(
            f"{output}: its tokenizer was made from a vocabulary that is not beside {source}",
            hint="Name the one that it was converted with: --vocab FILE",
        )
    beside = (config_path, vocab_path if folder.has_tokenizer else None)
    folder.check_source((*checkpoint.files, *(path for path in beside if path)))

    head, dtype = folder.record["head"], folder.dtype
    if dtype not in TOLERANCES:
        raise UsageError(f"{output}: its weights are {dtype}; compared are {', '.join(TOLERANCES)}")
    files = folder.files()
    changed = tuple(file.name for file, written in files if file.sha256 != written)
    failures = [
        f"{file.name} was changed since it was converted: its SHA-256 is {str(file.sha256)[:12]}..., "
        f"the conversion wrote {written[:12]}..."
        for file, written in files
        if file.name in changed
    ]
    warnings = _warnings(folder)
    cases = built_in_cases(folder.config, int(raw.get("max_relative_position", 64)), head)
    always = len(cases)
    tokenizer = None
    if folder.has_tokenizer and vocab_path:
        loaded = load_tokenizer(folder.path)
        tensorflow = dialect_of(checkpoint.entries, raw).name == "tensorflow"
        tokenizer, problem, said = compare_tokenizers(folder, loaded, vocab_path, lines or (), original, tensorflow)
        failures += [problem] if problem else []
        warnings += said
        if lines:
            cases |= text_cases(lines, loaded, head)
    check_memory(cases, folder.config)

    model = ConvertedModel(folder.path, folder.record["architecture"], head)
    runs = _Runs(checkpoint, raw, head, dtype, original, tolerance)
    layers, groupings = folder.config["num_hidden_layers"], list(groups(cases, always))
    steps = _Steps(progress or (lambda done, steps, what: None), runs.steps(layers, cases, len(groupings)))
    for names in groupings:
        runs.compare(model, {name: cases[name] for name in names}, steps)
    comparisons = tuple(measurement.result() for measurement in runs.measurements)
    warnings += runs.left_out

    for comparison in comparisons:
        if first := comparison.first_departs:
            what = f"{first.nonfinite:,} values not finite" if first.nonfinite else f"{first.relative_error:.1e}"
            failures.append(
                f"first departs {first.name}: {what} of its range from {comparison.reference} in "
                f"{comparison.arithmetic}, at {first.peak}; allowed {comparison.tolerance:g}"
            )
    if tokenizer and tokenizer.differing:
        one = tokenizer.differing[0]
        failures.append(
            f"tokenizer: {len(tokenizer.differing)} of {tokenizer.texts} texts differ from {tokenizer.reference}; "
            f"{shortened(one.text)!r} from token {one.at}: found {' '.join(one.found[:3])!r}, "
            f"expected {' '.join(one.expected[:3])!r}"
        )
    weights = model.statistics()
    failures += [
        f"weights of {part.part}: {part.nonfinite:,} of {part.values:,} are NaN or infinite; nothing that they reach "
        "can be compared"
        for part in weights
        if part.nonfinite
    ]
    report = ParityReport(
        versions=_versions(),
        source=str(folder.record["source"]),
        output=folder.path.resolve().name,
        family=folder.record["family"],
        head=head,
        architecture=folder.record["architecture"],
        dtype=dtype,
        cases=tuple(Case(name, case["input_ids"].shape) for name, case in cases.items()),
        comparisons=comparisons,
        tokenizer=tokenizer,
        changed=changed,
        failures=tuple(failures),
        warnings=tuple(warnings),
        weights=weights,
        decisions=tuple(folder.record["decisions"]),
        dropped=tuple(folder.record["dropped"]),
        verified=tuple(file for file, _ in files if file.name.endswith(".safetensors")),
        seconds=time.monotonic() - begun,
    )
    if record:
        folder.keep(report.summary())
    return report


class _Steps:
    """Counts what is done, for a bar."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def next(self, what: str) -> None:
        self._progress(min(self._done, self._total), self._total, what)
        self._done += 1


class _Runs:
    """The references, and one measurement for each.

    In half precision rounding hides small mistakes. So the weights are compared there a second time in float32, with
    the source's weights rounded as the conversion rounds them: then only float32's own noise is left.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        raw: Mapping[str, Any],
        head: str,
        dtype: str,
        original: str | None,
        tolerance: float | None,
    ) -> None:
        self._checkpoint, self._raw, self._head, self._dtype = checkpoint, raw, head, dtype
        self._original, self._family = original, dialect_of(checkpoint.entries, raw).name
        self._oracle = Oracle(checkpoint.entries, raw, head)
        self._measured = Measurement("the oracle", dtype, tolerance)
        self._rounded = self._live = None
        if dtype in _HALVES:
            self._rounded_oracle = Oracle(
                {name: _Rounded(entry, dtype) for name, entry in checkpoint.entries.items()}, raw, head
            )
            self._rounded = Measurement(f"the oracle with weights rounded to {dtype}", "float32", tolerance)
        if original:
            program = original if original.startswith("transformers") else f"Huawei's {self._family} program"
            self._live = Measurement(program, dtype, tolerance)
        self.left_out: list[str] = []

    @property
    def measurements(self) -> list[Measurement]:
        return [measurement for measurement in (self._measured, self._rounded, self._live) if measurement]

    def steps(self, layers: int, cases: Mapping[str, Inputs], groups: int) -> int:
        """How many steps `compare` counts."""
        passes = 2 if self._rounded else 1
        return passes * (groups * layers + len(cases)) + (groups if self._live else 0)

    def compare(self, model: ConvertedModel, cases: Mapping[str, Inputs], steps: _Steps) -> None:
        """Run everything on `cases` and measure; the first call's cases give the ranges."""
        taken = [name for name, case in cases.items() if self._live and not self._too_long(name, case)]
        outputs: list[dict[str, Array]] = []
        if self._live and self._original:  # first: what it lacks is best said before the rest is computed
            steps.next(f"running {self._live.reference}")
            inputs = [cases[name] for name in taken]
            outputs = run_original_all(self._original, self._checkpoint, self._raw, self._head, inputs)
            self._live.scale_to(outputs)
        if self._rounded:
            self._against(self._rounded, self._rounded_oracle, "float32", model, cases, steps)
        found = self._against(self._measured, self._oracle, self._dtype, model, cases, steps)
        for name, expected in zip(taken, outputs, strict=True):
            if self._live:
                self._live.add(name, expected, found[name])

    def _against(
        self,
        measurement: Measurement,
        oracle: Oracle,
        dtype: str,
        model: ConvertedModel,
        cases: Mapping[str, Inputs],
        steps: _Steps,
    ) -> dict[str, dict[str, Array]]:
        """Compare with the oracle; what the model computed, by case."""
        reference = measurement.reference
        expected = oracle.forward_all(
            list(cases.values()), progress=lambda done, of: steps.next(f"{reference}: layer {done} of {of}")
        )
        measurement.scale_to(expected)
        results = {}
        for (name, case), wanted in zip(cases.items(), expected, strict=True):
            steps.next(f"the converted model in {dtype}: {name}")
            found = model.run(case, dtype)
            measurement.add(name, wanted, found)
            if self._live and measurement is self._measured:
                results[name] = found
        return results

    def _too_long(self, name: str, case: Inputs) -> bool:
        too_long: bool = self._family == "pytorch" and case["input_ids"].shape[-1] > _PYTORCH_POSITIONS
        if too_long:
            self.left_out.append(f"{name}: left out for NEZHA-PyTorch, whose table of positions ends at 512")
        return too_long


class _Rounded:
    """A source's tensor, rounded as the conversion rounds it."""

    def __init__(self, entry: Entry, dtype: str) -> None:
        self._entry, self._dtype = entry, np.dtype(dtype)

    def read(self) -> Array:
        return self._entry.read().astype(self._dtype)


def _inside(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """The model that was converted, without what stands in front of its names and without what lies around it."""
    inside = {name[len(prefix) :]: entry for name, entry in checkpoint.entries.items() if name.startswith(prefix)}
    return replace(checkpoint, entries=inside)


def _warnings(folder: ConvertedFolder) -> list[str]:
    """What does not fail, but should be known."""
    found = []
    spec = find_spec("nezha")
    assert spec and spec.submodule_search_locations  # it is part of this package's own wheel
    installed = Path(spec.submodule_search_locations[0])
    for file in folder.record["output_files"]:
        name = file["name"]
        own = (installed / name).read_bytes() if (installed / name).is_file() else None
        if name.endswith(".py") and (folder.path / name).read_bytes() != own:
            found.append(f"{name} is not the installed package's, which is what was run; convert again to renew it")
    for field in ("hidden_act", "max_relative_position"):
        if folder.asked_for(field):
            # The JSON's spelling is its original's own: TensorFlow's "gelu" is another than transformers'. And the file
            # that verify reads has to be the one that was converted with, so one option here would not be enough.
            found.append(
                f"the conversion was asked for {field} = {folder.decision(field)!r}; the source is taken as its JSON "
                f"says. The way out: put {field} into a copy of the JSON, as the original program spells it, then "
                "convert and verify with --config COPY, without the option"
            )
    return found


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "tokenizers", "numpy")
    return {
        "nezha-convert": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
