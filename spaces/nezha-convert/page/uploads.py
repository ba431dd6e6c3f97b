"""What guards the route of uploads, before a byte of one is read."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from .limits import Limits

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class UploadLimit:
    """Refuses an upload that does not say its length, or is too large, or for which the disk has no room.

    Args:
        app: what it guards.
        limits: of a visitor.
        folder: where uploads are written.
    """

    def __init__(self, app: Application, limits: Limits, folder: Path) -> None:
        self._app, self._limits, self._folder = app, limits, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 or 507, or pass the request on."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload"):
            length = dict(scope["headers"]).get(b"content-length", b"")
            nbytes = int(length) if length.isdigit() else None
            free = shutil.disk_usage(self._folder).free - self._limits.free_bytes
            if nbytes is None or nbytes > min(self._limits.upload_bytes, free):
                status = 507 if nbytes is not None and nbytes <= self._limits.upload_bytes else 413
                await send({"type": "http.response.start", "status": status, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
        await self._app(scope, receive, send)
