"""`push`: publish a converted or trained folder on the Hub, in one commit or a pull request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import HubError, MappingError, UsageError
from ..files.given import path_of
from ..files.hashing import sha256
from ..files.json import json_bytes
from ..folder.base import looked_again
from ..folder.card import CARD, LICENSES, warning
from ..folder.record import RecordedFolder
from ..folder.trained import recorded_folder
from ..hub import Address, Hub, Pushed, PushedFile, nbytes_of


def push(
    folder: str | Path,
    repo_id: str,
    *,
    license: str | None = None,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
    card: bool = True,
    force: bool = False,
    dry_run: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    bars: bool = False,
) -> Pushed:
    """Push the converted or trained `folder` to the model repository `repo_id`. A missing repository is created.

    A trained folder's base is looked at again, if it was in doubt when the training was recorded.

    Args:
        folder: what `convert` wrote and `verify` proved, or what `record_training` recorded.
        repo_id: OWNER/NAME, or the Hub's address of it.
        license: the license of the weights, as the Hub spells it: "apache-2.0", "mit" and so on. None is assumed;
            without a card none is needed.
        private: create the repository as a private one; an existing one must be private.
        revision: a branch instead of main.
        create_pr: open a pull request instead of changing the branch.
        message: the commit's first line.
        card: write the repository's README.md; False leaves it as it is.
        force: push a folder that is not proved; its card says so.
        dry_run: tell what would be pushed, offline.
        token: used instead of the token of `hf auth login` or HF_TOKEN.
        endpoint: a server other than HF_ENDPOINT or the public Hub.
        bars: show the client's progress bars, one a file.

    Returns:
        The address of the commit, and what became of each file.

    Raises:
        MappingError: `folder` has no record, or one of its files is missing or a link.
        UsageError: the license is missing or unknown, the card's metadata is no YAML, or `repo_id` is no name.
        HubError: the folder is not proved; or the Hub refused, failed, or the repository was changed meanwhile.

    Example:
        >>> import nezha_convert
        >>> pushed = nezha_convert.push("nezha-base/", "owner/nezha-base", license="apache-2.0", dry_run=True)
        >>> pushed.dry_run, pushed.doubts
        (True, ())
    """
    address = Address.parse(repo_id)
    repo_id, revision = address.repo_id, revision or address.revision
    on_disk = recorded_folder(path_of(folder))
    recorded = looked_again(on_disk)
    names = recorded.names()
    doubts = recorded.doubts()
    if doubts and not force:
        raise HubError(
            f"{folder}: not pushed, since {recorded.claim}",
            problems=doubts,
            hint=f"{recorded.remedy}; --force pushes it as it is, and its card says so.",
        )
    files: dict[str, Path | bytes] = {name: recorded.path / name for name in names}
    if recorded is not on_disk:
        files[recorded.mark] = json_bytes(recorded.record)
    text = _card(recorded, license, repo_id, doubts) if card else None
    if text is not None:
        files[CARD] = text.encode()
    known = {*(name.partition("/")[0] for name in names), CARD}
    left_out = tuple(sorted({path.name for path in recorded.path.iterdir()} - known))
    if dry_run:
        planned = tuple(PushedFile(name, nbytes_of(data), "planned") for name, data in files.items())
        return Pushed(repo_id, "", planned, dry_run=True, doubts=doubts, left_out=left_out, card=text)
    pushed = Hub(endpoint, token, bars).commit(
        repo_id, files, message=message or recorded.title, private=private, revision=revision, create_pr=create_pr
    )
    return replace(pushed, doubts=doubts, left_out=left_out, card=text)


def _card(recorded: RecordedFolder, license: str | None, repo_id: str, doubts: tuple[str, ...]) -> str:
    """The card to push: a new one, or the folder's README.md if the user edited it."""
    import yaml
    from huggingface_hub import ModelCard

    if license is not None and license not in LICENSES:
        raise UsageError(
            f"--license {license}: the Hub does not know it", hint="Such as apache-2.0, mit, cc-by-nc-4.0, or other."
        )
    try:
        own = _own_card(recorded)
        loaded = ModelCard(own) if own else None
    except (ValueError, yaml.YAMLError) as error:  # UnicodeDecodeError is a ValueError
        raise UsageError(
            f"{recorded.path / CARD}: its metadata cannot be read ({' '.join(str(error).split())})",
            hint="Correct the lines between its --- marks, or leave the repository's card as it is: --no-card",
        ) from error
    license = license or (loaded.data.get("license") if loaded else None) or recorded.record.get("license")
    if license is None:
        raise UsageError(
            f"{repo_id}: no license is stated, and none is assumed",
            hint="Say what holds for these weights: --license ID, such as apache-2.0; unknown if you do not know.",
        )
    if loaded is None:
        return recorded.card(license, repo_id, doubts)
    loaded.data["license"] = license
    return str(loaded) + (f"\n{warning(doubts, recorded.claim)}\n" if doubts else "")


def _own_card(recorded: RecordedFolder) -> str | None:
    """The folder's README.md if the user wrote or edited it, otherwise None.

    Raises:
        MappingError: it is a link. In a folder from a stranger, a link could lead to a secret of the user's.
    """
    path, written = recorded.path / CARD, recorded.record.get("card")
    if path.is_symlink():
        raise MappingError(
            f"{path}: a symbolic link, expected a file in the folder; refused",
            hint="Replace it by a file or remove it, or leave the repository's card as it is: --no-card",
        )
    if not path.is_file() or (written and sha256(path) == written["sha256"]):
        return None
    return path.read_text("utf-8")
