"""What a manifest says becomes rows; what no column can be is named by row and column, all at once."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nezha_convert.batches.columns import COLUMNS, words_of
from nezha_convert.batches.manifest import read_manifest
from nezha_convert.errors import NezhaConvertError, UsageError
from nezha_convert.hub import is_address


def table(folder: Path, text: str, name: str = "models.csv") -> str:
    (folder / name).write_text(text, "utf-8")
    return str(folder / name)


def rows(folder: Path, text: str, name: str = "models.csv", **more):
    return read_manifest(table(folder, text, name), str(folder / "out"), **more).rows


def problems(folder: Path, text: str, name: str = "models.csv", **more) -> tuple[str, ...]:
    with pytest.raises(UsageError) as error:
        rows(folder, text, name, **more)
    assert not (folder / "out").exists()
    return error.value.problems or (error.value.message,)


def test_a_row_has_its_source_beside_the_manifest_and_its_output_in_the_folder(tmp_path):
    (row,) = rows(tmp_path, "source\nNEZHA-Base\n")
    assert (row.source, row.output) == (str(tmp_path / "NEZHA-Base"), str(tmp_path / "out" / "NEZHA-Base"))


def test_a_value_that_is_no_path_is_told_by_row_and_column(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    long, circle = "x" * 400, str(tmp_path / "loop" / "x")
    values = [{"source": value} for value in (long, "a\0b", "~nobody-here/x", "\ud800", circle)]
    values += [{"source": "a", "output": value} for value in (long, "a\0b", "~nobody-here/x", "\ud800", circle)]
    values += [{"source": "a", "labels": value} for value in (long, "a\0b", "~nobody-here/x", "\ud800")]
    found = problems(tmp_path, "\n".join(map(json.dumps, values)), "models.jsonl")
    named = [f"row {n} (line {n}), column {[*each][-1]!r}: " for n, each in enumerate(values, 1)]
    assert [problem[: len(name)] for problem, name in zip(found, named, strict=False)] == named


def test_a_path_that_says_so_is_no_address_and_no_option_of_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("models.csv").write_text("source,output\n./no/such,a\n-x,-y\n")
    address, option = read_manifest("models.csv", ".").rows
    assert address.source == "./no/such" and not is_address(address.source)
    assert option.commands()[0] == "nezha-convert convert ./-x ./-y"


def test_what_a_search_or_a_row_alone_can_have_is_refused_elsewhere(tmp_path):
    assert "--limit 5" in problems(tmp_path, "source\nx\n", limit=5)[0]
    for name in ("source", "output"):
        assert "each row has its own" in problems(tmp_path, "source\nx\n", defaults={name: "y"})[0]


def test_a_derived_name_fits_a_drive_in_chinese_too(tmp_path):
    long = "模型" * 40
    (row,) = rows(tmp_path, f"source\n{long}\n")
    assert long.endswith(Path(row.output).name) and 190 < len(Path(row.output).name.encode()) <= 200


def test_both_forms_of_a_manifest_give_the_same_rows(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")
    first = rows(tmp_path, "Source,head,drop,lower-case,labels,max shard size\nx,encoder,a.*;b.*,yes,labels.txt,2GB\n")
    lines = {"source": "x", "head": "encoder", "drop": ["a.*", "b.*"], "lower_case": True, "labels": "labels.txt"}
    second = rows(tmp_path, json.dumps({**lines, "max_shard_size": 2_000_000_000, "part": None}), "models.jsonl")
    assert [(row.source, row.output, row.options) for row in first] == [
        (row.source, row.output, row.options) for row in second
    ]
    assert first[0].options["max_shard_size"] == 2_000_000_000


def test_every_problem_of_every_row_is_named_with_row_and_column(tmp_path):
    found = problems(tmp_path, "source,head,dtyp,tolerance,output\nx,encodr,y,,../z\n,,,-1,\n")
    assert [problem.partition(":")[0] for problem in found] == [
        "row 1 (line 2), column 'head'",
        "row 1 (line 2), column 'dtyp'",
        "row 1 (line 2), column 'output'",
        "row 2 (line 3), column 'tolerance'",
        "row 2 (line 3), column 'source'",
    ]
    assert "did you mean encoder?" in found[0] and "did you mean dtype?" in found[1]


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("", "a.csv", "no row in it"),
        ("source\n", "a.csv", "no row in it"),
        ("src\nx\n", "a.csv", "no column 'source'"),
        ("source,head,head\nx,,\n", "a.csv", "two columns are called 'head'"),
        ("source,head\nx,encoder,y\n", "a.csv", "line 2: 3 values, but 2 columns"),
        ('source\n"x\n', "a.csv", "no CSV"),
        ("{", "a.jsonl", "line 1: no JSON"),
        ("[1]", "a.jsonl", "line 1: no JSON object"),
        ('{"source": "x", "source": "y"}', "a.jsonl", "'source' is in it twice"),
        ('{"source": 1}', "a.jsonl", "column 'source': 1: expected a path"),
        ('{"source": "x", "verify": "perhaps"}', "a.jsonl", "column 'verify': 'perhaps': expected true or false"),
        ('{"source": "x", "config": []}', "a.jsonl", "column 'config': []: expected a text"),
        ("source,labels\nx,nothing.txt\n", "a.csv", "nothing.txt: no such file"),
        ("source,output\na,same\nb,same/\n", "a.csv", "both write"),
        ("source,output\na,one\nb,one/two\n", "a.csv", "lies in"),
        (
            "source,output\n./out/a,b\nc,a\n",
            "a.csv",
            "row 2 (line 3), column 'output': {out}/a is, or lies in, {out}/a, the source of row 1",
        ),
        ("source,output\nout,b\n", "a.csv", "{out}/b is, or lies in, {out}, the source of row 1"),
        ("source,output,\na,one,lost\n", "a.csv", "line 2: a value in a column without a name"),
        ("source\nx\nx\n", "a.csv", "both write"),
        ("source,push\nx,owner/name\n", "a.csv", "column 'license': empty"),
        ("source,push,license,verify\nx,owner/name,mit,no\n", "a.csv", "column 'verify': false"),
        ("source,create_pr,license\nx,yes,mit\n", "a.csv", "column 'push': empty"),
        ("source\nx\n", "a.txt", "not a manifest"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(text, name, said, tmp_path):
    assert said.replace("{out}", str(tmp_path / "out")) in " ".join(problems(tmp_path, text, name))


def test_a_manifest_in_gb18030_is_told_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "models.csv").write_bytes("source\n模型\n".encode("gb18030"))
    with pytest.raises(UsageError) as error:
        read_manifest(str(tmp_path / "models.csv"), "out")
    assert "iconv -f GB18030" in error.value.hint and "run it on utf8-models.csv" in error.value.hint


def test_outputs_of_one_name_get_the_folders_around_them(tmp_path):
    found = rows(tmp_path, "source\na/model\nb/model\nc/pytorch_model.bin\nowner/name\nhf://owner/name@v1\n")
    names = [Path(row.output).name for row in found]
    assert names == ["a__model", "b__model", "c", "owner__name", "owner__name__v1"]


def test_values_for_all_rows_give_way_to_a_rows_own(tmp_path):
    one, two = rows(tmp_path, "source,dtype\na,float16\nb,\n", defaults={"dtype": "bfloat16"})
    assert (one.options["dtype"], two.options["dtype"]) == ("float16", "bfloat16")
    assert "--set dtyp=x: no such column; did you mean dtype?" in problems(
        tmp_path, "source\na\n", defaults={"dtyp": "x"}
    )


def test_rows_are_pushed_to_the_owner_under_their_outputs_names(tmp_path):
    text = "source,push,license\na,,mit\nb,other/b,mit\n"
    assert [row.repository for row in rows(tmp_path, text, push="owner")] == ["owner/a", "other/b"]
    assert rows(tmp_path, text, push="owner/nezha-{name}")[0].repository == "owner/nezha-a"
    assert "every row would be pushed there" in problems(tmp_path, text, push="owner/name")[0]


def test_a_folder_of_folders_has_a_row_for_each_that_may_hold_weights(tmp_path):
    for name in ("b/pytorch_model.bin", "a/saved/variables.index", "notes/README.md", ".hidden/x.bin", "out/x.bin"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    read = read_manifest(str(tmp_path), str(tmp_path / "out"))
    assert [Path(row.source).name for row in read.rows] == ["a", "b"] and read.skipped == ("notes",)
    with pytest.raises(UsageError, match="a checkpoint is in it, and no folder of one"):
        read_manifest(str(tmp_path / "b"), str(tmp_path / "out"))


@pytest.mark.parametrize("wanted", ["hf://owner", "hf://*", "hf://owner/name", "hf://owner/a?b*"])
def test_what_is_no_search_is_told(wanted):
    with pytest.raises(UsageError, match="not a search"):
        read_manifest(wanted, "out", hub=object())


def test_a_manifest_and_a_family_exclude_each_other():
    for manifest, family in ((None, None), ("x.csv", "nezha")):
        with pytest.raises(UsageError, match="not both"):
            read_manifest(manifest, "out", family=family)


def test_every_column_of_a_command_is_an_option_of_it():
    from nezha_convert.cli.app import cli

    given = {
        "labels": "l",
        "config": "c",
        "vocab": "v",
        "texts": "t",
        "drop": ["x"],
        "rename": ["a=b"],
        "assume": ["y"],
    }
    for name, column in COLUMNS.items():
        for verb in column.verbs:
            for value in (given.get(name, True), False):
                words = words_of(verb, {name: value})
                known = {option for one in cli.commands[verb].params for option in (*one.opts, *one.secondary_opts)}
                assert {word for word in words if word.startswith("--")} <= known, (name, verb)
            assert any(words_of(verb, {name: value}) for value in (given.get(name, True), False)), (name, verb)


NAMES = st.sampled_from(["source", "output", *COLUMNS, "nothing"])
CELLS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)


@settings(max_examples=50)
@given(st.lists(NAMES, min_size=1, max_size=4), st.lists(st.lists(CELLS, max_size=5), max_size=4))
def test_whatever_a_table_holds_it_becomes_rows_or_one_refusal(tmp_path_factory, names, cells):
    text = io.StringIO()
    csv.writer(text).writerows([names, *cells])
    path = tmp_path_factory.mktemp("any") / "any.csv"
    path.write_text(text.getvalue(), "utf-8", newline="")
    try:
        read = read_manifest(str(path), "out")
    except NezhaConvertError as error:
        assert error.exit_code == 2 and error.message.isprintable()
        return
    assert len({row.output for row in read.rows}) == len(read.rows)
    assert all(row.source for row in read.rows)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | CELLS | st.lists(CELLS, max_size=2)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=4) | VALUES, max_size=3))
def test_whatever_json_lines_hold_they_become_rows_or_one_refusal(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "any.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    try:
        read = read_manifest(str(path), "out")
    except NezhaConvertError as error:
        assert error.exit_code == 2 and error.message.isprintable()
        return
    assert [row.number for row in read.rows] == list(range(1, len(read.rows) + 1))


@settings(max_examples=50)
@given(st.binary(max_size=60), st.sampled_from([".csv", ".jsonl", ".tsv"]))
def test_bytes_that_are_no_manifest_are_refused(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("any") / f"any{suffix}"
    path.write_bytes(data)
    try:
        read_manifest(str(path), "out")
    except NezhaConvertError as error:
        assert error.exit_code == 2


def test_a_folder_that_may_not_be_read_is_a_row_and_not_one_without_weights(tmp_path, monkeypatch):
    (tmp_path / "models" / "closed").mkdir(parents=True)
    monkeypatch.setattr("os.access", lambda path, mode: path.name != "closed")
    read = read_manifest(str(tmp_path / "models"), str(tmp_path / "out"))
    assert [Path(row.source).name for row in read.rows] == ["closed"] and not read.skipped
    with pytest.raises(UsageError, match=r"closed: not readable"):
        read_manifest(str(tmp_path / "models" / "closed"), str(tmp_path / "out"))


def test_a_hidden_folder_in_a_folder_holds_no_weights(tmp_path):
    for name in ("clone/.git/HEAD", "model/weights/x.bin"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    read = read_manifest(str(tmp_path), str(tmp_path / "out"))
    assert [Path(row.source).name for row in read.rows] == ["model"] and read.skipped == ("clone",)


@pytest.mark.parametrize(("given", "family"), [("", None), (None, ""), ("", ""), ("models.csv", "nezha")])
def test_an_empty_text_is_no_manifest_and_no_search_of_everything(given, family):
    with pytest.raises(UsageError, match="a manifest or --family"):
        read_manifest(given, "out", family=family)
    with pytest.raises(UsageError, match=r"models\.csv: not readable"):
        read_manifest("models.csv", "out", family="")
