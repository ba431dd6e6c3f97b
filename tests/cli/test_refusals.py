"""Every refusal in the program: what it says next can be followed, names what is there, and never leads back.

`tests/helpers/provoked.py` provokes as many as a command line can. With `-s` the last test prints the numbers.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import huggingface_hub
import pytest
from cases import run
from goldens import FIXTURES
from provoked import REFUSED, TORCH, VOCAB, World
from refusals import commands_in, noticed, options_in, refusals

from nezha_convert import convert, verify
from nezha_convert.cli.advice import advice
from nezha_convert.cli.app import cli
from nezha_convert.errors import CheckpointError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted folders: one with a vocabulary, one without."""
    folder = tmp_path_factory.mktemp("made")
    source = Path(shutil.copytree(TORCH, folder / "source"))
    convert(source, folder / "plain")
    shutil.copy(VOCAB, source)
    convert(source, folder / "base")
    convert(FIXTURES / "huawei-tf-squad", folder / "squad")
    shutil.copytree(folder / "plain", folder / "proved")
    verify(TORCH, folder / "proved")
    return folder


SEEN: dict[str, tuple[int, set[tuple[str, int]]]] = {}
"""By case, how many commands of its advice were run, and which refusals were met."""


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_refusal_says_next_leads_on_and_never_back(
    case: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    world = World(tmp_path, made)
    typed = REFUSED[case](world)
    with noticed() as places:
        code, said = run(typed)
        assert code and "error" in said and code != 70, said
        world.user.follow(typed, said)
    SEEN[case] = (world.user.followed, places)


ALL = refusals()


@pytest.mark.parametrize("refusal", [one for one in ALL if one.names_words], ids=str)
def test_a_refusal_names_commands_and_options_that_are_there(refusal) -> None:
    for words in commands_in(refusal.text):
        known = {name for one in cli.commands[words[0]].params for name in one.opts}
        assert {word for word in words if word.startswith("--")} <= known, refusal.text
    everywhere = {name for command in cli.commands.values() for one in command.params for name in one.opts}
    assert {option for option, _ in options_in(refusal.text)} <= everywhere, refusal.text
    assert not refusal.unquoted, f"{refusal}: a path without the shell's quotes"


@pytest.mark.parametrize("verb", cli.commands)
def test_no_command_advises_an_option_that_it_does_not_have(verb: str) -> None:
    command = cli.commands[verb]
    typed = [verb, *(f"/{one.name}" for one in command.params if isinstance(one, click.Argument))]
    known = {name for one in command.params for name in one.opts}
    options = {name for one in cli.commands["convert"].params for name in one.opts if isinstance(one, click.Option)}
    for refusal in ALL:
        hint, _ = advice(cli, typed, CheckpointError("x", hint=refusal.text))
        left = {option for option, value in options_in(hint) if value} & options - known
        assert left <= {word for words in commands_in(hint) for word in words}, f"{refusal}: {hint}"


def test_most_refusals_are_provoked_and_followed() -> None:
    if set(SEEN) != set(REFUSED):
        pytest.skip("the other tests of this file run before it in one process")
    places = {place for _, found in SEEN.values() for place in found}
    met = [one for one in ALL if any(one.file == file and one.first <= line <= one.last for file, line in places)]
    followed = sum(count for count, _ in SEEN.values())
    advising, naming = sum(one.advises for one in ALL), sum(one.names_words for one in ALL)
    print(
        f"\n{len(ALL)} refusals, {advising} with advice, {naming} name commands or options; provoked {len(met)}, "
        f"{sum(one.names_words for one in met)} of these; {followed} commands of advice were run, loops 0"
    )
    assert len(met) >= 80
