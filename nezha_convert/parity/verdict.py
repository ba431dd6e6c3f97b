"""Why a conversion fails its verification, and what else a reader should know, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..checkpoint import Origin
from ..folder.model_code import installed_code
from ..folder.record import ConvertedFolder
from ..folder.report import FileRecord
from .results import Comparison, TokenizerParity, WeightStatistics, shortened


def list_failures(
    changed: Iterable[tuple[FileRecord, str]],
    texts: Iterable[str],
    comparisons: Iterable[Comparison],
    tokenizer: TokenizerParity | None,
    weights: Iterable[WeightStatistics],
) -> tuple[str, ...]:
    """Every reason why the conversion did not pass; empty when it passed.

    Args:
        changed: the files that are not as the conversion wrote them, each with the hash that it had then.
        texts: why the tokenizer's casing or the labels are wrong; empty texts where they are right.
        comparisons, tokenizer, weights: what was measured.
    """
    return (
        *(
            f"{file.name} was changed since it was converted: its SHA-256 is {str(file.sha256)[:12]}..., "
            f"the conversion wrote {written[:12]}..."
            for file, written in changed
        ),
        *filter(None, (*texts, *(comparison.departure for comparison in comparisons), _mistokenized(tokenizer))),
        *(
            f"weights of {part.part}: {part.nonfinite:,} of {part.values:,} are NaN or infinite; nothing that they "
            "reach can be compared"
            for part in weights
            if part.nonfinite
        ),
    )


def wrong_labels(folder: ConvertedFolder, labels: Sequence[str] | None) -> str:
    """Why the labels of `folder` are not the source's `labels`; empty when they are, or when the source has none."""
    if labels is None:
        return ""
    found = {int(number): name for number, name in folder.config["id2label"].items()}
    differing = [number for number in sorted(found) if number >= len(labels) or found[number] != labels[number]]
    if not differing and len(found) == len(labels):
        return ""
    at = differing[0] if differing else len(found)
    expected = repr(labels[at]) if at < len(labels) else "nothing"
    return f"label {at} is {found.get(at, '')!r}; the source calls it {expected}"


def _mistokenized(tokenizer: TokenizerParity | None) -> str:
    if tokenizer is None or not tokenizer.differing:
        return ""
    first = tokenizer.differing[0]
    return (
        f"tokenizer: {len(tokenizer.differing)} of {tokenizer.texts} texts differ from {tokenizer.reference}; "
        f"{shortened(first.text)!r} from token {first.at}: found {' '.join(first.found[:3])!r}, "
        f"expected {' '.join(first.expected[:3])!r}"
    )


def folder_warnings(folder: ConvertedFolder) -> Iterator[str]:
    """What is unusual about the folder itself: model code of another release, options that overrode the source."""
    for file in folder.record["output_files"]:
        name = file["name"]
        if name.endswith(".py") and (folder.path / name).read_bytes() != installed_code(name):
            yield f"{name} is not the installed package's, which is what was run; convert again to renew it"
    for field in ("hidden_act", "max_relative_position"):
        if folder.origin(field) is Origin.ASKED:
            # The programs' spellings differ: TensorFlow's "gelu" is another function than transformers' "gelu". The way
            # out changes a file, because `verify` reads the source's JSON and knows nothing of the option.
            yield (
                f"the conversion was asked for {field} = {folder.decision(field)!r}; the source is taken as its JSON "
                f"says. The way out: put {field} into a copy of the JSON, as the original program spells it, then "
                "convert and verify with --config COPY, without the option"
            )
