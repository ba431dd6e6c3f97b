"""The modules of sentence-transformers that lie beside an encoder: pooling, dense layers, and their order.

Sources: sentence-transformers 2.2 to 5 (SentenceTransformer.py, save and _load_sbert_model; models/*.py).
`modules.json` lists the modules; each has a folder with its config.json and, if it has tensors, pytorch_model.bin or
model.safetensors. The first one is the encoder, which lies in the folder itself, or in one of its own before 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoint import Decision, Origin
from ..errors import CheckpointError
from ..files.json import read_json
from ..files.state import leads_outside
from ..text import printable_json
from .safetensors import ORDER, header
from .tensor import raw
from .torch.read import read_torch

LISTING = "modules.json"
_SETTINGS = ("config_sentence_transformers.json", "sentence_bert_config.json")
_WEIGHTS, _SAFE = "pytorch_model.bin", "model.safetensors"
_COPIED = (".json", ".txt", ".safetensors")
_OWN = "sentence_transformers."
_MAX_BYTES, _MAX_FILES = 1 << 29, 256
"""The most that the files beside an encoder may have."""


@dataclass(frozen=True, slots=True)
class Modules:
    """What lies beside an encoder; nothing, where no list of modules does.

    Attributes:
        encoder: the encoder's folder.
        listed: the list of the modules.
        files: where each file comes from, by the name that it gets beside the encoder.
        listing: the list, with the encoder in the folder itself.
        left_out: what is not kept: code of its own, and files that are neither settings nor tensors.
    """

    encoder: Path
    listed: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    listing: bytes = b""
    left_out: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that are read."""
        return (*filter(None, (self.listed,)), *self.files.values()) if self.listing else ()

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What is kept, and what is not."""
        kept = Decision(LISTING, f"{len(self.files)} files", "sentence-transformers' modules are kept", Origin.FILE)
        left = Decision(LISTING, "left out", f"not kept: {', '.join(self.left_out)}"[:1000], Origin.FILE)
        return (*((kept,) if self.listing else ()), *((left,) if self.left_out else ()))

    def contents(self) -> dict[str, bytes]:
        """The bytes of each file. Pickles of tensors become safetensors.

        Raises:
            CheckpointError: one of them is damaged, or they are too large to be modules of an encoder.
        """
        if not self.listing:
            return {}
        if sum(path.stat().st_size for path in self.files.values()) > _MAX_BYTES or len(self.files) > _MAX_FILES:
            raise CheckpointError(
                f"{self.listed}: its modules have more than {_MAX_BYTES:,} bytes, or {_MAX_FILES} files"
            )
        contents = {name: _content(path) for name, path in self.files.items()}
        return {**contents, LISTING: self.listing}


def modules_beside(encoder: Path) -> Modules:
    """The modules beside the encoder whose folder is `encoder`; the list lies in it, or in the folder above.

    Raises:
        CheckpointError: as `modules_in`.
    """
    found = (modules_in(folder) for folder in (encoder, encoder.parent))
    return next((one for one in found if one and one.encoder.resolve() == encoder.resolve()), Modules(encoder))


def modules_in(folder: Path) -> Modules | None:
    """The modules that `folder` has; None if it is no folder of sentence-transformers.

    Raises:
        CheckpointError: its list is none, or it names something outside of its folder.
    """
    listed = folder / LISTING
    if not listed.is_file():
        return None
    try:
        modules = read_json(listed)
        places = [module["path"] for module in modules]
        kinds = [module["type"] for module in modules]
        sound = bool(places) and all(isinstance(text, str) for text in (*places, *kinds))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{listed}: no list of modules ({type(error).__name__}: {error})") from error
    if not sound:
        raise CheckpointError(f"{listed}: no list of modules")
    for place in places:
        if place in (".", "..") or any(sign in place for sign in "/\\\0") or leads_outside(folder / place / ""):
            raise CheckpointError(f"{listed}: module {place!r} lies outside of its folder; refused")
    encoder = folder / places[0]
    own = [kind for kind in kinds if not kind.startswith(_OWN)]
    if own:  # its code would have to be run, and is not copied
        return Modules(encoder, listed, left_out=tuple(f"{kind}, code of its own" for kind in own))
    files = {path.name: path for path in _settings(folder, encoder)}
    left_out = []
    for place in filter(None, places[1:]):
        for path in _inside(folder / place):
            name = path.relative_to(folder).as_posix()
            if path.name == _WEIGHTS:
                files.setdefault(name.removesuffix(_WEIGHTS) + _SAFE, path)
            elif path.suffix in _COPIED:
                files[name] = path
            else:
                left_out.append(name)
    first = {**modules[0], "path": ""}
    listing = f"{printable_json([first, *modules[1:]])}\n".encode()
    return Modules(encoder, listed, files, listing, tuple(left_out))


def _settings(folder: Path, encoder: Path) -> Iterator[Path]:
    for name in _SETTINGS:
        path = next((place / name for place in (encoder, folder) if (place / name).is_file()), None)
        if path:
            yield path


def _inside(folder: Path) -> Iterator[Path]:
    """The files of a module's folder. None of them may be a link that leads out of it."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if leads_outside(path):
            raise CheckpointError(f"{path}: a link out of its folder; refused")
        if path.is_file():
            yield path


def _content(path: Path) -> bytes:
    if path.name != _WEIGHTS:
        return path.read_bytes()
    entries = list(read_torch((path,)).entries.values())
    entries.sort(key=lambda entry: (ORDER[entry.dtype], entry.name))
    data = b"".join(raw(entry.read()).tobytes() for entry in entries)
    return header((entry.name, entry.dtype, entry.shape) for entry in entries) + data
