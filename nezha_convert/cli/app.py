"""The command line: thin click commands. The only file that knows click."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from .. import hub
from .._version import __version__
from ..commands import convert as conversion
from ..commands import diff as differences
from ..commands import export as exports
from ..commands import inspect as inspection
from ..commands import pull as download
from ..commands import push as upload
from ..commands import repair as repairs
from ..commands import verify as compare
from ..errors import CancelledError, NezhaConvertError, OutputError, UsageError
from ..families import PROGRAMS
from ..families.heads import HEADS
from ..families.transformers import ACTIVATIONS
from ..folder.card import LICENSES
from ..formats.open import open_checkpoint
from ..parity.render import html, junit
from ..parity.report import check_folder
from .console import Console
from .process import Stop, end_with, silence_broken

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


def _size(value: str) -> int:
    """Bytes, from a number with a unit."""
    found = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", value)
    nbytes = int(found[1]) * _UNITS.get(found[2].upper(), 0) if found else 0
    if not nbytes:
        raise click.BadParameter(f"{value!r} is not a size; expected a number with KB, MB or GB, such as 2GB")
    return nbytes


class _Group(click.Group):
    """Lists the commands in the order of a user's way."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="nezha-convert")
def cli() -> None:
    """Convert Huawei's NEZHA checkpoints to folders that today's transformers loads, with the same outputs.

    SOURCE is a folder, a TensorFlow prefix (model.ckpt-12345), or any one file of a checkpoint: .index, .data-*, .bin,
    .pt, .pth, .safetensors; or an address of the Hub, hf://owner/name[@revision], which is downloaded and cached.

    \b
    Examples:
      nezha-convert inspect NEZHA-Base/
      nezha-convert convert NEZHA-Base/ nezha-base/
      nezha-convert verify NEZHA-Base/ nezha-base/
      nezha-convert push nezha-base/ owner/nezha-base --license apache-2.0

    Exit codes: 0 done, 1 parity failed, 2 usage, 3 source unreadable or corrupt, 4 tensors do not map, 5 output cannot
    be written, 6 the Hub refused or failed, 70 a fault of nezha-convert, 130 interrupted
    (143 by SIGTERM), 141 nobody reads the output.
    """


_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, on failure too.")
_prefix_option = click.option(
    "--prefix", metavar="NAME.", help="Where the model lies inside a larger one, such as encoder. or student/"
)
_config_option = click.option("--config", type=_EXISTING, help="bert_config.json, if it is not beside the weights.")


@cli.command()
@click.argument("source")
@_config_option
@_prefix_option
@click.option("--tensors", is_flag=True, help="List every tensor with its type and shape.")
@_json_option
def inspect(source: str, config: Path | None, prefix: str | None, tensors: bool, as_json: bool) -> None:
    """Say what SOURCE is: family, heads, sizes, optimizer state, problems. Writes nothing.

    \b
    Examples:
      nezha-convert inspect NEZHA-Base/
      nezha-convert inspect NEZHA-Base/model.ckpt-900000.index --tensors
      nezha-convert inspect pytorch_model.bin --json
    """
    found = inspection.inspect(source, config=config, prefix=prefix)
    entries = open_checkpoint(hub.local_source(source)[0]).entries.values() if tensors else None
    Console(as_json).inspection(found, entries)


@cli.command()
@click.argument("source")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--head", type=click.Choice(list(HEADS)), help="What to convert to; inferred when the tensors say it.")
@click.option("--labels", type=_EXISTING, help="Names of the classifier's rows: one a line, or JSON.")
@_config_option
@click.option("--vocab", type=_EXISTING, help="vocab.txt, if it is not beside the weights.")
@click.option("--lower-case/--cased", "lower_case", default=None, help="Casing; the vocabulary says it otherwise.")
@click.option(
    "--activation", type=click.Choice(ACTIVATIONS), help="transformers' name of it, instead of the one decided."
)
@click.option("--max-relative-position", type=click.IntRange(1), help="Clip distance, instead of the one decided.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Element type of the weights; the source's otherwise.",
)
@click.option(
    "--allow-overflow",
    is_flag=True,
    help="Write what --dtype cannot hold as infinity, and say so.",
)
@click.option(
    "--max-shard-size",
    "max_shard_bytes",
    type=_size,
    metavar="SIZE",
    default="5GB",
    show_default=True,
    help="Split the weights into files of at most this size.",
)
@_prefix_option
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it is a converted folder.")
@_json_option
def convert(source: str, output: Path, as_json: bool, **options: Any) -> None:
    """Convert SOURCE into the folder OUTPUT: weights, config, tokenizer, the model's own code, and a report.

    OUTPUT appears complete, read back and compared, or not at all.

    \b
    Examples:
      nezha-convert convert NEZHA-Base/ nezha-base/
      nezha-convert convert model.ckpt-12345 ner/ --head token-classification --labels labels.txt
      nezha-convert convert pytorch_model.bin out/ --config bert_config.json --vocab vocab.txt --dtype bfloat16
    """
    console = Console(as_json)
    with console.progress(f"converting {Path(source).name}") as progress:
        report = conversion.convert(source, output, progress=progress, **options)
    console.report(report)


_file = click.Path(dir_okay=False, path_type=Path)


@cli.command()
@click.argument("source")
@click.argument("output", type=click.Path(path_type=Path))
@_config_option
@click.option("--vocab", type=_EXISTING, help="vocab.txt, if it is not beside the weights.")
@click.option("--texts", type=_EXISTING, help="Compare on these texts too: one a line, a tab parts a pair.")
@click.option(
    "--original",
    metavar="CLONE",
    help="Run the original program too: a clone of Huawei's repository, or transformers==4.40.2.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    help="Largest error, as a part of each tensor's range; the element type's own otherwise.",
)
@click.option("--junit", "junit_file", type=_file, help="Write the outcome for a CI service.")
@click.option("--html", "html_file", type=_file, help="Write the outcome as a page to look at.")
@click.option("--no-record", "record", flag_value=False, default=True, help="Leave OUTPUT's conversion.json as it is.")
@_json_option
def verify(
    source: str,
    output: Path,
    junit_file: Path | None,
    html_file: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Prove that OUTPUT computes what SOURCE computes, layer by layer; exit with 1 if it does not.

    The converted model is compared with an independent computation in float64 that reads SOURCE itself. The outcome
    goes into OUTPUT's conversion.json.

    \b
    Examples:
      nezha-convert verify NEZHA-Base/ nezha-base/
      nezha-convert verify NEZHA-Base/ nezha-base/ --html parity.html --texts reviews.txt
      nezha-convert verify NEZHA-Base/ nezha-base/ --original Pretrained-Language-Model/ --junit parity.xml
    """
    console = Console(as_json)
    for file in filter(None, (junit_file, html_file)):
        check_folder(file)
    if html_file:
        html.check_html()
    with console.steps() as progress:
        report = compare.verify(source, output, progress=progress, **options)
    console.parity(report)  # before the files: one that cannot be written takes nothing away
    if junit_file:
        junit.write_junit(report, junit_file)
    if html_file:
        html.write_html(report, html_file)
    if not report.passed:
        raise click.exceptions.Exit(1)


_token_option = click.option(
    "--token", help="The Hub's token. HF_TOKEN or `hf auth login` are better: others may see a command line."
)
_endpoint_option = click.option(
    "--endpoint", metavar="URL", help="Another server than the public Hub; also HF_ENDPOINT."
)


@cli.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("repo_id", metavar="OWNER/NAME")
@click.option("--license", metavar="ID", help="What holds for the weights, as the Hub spells it: apache-2.0, mit, ...")
@click.option("--private", is_flag=True, help="Create a private repository; one that exists must be private.")
@click.option("--revision", metavar="BRANCH", help="A branch that exists, instead of main.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of changing the branch.")
@click.option("--message", metavar="TEXT", help="The commit's first line.")
@click.option("--no-card", "card", flag_value=False, default=True, help="Leave the repository's README.md as it is.")
@click.option("--force", is_flag=True, help="Push a folder that is not proved; its card says so and why.")
@click.option("--dry-run", is_flag=True, help="Show the files and the card, offline.")
@_token_option
@_endpoint_option
@_json_option
def push(output: Path, repo_id: str, license: str | None, as_json: bool, **options: Any) -> None:
    """Push the verified folder OUTPUT to the Hub in one commit, with its card. What is there already is not sent again.

    A model that was trained goes out the same way once nezha_convert.record_training has recorded it.

    \b
    Examples:
      nezha-convert push nezha-base/ owner/nezha-base --license apache-2.0
      nezha-convert push nezha-base/ owner/nezha-base --license apache-2.0 --dry-run
      nezha-convert push nezha-base/ owner/nezha-base --license mit --private --create-pr --message "Smaller shards"
      nezha-convert push my-classifier/ owner/nezha-chnsenti --license apache-2.0
    """
    console = Console(as_json)
    if license is None and options["card"] and console.asks:
        license = click.prompt("License of these weights", type=click.Choice(LICENSES), show_choices=False, err=True)
    console.pushed(upload.push(output, repo_id, license=license, bars=console.bars, **options))


@cli.command()
@click.argument("address", metavar="hf://OWNER/NAME[@REVISION]")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@_token_option
@_endpoint_option
@_json_option
def pull(address: str, folder: Path | None, token: str | None, endpoint: str | None, as_json: bool) -> None:
    """Download a model from the Hub: one kind of weights and what belongs to them, into the cache or to FOLDER.

    \b
    Examples:
      nezha-convert pull hf://owner/nezha-base
      nezha-convert pull hf://owner/nezha-base@refs/pr/1 nezha-base/
    """
    console = Console(as_json)
    console.pulled(download.pull(address, folder, token=token, endpoint=endpoint, bars=console.bars))


@cli.command()
@click.argument("source")
@click.argument("output", required=False, type=click.Path(path_type=Path))
@click.option(
    "--create-pr", is_flag=True, help="Open a pull request with the repaired files at SOURCE, hf://owner/name."
)
@click.option("--force", is_flag=True, help="Replace OUTPUT if it is a converted folder.")
@_token_option
@_endpoint_option
@_json_option
def repair(source: str, output: Path | None, as_json: bool, **options: Any) -> None:
    """Say what is wrong with the copy SOURCE, and repair it into OUTPUT or by a pull request. A good one is left alone.

    \b
    Examples:
      nezha-convert repair hf://owner/name
      nezha-convert repair hf://owner/name repaired/
      nezha-convert repair hf://owner/name --create-pr
    """
    console = Console(as_json)
    with console.progress(f"repairing {Path(source).name}") as progress:
        done = repairs.repair(source, output, bars=console.bars, progress=progress, **options)
    console.repaired(done)


@cli.command()
@click.argument("output")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice([*PROGRAMS, "onnx"]), help="What is to load TARGET.")
@click.option(
    "--accept-activation", is_flag=True, help="Go on if the program has another GELU; the report says what it changes."
)
@click.option("--fp16", "precision", flag_value="float16", help="An ONNX graph in half precision.")
@click.option("--int8", "precision", flag_value="int8", help="An ONNX graph with weights quantized to 8 bits.")
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--force", is_flag=True, help="Replace TARGET if it is an exported folder.")
@_json_option
def export(
    output: str, target: Path, to: str, precision: str | None, accept_activation: bool, as_json: bool, **options: Any
) -> None:
    """Write the converted folder OUTPUT as another program's own files: Huawei's, an older transformers', ...

    TARGET appears complete, read back and compared bit by bit, or not at all. What would compute other numbers there
    is refused.

    \b
    Examples:
      nezha-convert export nezha-base/ NEZHA-Base/ --to huawei-tf
      nezha-convert export my-classifier/ out/ --to huawei-torch --accept-activation
      nezha-convert export nezha-base/ out/ --to transformers-4 --dry-run --json
      nezha-convert export nezha-base/ graph/ --to onnx --int8
    """
    console = Console(as_json)
    if to == "onnx":
        if accept_activation:
            raise UsageError("--accept-activation: not for --to onnx")
        with console.steps() as steps:
            report = exports.export_graph(output, target, precision=precision or "float32", progress=steps, **options)
    else:
        if precision:
            raise UsageError(f"--fp16 and --int8 are for --to onnx, not for --to {to}")
        with console.progress(f"exporting {Path(output).name}") as progress:
            options |= {"accept_activation": accept_activation, "progress": progress}
            report = exports.export(output, target, to, **options)
    console.exported(report)


@cli.command()
@click.argument("a")
@click.argument("b")
@_json_option
def diff(a: str, b: str, as_json: bool) -> None:
    """Compare the checkpoints A and B, of any programs, tensor by tensor; exit with 1 if they differ.

    Names and layouts are made the same first: a TensorFlow checkpoint can be compared with a converted folder.

    \b
    Examples:
      nezha-convert diff NEZHA-Base/ nezha-base/
      nezha-convert diff old/pytorch_model.bin hf://owner/name --json
    """
    found = differences.diff(a, b)
    Console(as_json).difference(found)
    if not found.same:
        raise click.exceptions.Exit(1)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code. No traceback reaches a user unless NEZHA_DEBUG is set."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(arguments, Console("--json" in arguments)))


def _run(arguments: list[str], console: Console) -> int:
    """The exit code of a command, whatever happens to it."""
    stop, Console.began = Stop(), False
    try:
        with stop.minded():
            return _command(arguments, console, stop)
    except (KeyboardInterrupt, click.Abort):  # a signal; or Ctrl-C or Ctrl-D at a question
        cancelled = CancelledError(stop.number)
        in_words = Console.began or not console.as_json
        say = partial(console.say, cancelled.message) if in_words else None
        return end_with(_told(console, cancelled, say))


def _command(arguments: list[str], console: Console, stop: Stop) -> int:
    """The exit code of a command, whose errors become messages."""
    try:
        # Not cli.main(): it would turn a broken pipe into exit code 1.
        with cli.make_context("nezha-convert", list(arguments)) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        return _told(console, UsageError(error.format_message()), None if console.as_json else error.show)
    except click.Abort:
        raise
    except Exception as error:
        if stop.asked:  # a library has made another error of it
            raise KeyboardInterrupt from error
        if isinstance(error, NezhaConvertError):
            return _told(console, error)
        if sys.stdout in silence_broken() and isinstance(error, OSError):
            if isinstance(error, BrokenPipeError):  # the reader of our output has gone, which is its right
                return 128 + 13  # as of SIGPIPE, which Python ignores
            return _told(Console(), OutputError(f"stdout: cannot be written ({error.strerror})"))
        what = f"a fault of nezha-convert: {type(error).__name__}: {error}"
        hint = "Please report it with the output of the same command under NEZHA_DEBUG=1."
        return _told(console, NezhaConvertError(what, hint=hint))
    return 0


def _told(console: Console, error: NezhaConvertError, tell: Callable[[], None] | None = None) -> int:
    """The exit code of `error`, which `tell` or the console says, if anybody still listens."""
    for say in (tell or partial(console.error, error), partial(Console().error, error)):
        try:
            if os.environ.get("NEZHA_DEBUG") and not isinstance(error, CancelledError):
                traceback.print_exc()
            say()
            sys.stdout.flush()
            break
        except OSError:
            if sys.stdout not in silence_broken():
                break
    return error.exit_code
