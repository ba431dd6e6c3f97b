"""Files that a stranger made to run something, or to cost more than their size: a corpus for the readers of pickles.

``python -m fuzz.hostile`` writes those of `files` to the corpus. Each is shorter than 100 kB.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

MANY = 2000
"""How often something is repeated that would multiply."""


def text(value: str) -> bytes:
    """The step that pushes a text."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def sized(code: bytes, form: str, size: int, data: bytes = b"") -> bytes:
    """A step that begins with a length."""
    return code + struct.pack(form, size) + data


SOUND = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    + b"K\x06tQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR"
)  # fmt: skip
"""The steps that make a tensor of 2 x 3 in storage 0."""


def state(*beside: bytes) -> bytes:
    """The pickle of a dictionary with a tensor, and beside it the values that these steps make."""
    items = b"".join(text(f"x{number}") + steps for number, steps in enumerate(beside))
    return b"\x80\x02}(" + text("w") + SOUND + items + b"u."


def zipped(
    data: bytes, records: tuple[bytes, ...] = (struct.pack("<6f", *range(6)),), order: bytes = b"little"
) -> bytes:
    """A file of torch 1.6 and later."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        members = {"data.pkl": data, "byteorder": order, "version": b"3\n"}
        members |= {f"data/{number}": record for number, record in enumerate(records)}
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"m/{name}"), content)  # of 1980, the same each time
    return out.getvalue()


def zip64(
    data: bytes,
    size: int | None = None,
    offset: int | None = None,
    local: int | None = None,
    entries: int | None = None,
    directory: int | None = None,
    cut: int = 24,
) -> bytes:
    """A file of torch whose sizes and places stand in the fields of 64 bits (.ZIP File Format, 4.5.3, 4.3.14).

    Args:
        size, offset, local: what the record of the storage claims: its size, where it lies, its size in its own header.
        entries, directory: how many members the file claims, and where their list begins.
        cut: bytes of the field that the directory has for the record.
    """
    out, listed = b"", b""
    members = {
        "m/data.pkl": data,
        "m/byteorder": b"little",
        "m/version": b"3\n",
        "m/data/0": struct.pack("<6f", *range(6)),
    }
    for name, content in members.items():
        lies = name == "m/data/0"
        real = struct.pack("<QQ", len(content), len(content))
        said = struct.pack("<QQ", size, size) if lies and size is not None else real
        here = struct.pack("<QQ", local, local) if lies and local is not None else real
        place = offset if lies and offset is not None else len(out)
        extra = struct.pack("<HH", 1, 24) + said + struct.pack("<Q", place)
        extra = struct.pack("<HH", 1, cut) + extra[4 : 4 + cut] if lies else extra
        common = struct.pack("<HHHHHIIIH", 45, 0, 0, 0, 33, zlib.crc32(content), 2**32 - 1, 2**32 - 1, len(name))
        listed += (
            b"PK\x01\x02" + struct.pack("<H", 45) + common + struct.pack("<HHHHII", len(extra), 0, 0, 0, 0, 2**32 - 1)
        )
        listed += name.encode() + extra
        out += (
            b"PK\x03\x04" + common + struct.pack("<H", 20) + name.encode() + struct.pack("<HH", 1, 16) + here + content
        )
    many, at = len(members) if entries is None else entries, len(out) if directory is None else directory
    end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, many, many, len(listed), at)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(out) + len(listed), 1)
    return (
        out
        + listed
        + end
        + locator
        + b"PK\x05\x06"
        + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    )


def legacy(data: bytes, keys: tuple[str, ...] = ("0",)) -> bytes:
    """A file of torch before 1.6."""
    head = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
    return head + data + pickle.dumps(list(keys), 2) + struct.pack("<q6f", 6, *range(6))


def doubled(first: bytes, twice: bytes, times: int = 60) -> bytes:
    """Steps that make something, then put it into another one twice, again and again."""
    return first + b"q\x00" + (b"0" + twice + b"q\x00") * times


def module(items: bytes, parameters: bytes = b"}") -> bytes:
    """Steps that make a pickled module with these items of ``_modules``."""
    made = b"cnn\nModule\n)R}(" + text("_parameters") + parameters + text("_modules") + b"}(" + items + b"u"
    return made + text("_buffers") + b"}ub"


def repeated(key: str, item: bytes, times: int = MANY) -> bytes:
    """Items of a dictionary, each with another key."""
    return b"".join(text(f"{key}{number}") + item for number in range(times))


DEEP = doubled(b")", b"h\x00h\x00\x86")
WIDE = b"(" + b"K\x00" * 1000 + b"l"
BIG = b"\x8a\xff" + b"\xff" * 254 + b"\x7f"
STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
TYPE = (
    b"cnumpy\ndtype\n"
    + text("f4")
    + b"\x89\x88\x87R(K\x03"
    + text("<")
    + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)


def array(shape: bytes, kind: bytes = TYPE, by_columns: bytes = b"\x89") -> bytes:
    """Steps that make an array of NumPy with 16 bytes of data."""
    return ARRAY + b"(K\x01" + shape + kind + by_columns + b"C\x10" + bytes(16) + b"tb"


def of_type(code: str) -> bytes:
    """Steps that make an element type of NumPy."""
    return b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R"


def joblib(shape: bytes, kind: bytes = TYPE) -> bytes:
    """Steps that make an array as joblib writes it; its data would follow."""
    made = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(" + text("dtype") + kind + text("shape") + shape
    return made + text("order") + text("C") + b"ub"


def tar(storages: bytes, tensors: bytes = b"", content: bytes = b"\x80\x02}.") -> bytes:
    """A file of torch 0.1.10."""
    out = b""
    for name, data in ((b"storages", storages), (b"tensors", tensors), (b"pickle", content)):
        block = bytearray(512)
        block[: len(name)], block[100:107], block[124:135] = name, b"0000644", b"%011o" % len(data)
        block[148:156], block[257:265] = b" " * 8, b"ustar\x0000"
        block[148:156] = b"%06o\0 " % sum(block)
        out += bytes(block) + data + bytes(-len(data) % 512)
    return out + bytes(1024)


def tar_of(tensors: dict[str, np.ndarray]) -> bytes:
    """A dictionary of tensors, each in a storage of its own, as torch 0.1.10 wrote it."""
    storages, content = pickle.dumps(len(tensors), 2), b""
    parts = storages
    for number, (name, array) in enumerate(tensors.items()):
        kind = {"float32": b"Float", "int64": b"Long"}[array.dtype.name]
        key, tensor = (sized(b"J", "<i", first + number) for first in (1000, 2000))
        storages += b"\x80\x02(" + key + text("cpu") + b"ctorch\n" + kind + b"Storage\nt."
        storages += struct.pack("<q", array.size) + array.tobytes()
        strides = (stride // array.itemsize for stride in array.strides)
        parts += b"\x80\x02(" + tensor + key + b"ctorch\n" + kind + b"Tensor\nt."
        parts += struct.pack(f"<i4x{2 * array.ndim + 1}q", array.ndim, *array.shape, *strides, 0)
        content += text(name) + text(str(2000 + number)) + b"Q"
    return tar(storages + pickle.dumps([], 2), parts, b"\x80\x02}(" + content + b"u.")


def sound_tar() -> bytes:
    """A dictionary of two tensors in one storage, as torch 0.1.10 wrote it."""
    storages = pickle.dumps(1, 2) + b"\x80\x02(K\x07" + text("cpu") + b"ctorch\nFloatStorage\nt."
    storages += struct.pack("<q6f", 6, *range(6)) + pickle.dumps([], 2)
    tensors = pickle.dumps(2, 2)
    for key, sizes, strides, start in ((1, (2, 3), (3, 1), 0), (2, (2, 2), (1, 3), 1)):
        tensors += b"\x80\x02(" + bytes((75, key)) + b"K\x07ctorch\nFloatTensor\nt."
        tensors += struct.pack("<i4x5q", 2, *sizes, *strides, start)
    return tar(storages, tensors, b"\x80\x02}(" + text("a") + text("1") + b"Q" + text("b") + text("2") + b"Qu.")


def sound_joblib() -> bytes:
    """A dictionary of an array, as joblib writes it."""
    return b"\x80\x02}" + text("a") + joblib(b"K\x02K\x03\x86") + struct.pack("<6f", *range(6)) + b"s."


PICKLES: dict[str, bytes] = {
    "build-on-a-class": state(b"cos\nsystem\n}" + text("x") + text("y") + b"sb"),
    "build-on-a-tensor": state(SOUND + b"}" + text("__class__") + b"cos\nsystem\nsb"),
    "build-on-a-type": state(TYPE + b"(K\x03" + text("|") + b"NN(" + text("a") + b"tJ\xff\xff\xff\x7fK\x00tb"),
    "call-of-what-a-call-made": state(b"cos\nsystem\n)R" + text("true") + b"\x85R"),
    "call-of-an-instance": state(b"(cos\nsystem\n" + text("true") + b"o", b"(" + text("true") + b"ios\nsystem\n"),
    "instances-in-each-other": state(b"(" * 5000 + b"ios\nsystem\n" * 5000),
    "extension-codes": state(b"\x82\x01", b"\x83\x01\x01", b"\x84\x01\x01\x01\x01"),
    "array-made-of-terabytes": state(b"cnumpy\nndarray\nJ\xff\xff\xff\x7fM\xff\xff\x86\x85R"),
    "tensor-with-a-list-of-sizes": state(SOUND.replace(b"K\x02K\x03\x86", b"](J\xff\xff\xff\x7fJ\xff\xff\xff\x7fe")),
    "conjugate-tensor-past-its-storage": state(
        SOUND.replace(b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86")[:-2]
        + b"}" + text("conj") + b"\x88stR"
    ),
    "subclass-with-a-list-of-arguments": state(
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n"
        + SOUND[len(b"ctorch._utils\n_rebuild_tensor_v2\n"):-2].replace(b"K\x02K\x03", b"J\xff\xff\xff\x7fK\x01")
        + b"l}tR"
    ),
    "buffers-out-of-band": state(b"\x97", b"\x98"),
    "storage-of-a-wrong-type": state(STORAGE.replace(b"ctorch\nFloatStorage\n", b"K\x01") + text("0") + b"NK\x06tQ"),
    "storage-whose-key-leads-out": state(STORAGE + text("../../etc/passwd") + b"NK\x06tQ"),
    "storage-whose-key-is-a-number": state(STORAGE + b"K\x00NK\x06tQ"),
    "storage-with-a-negative-count": state(STORAGE + text("0") + b"NJ\xfa\xff\xff\xfftQ"),
    "storage-with-a-count-of-2-to-the-2000": state(STORAGE + text("0") + b"N" + BIG + b"tQ"),
    "lists-of-2-to-the-60-items": state(doubled(b"]", b"](h\x00h\x00e")),
    "dictionaries-of-2-to-the-60-items": state(
        doubled(b"}", b"}(" + text("a") + b"h\x00" + text("b") + b"h\x00u"),
        doubled(b"}", b"ccfg\nC\n)R}(" + text("a") + b"h\x00" + text("b") + b"h\x00ub"),
    ),
    "modules-of-2-to-the-60-tensors": state(
        doubled(module(b"", b"}(" + text("v") + SOUND + b"u"), module(text("a") + b"h\x00" + text("b") + b"h\x00"))
    ),
    "module-in-itself": state(b"cnn\nModule\n)Rq\x01}(" + text("_parameters") + b"}" + text("_modules") + b"}"
                              + text("a") + b"h\x01sub"),
    "module-with-names-of-kilobytes": state(
        doubled(module(b"", b"}(" + repeated("p", b"K\x00") + b"u"), module(text("n" * 900) + b"h\x00"))
    ),
    "module-with-a-list-of-buffers": state(module(b"").replace(b"}ub", b"]ub"), module(b"K\x01K\x02)]" )),
    "modules-with-a-set-of-thousands": state(
        doubled(
            module(b"")[:-2] + text("_non_persistent_buffers_set") + b"\x8f(" + repeated("", b"")
            + b"\x90ub", module(text("a") + b"h\x00" + text("b") + b"h\x00")
        )
    ),
    "modules-with-a-list-of-thousands": state(
        doubled(
            module(b"", b"}(" + repeated("p", SOUND, 5) + b"u")[:-2] + text("_non_persistent_buffers_set")
            + b"ccfg\nC\n)R(" + repeated("", b"") + b"eub", module(text("a") + b"h\x00" + text("b") + b"h\x00")
        )
    ),
    "modules-10000-deep": state(doubled(module(b""), module(text("a") + b"h\x00"), 1000)),
    "dictionary-in-itself": state(b"}q\x01" + text("self") + b"h\x01s", b"]q\x02h\x02a"),
    "key-of-a-list-in-itself": state(
        b"}(]q\x01h\x01a\x85K\x01u", b"}(" + doubled(b"]", b"](h\x00h\x00e") + b"\x85K\x01u"
    ),
    "keys-with-one-hash": state(
        b"}("
        + b"".join(sized(b"\x8a", "<B", 16, ((2**61 - 1) * n).to_bytes(16, "little")) + b"N" for n in range(4000))
        + b"u"
    ),
    "pairs-with-a-deep-key": state(b"ccollections\nOrderedDict\n((" + DEEP + b"K\x01ttR"),
    "texts-and-pairs-with-a-deep-key": state(
        b"ccollections\nOrderedDict\n((" + text("ab") + b"(" + DEEP + b"K\x01tltR"
    ),
    "memory-at-2-to-the-32": state(b"Nr\xff\xff\xff\xff"),
    "memory-at-a-number-of-kilobytes": state(b"Np" + b"9" * 4000 + b"\n"),
    "frame-of-terabytes": state(b"\x95" + struct.pack("<Q", 1 << 42) + b"N"),
    "text-without-quotes": state(b"S'x\n"),
    "text-of-half-a-pair": b"\x80\x02}(V\\ud800\n" + SOUND + b"Va\\ud800\nK\x01u.",
    "number-of-kilobytes": state(b"}(" + text("hidden_size") + sized(b"\x8b", "<i", 4000, b"\x7f" * 4000)
                                 + text("num_attention_heads") + b"K\x01" + text("num_hidden_layers") + b"K\x01u"),
    "settings-of-2-to-the-30-items": state(
        b"ccfg\nC\n)R}(" + text("a") + b"".join(
            [b"(" + b"K\x00" * 1000 + b"lq\x01", b"0(" + b"h\x01" * 1000 + b"lq\x02", b"0(" + b"h\x02" * 1000 + b"l"]
        ) + b"ub"
    ),
    "lists-under-many-keys": state(WIDE + b"q\x01", *[b"h\x01"] * MANY),
    "dictionaries-under-many-keys": state(
        b"}(" + repeated("a", b"}") + b"uq\x01", b"}(" + repeated("b", b"h\x01") + b"uq\x02",
        b"}(" + repeated("c", b"h\x02") + b"u",
    ),
    "torch-file-in-a-torch-file": state(
        b"ctorch.storage\n_load_from_bytes\n"
        + sized(b"B", "<I", len(inner := legacy(state(STORAGE + text("1") + b"NJ\x00\x00\x00\x40tQ"))), inner)
        + b"\x85R"
    ),
    "strides-past-2-to-the-64": state(SOUND.replace(b"K\x03K\x01\x86\x89", BIG + b"K\x01\x86\x89")),
    "sizes-of-2-to-the-2000": state(array(b"(" + BIG + b"t")),
    "build-on-a-dictionary": state(b"ccollections\nOrderedDict\n)R}" + text("__class__") + b"cos\nsystem\nsb"),
    "build-on-a-set": state(b"\x8f}" + text("__class__") + b"cos\nsystem\nsb"),
    "build-on-a-storage": state(STORAGE + text("0") + b"NK\x06tQ}" + text("_cdata") + BIG + b"sb"),
    "build-on-a-function": state(b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("__code__") + b"cos\nsystem\nsb"),
    "build-on-a-parameter": state(
        b"ctorch.nn.parameter\nParameter\n)R(" + STORAGE + text("0") + b"NK\x06tQK\x00J\xff\xff\xff\x7f\x85K\x01\x85tb"
    ),
    "build-with-slots": state(b"cos\nsystem\n)RN}" + text("__setstate__") + b"cos\nsystem\ns\x86b"),
    "build-on-an-attribute-getter": state(b"cbuiltins\ngetattr\n(cos\nsystem\n" + text("__call__") + b"tR}b"),
    "call-through-an-inert-subclass": state(
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n(" + text("true") + b"t}tR"
    ),
    "call-of-a-call-of-a-call": state(
        b"ctorch._tensor\n_rebuild_from_type_v2\nq\x01" + b"(h\x01ctorch\nTensor\nq\x02"
        + b"(h\x01h\x02" * MANY + b")" + b"t" * (MANY + 1) + b"R"
    ),
    "new-objects-of-new-objects": state(
        b"ccopyreg\n__newobj__\n(" + b"ccopyreg\n__newobj__\nq\x01" + b"h\x01" * MANY + b"tR"
    ),
    "call-with-a-list-of-arguments": state(
        SOUND[:-2].replace(b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fK\x03\x86") + b"lR"
    ),
    "call-with-keywords": state(b"cos\nsystem\n)}" + text("command") + text("true") + b"s\x92",
                                b"ctorch\nSize\n(" + BIG + b"t\x85}" + text("a") + b"Ns\x92"),
    "reduce-of-an-inert-one-in-a-key": state(b"}(cos\nsystem\n)RK\x01u"),
    "partial-of-partials": state(b"cfunctools\npartial\ncos\nsystem\n\x85R" + text("true") + b"\x85R)R"),
    "storage-described-twice": state(STORAGE + text("0") + b"NK\x05tQ"),
    "storage-without-a-record": state(STORAGE + text("1") + b"NK\x06tQ"),
    "storage-of-an-inert-class": state(
        STORAGE.replace(b"ctorch\nFloatStorage\n", b"cos\nsystem\n") + text("0") + b"NK\x06tQ"
    ),
    "storage-with-a-view": state(STORAGE + text("0") + b"NK\x06(" + text("1") + b"K\x00K\x02ttQ"),
    "storage-that-is-a-text": state(b"P('storage', 'x')\n"),
    "storage-that-is-a-module": state(
        b"(" + text("module") + b"cos\nsystem\n" + text("a.py") + text("import os") + b"tQ" + text("true") + b"\x85R"
    ),
    "storage-in-a-storage": state(b"(" + text("storage") + STORAGE + text("0") + b"NK\x06tQ" + text("0") + b"NK\x06tQ"),
    "storage-whose-location-is-deep": state(STORAGE + text("2") + DEEP + b"K\x06tQ"),
    "memory-of-many-places": state(b"]" + b"".join(b"r" + struct.pack("<I", place) for place in range(0, 60_000, 20))),
    "memory-at-a-negative-place": state(b"Np-1\n"),
    "memory-of-the-same-thing": state(b"](" + b"K\x00" * 1000 + b"e" + b"\x94" * 5000, b"h\x00" * 1),
    "memory-that-is-empty": state(b"j\xff\xff\xff\x7f"),
    "memory-of-a-mark": state(b"(q\x01"),
    "copies-of-a-mountain": state(WIDE + b"2" * 5000 + b"0" * 5000),
    "instances-of-known-names": state(
        b"(" * MANY + b"itorch\nSize\n" * MANY, b"(ctorch\nSize\nq\x01" + b"(h\x01" * MANY + b"o" * (MANY + 1),
    ),
    "instances-of-tensors": state(
        b"(" + STORAGE + text("0") + b"NK\x06tQK\x00J\xff\xff\xff\x7f\x85K\x01\x85\x89N"
        + b"itorch._utils\n_rebuild_tensor_v2\n"
    ),
    "instance-without-a-class": state(b"(o"),
    "extension-codes-out-of-range": state(b"\x82\x00", b"\x84\xff\xff\xff\xff"),
    "extension-codes-in-each-other": state(b"\x82\x01" + b")R" * 5000),
    "array-of-a-buffer-out-of-band": state(
        b"cnumpy.core.numeric\n_frombuffer\n(\x97\x98" + TYPE + b"K\x02\x85" + text("C") + b"tR"
    ),
    "bytearray-that-is-cut-short": state(b"\x96" + struct.pack("<Q", 1 << 20) + b"x"),
    "frames-in-frames": state(*[b"\x95" + struct.pack("<Q", 4) + b"N"] * 500),
    "protocols-in-the-middle": state(b"\x80\x05\x80\x00N"),
    "whole-number-of-4000-digits": state(b"I" + b"9" * 4000 + b"\n", b"L" + b"9" * 4000 + b"L\n"),
    "fractions-that-are-no-numbers": state(b"Fnan\n", b"F1e999\n", b"F" + b"1" * 4000 + b"\n"),
    "65-dimensions": state(SOUND.replace(b"K\x02K\x03\x86K\x03K\x01\x86", (b"(" + b"K\x01" * 65 + b"t") * 2)),
}  # fmt: skip

ARRAYS: dict[str, bytes] = {
    "array-of-many-dimensions": array(b"(" + BIG + b"q\x01" + b"h\x01" * MANY + b"t", by_columns=b"\x88"),
    "array-of-65-dimensions": array(b"(" + b"K\x01" * 65 + b"t"),
    "array-of-objects": array(b"K\x02\x85", of_type("O8")),
    "array-of-bytes": array(b"K\x02\x85", of_type("V8")),
    "array-of-records": array(b"K\x02\x85", of_type("f4,f4")),
    "array-of-a-type-that-is-evaluated": array(b"K\x02\x85", of_type("(07)f4")),
    "array-of-a-class": array(b"K\x02\x85", b"cnumpy\ndtype\ncos\nsystem\n\x89\x88\x87R"),
    "array-built-twice": array(b"K\x04\x85") + b"(K\x01K\x05\x85" + TYPE + b"\x89C\x10" + bytes(16) + b"tb",
    "joblib-of-terabytes": joblib(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"),
    "joblib-of-a-list-of-terabytes": joblib(b"(](K\x01eJ\xff\xff\xff\x7ft"),
    "joblib-of-a-text-of-gigabytes": joblib(b"(" + text("abc") + b"J\xff\xff\xff\x7ft"),
    "joblib-of-objects": joblib(b"K\x02\x85", of_type("O8")),
    "joblib-of-a-type-that-is-evaluated": joblib(b"K\x02\x85", of_type("(07)f4")),
    "evaluated": b"c__builtin__\neval\n" + text("__import__('os')") + b"}\x86R",
}
"""Arrays of a dictionary of NumPy's."""


def _members() -> dict[str, bytes]:
    """Files whose zip or tar is wrong."""
    sound = zipped(state())
    at = sound.rindex(b"PK\x01\x02")
    method = bytearray(sound)
    method[at + 10] = 12
    flags = bytearray(sound)
    flags[at + 8] |= 1
    flags[struct.unpack_from("<I", sound, at + 42)[0] + 6] |= 1
    one = sound.index(b"PK\x03\x04", 10)
    over = bytearray(sound)
    over[at + 42 : at + 46] = struct.pack("<I", one)
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    return {
        "zip-member-of-bzip2": bytes(method),
        "zip-member-encrypted": bytes(flags),
        "zip-members-over-each-other": bytes(over),
        "zip-without-members-and-a-local-header": sound[:one] + empty.getvalue(),
        "zip-storage-larger-than-its-record": zipped(state(), (bytes(20),)),
        "zip64-as-it-should-be": zip64(state()),
        "zip64-record-of-terabytes": zip64(state(), size=1 << 42),
        "zip64-record-of-2-to-the-64": zip64(state(), size=2**64 - 1),
        "zip64-record-past-the-end": zip64(state(), offset=1 << 42),
        "zip64-record-over-the-pickle": zip64(state(), offset=0),
        "zip64-two-sizes": zip64(state(), local=1 << 42),
        "zip64-field-cut-short": zip64(state(), cut=8),
        "zip64-2-to-the-60-members": zip64(state(), entries=1 << 60),
        "zip64-directory-past-the-end": zip64(state(), directory=1 << 42),
        "tar-with-a-negative-length": tar(b"").replace(b"%011o" % 0, b"-1".ljust(11, b"\0")),
        "tar-with-a-length-of-gigabytes": tar(b"").replace(b"%011o" % 0, b"7" * 11),
    }


def files() -> dict[str, bytes]:
    """The files by name, with the kind of container first."""
    found = {f"zip-{name}": zipped(data) for name, data in PICKLES.items()}
    found |= {f"bare-{name}": b"\x80\x02}(" + text("w") + steps + b"u." for name, steps in ARRAYS.items()}
    found["tar-with-a-key-of-2-to-the-60-parts"] = tar(
        b"\x80\x02K\x01.\x80\x02(" + DEEP + text("cpu") + b"ctorch\nFloatStorage\nt." + bytes(8)
    )
    return found | _members()


def main() -> None:
    """Write the corpus."""
    for name, data in files().items():
        folder = Path(__file__).parent / "corpus" / ("paddle" if name.startswith("bare") else "torch")
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
