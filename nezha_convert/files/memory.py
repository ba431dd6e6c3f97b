"""The limit of a process's address space (`ulimit -v`), under which libraries end the process by themselves."""

from __future__ import annotations

MIB = 1 << 20


def address_space() -> int | None:
    """How many bytes of addresses this process may have; None where nothing limits it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def need_addresses(nbytes: int, what: str) -> None:
    """Raises MemoryError where the limit is below the `nbytes` that `what` needs."""
    limit = address_space()
    if limit is not None and limit < nbytes:
        raise MemoryError(f"the address space is limited to {limit // MIB} MiB; {what} needs {nbytes // MIB}")
