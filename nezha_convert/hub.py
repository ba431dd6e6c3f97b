"""The Hugging Face Hub: addresses, downloads, one-commit uploads, and its refusals in words.

huggingface_hub is imported where it is used: neither `import nezha_convert` nor a local conversion loads it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .errors import HubError, NezhaConvertError, UsageError
from .files.staging import staged

SCHEME = "hf://"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_WEIGHTS = (
    ("*.safetensors", "*.safetensors.index.json"),
    ("*.index", "*.data-?????-of-?????"),
    ("*.bin", "*.bin.index.json", "*.pt", "*.pth"),
)
"""The kinds of weights in the order of preference; of a repository with several kinds the first one is fetched."""

_COMPANIONS = (
    "*config*.json",
    "tokenizer.json",
    "added_tokens.json",
    "conversion.json",
    "training.json",
    "*.txt",
    "*.py",
    "README.md",
    "checkpoint",
)
_INDEXES = ("*.index.json", "*.index")
_NEVER = ("training_args*", "optimizer*", "scheduler*", "scaler*", "rng_state*")
"""What a Trainer leaves behind."""

_ANSWERS = {
    401: (
        "the repository does not exist, or the Hub does not accept the token",
        "Check OWNER/NAME, and log in with `hf auth login` or HF_TOKEN.",
    ),
    403: (
        "the token does not allow this",
        "Use a token with the right to it. --create-pr only offers a push; a gated model has its terms on its page.",
    ),
    404: (
        "no such repository, revision or file; one that the token may not see looks the same",
        "Check OWNER/NAME and the revision, and that the token may see a private repository.",
    ),
    409: ("another change is under way", "Run the same command again in a minute."),
    412: (
        "the repository was changed by someone else meanwhile; nothing of this change is in it",
        "Look at what changed there, then run the same command again.",
    ),
    429: ("the Hub's rate limit is reached", "Wait {wait}, then run the same command again."),
}
"""What the Hub's answers mean, and the next step, by HTTP status."""

_FAULT = (
    "the Hub has a fault of its own",
    "Run the same command again later: what was uploaded is not uploaded again. See https://status.huggingface.co",
)
_UNREACHABLE = (
    "the Hub cannot be reached, or the connection broke off",
    "Check the network and --endpoint, then run the same command again: what was uploaded is not uploaded again. "
    "With HF_HUB_OFFLINE=1, hf:// sources are read from the cache alone.",
)


@dataclass(frozen=True, slots=True)
class Address:
    """A model repository and, if one is named, a branch, tag or commit of it."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo_id}" + (f"@{self.revision}" if self.revision else "")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``hf://owner/name[@revision]``.

        Raises:
            UsageError: it is not one.
        """
        repo_id, at, revision = text.removeprefix(SCHEME).partition("@")
        if not text.startswith(SCHEME) or bool(at) != bool(revision):
            raise UsageError(f"{text}: not an address of the Hub", hint="It is written hf://owner/name[@revision]")
        return cls(check_repo_id(repo_id), revision or None)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was downloaded: the address with its commit, where it lies, and the files by name and size."""

    address: Address
    folder: Path
    files: tuple[tuple[str, int], ...]

    @property
    def source(self) -> Path:
        """What to open: the weights' index or only file, or the folder where it is for the reader to choose."""
        names = [name for name, _ in self.files]
        for pattern in ("*.index.json", "*.safetensors", "*.bin"):
            found = [name for name in names if fnmatchcase(name, pattern)]
            if found:
                return self.folder / found[0] if len(found) == 1 else self.folder
        return self.folder

    def to_dict(self) -> dict[str, Any]:
        """The download as ``--json`` prints it."""
        return {"address": str(self.address), "folder": str(self.folder), "files": dict(self.files)}


@dataclass(frozen=True, slots=True)
class PushedFile:
    """A file of a commit; `state` is "uploaded", "unchanged", "deleted", or in a dry run "planned"."""

    name: str
    nbytes: int
    state: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did. `commit` is None where nothing had changed, and in a dry run.

    Attributes:
        doubts: why the folder is not proved, when it was pushed all the same.
        left_out: files of the folder that are not the conversion's, and stayed where they are.
        card: the README.md that goes along; None where there is none.
    """

    repo_id: str
    url: str
    files: tuple[PushedFile, ...]
    commit: str | None = None
    pull_request: str | None = None
    created: bool = False
    dry_run: bool = False
    doubts: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    card: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The push as ``--json`` prints it."""
        return asdict(self)


def check_repo_id(repo_id: str) -> str:
    """`repo_id`, if it is OWNER/NAME.

    Raises:
        UsageError: it is not.
    """
    if not _REPO.fullmatch(repo_id):
        raise UsageError(f"{repo_id!r}: not the name of a repository", hint="It is written OWNER/NAME.")
    return repo_id


def local_source(source: str | Path) -> tuple[Path, str]:
    """Where `source` lies on this machine, and what a report calls it: an address of the Hub is fetched first."""
    if not str(source).startswith(SCHEME):
        return Path(source), Path(source).resolve().name
    pulled = Hub(bars=sys.stderr.isatty()).fetch(Address.parse(str(source)))
    return pulled.source, str(pulled.address)


def pull(
    address: str,
    folder: str | Path | None = None,
    *,
    token: str | None = None,
    endpoint: str | None = None,
    bars: bool = False,
) -> Pulled:
    """Download a model: what a conversion needs, of one kind of weights, through huggingface_hub's cache.

    Args:
        address: ``hf://owner/name[@revision]``.
        folder: where to put a copy; it appears complete or not at all. None leaves the files in the cache.
        token: instead of the one of `hf auth login` or HF_TOKEN.
        endpoint: another server than HF_ENDPOINT or the public Hub.
        bars: show the client's progress bars.

    Raises:
        UsageError: no such address can be.
        HubError: it cannot be downloaded.
        OutputError: `folder` exists or cannot be written.
    """
    pulled = Hub(endpoint, token, bars).fetch(Address.parse(address))
    if folder is None:
        return pulled
    with staged(Path(folder), False, sum(size for _, size in pulled.files)) as stage:
        for name, _ in pulled.files:
            shutil.copyfile(pulled.folder / name, stage / name)
    return replace(pulled, folder=Path(folder))


class _Client(Exception):  # noqa: N818 (a carrier of text, never raised alone)
    """The client's own traceback as text without the token, for NEZHA_DEBUG."""


class Hub:
    """The Hub as one user sees it. Every failure is a HubError whose text does not hold the token.

    Args:
        endpoint: another server than HF_ENDPOINT or the public Hub.
        token: instead of the one of `hf auth login` or HF_TOKEN.
        bars: show the client's progress bars, one a file.
    """

    def __init__(self, endpoint: str | None = None, token: str | None = None, bars: bool = False) -> None:
        from huggingface_hub import HfApi, get_token

        self._api = HfApi(endpoint=endpoint, token=token)
        self._token, self._bars = token, bars
        self._secrets = {secret for secret in (token, get_token(), os.environ.get("HF_TOKEN")) if secret}

    def fetch(self, address: Address) -> Pulled:
        """Download the weights (one kind) and their companions at `address` into the cache."""
        from huggingface_hub import constants, snapshot_download

        if constants.HF_HUB_OFFLINE:
            return self._cached(address)
        with self._asking(str(address)):
            info = self._api.model_info(address.repo_id, revision=address.revision)
            names = [sibling.rfilename for sibling in info.siblings or () if "/" not in sibling.rfilename]
            wanted = _needed(names)
            if not wanted:
                raise HubError(
                    f"{address}: no weights that are known here; it holds {', '.join(names[:8]) or 'nothing'}",
                    hint="Name a repository with .safetensors, .bin or TensorFlow's .index files at its top.",
                )
            folder = Path(
                snapshot_download(
                    address.repo_id,
                    revision=address.revision,
                    allow_patterns=wanted,
                    endpoint=self._api.endpoint,
                    token=self._token,
                )
            )
        return _pulled(address, folder)

    def _cached(self, address: Address) -> Pulled:
        from huggingface_hub import try_to_load_from_cache

        for name in ("config.json", "bert_config.json"):
            found = try_to_load_from_cache(address.repo_id, name, revision=address.revision)
            if isinstance(found, str):
                return _with_weights(_pulled(address, Path(found).parent))
        raise HubError(
            f"{address}: not in the cache, and HF_HUB_OFFLINE is set", hint="Unset HF_HUB_OFFLINE to download it."
        )

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, Path | bytes],
        *,
        message: str,
        description: str = "",
        private: bool = False,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> Pushed:
        """Make `files` the repository's in one commit, on top of what is there now or not at all.

        Weights of another layout are deleted in the same commit: transformers might load them instead.

        Raises:
            HubError: refused, failed, or changed meanwhile; the repository's files are as they were.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.hf_api import RepoFile

        with self._asking(repo_id):
            created = self._create_unless_there(repo_id, private)
            info = self._api.model_info(repo_id, revision=revision)
            if private and not info.private:
                raise HubError(
                    f"{repo_id}: it exists and is public, but --private was asked for; nothing was uploaded",
                    hint="Make it private in its settings, or leave --private out.",
                )
            tree = self._api.list_repo_tree(repo_id, revision=info.sha)
            there = {file.path: file for file in tree if isinstance(file, RepoFile)}
            stale = [name for name in there if _is_weights(name) and name not in files and any(map(_is_weights, files))]
            changed = [name for name, data in files.items() if not _same(there.get(name), data)]
            states = {**dict.fromkeys(files, "unchanged"), **dict.fromkeys(changed, "uploaded")}
            listed = [PushedFile(name, nbytes_of(files[name]), state) for name, state in states.items()]
            listed += [PushedFile(name, there[name].size, "deleted") for name in stale]
            pushed = Pushed(repo_id, f"{self._api.endpoint}/{repo_id}", tuple(listed), created=created)
            if not changed and not stale:
                return pushed
            operations: Sequence[Any] = (
                *(CommitOperationAdd(name, files[name]) for name in changed),
                *(CommitOperationDelete(name) for name in stale),
            )
            with _commits_answered_by(self._api.endpoint):
                done = self._api.create_commit(
                    repo_id,
                    operations,
                    commit_message=message,
                    commit_description=description,
                    revision=revision,
                    create_pr=create_pr,
                    parent_commit=info.sha,
                )
        return replace(pushed, commit=done.oid, pull_request=done.pr_url)

    def _create_unless_there(self, repo_id: str, private: bool) -> bool:
        """Whether the repository had to be created. Asked first: the right to create is not the right to write."""
        if self._api.repo_exists(repo_id):
            return False
        self._api.create_repo(repo_id, private=private, exist_ok=True)
        return True

    @contextmanager
    def _asking(self, about: str) -> Iterator[None]:
        """Turn whatever goes wrong in the client into a HubError about `about`."""
        try:
            with _bars_shown(self._bars):
                yield
        except NezhaConvertError:
            raise
        except Exception as error:  # over its versions the client raises the types of three HTTP libraries
            details = self._scrubbed("".join(traceback.format_exception(error)))
            raise self._explained(error, about) from _Client(f"\n{details}")

    def _explained(self, error: BaseException, about: str) -> HubError:
        answered = next((e for e in _chain(error) if getattr(e, "response", None) is not None), None)
        if answered is None:
            network = any(_is_network(e) for e in _chain(error))
            meaning, hint = _UNREACHABLE if network else ("the Hub's client failed", "NEZHA_DEBUG=1 tells more.")
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        else:
            response: Any = answered.response  # type: ignore[attr-defined]
            status = response.status_code
            meaning, hint = _ANSWERS.get(status, _FAULT if status >= 500 else ("the Hub refuses it", ""))
            seconds = response.headers.get("Retry-After")
            hint = hint.format(wait=f"{seconds} seconds" if seconds else "some minutes")
            server = " ".join(str(getattr(answered, "server_message", None) or "").split())
            said = f"HTTP {status}: {server}" if server else f"HTTP {status}"
        return HubError(self._scrubbed(f"{about}: {meaning} ({said})"), hint=hint)

    def _scrubbed(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "(token)")
        return text


@contextmanager
def _bars_shown(bars: bool) -> Iterator[None]:
    """The client's progress bars as we want them, and then as its other users had them."""
    from huggingface_hub import utils

    def show(bars: bool) -> None:
        (utils.enable_progress_bars if bars else utils.disable_progress_bars)()  # type: ignore[attr-defined]

    before = not utils.are_progress_bars_disabled()  # type: ignore[attr-defined]
    show(bars)
    try:
        yield
    finally:
        show(before)


@contextmanager
def _commits_answered_by(endpoint: str) -> Iterator[None]:
    """Before 1.0 the client looks for its constant's server in a commit's answer, and fails though it succeeded."""
    from huggingface_hub import constants

    before, constants.ENDPOINT = constants.ENDPOINT, endpoint
    try:
        yield
    finally:
        constants.ENDPOINT = before


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, and the errors that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_network(error: BaseException) -> bool:
    library = type(error).__module__.partition(".")[0]
    return library in ("httpx", "httpx2", "httpcore", "requests", "urllib3") or isinstance(error, ConnectionError)


def _needed(names: Iterable[str]) -> list[str]:
    """What is fetched of a repository that holds `names`, weights first; nothing where it has none."""
    left = [name for name in names if not _matches(name, _NEVER)]
    for kind in _WEIGHTS:
        weights = [name for name in left if _matches(name, kind)]
        if weights:
            return weights + [name for name in left if _matches(name, _COMPANIONS)]
    return []


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _pulled(address: Address, folder: Path) -> Pulled:
    """The snapshot `folder`, whose name is its commit. Other programs may have put other files there."""
    names = _needed(sorted(path.name for path in folder.iterdir() if path.is_file()))
    files = tuple((name, (folder / name).stat().st_size) for name in names)
    return Pulled(Address(address.repo_id, folder.name), folder, files)


def _with_weights(pulled: Pulled) -> Pulled:
    """`pulled`, unless no weights are in it: other programs cache a config alone, and a download may have stopped."""
    if any(not _matches(name, (*_COMPANIONS, *_INDEXES)) for name, _ in pulled.files):
        return pulled
    names = sorted(path.name for path in pulled.folder.iterdir())
    raise HubError(
        f"{pulled.address}: no weights in the cache, only {', '.join(names[:8])}, and HF_HUB_OFFLINE is set",
        hint="Unset HF_HUB_OFFLINE to download them, or name a revision that was downloaded before.",
    )


def _is_weights(name: str) -> bool:
    """Whether transformers would take `name` for a file of the model's weights in this package's format."""
    return re.fullmatch(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?", name) is not None


def nbytes_of(data: Path | bytes) -> int:
    """The size of a file that is to be pushed."""
    return len(data) if isinstance(data, bytes) else data.stat().st_size


def _same(there: Any, data: Path | bytes) -> bool:
    """Whether the repository's file holds `data`, told by the hash that the Hub keeps: LFS' SHA-256, or git's own."""
    if there is None or there.size != nbytes_of(data):
        return False
    digest = hashlib.sha256() if there.lfs else hashlib.sha1(f"blob {there.size}\0".encode(), usedforsecurity=False)
    if isinstance(data, bytes):
        digest.update(data)
    else:
        with open(data, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return bool(digest.hexdigest() == (there.lfs.sha256 if there.lfs else there.blob_id))
