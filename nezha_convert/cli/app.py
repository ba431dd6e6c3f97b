"""The command line: one thin click command for each verb. Each imports its verb, and no other, when it runs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .._version import __version__
from ..errors import UsageError
from ..families import PROGRAMS
from ..families.heads import HEADS
from ..families.transformers import ACTIVATIONS
from ..folder.card import LICENSES
from ..tokenizer.wordpiece import KINDS
from . import options
from .console import Console
from .run import run

if TYPE_CHECKING:
    from ..folder.report import Report

COMPLETE = "_NEZHA_CONVERT_COMPLETE"
"""The variable by which a shell asks for its script (bash_source) and for the words that fit (bash_complete)."""


class _Command(click.Command):
    """Its summary among the commands is a whole sentence, which takes as many lines as it needs."""

    def get_short_help_str(self, limit: int = 0) -> str:
        return super().get_short_help_str(limit=10_000)


class _Group(click.Group):
    """Lists the commands in the order in which a user meets them."""

    command_class = _Command

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

    Exit codes: 0 done, 1 parity failed (of batch: a row failed or needs a decision), 2 usage, 3 source unreadable or
    corrupt, 4 tensors do not map, 5 output cannot be written, 6 the Hub refused or failed, 70 a fault of nezha-convert,
    130 interrupted (143 by SIGTERM), 141 nobody reads the output.
    """


@cli.command()
@click.argument("source", type=options.SOURCE)
@options.config
@options.prefix
@options.part
@options.average
@click.option("--tensors", is_flag=True, help="List every tensor with its type and shape.")
@options.as_json
def inspect(source: str, as_json: bool, **settings: Any) -> None:
    """Say what SOURCE is: family, heads, sizes, optimizer state, problems. Writes nothing.

    \b
    Examples:
      nezha-convert inspect NEZHA-Base/
      nezha-convert inspect NEZHA-Base/model.ckpt-900000.index --tensors
      nezha-convert inspect pytorch_model.bin --json
    """
    from ..commands import inspect as verb

    Console(as_json).show(verb.inspect(source, **settings))


@cli.command()
@click.argument("source", type=options.SOURCE)
@click.argument("output", type=options.FOLDER)
@click.option("--head", type=click.Choice(list(HEADS)), help="What to convert to; default: what the tensors show.")
@click.option("--labels", type=options.EXISTING_FILE, help="Names of the classifier's labels: one a line, or JSON.")
@options.config
@options.vocab
@click.option("--lower-case/--cased", "lower_case", default=None, help="Casing; default: what the vocabulary shows.")
@click.option("--tokenizer", type=click.Choice(KINDS), help="The kind of vocabulary; default: what its tokens show.")
@click.option(
    "--activation", type=click.Choice(ACTIVATIONS), help="The activation by transformers' name; default: the source's."
)
@click.option("--max-relative-position", type=click.IntRange(1), help="Clip distance; default: the source's.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Element type of the weights; default: the source's.",
)
@click.option("--allow-overflow", is_flag=True, help="Write values that --dtype cannot hold as infinity, and say so.")
@click.option(
    "--max-shard-size",
    "max_shard_bytes",
    type=options.size,
    metavar="SIZE",
    default="5GB",
    show_default=True,
    help="Split the weights into files of at most this size.",
)
@options.prefix
@options.part
@options.average
@options.drop
@options.rename
@options.dry_run
@click.option("--force", is_flag=True, help="Replace OUTPUT if it is a converted folder.")
@options.as_json
def convert(source: str, output: Path, as_json: bool, **settings: Any) -> None:
    """Convert SOURCE into the folder OUTPUT: weights, config, tokenizer, the model's own code, and a report.

    OUTPUT appears complete, read back and compared, or not at all.

    \b
    Examples:
      nezha-convert convert NEZHA-Base/ nezha-base/
      nezha-convert convert model.ckpt-12345 ner/ --head token-classification --labels labels.txt
      nezha-convert convert pytorch_model.bin out/ --config bert_config.json --vocab vocab.txt --dtype bfloat16
    """
    from ..commands import convert as verb

    console = Console(as_json)
    with console.progress(f"converting {Path(source).name}", "bytes") as progress:
        report = verb.convert(source, output, progress=progress, **settings)
    console.show(report, *_after(report, source, output, settings))


def _after(report: Report, source: str, output: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What comes after a conversion: the proof, with the files that were named, and the line that loads the folder."""
    if report.dry_run:
        return
    named = [word for name in ("config", "vocab", "labels") if settings[name] for word in (f"--{name}", settings[name])]
    yield "next", shlex.join(["nezha-convert", "verify", *map(str, (source, output, *named))])
    yield "load", f"{report.auto_class}.from_pretrained({str(output)!r}, trust_remote_code=True)"


@cli.command()
@click.argument("source", type=options.SOURCE)
@click.argument("output", type=options.FOLDER)
@options.config
@options.vocab
@click.option("--labels", type=options.EXISTING_FILE, help="The labels' names, if they are not beside the weights.")
@click.option(
    "--texts", type=options.EXISTING_FILE, help="Compare on these texts too: one a line, or two with a tab between."
)
@click.option(
    "--original",
    metavar="CLONE",
    help="Also run the original program: a clone of Huawei's repository, or transformers==4.40.2.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    help="Largest error allowed, as a part of each tensor's range; default: by the element type.",
)
@click.option(
    "--assume", multiple=True, metavar="NAME", help="Accept what is shown as assumed by this name. May be repeated."
)
@click.option("--junit", "junit_file", type=options.FILE, help="Write the outcome for a CI service.")
@click.option("--html", "html_file", type=options.FILE, help="Write the outcome as a web page.")
@click.option("--markdown", "markdown_file", type=options.FILE, help="Write the outcome for the summary of a CI job.")
@click.option("--no-record", "record", flag_value=False, default=True, help="Leave OUTPUT's conversion.json as it is.")
@options.as_json
def verify(
    source: str,
    output: Path,
    junit_file: Path | None,
    html_file: Path | None,
    markdown_file: Path | None,
    as_json: bool,
    **settings: Any,
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
    from ..commands import verify as verb
    from ..files.staging import check_writable
    from ..parity.render import html, junit, markdown

    console = Console(as_json)
    for file in filter(None, (junit_file, html_file, markdown_file)):
        check_writable(file)
    if html_file:
        html.check_html()
    with console.progress("hashing, loading", "steps") as progress:
        report = verb.verify(source, output, progress=progress, **settings)
    console.show(report)  # before the files: if one cannot be written, the outcome is still shown
    if junit_file:
        junit.write_junit(report, junit_file)
    if html_file:
        html.write_html(report, html_file)
    if markdown_file:
        markdown.write_markdown(report, markdown_file)
    if not report.passed:
        raise click.exceptions.Exit(1)


@cli.command()
@click.argument("paths", metavar="FOLDER...", nargs=-1, required=True, type=options.FOLDER)
@options.as_json
def check(paths: tuple[Path, ...], as_json: bool) -> None:
    """Compare the files of each FOLDER with the hashes in its record; exit with 1 if one was changed.

    FOLDER is converted, trained or exported, or a folder of such folders. A file stands for the folder that it lies in;
    files in no such folder are passed over, so a list of changed files can be given, as pre-commit does.

    \b
    Examples:
      nezha-convert check nezha-base/
      nezha-convert check models/ --json
    """
    from ..commands import check as verb

    checked = verb.check(*paths)
    Console(as_json).show(checked)
    if not checked.same:
        raise click.exceptions.Exit(1)


@cli.command()
@click.argument("manifest", required=False, type=options.SOURCE)
@click.option(
    "--output", required=True, metavar="FOLDER", help="Where each row gets a folder; also s3://bucket/folder."
)
@click.option("--family", metavar="TAG", help="Instead of MANIFEST: what the Hub finds by this tag, such as nezha.")
@click.option("--limit", type=click.IntRange(1), help="The most models of a search on the Hub.")
@click.option(
    "--set",
    "settings",
    metavar="COLUMN=VALUE",
    multiple=True,
    callback=lambda context, parameter, values: dict(options.pair(value) for value in values),
    help="A value for rows that do not say, such as dtype=bfloat16. Repeatable.",
)
@click.option("--no-verify", "verify", flag_value=False, default=True, help="Convert alone, without the proof.")
@click.option("--push", metavar="OWNER", help="Push each proved row to OWNER/NAME, by its folder's name.")
@click.option("--create-pr", is_flag=True, help="Open pull requests instead; of rows on the Hub at their source.")
@click.option("--license", metavar="ID", help="License of the weights that are pushed: apache-2.0, mit, ...")
@click.option("--jobs", type=click.IntRange(1), help="Rows at a time; default: one a core, as memory allows.")
@click.option("--memory", metavar="SIZE", help="What all rows together may use, such as 16GB; default: what is free.")
@click.option("--disk", metavar="SIZE", help="What outputs and downloads may take; default: what is free.")
@click.option("--ray", metavar="ADDRESS", help="Do the rows on a Ray cluster: its address, or auto.")
@click.option("--html", type=options.FILE, help="Write the report as a web page, too.")
@click.option("--force", is_flag=True, help="Replace outputs that are another conversion.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, how long and how large; write nothing.")
@options.token
@options.endpoint
@options.as_json
def batch(manifest: str | None, output: str, as_json: bool, settings: dict[str, str], **asked: Any) -> None:
    """Convert and prove every checkpoint of MANIFEST; exit with 1 if one failed or needs a decision.

    MANIFEST is a .csv or .jsonl file with the columns source, output, and any option of convert, verify and push; a
    folder of folders; or a search on the Hub, hf://OWNER/* or hf://OWNER/PREFIX*. What an earlier run has done is not
    done again, so the same command goes on after Ctrl-C, a crash or a correction.

    \b
    Examples:
      nezha-convert batch checkpoints/ --output converted/
      nezha-convert batch models.csv --output converted/ --jobs 4 --html report.html
      nezha-convert batch 'hf://owner/nezha*' --output converted/ --dry-run
      nezha-convert batch --family nezha --output s3://bucket/nezha --ray auto --json
    """
    from ..commands import batch as verb
    from .batch_screen import BatchScreen

    console, again = Console(as_json), ["nezha-convert", *sys.argv[1:]]
    with BatchScreen(console, again) as screen:
        report = verb.batch(manifest, output, options=settings, watch=screen.watch, **asked)
    console.show(report)
    if not report.right and not report.dry_run:
        raise click.exceptions.Exit(1)


@cli.command()
@click.argument("output", type=options.FOLDER)
@click.argument("repo_id", metavar="OWNER/NAME")
@click.option("--license", metavar="ID", help="License of the weights, as the Hub spells it: apache-2.0, mit, ...")
@click.option("--private", is_flag=True, help="Create a private repository; one that exists must be private.")
@click.option("--revision", metavar="BRANCH", help="A branch that exists, instead of main.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of changing the branch.")
@click.option("--message", metavar="TEXT", help="The commit's first line.")
@click.option("--no-card", "card", flag_value=False, default=True, help="Leave the repository's README.md as it is.")
@click.option("--force", is_flag=True, help="Push a folder that is not proved; its card says so and why.")
@click.option("--dry-run", is_flag=True, help="Show the files and the card, offline.")
@options.token
@options.endpoint
@options.as_json
def push(output: Path, repo_id: str, license: str | None, as_json: bool, **settings: Any) -> None:
    """Push the verified folder OUTPUT to the Hub in one commit, with its card. Files that are there are not sent again.

    A trained model is pushed the same way, once nezha_convert.record_training has recorded it. If its base is found by
    its name, here or beside OUTPUT, a proof of it that is newer than the training counts.

    \b
    Examples:
      nezha-convert push nezha-base/ owner/nezha-base --license apache-2.0
      nezha-convert push nezha-base/ owner/nezha-base --license apache-2.0 --dry-run
      nezha-convert push nezha-base/ owner/nezha-base --license mit --private --create-pr --message "Smaller shards"
      nezha-convert push my-classifier/ owner/nezha-chnsenti --license apache-2.0
    """
    from ..commands import push as verb

    console = Console(as_json)
    if license is None and settings["card"] and console.asks:
        license = click.prompt("License of these weights", type=click.Choice(LICENSES), show_choices=False, err=True)
    console.show(verb.push(output, repo_id, license=license, bars=console.bars, **settings))


@cli.command()
@click.argument("output", type=options.FOLDER)
@click.option("--base", metavar="FOLDER", help="What it was trained from; else its name here or beside OUTPUT.")
@options.as_json
def record(output: Path, base: str | None, as_json: bool) -> None:
    """Renew what the trained model OUTPUT says of its base, which may have been verified since. Nothing else changes.

    \b
    Examples:
      nezha-convert record sentiment/
      nezha-convert record sentiment/ --base models/nezha-base/
    """
    from ..commands.record_training import record as verb

    Console(as_json).show(verb(output, base=base))


@cli.command()
@click.argument("address", metavar="hf://OWNER/NAME[@REVISION]")
@click.argument("folder", required=False, type=options.FOLDER)
@options.token
@options.endpoint
@options.as_json
def pull(address: str, folder: Path | None, token: str | None, endpoint: str | None, as_json: bool) -> None:
    """Download a model from the Hub into the cache or to FOLDER: its weights in one format, and what belongs to them.

    \b
    Examples:
      nezha-convert pull hf://owner/nezha-base
      nezha-convert pull hf://owner/nezha-base@refs/pr/1 nezha-base/
    """
    from ..commands import pull as verb

    console = Console(as_json)
    console.show(verb.pull(address, folder, token=token, endpoint=endpoint, bars=console.bars))


@cli.command()
@click.argument("source", type=options.SOURCE)
@click.argument("output", required=False, type=options.FOLDER)
@click.option(
    "--create-pr", is_flag=True, help="Open a pull request with the repaired files at SOURCE, hf://owner/name."
)
@click.option("--force", is_flag=True, help="Replace OUTPUT if it is a converted folder.")
@options.token
@options.endpoint
@options.as_json
def repair(source: str, output: Path | None, as_json: bool, **settings: Any) -> None:
    """Say what is wrong with the copy SOURCE, and repair it into OUTPUT or by a pull request. A good one is left alone.

    \b
    Examples:
      nezha-convert repair hf://owner/name
      nezha-convert repair hf://owner/name repaired/
      nezha-convert repair hf://owner/name --create-pr
    """
    from ..commands import repair as verb

    console = Console(as_json)
    with console.progress(f"repairing {Path(source).name}", "bytes") as progress:
        result = verb.repair(source, output, bars=console.bars, progress=progress, **settings)
    console.show(result)


@cli.command()
@click.argument("output", type=options.SOURCE)
@click.argument("target", type=options.FOLDER)
@click.option("--to", required=True, type=click.Choice([*PROGRAMS, "onnx"]), help="What is to load TARGET.")
@click.option(
    "--accept-activation", is_flag=True, help="Accept another GELU in that program; the report says what it changes."
)
@click.option("--fp16", is_flag=True, help="An ONNX graph in half precision.")
@click.option("--int8", is_flag=True, help="An ONNX graph with weights quantized to 8 bits.")
@options.dry_run
@click.option("--force", is_flag=True, help="Replace TARGET if it is an exported folder.")
@options.as_json
def export(
    output: str,
    target: Path,
    to: str,
    fp16: bool,
    int8: bool,
    accept_activation: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Write the converted folder OUTPUT as another program's own files: Huawei's, an older transformers', ...

    TARGET appears complete, read back and compared bit by bit, or not at all. A model for which the program would
    compute other numbers is refused.

    \b
    Examples:
      nezha-convert export nezha-base/ NEZHA-Base-again/ --to huawei-tf
      nezha-convert export my-classifier/ out/ --to huawei-torch --accept-activation
      nezha-convert export nezha-base/ out/ --to transformers-4 --dry-run --json
      nezha-convert export nezha-base/ graph/ --to onnx --int8
    """
    from ..commands import export as verb

    console = Console(as_json)
    if fp16 and int8:
        raise UsageError("--fp16 and --int8: a graph has one precision; expected one of them, found both")
    precision = "float16" if fp16 else "int8" if int8 else None
    if to == "onnx":
        if accept_activation:
            raise UsageError("--accept-activation: not for --to onnx")
        with console.progress("loading", "steps") as progress:
            report = verb.export_graph(output, target, precision=precision or "float32", progress=progress, **settings)
    else:
        if precision:
            raise UsageError(f"--fp16 and --int8 are for --to onnx, not for --to {to}")
        settings["accept_activation"] = accept_activation
        with console.progress(f"exporting {Path(output).name}", "bytes") as progress:
            report = verb.export(output, target, to, progress=progress, **settings)
    console.show(report)


@cli.command()
@click.argument("a", type=options.SOURCE)
@click.argument("b", type=options.SOURCE)
@options.as_json
def diff(a: str, b: str, as_json: bool) -> None:
    """Compare the checkpoints A and B, of any programs, tensor by tensor; exit with 1 if they differ.

    Names and layouts are converted first, so a TensorFlow checkpoint can be compared with a converted folder.

    \b
    Examples:
      nezha-convert diff NEZHA-Base/ nezha-base/
      nezha-convert diff old/pytorch_model.bin hf://owner/name --json
    """
    from ..commands import diff as verb

    difference = verb.diff(a, b)
    Console(as_json).show(difference)
    if not difference.same:
        raise click.exceptions.Exit(1)


@cli.command()
@options.as_json
def env(as_json: bool) -> None:
    """Say what a bug report needs: versions and platform. Also finds a package that takes the place of ours.

    \b
    Examples:
      nezha-convert env
      nezha-convert env --json
    """
    from ..commands import env as verb

    Console(as_json).show(verb.env())


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code. No traceback reaches a user unless NEZHA_DEBUG is set.

    A shell that completes a word asks by a variable of the environment, as click's documentation says.
    """
    if instruction := os.environ.get(COMPLETE):
        sys.exit(_complete(instruction))
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(cli, arguments, Console("--json" in arguments)))


def _complete(instruction: str) -> int:
    """Print what a shell asks for, and return the exit code."""
    from click.shell_completion import get_completion_class, shell_complete

    shell = instruction.partition("_")[0]
    if get_completion_class(shell) is None or instruction not in (f"{shell}_source", f"{shell}_complete"):
        message = f"{COMPLETE}={instruction}: expected bash_source, zsh_source or fish_source"
        Console().error(UsageError(message, hint=f'In bash: eval "$({COMPLETE}=bash_source nezha-convert)"'))
        return UsageError.exit_code
    return shell_complete(cli, {}, "nezha-convert", COMPLETE, instruction)
