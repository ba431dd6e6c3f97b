"""Options that several commands share, and the types of their values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from ..families.published import PUBLISHED
from ..files.given import nbytes_of_size, pairs_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(path_type=Path)


class _Config(click.Path):
    """A file, or the name of a published model."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """`value` as a path."""
        if str(value) in PUBLISHED:
            return Path(value)
        try:
            return super().convert(value, parameter, context)
        except click.BadParameter as error:
            message = f"{error.message} Published models are {', '.join(PUBLISHED)}."
            raise click.BadParameter(message, context, parameter) from error


class _Source(click.types.StringParamType):
    """A checkpoint: a file, a folder, a prefix or an address. Shells complete it as a file."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """A mark that lets the shell look for files itself."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


SOURCE = _Source()


def size(value: str) -> int:
    """Bytes, from a number with a unit."""
    try:
        return nbytes_of_size(value)
    except UsageError as error:
        raise click.BadParameter(error.message) from error


def pair(value: str) -> tuple[str, str]:
    """Two names, from OLD=NEW."""
    try:
        return pairs_of(value)[0]
    except UsageError as error:
        raise click.BadParameter(error.message) from error


as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, on failure too.")
config = click.option(
    "--config",
    type=_Config(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help=f"bert_config.json, if it is not beside the weights; or a published model: {', '.join(PUBLISHED)}.",
)
vocab = click.option("--vocab", type=EXISTING_FILE, help="vocab.txt, if it is not beside the weights.")
part = click.option("--part", metavar="KEY", help="Which dictionary of a PyTorch file is the model, such as ema.shadow")
average = click.option(
    "--average", is_flag=True, help="Take the moving average of the weights (EMA, SWA) that lies beside them."
)
prefix = click.option(
    "--prefix", metavar="NAME.", help="Where the model lies inside a larger one, such as encoder. or student/"
)
drop = click.option(
    "--drop", metavar="GLOB", multiple=True, help="Leave these tensors out, such as 'crf.*'. Repeatable."
)
rename = click.option(
    "--rename",
    metavar="OLD=NEW",
    multiple=True,
    callback=lambda context, parameter, values: [pair(value) for value in values],
    help="Read a layer by another name, such as fc=classifier. Repeatable.",
)
token = click.option(
    "--token", help="The Hub's token. HF_TOKEN or `hf auth login` are better: others may see a command line."
)
endpoint = click.option("--endpoint", metavar="URL", help="Another server than the public Hub; also HF_ENDPOINT.")
dry_run = click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
