"""Values that are not finite, too large, subnormal or all the same are counted while they are written, and reported."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from goldens import FIXTURES
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from nezha_convert import MappingError, convert, verify
from nezha_convert.checkpoint import TensorEntry
from nezha_convert.cli.app import main
from nezha_convert.families.rules import Op
from nezha_convert.formats.blocks import row_blocks
from nezha_convert.mapping.plan import Step
from nezha_convert.parity.measure import Measurement
from nezha_convert.weights.numbers import _CHUNK, Tally, TensorNumbers, add_up, refuse_overflow
from nezha_convert.weights.write import lay_out, write_weights

SOURCE = FIXTURES / "transformers-4.40.2-pretraining"
WORDS, POOLER = "nezha.embeddings.word_embeddings.weight", "nezha.pooler.dense.weight"
NORM = "nezha.encoder.layer.{}.output.LayerNorm"
FLOATS = ("float16", "bfloat16", "float32", "float64")


@pytest.fixture
def changed(tmp_path):
    """A source with changed tensors, in float32, as safetensors."""

    def make(change) -> Path:
        folder = Path(shutil.copytree(SOURCE, tmp_path / "source"))
        tensors = {name: array.copy() for name, array in load_file(folder / "model.safetensors").items()}
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


def at(name: str, *values: float):
    def change(tensors):
        tensors[name].reshape(-1)[: len(values)] = values

    return change


def tally(source: np.ndarray, dtype: str, sizes: tuple[int, ...] = ()) -> TensorNumbers:
    """The counts of `source`, in blocks of `sizes` and a last one."""
    counting, start = Tally(str(source.dtype), dtype), 0
    for block in np.split(source, np.cumsum(sizes)):
        with np.errstate(all="ignore"):
            counting.add(block, block.astype(dtype) if str(source.dtype) != dtype else block)
        start += len(block)
    return counting.result("name", "source", source.ndim)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    return exit.value.code or 0, *capsys.readouterr()


# The counter, against NumPy


def patterns(dtype: str) -> st.SearchStrategy[int]:
    """The bits of a number of `dtype`, often one at a limit."""
    info, bits = ml_dtypes.finfo(dtype), 8 * np.dtype(dtype).itemsize
    values = np.array([0, info.smallest_normal, info.smallest_subnormal, info.max, np.inf, np.nan, 1], dtype)
    edges = [int(value) for value in values.view(f"u{bits // 8}")]
    near = [(edge + step) % (1 << (bits - 1)) for edge in edges for step in (-1, 0, 1)]
    signed = near + [edge | 1 << (bits - 1) for edge in near]
    return st.sampled_from(signed) | st.integers(0, (1 << bits) - 1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, str, tuple[int, ...]]:
    source, dtype = draw(st.sampled_from(FLOATS)), draw(st.sampled_from(FLOATS))
    if draw(st.booleans()):
        values = draw(st.lists(patterns(source), max_size=40))
    else:
        values = [draw(patterns(source))] * draw(st.integers(1, 8))  # constant
    bits = np.array(values, f"u{np.dtype(source).itemsize}")
    sizes = draw(st.lists(st.integers(0, 9), max_size=4))
    return bits.view(source), dtype, tuple(sizes)


@settings(max_examples=400, deadline=None)
@given(cases())
@np.errstate(all="ignore")
def test_every_count_is_numpy_s(case: tuple[np.ndarray, str, tuple[int, ...]]) -> None:
    source, dtype, sizes = case
    found = tally(source, dtype, sizes)
    written = source.astype(dtype)
    finite = np.isfinite(source)
    lost = finite & ~np.isfinite(written)
    magnitude = np.abs(written.astype("f8"))
    assert found.values == source.size
    assert found.nan == np.isnan(source).sum()
    assert found.infinite == np.isinf(source).sum()
    assert found.overflow == lost.sum()
    assert found.largest == (np.abs(source[finite].astype("f8")).max() if lost.any() else 0)
    assert found.underflow == ((source != 0) & (written == 0)).sum()
    assert found.subnormal == ((magnitude > 0) & (magnitude < float(ml_dtypes.finfo(dtype).smallest_normal))).sum()
    same = source.size > 1 and np.isfinite(written).all() and (written == written[0]).all()
    assert found.constant == (float(written[0]) if same else None)


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_lies_behind_the_first_chunk_is_counted_too(dtype: str) -> None:
    array = np.zeros(3 * _CHUNK + 5, dtype)
    assert tally(array, dtype).constant == 0
    array[[_CHUNK, -1]] = np.nan, np.inf
    array[2 * _CHUNK] = ml_dtypes.finfo(dtype).smallest_subnormal
    found = tally(array, dtype)
    assert (found.nan, found.infinite, found.subnormal, found.constant) == (1, 1, 1, None)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_whole_numbers_can_be_constant_alone(dtype: str) -> None:
    assert tally(np.ones(3, dtype), dtype).constant == 1
    assert not tally(np.array([1, 1, 0], dtype), dtype, (1, 1)).notable


def test_one_value_or_none_is_not_called_constant() -> None:
    assert not tally(np.zeros(1, "f4"), "float32").notable
    assert not tally(np.zeros(0, "f4"), "float32").notable


def test_a_tensor_is_read_once_for_writing_and_counting(tmp_path: Path) -> None:
    array, reads = np.ones((6, 4), "f4"), []

    def stream(limit: int):
        reads.append(limit)
        return row_blocks(array, limit)

    entry = TensorEntry("x", "float32", array.shape, array.nbytes, stream)
    steps = [Step(entry, "copied", Op.COPY, (6, 4)), Step(entry, "turned", Op.TRANSPOSE, (4, 6))]
    _, numbers = write_weights(tmp_path, lay_out(steps, None, 1 << 40), (), lambda nbytes: None)
    assert len(reads) == len(steps)
    assert {(t.name, t.constant, t.values) for t in numbers} == {("copied", 1.0, 24), ("turned", 1.0, 24)}


# NaN and infinity


NOT_FINITE = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x7F800000, 0xFF800000], "u4").view("f4")


def test_nan_and_infinity_are_told_by_tensor_and_kept_bit_for_bit(changed, tmp_path, capsys):
    source, output = changed(at(POOLER, *NOT_FINITE)), tmp_path / "out"
    code, said, _ = run(capsys, "convert", source, output)
    warning = f"{POOLER}: 3 NaN and 2 infinite of 1,024 values, as in the source"
    assert code == 0 and warning in said and "3 NaN, 2 infinite in the source" in said
    written = load_file(output / "model.safetensors")[POOLER].reshape(-1)
    assert written[:5].tobytes() == NOT_FINITE.tobytes()
    record = json.loads((output / "conversion.json").read_text(), parse_constant=pytest.fail)
    assert record["numbers"]["warnings"] == [warning]
    (tensor,) = record["numbers"]["tensors"]
    assert (tensor["name"], tensor["nan"], tensor["infinite"], tensor["values"]) == (POOLER, 3, 2, 1024)
    card = (output / "README.md").read_text()
    assert f"| `{POOLER}` | 3 | 2 | 0 |" in card and "not a number" in card


def test_of_finite_weights_one_line_is_said_and_the_card_says_nothing(tmp_path, capsys):
    code, said, _ = run(capsys, "convert", SOURCE, tmp_path / "out")
    assert code == 0 and "numbers  19,490 values, all finite\n" in said and "warning" not in said
    assert "not finite" not in (tmp_path / "out" / "README.md").read_text()


def test_a_dry_run_reads_nothing_and_claims_nothing(tmp_path, capsys):
    _, said, _ = run(capsys, "convert", SOURCE, tmp_path / "out", "--dry-run", "--json")
    assert json.loads(said)["numbers"] is None
    assert "numbers" not in run(capsys, "convert", SOURCE, tmp_path / "out", "--dry-run")[1]


def test_many_warnings_are_counted_and_conversion_json_has_all(changed, tmp_path, capsys):
    def change(tensors):
        for array in tensors.values():
            array.reshape(-1)[0] = np.nan

    _, said, _ = run(capsys, "convert", changed(change), tmp_path / "out")
    count = len(json.loads((tmp_path / "out" / "conversion.json").read_text())["numbers"]["warnings"])
    assert said.count("\nwarning ") == 21 and f"and {count - 20} more; conversion.json has all" in said


# Overflow


def overflowing(tensors):
    tensors[WORDS][0, :3] = 65520, -1e30, np.inf
    tensors[POOLER][:, 0] = 7e4


def test_what_float16_cannot_hold_is_counted_in_every_tensor_and_refused(changed, tmp_path, capsys):
    source = changed(overflowing)
    before = {path: path.read_bytes() for path in source.iterdir()}
    code, said, _ = run(capsys, "convert", source, tmp_path / "out", "--dtype", "float16", "--json")
    error = json.loads(said)
    assert code == error["exit_code"] == 4
    assert error["message"] == "2 tensors have values that do not fit into float16"
    assert error["problems"] == [
        f"{WORDS}: 2 of its values do not fit into float16 (largest 1e+30)",
        f"{POOLER}: 32 of its values do not fit into float16 (largest 70000)",
    ]
    assert "--dtype bfloat16" in error["hint"] and "--allow-overflow" in error["hint"]
    assert {path: path.read_bytes() for path in source.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_allowed_overflow_is_written_as_infinity_and_told(changed, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ("convert", changed(overflowing), output, "--dtype", "float16", "--allow-overflow")
    code, said, _ = run(capsys, *arguments)
    assert code == 0
    assert f"{WORDS}: 2 of its values do not fit into float16 (largest 1e+30); they are infinite now" in said
    assert f"{WORDS}: 1 infinite of" in said and "34 became infinite" in said
    assert load_file(output / "model.safetensors")[WORDS][0, :3].tolist() == [np.inf, -np.inf, np.inf]
    assert f"| `{POOLER}` | 0 | 0 | 32 |" in (output / "README.md").read_text()


@pytest.mark.parametrize(("dtype", "fits"), [("float16", 65519.0), ("bfloat16", 3.3895e38), ("float32", 3.4e38)])
def test_the_largest_value_that_rounds_down_fits(dtype, fits, changed, tmp_path):
    report = convert(changed(at(POOLER, fits, -fits)), tmp_path / "out", dtype=dtype)
    assert (report.numbers.overflow, report.numbers.nan, report.numbers.infinite) == (0, 0, 0)


def test_bfloat16_overflows_too(changed, tmp_path):
    with pytest.raises(
        MappingError, match=r"1 of its values do not fit into bfloat16 \(largest 3.40282e\+38\)"
    ) as caught:
        convert(changed(at(POOLER, 3.4028235e38)), tmp_path / "out", dtype="bfloat16")
    assert "Use --dtype float32, or" in caught.value.hint


def test_a_source_of_two_tensors_is_refused_once() -> None:
    one = replace(tally(np.array([1e6], "f4"), "float16"), name="a")
    with pytest.raises(MappingError) as caught:
        refuse_overflow([one, replace(one, name="b")])
    assert not caught.value.problems and str(caught.value).startswith("source: 1 of")


def test_values_that_become_0_or_subnormal_in_float16_are_counted(changed, tmp_path):
    report = convert(changed(at(POOLER, 1e-9, -2e-8, 3e-6, 1e-40)), tmp_path / "out", dtype="float16")
    (pooler,) = (t for t in report.numbers.tensors if t.name == POOLER)
    plain = convert(SOURCE, tmp_path / "plain", dtype="float16")
    subnormal = next((t.subnormal for t in plain.numbers.tensors if t.name == POOLER), 0)
    assert pooler.underflow == 3 and pooler.subnormal in (subnormal + 1, subnormal)
    assert "became 0" in report.numbers.summary


def test_subnormal_numbers_of_the_source_are_counted_and_kept(changed, tmp_path):
    source = changed(at(POOLER, 1e-40, -1e-45))
    report = convert(source, tmp_path / "out")
    assert report.numbers.subnormal == 2 and "2 subnormal" in report.numbers.summary
    assert not report.numbers.warnings
    written = load_file(tmp_path / "out" / "model.safetensors")[POOLER]
    assert written.tobytes() == load_file(source / "model.safetensors")[POOLER].tobytes()


# Constants


def test_a_matrix_of_one_value_is_a_warning(changed, tmp_path):
    def change(tensors):
        tensors[WORDS][:] = 0.5
        tensors[POOLER][:] = 0
        tensors[POOLER][0, 0] = -0.0

    warnings = convert(changed(change), tmp_path / "out").numbers.warnings
    assert f"{POOLER}: each of its 1,024 values is 0" in warnings
    assert any(w.startswith(f"{WORDS}: each of its ") and w.endswith(" values is 0.5") for w in warnings)
    assert len(warnings) == 2


def test_a_bias_of_zeros_is_common_and_said_in_the_summary_alone(changed, tmp_path):
    def change(tensors):
        tensors["nezha.pooler.dense.bias"][:] = 0

    numbers = convert(changed(change), tmp_path / "out").numbers
    assert not numbers.warnings and numbers.summary.endswith("all finite, 1 vector of zeros")
    assert [(t.name, t.constant) for t in numbers.tensors] == [("nezha.pooler.dense.bias", 0.0)]


def test_layer_norms_that_were_never_trained_are_one_warning(changed, tmp_path):
    def change(tensors):
        for layer in (0, 1):
            tensors[f"{NORM.format(layer)}.weight"][:] = 1
            tensors[f"{NORM.format(layer)}.bias"][:] = 0

    (warning,) = convert(changed(change), tmp_path / "out").numbers.warnings
    assert warning.startswith("2 of 6 layer norms have weight 1 and bias 0 throughout")
    assert all(NORM.format(layer).removesuffix(".LayerNorm") in warning for layer in (0, 1))


@pytest.mark.parametrize("value", [1.0, 0.0, 0.7])
def test_a_layer_norm_of_one_weight_beside_a_trained_bias_is_named(value, changed, tmp_path):
    def change(tensors):
        tensors[f"{NORM.format(1)}.weight"][:] = value

    (warning,) = convert(changed(change), tmp_path / "out").numbers.warnings
    assert warning == f"{NORM.format(1)}.weight: each of its 32 values is {value:g}"


def test_tensors_without_anything_to_tell_are_not_listed() -> None:
    dull = tally(np.arange(9, dtype="f4"), "float32")
    numbers = add_up([dull, replace(dull, name="other")])
    assert (numbers.values, numbers.tensors, numbers.summary) == (18, (), "18 values, all finite")


# verify


def test_a_nan_on_both_sides_is_no_agreement(changed, tmp_path):
    source = changed(at(POOLER, np.nan))
    convert(source, tmp_path / "out")
    report = verify(source, tmp_path / "out")
    assert not report.passed and report.first_departs == "pooler"
    assert any(failure.startswith("weights of pooler: 1 of ") for failure in report.failures)
    json.loads(report.to_json(), parse_constant=pytest.fail)
    record = json.loads((tmp_path / "out" / "conversion.json").read_text(), parse_constant=pytest.fail)
    assert record["parity"]["passed"] is False


def test_a_nan_that_no_input_reaches_fails_too(changed, tmp_path):
    def change(tensors):
        words = tensors["nezha.embeddings.word_embeddings.weight"]
        tensors["nezha.embeddings.word_embeddings.weight"] = many = np.tile(words, (400, 1))
        many[12_345] = np.nan  # of 25,600 words, a few hundred are in the inputs, the same each time

    source = changed(change)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 25_600}))
    convert(source, tmp_path / "out", head="encoder")
    report = verify(source, tmp_path / "out")
    assert report.first_departs is None
    (failure,) = report.failures
    assert failure.startswith("weights of embeddings: 32 of ") and "NaN or infinite" in failure


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize("expected, found", [(NAN, 1.0), (1.0, NAN), (NAN, NAN), (INF, INF), (INF, 1.0), (1.0, -INF)])
@pytest.mark.parametrize("ranged", [True, False], ids=["after the range is known", "in the case that gives the range"])
def test_a_comparison_with_a_value_that_is_not_finite_fails(expected, found, ranged):
    measurement = Measurement("the oracle", "float32", 1e30)
    good, wanted, got = ({"x": np.array(row)} for row in ([0.0, 1.0], [0.0, expected], [0.0, found]))
    measurement.scale_to([good] if ranged else [wanted])
    measurement.add("good", good, good)
    measurement.add("bad", wanted, got)
    (tensor,) = measurement.result().tensors
    assert (tensor.passed, tensor.nonfinite, tensor.peak.case) == (False, 1, "bad")


def test_a_nan_of_the_reference_does_not_hide_a_larger_error_beside_it():
    measurement = Measurement("the oracle", "float32")
    good = {"x": np.array([0.0, 1.0, 0.5])}
    measurement.scale_to([good])
    measurement.add("bad", {"x": np.array([0.0, np.nan, 0.5])}, {"x": np.array([0.0, 1.0, 9.0])})
    (tensor,) = measurement.result().tensors
    assert not tensor.passed and tensor.max_error == np.inf


def test_a_record_of_numbers_that_no_conversion_wrote_is_refused(tmp_path):
    convert(SOURCE, tmp_path / "out")
    path = tmp_path / "out" / "conversion.json"
    record = json.loads(path.read_text())
    entry = {"name": POOLER, "nan": 1, "infinite": 0, "overflow": 0}
    for numbers in ([], {}, {"tensors": 3}, {"tensors": [3]}, {"tensors": [entry | {"nan": "many"}]}):
        path.write_text(json.dumps(record | {"numbers": numbers}))
        with pytest.raises(MappingError, match="not as a conversion writes it"):
            verify(SOURCE, tmp_path / "out")
