"""What went wrong at the Hub, in words: every failure of its client becomes a HubError with a next step."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import HubError, NezhaConvertError

_ANSWERS = {
    401: (
        "the repository does not exist, or the Hub does not accept the token",
        "Check OWNER/NAME, and log in with `hf auth login` or HF_TOKEN.",
    ),
    403: (
        "the token does not allow this",
        "Use a token that does. --create-pr only proposes the change to the owner; a gated model has its terms on its "
        "page.",
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
"""The meaning of the Hub's answer and the next step, by HTTP status."""

_FAULT = (
    "the Hub has a fault of its own",
    "Run the same command again later: what was uploaded is not uploaded again. See https://status.huggingface.co",
)
_UNREACHABLE = (
    "the Hub cannot be reached, or the connection broke off",
    "Check the network and --endpoint, then run the same command again: what was uploaded is not uploaded again. "
    "With HF_HUB_OFFLINE=1, hf:// sources are read from the cache alone.",
)


_WINDOW = 300.0
"""Seconds in which the Hub counts requests (https://huggingface.co/docs/hub/rate-limits)."""


class _ClientError(Exception):
    """The client's own traceback as text without the token, which NEZHA_DEBUG shows. Never raised alone."""


@contextmanager
def in_words(about: str, secrets: Iterable[str]) -> Iterator[None]:
    """Turn whatever the Hub's client raises in the block into a HubError.

    Args:
        about: the repository or address, for the message.
        secrets: tokens, which are replaced wherever they appear in the error or its traceback.
    """
    try:
        yield
    except NezhaConvertError:
        raise
    except Exception as error:  # the versions of the client raise the types of three HTTP libraries
        details = "".join(traceback.format_exception(error))
        message, hint = _explain(error, about)
        raise HubError(_scrub(message, secrets), hint=hint) from _ClientError(f"\n{_scrub(details, secrets)}")


def seconds_to_wait(error: HubError) -> float | None:
    """How long the Hub asks to wait, where its limit of requests is the reason of `error`; None for other reasons."""
    context = error.__context__ if isinstance(error.__context__, Exception) else None
    answered: Any = next((e for e in _chain(context) if getattr(e, "response", None) is not None), None)
    if answered is None or answered.response.status_code != 429:
        return None
    headers = answered.response.headers
    told = re.search(r"\bt=(\d+)", headers.get("RateLimit", "")) or re.search(
        r"^(\d+)$", headers.get("Retry-After", "")
    )
    return float(told[1]) if told else _WINDOW


def _explain(error: BaseException, about: str) -> tuple[str, str]:
    """A message and the next step."""
    answered = next((e for e in _chain(error) if getattr(e, "response", None) is not None), None)
    if answered is None:
        network = any(_is_network(e) for e in _chain(error))
        meaning, hint = _UNREACHABLE if network else ("the Hub's client failed", "NEZHA_DEBUG=1 tells more.")
        return f"{about}: {meaning} ({type(error).__name__}: {' '.join(str(error).split())})", hint
    response: Any = answered.response  # type: ignore[attr-defined]
    status = response.status_code
    meaning, hint = _ANSWERS.get(status, _FAULT if status >= 500 else ("the Hub refuses it", ""))
    seconds = response.headers.get("Retry-After")
    hint = hint.format(wait=f"{seconds} seconds" if seconds else "some minutes")
    server = " ".join(str(getattr(answered, "server_message", None) or "").split())
    return f"{about}: {meaning} (HTTP {status}{': ' if server else ''}{server})", hint


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, and the errors that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_network(error: BaseException) -> bool:
    library = type(error).__module__.partition(".")[0]
    return library in ("httpx", "httpx2", "httpcore", "requests", "urllib3") or isinstance(
        error, (ConnectionError, TimeoutError)
    )


def _scrub(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "(token)")
    return text
