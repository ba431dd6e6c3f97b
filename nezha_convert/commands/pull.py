"""Download a model from the Hub, into its cache or to a folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from ..files.given import path_of
from ..files.staging import check_output, staged
from ..hub import Address, Hub, Pulled


def pull(
    address: str,
    folder: str | Path | None = None,
    *,
    token: str | None = None,
    endpoint: str | None = None,
    max_bytes: int | None = None,
    bars: bool = False,
) -> Pulled:
    """Download a model through huggingface_hub's cache: one kind of weights, and the files that a conversion needs.

    Args:
        address: ``hf://owner/name[@revision]``.
        folder: where to put a copy; it appears complete or not at all. None leaves the files in the cache.
        token: a token to use instead of the one of `hf auth login` or HF_TOKEN.
        endpoint: a server to use instead of HF_ENDPOINT or the public Hub.
        max_bytes: refuse a download of more, before it begins; None takes any.
        bars: show the client's progress bars.

    Returns:
        The address with its commit, the folder that holds the files, and their names and sizes.

    Raises:
        UsageError: `address` is not written as above.
        HubError: the model cannot be downloaded, or is larger than `max_bytes`.
        OutputError: `folder` exists or cannot be written.

    Example:
        >>> import nezha_convert
        >>> pulled = nezha_convert.pull("hf://owner/nezha-base", "copy/")
        >>> pulled.folder.name, "config.json" in [name for name, size in pulled.files]
        ('copy', True)
    """
    if folder is not None:
        check_output(path_of(folder), None)
    pulled = Hub(endpoint, token, bars).fetch(Address.parse(address), max_bytes)
    if folder is None:
        return pulled
    with staged(path_of(folder), False, sum(size for _, size in pulled.files)) as stage:
        for name, _ in pulled.files:
            shutil.copyfile(pulled.folder / name, stage / name)
    return replace(pulled, folder=path_of(folder))
