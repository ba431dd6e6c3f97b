"""The plugin for pytest: a test for each pair, whose failure names the first tensor that departs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_fixtures import TF
from swapped import swap

ROOT = Path(__file__).parents[1]
PLUGIN = ("-p", "nezha_convert.pytest_plugin", "-p", "no:cacheprovider")
"""This tree's own plugin. An environment may have none by its entry point, or that of another tree."""

pytestmark = pytest.mark.usefixtures("verified")  # all that a proof imports is imported before a run inside a run


@pytest.fixture
def suite(pytester, monkeypatch, folder) -> pytest.Pytester:
    """Somebody's suite: a source, and a converted folder beside it with blanks and Chinese characters in its name."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    shutil.copytree(TF, pytester.path / "NEZHA")
    shutil.move(folder, pytester.path / "模型 一")
    return pytester


def ini(suite: pytest.Pytester, *lines: str, **settings: str) -> None:
    more = "".join(f"{name} = {value}\n" for name, value in settings.items())
    suite.makefile(".ini", pytest="[pytest]\n" + more + "nezha_parity =\n" + "".join(f"    {line}\n" for line in lines))


def run(suite: pytest.Pytester, *words: str) -> pytest.RunResult:
    return suite.runpytest_inprocess(*PLUGIN, *words)


def failure(result: pytest.RunResult) -> str:
    """What pytest shows below FAILURES."""
    _, shown, *_ = re.split(r"^=+ (?:FAILURES|short test summary info) =+$", result.stdout.str(), flags=re.MULTILINE)
    return shown.strip()


def test_a_pair_of_the_ini_is_a_test_with_a_readable_name(suite):
    ini(suite, "NEZHA -> 模型 一")
    result = run(suite, "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["pytest.ini::NEZHA -> 模型 一 PASSED*"])


@pytest.mark.parametrize("words", [("pytest.ini::NEZHA -> 模型 一",), ("-m", "nezha_parity"), ("-k", "模型")])
def test_a_pair_is_chosen_as_every_test_is(words, suite):
    ini(suite, "NEZHA -> 模型 一", "NEZHA -> other")
    suite.makepyfile("def test_of_somebody(): pass")
    result = run(suite, *words, "--collect-only", "-q")
    assert "NEZHA -> 模型 一" in result.stdout.str() and "test_of_somebody" not in result.stdout.str()


@pytest.mark.parametrize("recorded", [True, False], ids=["by its numbers alone", "and by its hash"])
def test_a_swapped_projection_fails_and_its_tensor_is_named_without_a_traceback(recorded, suite):
    swap(suite.path / "模型 一", recorded=recorded)
    ini(suite, "NEZHA -> 模型 一")
    result = run(suite)
    result.assert_outcomes(failed=1)
    lines = failure(result).splitlines()
    assert re.fullmatch(r"_+ NEZHA -> 模型 一 _+", lines[0])
    assert re.fullmatch(
        r"first departs layer_1: \d\.\de-0[12] of its range from the oracle in float32, at .+\]; "
        r"allowed 2e-05",
        lines[1],
    )
    assert ["was changed since it was converted" in line for line in lines[2:-1]] == [True] * (not recorded)
    assert lines[-1] == f"next: nezha-convert verify {suite.path}/NEZHA '{suite.path}/模型 一' --html parity.html"
    result.stdout.fnmatch_lines(["FAILED pytest.ini::NEZHA -> 模型 一 - Failed: first departs layer_1*"])


def test_a_tolerance_of_the_ini_is_that_of_each_pair(suite):
    ini(suite, "NEZHA -> 模型 一", nezha_parity_tolerance="1e-12")
    result = run(suite)
    result.assert_outcomes(failed=1)
    assert "allowed 1e-12" in failure(result) and failure(result).endswith("--tolerance 1e-12 --html parity.html")


def test_the_ini_is_collected_beside_testpaths_and_not_where_files_are_named(suite):
    ini(suite, "NEZHA -> 模型 一", testpaths="checks")
    suite.mkdir("checks")
    (suite.path / "checks" / "test_own.py").write_text("def test_own(): pass")
    run(suite).assert_outcomes(passed=2)
    run(suite, "checks").assert_outcomes(passed=1)


def test_paths_begin_at_the_file_of_the_settings(suite):
    ini(suite, "NEZHA -> 模型 一")
    os.chdir(suite.mkdir("below"))
    run(suite, "-c", "../pytest.ini", "../pytest.ini").assert_outcomes(passed=1)


OWN = """
    import pytest

    @pytest.mark.nezha_parity("NEZHA", "模型 一", {options})
    def test_it({fixture}):
        {body}
"""


def own(suite: pytest.Pytester, fixture: str = "", body: str = "pass", options: str = "") -> None:
    suite.makepyfile(OWN.format(fixture=fixture, body=body, options=options))


def test_a_marked_test_has_the_report(suite):
    body = "assert nezha_parity.passed and nezha_parity.comparisons[0].tolerance == 1e-4"
    own(suite, "nezha_parity", body, "tolerance=1e-4")
    run(suite, "--strict-markers").assert_outcomes(passed=1)


def test_a_comparison_leaves_the_folder_as_it_is(suite):
    record = suite.path / "模型 一" / "conversion.json"
    record.write_bytes(record.read_bytes().replace(b'"texts": ', b'"texts":  '))
    before = {path.name: path.read_bytes() for path in record.parent.iterdir()}
    own(suite)
    run(suite).assert_outcomes(passed=1)
    assert {path.name: path.read_bytes() for path in record.parent.iterdir()} == before


@pytest.mark.parametrize("fixture", ["", "nezha_parity"], ids=["alone", "with the fixture"])
def test_a_marker_fails_its_test_before_it_runs(fixture, suite):
    swap(suite.path / "模型 一")
    own(suite, fixture, "raise RuntimeError('it ran')")
    result = run(suite)
    result.assert_outcomes(failed=1)
    assert "first departs layer_1" in failure(result) and "it ran" not in failure(result)
    assert "Traceback" not in failure(result) and "runtest" not in failure(result)


def test_files_that_a_marker_names_are_beside_the_settings(suite):
    config = next((suite.path / "NEZHA").glob("bert_config.json"))
    config.rename(suite.path / "moved.json")
    suite.makeini("[pytest]\n")
    own(suite, options="config='moved.json'")
    run(suite).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("NEZHA 模型",), r"pytest\.ini:3: nezha_parity: 'NEZHA 模型': expected SOURCE -> OUTPUT, such as"),
        (("a -> b", "NEZHA ->"), r"pytest\.ini:4: nezha_parity: 'NEZHA ->': expected SOURCE -> OUTPUT"),
        (("-> out",), r"pytest\.ini:3: nezha_parity: '-> out': expected"),
        (("a -> b -> c",), r"pytest\.ini:3: nezha_parity: 'a -> b -> c': expected"),
        (("a -> b", "a->b"), r"pytest\.ini:4: nezha_parity: 'a->b': it is there twice"),
    ],
)
def test_a_line_that_is_no_pair_is_an_error_of_usage_that_names_it(lines, said, suite):
    ini(suite, *lines)
    result = run(suite)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(said, result.stderr.str())


@pytest.mark.parametrize("text", ["small", "0", "-1", "nan", "inf"])
def test_a_tolerance_that_is_no_number_over_0_is_an_error_of_usage(text, suite):
    ini(suite, "a -> b", nezha_parity_tolerance=text)
    result = run(suite)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"pytest.ini:2: nezha_parity_tolerance: '{text}': expected a number over 0" in result.stderr.str()


def test_pairs_without_a_file_of_settings_are_an_error_of_usage(suite):
    result = run(suite, "-o", "nezha_parity=a -> b")
    assert result.ret == pytest.ExitCode.USAGE_ERROR and "write it into a pytest.ini" in result.stderr.str()


def test_pairs_stand_in_a_pyproject_toml_too(suite):
    suite.makepyprojecttoml('[tool.pytest.ini_options]\nnezha_parity = ["NEZHA -> 模型 一", "NEZHA 模型"]\n')
    result = run(suite)
    assert re.search(r"pyproject\.toml:2: nezha_parity: 'NEZHA 模型': expected", result.stderr.str())


def test_a_folder_that_is_not_there_fails_with_the_command_that_makes_it(suite):
    ini(suite, "NEZHA -> nothing")
    result = run(suite)
    result.assert_outcomes(failed=1)
    said = failure(result)
    assert f"{suite.path}/nothing: no conversion.json in it" in said
    assert f"next: Convert it first: nezha-convert convert SOURCE {suite.path}/nothing" in said
    assert "Error" not in said


@pytest.mark.parametrize("pair", ["~nobody-here/x -> 模型 一", "NEZHA -> ~nobody-here/x"])
def test_a_pair_whose_path_is_none_fails_in_words(pair, suite):
    ini(suite, pair)
    said = failure(run(suite))
    assert "'~nobody-here/x': not a path" in said and "next: Check its name." in said and "Error" not in said


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ('("NEZHA")', "missing a required argument: 'output'; expected (SOURCE, OUTPUT)"),
        ('("NEZHA", "模型 一", tolerence=1)', "got an unexpected keyword argument 'tolerence'"),
        ('("NEZHA", "模型 一", tolerance="1e-5")', "--tolerance '1e-5': expected a number over 0"),
    ],
)
def test_a_marker_that_is_wrong_says_what_was_expected(marker, said, suite):
    suite.makepyfile(f"import pytest\n@pytest.mark.nezha_parity{marker}\ndef test_it(): pass")
    result = run(suite)
    result.assert_outcomes(failed=1)
    assert said in failure(result) and len(failure(result).splitlines()) == 2


def test_the_fixture_without_its_marker_says_so(suite):
    suite.makepyfile("def test_it(nezha_parity): pass")
    result = run(suite)
    result.assert_outcomes(errors=1)
    assert "the fixture nezha_parity needs @pytest.mark.nezha_parity(SOURCE, OUTPUT) on its test" in result.stdout.str()


def test_an_expected_failure_is_one(suite):
    swap(suite.path / "模型 一")
    own(suite)
    path = suite.path / f"{suite._name}.py"
    path.write_text(path.read_text("utf-8").replace("@", "@pytest.mark.xfail(strict=True)\n@", 1), "utf-8")
    run(suite).assert_outcomes(xfailed=1)


def test_the_verdict_and_what_it_rests_on_are_in_the_reports(suite):
    ini(suite, "NEZHA -> 模型 一")
    result = run(suite, "-rP", "--junitxml=junit.xml")
    result.stdout.fnmatch_lines(["*Captured nezha_parity call*", "Parity of 模型 一 with *: passed"])
    assert '<property name="nezha_parity" value="模型 一 passed: largest error' in Path("junit.xml").read_text("utf-8")


def test_workers_of_xdist_each_take_some_of_the_pairs(suite):
    ini(suite, "NEZHA -> nothing", "NEZHA -> nothing-else", testpaths="checks")
    suite.mkdir("checks")
    result = run(suite, "-p", "xdist", "-n", "2", "-v")
    result.assert_outcomes(failed=2)
    assert "next: Convert it first: nezha-convert convert SOURCE" in failure(result)
    assert {*re.findall(r"^\[(gw\d)\]", result.stdout.str(), re.MULTILINE)} == {"gw0", "gw1"}


def test_a_suite_that_has_no_pair_imports_nothing_for_the_plugin(suite):
    suite.makepyfile("""
        import sys

        def test_what_is_imported():
            ours = {name for name in sys.modules if name.startswith("nezha")}
            assert ours == {"nezha_convert", *(f"nezha_convert.{name}" for name in IMPORTED)}
            assert not {"numpy", "torch", "transformers", "click", "rich", "yaml"} & {*sys.modules}

        IMPORTED = ("_version", "errors", "text", "pytest_plugin")
    """)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", *PLUGIN]
    done = subprocess.run(command, env=environment, cwd=suite.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
