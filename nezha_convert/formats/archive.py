"""Archives (.zip, .tar) of a folder: their plain files are unpacked to a temporary folder, anything else is refused."""

from __future__ import annotations

import errno
import gzip
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader, FileIO, RawIOBase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import CheckpointError, OutputError
from ..files.locks import TemporaryFolder

if TYPE_CHECKING:
    import lzma

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""How an archive's name ends. Files of torch may end so too: those are told by their content."""

MAX_MEMBERS = 10_000
MAX_RATIO = 100
"""How many times its own size an archive may unpack to. Trained weights give 1 to 2, tables of positions give 50."""

ALWAYS_ALLOWED = 64 << 20
"""Bytes that are unpacked whatever the ratio. Small models of zeros are not an attack."""

MAX_XZ_MEMORY = 66 << 20
"""The memory that a file of ``xz -9`` needs. An .xz file of sixty bytes may ask for four gigabytes."""

_CHUNK = 1 << 20
_T = TypeVar("_T")
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, LookupError),
    *(OSError, EOFError, ValueError, OverflowError, NotImplementedError, RuntimeError),
)
"""What the libraries raise for damaged files."""

_ELSEWHERE = "Unpack it where there is room and name the folder, or set TMPDIR."
_UNPACK = "Unpack it yourself and name the folder."
_BY_HAND = "If it is what you expect, unpack it yourself and name the folder."
_PLAIN = "Pack the files themselves, without links and passwords: tar --dereference -cf FILE.tar FOLDER"


class _Member(NamedTuple):
    """A plain file in an archive: its name, its size according to the archive, and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether `path` is a file with the name of an archive."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def unpack(path: Path) -> TemporaryFolder:
    """The plain files of the archive `path`, in a temporary folder of their own.

    Raises:
        CheckpointError: it is damaged; it unpacks to far more than its size; or it holds a link,
            a device, the same name twice, or a name that leads out of the folder.
        OutputError: there is no room to unpack it.
    """
    unpacked = TemporaryFolder()
    try:
        _unpack(path, unpacked.path)
    except BaseException:
        unpacked.remove()
        raise
    return unpacked


def _unpack(path: Path, folder: Path) -> None:
    allowed = max(ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size)
    total = 0
    try:
        for member in _zip(path) if path.suffix.lower() == ".zip" else _tar(path):
            total += member.size
            if total > allowed:
                raise CheckpointError(
                    f"{path}: refused: it unpacks to more than {MAX_RATIO} times its size", hint=_BY_HAND
                )
            free = shutil.disk_usage(folder).free
            if member.size > free:
                raise OutputError(
                    f"{path}: {member.name} needs {member.size:,} bytes to be unpacked, {folder.parent} has {free:,}",
                    hint=_ELSEWHERE,
                )
            _write(member, _place(path, folder, member.name), path)
    except ModuleNotFoundError as error:  # a Python that was built where the library of bzip2 or xz was not
        raise CheckpointError(
            f"{path}: this Python has no module {error.name}, which unpacks it", hint=_UNPACK
        ) from error
    except _DAMAGED as error:
        hint = "The archive is damaged or cut short: copy it again from where it came from."
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{path}: no room to unpack it ({error.strerror})", hint=_ELSEWHERE) from error
        raise CheckpointError(
            f"{path}: cannot be unpacked ({type(error).__name__}: {error})",
            hint=_BY_HAND if "Memory usage limit" in str(error) else _UNPACK if "(missing)" in str(error) else hint,
        ) from error


def _place(path: Path, folder: Path, name: str) -> Path:
    """Where `name` belongs in `folder`. A name that leads out of it is refused."""
    windows, parts = PureWindowsPath(name), PurePosixPath(name).parts
    if not parts or windows.drive or windows.root or "\\" in name or ".." in parts:
        raise CheckpointError(f"{path}: refused: the name {name!r} leads out of the folder that it is unpacked to")
    place = folder.joinpath(*parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _write(member: _Member, place: Path, path: Path) -> None:
    """Write a member to `place`. It must not exist yet, and the data must have the size that the archive says."""
    left = member.size
    if place.exists():
        raise CheckpointError(f"{path}: refused: {member.name!r} is in it twice")
    with open(place, "xb") as file, member.open() as data:
        while chunk := data.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            file.write(chunk)
    if left:
        raise CheckpointError(f"{path}: {member.name!r} is not as long as the archive says: {member.size:,} bytes")


def _zip(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in _few(path, members):
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if the archive does not record it
            if member.filename.endswith("/") or _is_litter(member.filename):  # is_dir() fails for an empty name
                continue
            if kind not in (0, stat.S_IFREG) or member.flag_bits & 1:
                what = "encrypted" if member.flag_bits & 1 else "not a plain file"
                raise CheckpointError(f"{path}: refused: {member.filename!r} is {what}", hint=_PLAIN)
            if member.compress_type not in _ZIP_METHODS:  # LZMA would take as much memory as the file asks for
                raise CheckpointError(
                    f"{path}: refused: {member.filename!r} is compressed by method {member.compress_type}; "
                    "expected stored, deflate or bzip2",
                    hint=_BY_HAND,
                )
            yield _Member(member.filename, member.file_size, lambda member=member: archive.open(member))  # type: ignore[misc]


def _tar(path: Path) -> Iterator[_Member]:
    with (
        _TAR_STREAMS[path.suffix.lower()](path) as stream,
        tarfile.open(fileobj=_Guarded(stream, path), mode="r:") as archive,  # type: ignore[call-overload]
    ):
        for member in _few(path, archive):
            if member.isdir() or _is_litter(member.name):
                continue
            if not member.isreg() or member.issparse():
                raise CheckpointError(f"{path}: refused: {member.name!r} is not a plain file", hint=_PLAIN)
            yield _Member(member.name, member.size, lambda member=member: archive.extractfile(member))  # type: ignore[misc]


def _few(path: Path, members: Iterable[_T]) -> Iterator[_T]:
    """`members`, unless there are too many. Folders count too."""
    for count, member in enumerate(members):
        if count == MAX_MEMBERS:
            raise CheckpointError(f"{path}: refused: it holds more than {MAX_MEMBERS:,} files", hint=_BY_HAND)
        yield member


class _Xz(RawIOBase):
    """The unpacked bytes of an .xz file, like `lzma.open`, but with a limit on memory."""

    def __init__(self, path: Path) -> None:
        self._file = FileIO(path)
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(0)
        self._packed, self._position, self._unpacker = b"", 0, _xz_unpacker()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        unpacked = b""
        while not unpacked:
            if self._unpacker.eof:  # another stream may follow, after zeros
                rest = self._unpacker.unused_data.lstrip(b"\0")
                while not rest and (more := self._file.read(_CHUNK)):
                    rest = more.lstrip(b"\0")
                if not rest:
                    return 0
                self._packed, self._unpacker = rest, _xz_unpacker()
            elif self._unpacker.needs_input and not self._packed:
                self._packed = self._file.read(_CHUNK)
                if not self._packed:
                    raise EOFError("it ends in the middle")
            try:
                unpacked, self._packed = self._unpacker.decompress(self._packed, len(buffer)), b""
            except Exception as error:  # lzma.LZMAError, which has no other base
                raise ValueError(str(error)) from error
        buffer[: len(unpacked)] = unpacked
        self._position += len(unpacked)
        return len(unpacked)

    def seek(self, position: int, whence: int = 0) -> int:
        """Forward by unpacking what lies between; backward by starting again."""
        if whence:
            raise ValueError("an .xz stream can only be sought from its beginning")
        if position < self._position:
            self._rewind()
        while self._position < position and self.read(min(_CHUNK, position - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._file.close()
        super().close()


def _xz_unpacker() -> lzma.LZMADecompressor:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)


def _bz2(path: Path) -> IO[bytes]:
    import bz2

    return bz2.open(path)


_TAR_STREAMS: dict[str, Callable[[Path], Any]] = {
    ".tar": FileIO,
    **dict.fromkeys((".gz", ".tgz"), gzip.open),
    **dict.fromkeys((".bz2", ".tbz2"), _bz2),
    **dict.fromkeys((".xz", ".txz"), lambda path: BufferedReader(_Xz(path), _CHUNK)),
}


class _Guarded:
    """A stream that refuses to read more than a chunk at once: the headers of a tar may claim any length."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise CheckpointError(f"{self._path}: refused: a header in it claims {size:,} bytes for itself")
        return self._stream.read(size)


def _is_litter(name: str) -> bool:
    """Whether macOS added `name` to the archive by itself."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith("._") for part in parts[-1:])
