"""The Hub's client: addresses, downloads, and uploads in one commit.

huggingface_hub is imported where it is used, so neither `import nezha_convert` nor a local conversion loads it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ..errors import HubError, UsageError
from ..files.given import path_of
from ..files.hashing import git_blob, sha256
from .refusals import in_words

SCHEME, _WEB = "hf://", ("https://", "http://")
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com")
_FILE = re.compile(
    r"\.(bin|pt|pth|pkl|index|safetensors|ckpt|h5|weights|pdparams|zip|tar|gz|tgz|bz2|xz|json|txt|data.*)$"
)
_Answer = TypeVar("_Answer")
_UNKNOWN = 1 << 30
"""Bytes of a file whose size the Hub does not tell."""

_PATIENCE, _SLOWEST = 300, 64 << 10
"""The most seconds to wait for the Hub's answers, and the fewest bytes a second of the files that are sent.

The client's own limits are for a read each, so a server that sends a byte now and then would hold a command for ever.
What is broken off here is begun again by the next run where it stopped."""

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_WEIGHTS = (
    ("*.safetensors", "*.safetensors.index.json"),
    ("*.index", "*.data-?????-of-?????"),
    ("*.bin", "*.bin.index.json", "*.pt", "*.pth"),
    ("*.ckpt",),  # MindSpore's, or a training's of PyTorch
)
"""The kinds of weights. Of a repository with several kinds, only the first one in this order is fetched."""

_EXTRA = "extra.safetensors"
"""What a conversion keeps beside a model. It is none by itself."""

_COMPANIONS = (
    _EXTRA,
    "*config*.json",
    "tokenizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "conversion.json",
    "training.json",
    "*.txt",
    "*.py",
    "README.md",
    "checkpoint",
    "modules.json",
)
_MODULE = re.compile(r"[1-9]\d*_[A-Za-z]\w*/[^/]+\.(json|txt|safetensors|bin)")
"""A file of a module of sentence-transformers, as its library names the module's folder: 1_Pooling/config.json."""

_INDEXES = ("*.index.json", "*.index")
_NEVER = ("training_args*", "optimizer*", "scheduler*", "scaler*", "rng_state*")
"""Files that a Trainer leaves beside a model."""


@dataclass(frozen=True, slots=True)
class Address:
    """A model repository and, if one is named, a branch, tag or commit of it."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo_id}" + (f"@{self.revision}" if self.revision else "")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``hf://owner/name[@revision]``, ``owner/name[@revision]``, or the address of a page of it on the Hub.

        Raises:
            UsageError: it is none of these.
        """
        if text.startswith(_WEB):
            return cls._of_page(text)
        repo_id, at, revision = text.removeprefix(SCHEME).partition("@")
        known = text.startswith(SCHEME) or _REPO.fullmatch(repo_id)
        if not known or bool(at) != bool(revision):
            raise UsageError(f"{text}: not an address of the Hub", hint="It is written hf://owner/name[@revision]")
        return cls(check_repo_id(repo_id), revision or None)

    @classmethod
    def _of_page(cls, text: str) -> Address:
        """Of ``https://huggingface.co/owner/name``, ``.../tree/REVISION``, ``.../resolve/REVISION/FILE``, ..."""
        page = urlsplit(text)
        hosts = {*_HOSTS, urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc}
        owner, name, kind, revision, *_ = [*page.path.strip("/").split("/"), *[""] * 4]
        if page.netloc not in hosts or not name or owner in ("datasets", "spaces"):
            raise UsageError(
                f"{text}: not the address of a model on the Hub; expected https://{_HOSTS[0]}/owner/name",
                hint="It is written hf://owner/name[@revision]",
            )
        at = unquote(revision) if kind in ("tree", "blob", "resolve", "commit") and revision else None
        return cls(check_repo_id(f"{owner}/{name.removesuffix('.git')}"), at)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was downloaded.

    Attributes:
        address: the repository and its commit.
        folder: where the files lie.
        files: the name and size of each.

    Example:
        >>> import nezha_convert
        >>> pulled = nezha_convert.pull("hf://owner/nezha-base")
        >>> [name for name, size in pulled.files if name.endswith(".safetensors")]
        ['model.safetensors']
    """

    address: Address
    folder: Path
    files: tuple[tuple[str, int], ...]

    @property
    def source(self) -> Path:
        """What to open: the weights' index, or their only file; otherwise the folder, where the reader chooses."""
        names = [name for name, _ in self.files]
        for pattern in ("*.index.json", "*.safetensors", "*.bin"):
            matches = [name for name in names if fnmatchcase(name, pattern)]
            if matches:
                return self.folder / matches[0] if len(matches) == 1 else self.folder
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
    """What a push did.

    Attributes:
        repo_id, url: the repository.
        files: what happened to each file.
        commit: None if nothing had changed, and in a dry run.
        pull_request: its address, if one was opened.
        created: whether the repository was created.
        dry_run: whether nothing was sent.
        doubts: why the folder is not proved, if it was pushed all the same.
        left_out: files of the folder that are not the conversion's and were not pushed.
        card: the README.md that was pushed; None if there is none.

    Example:
        >>> import nezha_convert
        >>> pushed = nezha_convert.push("nezha-base/", "owner/nezha-base", license="apache-2.0", dry_run=True)
        >>> pushed.card.splitlines()[2]
        'license: "apache-2.0"'
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
    """`repo_id` itself.

    Raises:
        UsageError: it is not written OWNER/NAME.
    """
    if not _REPO.fullmatch(repo_id):
        raise UsageError(f"{repo_id!r}: not the name of a repository", hint="It is written OWNER/NAME.")
    return repo_id


def is_address(source: str | Path) -> bool:
    """Whether `source` is of the Hub: by how it begins or, where no folder of its owner's name is here, OWNER/NAME."""
    if not isinstance(source, str):
        return False
    bare = _REPO.fullmatch(source.partition("@")[0]) and not _FILE.search(source)
    return source.startswith((SCHEME, *_WEB)) or bool(bare and not _is_there(Path(source).parent))


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110  (a name that is too long is not there, and no error)


def local_source(source: str | Path) -> tuple[Path, str]:
    """Where `source` lies on this machine, and its name for a report. An address of the Hub is downloaded first."""
    if not is_address(source):
        path = path_of(source)
        return path, path.resolve().name
    pulled = Hub(bars=sys.stderr.isatty()).fetch(Address.parse(str(source)))
    return pulled.source, str(pulled.address)


class Hub:
    """The Hub with one user's rights. Every failure is a HubError, in whose text the token never appears.

    Args:
        endpoint: another server than HF_ENDPOINT or the public Hub.
        token: instead of the one of `hf auth login` or HF_TOKEN; an empty one, as of a secret that is not set, is none.
        bars: show the client's progress bars, one a file.
    """

    def __init__(self, endpoint: str | None = None, token: str | None = None, bars: bool = False) -> None:
        from huggingface_hub import HfApi, get_token

        token = token or None
        self._api = HfApi(endpoint=endpoint, token=token)
        self._token, self._bars = token, bars
        self._secrets = {secret for secret in (token, get_token(), os.environ.get("HF_TOKEN")) if secret}

    def fetch(self, address: Address, max_bytes: int | None = None) -> Pulled:
        """Download the weights (one kind) and their companions at `address` into the cache.

        Args:
            address: the repository and its revision.
            max_bytes: refuse a download of more; a file whose size the Hub does not tell counts as a gigabyte.
        """
        from huggingface_hub import constants, snapshot_download

        if constants.HF_HUB_OFFLINE:
            return self._cached(address)
        with self._asking(str(address)):
            info = within(lambda: self._api.model_info(address.repo_id, revision=address.revision, files_metadata=True))
            sizes = _sizes(info)
            names = list(sizes)
            wanted = _needed(names)
            if not wanted:
                raise HubError(
                    f"{address}: no weights of a known format; it holds {', '.join(names[:8]) or 'nothing'}",
                    hint="Name a repository with .safetensors, .bin or TensorFlow's .index files at its top.",
                )
            nbytes = sum(sizes[name] for name in wanted)
            if max_bytes is not None and nbytes > max_bytes:
                raise HubError(
                    f"{address}: {nbytes:,} bytes to download, expected at most {max_bytes:,}",
                    hint="Name a smaller model, or download it where there is room: nezha-convert pull ADDRESS FOLDER",
                )
            folder = within(
                lambda: snapshot_download(
                    address.repo_id,
                    revision=info.sha if max_bytes is not None else address.revision,
                    allow_patterns=wanted,
                    endpoint=self._api.endpoint,
                    token=self._token,
                ),
                nbytes,
            )
        return _pulled(address, Path(folder))

    def search(
        self, owner: str | None, begins: str = "", tag: str | None = None, limit: int | None = None
    ) -> list[tuple[str, str | None]]:
        """The models of `owner` whose names have `begins` in them, or those with `tag`: their repositories, in order
        of their names, each with the model_type of its config, None where the Hub has none. A page of the list is a
        request.

        Raises:
            HubError: the Hub refused or failed.
        """
        with self._asking(owner or tag or "the Hub"):
            found = within(
                lambda: [
                    (str(one.id), (one.config or {}).get("model_type"))
                    for one in self._api.list_models(
                        author=owner, search=begins or None, filter=tag, limit=limit, fetch_config=True
                    )
                ]
            )
        return sorted(found)

    def sizes(self, address: Address) -> tuple[str, dict[str, int]]:
        """The commit of `address`, and the files that `fetch` would download of it, with their sizes; one request.

        Raises:
            HubError: the Hub refused or failed.
        """
        with self._asking(str(address)):
            info = within(lambda: self._api.model_info(address.repo_id, revision=address.revision, files_metadata=True))
        sizes = _sizes(info)
        return str(info.sha), {name: sizes[name] for name in _needed(sizes)}

    def _cached(self, address: Address) -> Pulled:
        """What earlier downloads have left in the cache."""
        from huggingface_hub import try_to_load_from_cache

        for name in ("config.json", "bert_config.json"):
            path = try_to_load_from_cache(address.repo_id, name, revision=address.revision)
            if isinstance(path, str):
                return _with_weights(_pulled(address, Path(path).parent))
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
        """Upload `files` in one commit. It fails if somebody else changes the repository meanwhile.

        Weights of another layout are deleted in the same commit, because transformers might load them instead.

        Args:
            repo_id: the repository, which is created if it is not there.
            files: name in the repository -> a file on this machine, or its bytes.
            message, description: the commit's.
            private: create the repository as a private one; one that exists must be private.
            revision: a branch instead of main.
            create_pr: open a pull request instead of changing the branch.

        Raises:
            HubError: the Hub refused or failed, or the repository was changed. None of its files was changed then.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.hf_api import RepoFile

        with self._asking(repo_id):
            created, parent = within(lambda: self._prepare(repo_id, private, revision))
            tree = within(lambda: list(self._api.list_repo_tree(repo_id, revision=parent)))
            listed = _compared(files, {file.path: file for file in tree if isinstance(file, RepoFile)})
            pushed = Pushed(repo_id, f"{self._api.endpoint}/{repo_id}", listed, created=created)
            added = [CommitOperationAdd(file.name, files[file.name]) for file in listed if file.state == "uploaded"]
            deleted = [CommitOperationDelete(file.name) for file in listed if file.state == "deleted"]
            if not added and not deleted:
                return pushed
            if create_pr and not created and (there := within(lambda: self._same_request(repo_id, files, revision))):
                return replace(pushed, pull_request=there)
            with _commits_answered_by(self._api.endpoint):
                done = within(
                    lambda: self._api.create_commit(
                        repo_id,
                        [*added, *deleted],
                        commit_message=message,
                        commit_description=description,
                        revision=revision,
                        create_pr=create_pr,
                        parent_commit=parent,
                    ),
                    sum(file.nbytes for file in listed if file.state == "uploaded"),
                )
        return replace(pushed, commit=done.oid, pull_request=done.pr_url)

    def _same_request(self, repo_id: str, files: Mapping[str, Path | bytes], revision: str | None) -> str | None:
        """The address of an open pull request that has all of `files` already: a run that was killed opened it."""
        if revision is not None:
            return None
        opened = self._api.get_repo_discussions(repo_id, discussion_type="pull_request", discussion_status="open")
        for request in opened:
            tree = self._api.list_repo_tree(repo_id, revision=f"refs/pr/{request.num}")
            there = {file.path: file for file in tree if hasattr(file, "blob_id")}
            if all(file.state == "unchanged" for file in _compared(files, there)):
                return f"{self._api.endpoint}/{repo_id}/discussions/{request.num}"
        return None

    def _prepare(self, repo_id: str, private: bool, revision: str | None) -> tuple[bool, str | None]:
        """Create the repository if it is not there: whether it was created, and its latest commit."""
        # Ask first: a token that may write to a repository may still not create one.
        created = not self._api.repo_exists(repo_id)
        if created:
            self._api.create_repo(repo_id, private=private, exist_ok=True)
        info = self._api.model_info(repo_id, revision=revision)
        if private and not info.private:
            raise HubError(
                f"{repo_id}: it exists and is public, but --private was asked for; nothing was uploaded",
                hint="Make it private in its settings, or leave --private out.",
            )
        return created, info.sha

    @contextmanager
    def _asking(self, about: str) -> Iterator[None]:
        with in_words(about, self._secrets), _bars_shown(self._bars):
            yield


def within(ask: Callable[[], _Answer], nbytes: int = 0) -> _Answer:
    """What `ask` returns, if it does in the time that the Hub has for an answer and `nbytes` of files.

    It runs in a thread that nothing waits for any more once the time is over, and that does not outlive the process.

    Raises:
        TimeoutError: it takes longer.
        BaseException: what `ask` raises.
    """
    outcome: list[_Answer] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(ask())
        except BaseException as error:  # raised again below, in the thread that waits
            errors.append(error)

    seconds = _PATIENCE + nbytes / _SLOWEST
    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not outcome:
        raise TimeoutError(f"no whole answer in {seconds:,.0f} seconds")
    return outcome[0]


@contextmanager
def _bars_shown(bars: bool) -> Iterator[None]:
    """Switch the client's progress bars on or off in the block, and then back to what its other users have set."""
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
    """Make the client accept a commit's answer from `endpoint`.

    Before 1.0 it expects the address in ``constants.ENDPOINT`` there, and fails although the commit was made.
    """
    from huggingface_hub import constants

    before, constants.ENDPOINT = constants.ENDPOINT, endpoint
    try:
        yield
    finally:
        constants.ENDPOINT = before


def _needed(names: Iterable[str]) -> list[str]:
    """The files to fetch of a repository that holds `names`, weights first. Without weights, none."""
    every = list(names)
    candidates = [name for name in every if "/" not in name and not _matches(name, _NEVER)]
    modules = [name for name in every if "/" in name] if "modules.json" in every else []
    for kind in _WEIGHTS:
        weights = [name for name in candidates if _matches(name, kind) and name != _EXTRA]
        if weights:
            return [*weights, *(name for name in candidates if _matches(name, _COMPANIONS)), *modules]
    return []


def _sizes(info: Any) -> dict[str, int]:
    """The files of a repository within our reach, by name, with their sizes; `_UNKNOWN` where the Hub tells none."""
    there = (file for file in info.siblings or () if _is_in_reach(file.rfilename))
    return {file.rfilename: _UNKNOWN if file.size is None else file.size for file in there}


def _is_in_reach(name: str) -> bool:
    """Whether a file of a repository lies at its top, or in the folder of a module of sentence-transformers."""
    return "/" not in name or bool(_MODULE.fullmatch(name))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _pulled(address: Address, folder: Path) -> Pulled:
    """What we need of the snapshot `folder`, whose name is its commit. Other programs may have put more files there."""
    there = sorted(path.relative_to(folder).as_posix() for path in folder.glob("**/*") if path.is_file())
    names = _needed(filter(_is_in_reach, there))
    files = tuple((name, (folder / name).stat().st_size) for name in names)
    return Pulled(Address(address.repo_id, folder.name), folder, files)


def _with_weights(pulled: Pulled) -> Pulled:
    """`pulled` itself.

    Raises:
        HubError: it has no weights. Another program may have cached the config alone, or a download was interrupted.
    """
    if any(not _matches(name, (*_COMPANIONS, *_INDEXES)) for name, _ in pulled.files):
        return pulled
    names = sorted(path.name for path in pulled.folder.iterdir())
    raise HubError(
        f"{pulled.address}: no weights in the cache, only {', '.join(names[:8])}, and HF_HUB_OFFLINE is set",
        hint="Unset HF_HUB_OFFLINE to download them, or name a revision that was downloaded before.",
    )


def _is_weights(name: str) -> bool:
    """Whether `name` is a file of weights as we name them, which transformers would load."""
    return re.fullmatch(r"(model(-\d{5}-of-\d{5})?|extra)\.safetensors(\.index\.json)?", name) is not None


def nbytes_of(data: Path | bytes) -> int:
    """The size of a file that is to be pushed."""
    return len(data) if isinstance(data, bytes) else data.stat().st_size


def _compared(files: Mapping[str, Path | bytes], there: Mapping[str, Any]) -> tuple[PushedFile, ...]:
    """What a commit of `files` does to each file, if the repository has the files `there`."""
    states = {name: "unchanged" if _same(there.get(name), data) else "uploaded" for name, data in files.items()}
    pushed = [PushedFile(name, nbytes_of(files[name]), state) for name, state in states.items()]
    if any(map(_is_weights, files)):
        stale = [name for name in there if _is_weights(name) and name not in files]
        pushed += [PushedFile(name, there[name].size, "deleted") for name in stale]
    return tuple(pushed)


def _same(there: Any, data: Path | bytes) -> bool:
    """Whether the file `there` in the repository holds `data`: the Hub keeps a SHA-256 (LFS) or git's own hash."""
    if there is None or there.size != nbytes_of(data):
        return False
    return bool(sha256(data) == there.lfs.sha256 if there.lfs else git_blob(data) == there.blob_id)
