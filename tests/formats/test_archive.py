"""Archives of a folder: unpacked as plain files, to one temporary folder, or refused."""

from __future__ import annotations

import gc
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import FIXTURES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nezha_convert import convert
from nezha_convert.errors import CheckpointError, NezhaConvertError, OutputError, UsageError
from nezha_convert.formats import archive
from nezha_convert.formats.open import open_checkpoint

SOURCE = FIXTURES / "huawei-torch-pretraining"
KINDS = pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar"])


def pack(kind: str, folder: Path, to: Path) -> Path:
    return Path(shutil.make_archive(str(to), kind, folder))


def tar_of(path: Path, members: Iterable[tarfile.TarInfo | tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for member in members:
            if isinstance(member, tuple):
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
            else:
                tar.addfile(member)
    return path


def zip_of(path: Path, members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def temporary_folders(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "tmp").glob("nezha-convert-*"))


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


@KINDS
def test_the_tensors_are_those_of_the_folder_and_the_temporary_one_goes_with_them(kind: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(pack(kind, SOURCE, tmp_path / "model"))
    plain = open_checkpoint(SOURCE)
    assert checkpoint.entries.keys() == plain.entries.keys()
    assert all(np.array_equal(entry.read(), plain.entries[name].read()) for name, entry in checkpoint.entries.items())
    assert checkpoint.config is not None
    assert checkpoint.config.read_bytes() == (SOURCE / "bert_config.json").read_bytes()
    assert [decision.field for decision in checkpoint.decisions] == ["archive"]
    assert len(temporary_folders(tmp_path)) == 1
    del checkpoint, plain
    gc.collect()
    assert not temporary_folders(tmp_path)


def test_an_archive_converts_and_its_report_says_where_the_weights_were(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "in" / "deep" / "er")
    (tmp_path / "in" / "README.txt").write_text("about it")
    report = convert(pack("zip", tmp_path / "in", tmp_path / "model"), tmp_path / "out")
    said = next(decision for decision in report.decisions if decision.field == "archive")
    assert said.value == "model.zip"
    assert str(Path("deep", "er")) in said.reason
    gc.collect()
    assert not temporary_folders(tmp_path)


def test_several_checkpoints_are_listed_and_none_is_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(SOURCE, tmp_path / "in" / name)
    with pytest.raises(UsageError, match=r"2 folders: a, b"):
        open_checkpoint(pack("tar", tmp_path / "in", tmp_path / "model"))
    with pytest.raises(CheckpointError, match="it holds no checkpoint"):
        open_checkpoint(zip_of(tmp_path / "none.zip", [("notes.txt", b"nothing")]))
    gc.collect()
    assert not temporary_folders(tmp_path)


NAMES = [
    "../model.bin",
    "a/../../model.bin",
    "/etc/model.bin",
    "C:/model.bin",
    "C:model.bin",
    "..\\model.bin",
    "//host/m.bin",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    make = zip_of if kind == "zip" else tar_of
    path = make(tmp_path / f"m.{kind}", [("ok.txt", b"1"), (name, b"evil")])
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        open_checkpoint(path)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("pytorch_model.bin")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(CheckpointError, match="is not a plain file") as caught:
        open_checkpoint(tar_of(tmp_path / "m.tar", [member]))
    assert "--dereference" in caught.value.hint


def test_links_and_passwords_of_a_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("pytorch_model.bin")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(CheckpointError, match="is not a plain file"):
        open_checkpoint(zip_of(tmp_path / "m.zip", [(link, b"/etc/passwd")]))
    path = zip_of(tmp_path / "n.zip", [("a.txt", b"secret")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is encrypted"):
        open_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_stands_twice_is_refused(kind: str, tmp_path: Path) -> None:
    make = zip_of if kind == "zip" else tar_of
    with pytest.raises(CheckpointError, match=r"a\.txt' is in it twice"):
        open_checkpoint(
            make(tmp_path / f"m.{kind}", [("a.txt", b"1"), ("./a.txt" if kind == "tar" else "a.txt", b"2")])
        )


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_a_bomb_is_refused_before_it_is_unpacked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED", 1000)
    monkeypatch.setattr(archive, "_write", lambda *arguments: pytest.fail("it was unpacked"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "model.bin").write_bytes(bytes(2_000_000))
    with pytest.raises(CheckpointError, match="more than 100 times its size"):
        open_checkpoint(pack(kind, tmp_path / "in", tmp_path / "model"))


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    for path in (
        zip_of(tmp_path / "m.zip", [(f"{i}/", b"") for i in range(4)]),
        tar_of(tmp_path / "m.tar", [(f"{i}.txt", b"") for i in range(4)]),
    ):
        with pytest.raises(CheckpointError, match="more than 3 files"):
            open_checkpoint(path)


def test_a_header_of_a_tar_cannot_claim_the_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "m.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(CheckpointError, match="claims"):
        open_checkpoint(tmp_path / "m.tar")


def xz_of(path: Path, *pieces: bytes, padding: int = 0, preset: int = 0) -> Path:
    """Streams of .xz one after another, as tools that work in parallel write them."""
    path.write_bytes(b"".join(lzma.compress(piece, preset=preset) + bytes(padding) for piece in pieces))
    return path


@pytest.mark.parametrize("padding", [0, 4, 1 << 20])
def test_an_xz_file_of_several_streams_is_one(padding: int, tmp_path: Path) -> None:
    whole = pack("tar", SOURCE, tmp_path / "plain").read_bytes()
    path = xz_of(tmp_path / "m.tar.xz", whole[:5000], whole[5000:5001], whole[5001:], padding=padding)
    assert open_checkpoint(path).entries.keys() == open_checkpoint(SOURCE).entries.keys()


def test_an_xz_file_is_read_from_any_place_as_lzma_reads_it(tmp_path: Path) -> None:
    whole = bytes(range(256)) * 20_000
    path = xz_of(tmp_path / "m.xz", whole[:1_000_000], whole[1_000_000:])
    with archive._Xz(path) as ours, lzma.open(path) as theirs:
        for position, count in ((0, 10), (2_000_000, 300), (5, 5), (5_119_999, 9), (9_999_999, 1), (1_000_000, 1)):
            assert ours.seek(position) == theirs.seek(position)
            assert ours.read(count) == theirs.read(count)
            assert ours.tell() == theirs.tell()
        with pytest.raises(ValueError, match="from its beginning"):
            ours.seek(0, 2)


def test_an_xz_file_may_ask_for_what_its_best_compression_needs_and_no_more(tmp_path: Path) -> None:
    whole = pack("tar", SOURCE, tmp_path / "plain").read_bytes()
    path = xz_of(tmp_path / "m.tar.xz", whole, preset=9)
    assert open_checkpoint(path).entries
    data = bytearray(path.read_bytes())
    place = data.index(b"\x21\x01", 12)
    data[place + 2] += 6  # eight times the dictionary
    end = 12 + 4 * data[12]
    data[end : end + 4] = zlib.crc32(data[12:end]).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="Memory usage limit") as caught:
        open_checkpoint(path)
    assert "unpack it yourself" in caught.value.hint


def test_an_xz_file_that_ends_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = xz_of(tmp_path / "m.tar.xz", pack("tar", SOURCE, tmp_path / "plain").read_bytes())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="ends in the middle"):
        open_checkpoint(path)


def test_a_zip_s_member_that_is_packed_by_lzma_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="compressed by method 14; expected stored, deflate or bzip2"):
        open_checkpoint(zip_of(tmp_path / "m.zip", [("a.txt", b"x" * 100)], zipfile.ZIP_LZMA))


def test_a_zip_s_member_without_a_name_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "m.zip", [("n.txt", b"x")])
    path.write_bytes(path.read_bytes().replace(b"n.txt", b"\0.txt"))  # zipfile ends a name there
    with pytest.raises(CheckpointError, match="the name ''"):
        open_checkpoint(path)


def test_a_file_longer_than_declared_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "m.zip", [("a.txt", b"x" * 100)])
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = (50).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"m\.zip"):
        open_checkpoint(path)


def test_no_room_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage())
    with pytest.raises(OutputError, match="needs 6 bytes") as caught:
        open_checkpoint(zip_of(tmp_path / "m.zip", [("a.txt", b"123456")]))
    assert "TMPDIR" in caught.value.hint


class Usage:
    free = 5


@pytest.mark.parametrize("name", ["model.zip", "best.pth.tar", "model"])
def test_a_torch_file_is_no_archive_whatever_its_name(name: str, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / name)
    assert open_checkpoint(tmp_path / name).format == "torch"
    assert open_checkpoint(tmp_path).path.name == name


def test_what_macos_adds_is_left_out(tmp_path: Path) -> None:
    members = [(path.name, path.read_bytes()) for path in SOURCE.iterdir() if path.suffix != ".npz"]
    litter = [("__MACOSX/._pytorch_model.bin", b"litter"), ("._pytorch_model.bin", b"litter")]
    assert open_checkpoint(zip_of(tmp_path / "m.zip", [*members, *litter])).format == "torch"


FRACTION = st.floats(0, 1, exclude_max=True)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["zip", "tar", "gztar", "xztar"]),
    cut=st.one_of(st.none(), FRACTION),
    damage=st.lists(st.tuples(FRACTION, st.integers(1, 255)), max_size=4),
)
def test_damage_raises_nothing_but_our_errors_and_leaves_nothing_behind(
    kind: str, cut: float | None, damage: list[tuple[float, int]], tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("[PAD]\nword\n" * 9)
    path = pack(kind, folder, tmp_path / "model")
    whole = bytearray(path.read_bytes())
    for place, change in damage:
        whole[int(place * len(whole))] ^= change
    path.write_bytes(whole if cut is None else whole[: int(cut * len(whole))])
    with pytest.raises(NezhaConvertError):  # a sound archive is refused too, for it holds no checkpoint
        open_checkpoint(path)
    gc.collect()
    assert not temporary_folders(tmp_path)
