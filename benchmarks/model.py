"""Compare NEZHA-base with BERT-base with SDPA, and with transformers 4.40.2's NEZHA.

    python benchmarks/model.py [--dtype float32|bfloat16|autocast] [--peer] [--pairs 5] [--launches 3] [--threads 2]
        [--cases infer:8x128 train:2x512 compile:8x128 onnx:4x512 int8:4x512 export load ...]

Random weights, 12 layers. `bfloat16` are weights of that type, `autocast` is float32 under `torch.autocast` to it. Each
model has its own process, and they take turns (A, B, C, A, B, C, ...); each ratio is of neighbouring runs. A training
step is forward, mean of squares, backward, with dropout 0.1. The limit is the time of BERT's matrix products alone,
without softmax, dropout, norms or activations. Peak memory is that of the process, from `VmHWM`, reset before the runs;
"growth" is the peak less the memory before the runs. `--peer` runs transformers 4.40.2 from the isolated environment of
the tests.

Further cases: `load` times `from_pretrained`. `compile` runs what `torch.compile` made for this one shape, `dynamic`
what it made for any, `aot` what AOTInductor did. `onnx` and `int8` run in onnxruntime what our exporter writes, of BERT
what torch's writes. `export` times the writing of a graph.

Replaces its section of ``benchmarks/RESULTS.md``. Each processor has one for each type, one thread, CPU time, and the
further cases. Several threads also draw a picture beside it. On a shared machine, ``--cpu --threads 1`` gives figures
that repeat. A process keeps the luck of where its pages lie; so each case has several `--launches`, and freed memory
stays with the process.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).parent
TITLE = "NEZHA-base beside BERT-base"
CASES = ["infer:8x64", "infer:8x128", "infer:4x512", "infer:1x1024", "train:8x128", "train:2x512", "load"]
NAMES = {
    "nezha": "this NEZHA",
    "bert": "BERT, SDPA",
    "peer": "NEZHA of transformers 4.40.2",
    "limit": "BERT's matrix products alone",
}
DTYPES = ("float32", "bfloat16", "autocast")
IN_TORCH = ("infer", "train")
"""Cases that the peer and the limit have, too."""
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""Lets glibc keep what a model frees. Else it returns the end of the heap to the system whenever that is large; which
model pays for this, with 100,000 page faults a step, is luck."""

COLOURS = {"nezha": "#1a7f5a", "peer": "#b0b0b0"}


def main() -> None:
    """Measure, print and write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="rounds of each launch")
    parser.add_argument("--launches", type=int, default=3, help="times to start the processes anew")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="measure CPU time of the process, not wall-clock time")
    parser.add_argument("--worker", nargs=2, metavar=("SUBJECT", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        clock = time.process_time if options.cpu else time.perf_counter
        return work(*options.worker, options.dtype, options.threads, clock)
    from results import machine, processor, ratios, spread, write_section

    rows, bars = [], []
    for case in options.cases:
        figures = measure(case, options)
        ours = figures["nezha"]["seconds"]
        for subject, measured in figures.items():
            rows.append(
                f"| {case.replace(':', ' ')} | {NAMES[subject]} | {spread(measured['seconds'])} "
                f"| {spread(ratios(ours, measured['seconds']))} | {measured['peak']:.0f} | {measured['growth']:.0f} |"
            )
        bert = figures["bert"]["seconds"]
        shown = {name: ratios(figures[name]["seconds"], bert) for name in figures if name in COLOURS}
        if case.partition(":")[0] in IN_TORCH:
            bars.append((case, shown))
    lines = [
        f"`python benchmarks/model.py`: 12 layers, random weights, {options.dtype}, {options.threads} threads, "
        f"{'CPU time' if options.cpu else 'time on the clock'}; {options.pairs} interleaved rounds, a process a model, "
        f"{options.launches} launches, freed memory kept. "
        f"{machine()}",
        "",
        "| case | model | seconds, median (quartiles) | ours / this, median (quartiles) | peak MiB | growth MiB |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    told = {
        options.dtype: options.dtype != "float32",
        "CPU time": options.cpu,
        "one thread": options.threads == 1 and not options.cpu,
        "compiled and exported": not bars,
    }
    if bars and options.threads > 1:
        picture = "model.svg" if options.dtype == "float32" else f"model-{options.dtype}.svg"
        lines += ["", f"![time relative to BERT-base]({picture})"]
        (HERE / picture).write_text(plot(bars, f"{options.dtype}, {processor()}"))
    write_section(", ".join([TITLE, *(name for name, holds in told.items() if holds), processor()]), lines)
    print("\n".join(lines))
    return None


def measure(case: str, options: argparse.Namespace) -> dict[str, dict]:
    """Seconds of every round and the memory of every model, by subject."""
    in_torch = case.partition(":")[0] in IN_TORCH
    subjects = ["nezha", "bert", *(["peer"] if options.peer and in_torch else []), *(["limit"] if in_torch else [])]
    figures: dict[str, dict] = {subject: {"seconds": [], "peak": 0, "growth": 0} for subject in subjects}
    for launch in range(options.launches):
        processes = {subject: start(subject, case, options) for subject in subjects}
        for number in range(options.pairs + 1):
            for subject, process in processes.items():
                seconds = ask(process, "run")["seconds"]
                if number:  # the first round is a warm-up
                    figures[subject]["seconds"].append(seconds)
        for subject, process in processes.items():
            for name, memory in ask(process, "memory").items():
                figures[subject][name] = max(figures[subject][name], memory)
            process.communicate()
        print(f"{case}: {launch + 1} of {options.launches}", file=sys.stderr)
    return figures


def start(subject: str, case: str, options: argparse.Namespace) -> subprocess.Popen:
    """Start a process that runs a case of a model at each "run", and wait until it is ready."""
    path = [str(HERE.parent)]
    if subject == "peer":
        sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))
        import upstream

        path.insert(0, str(upstream.installed_release("4.40.2")))
    environment = {**os.environ, **KEEP_MEMORY, "PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", __file__, "--threads", str(options.threads), "--dtype", options.dtype]
    command += [*(["--cpu"] if options.cpu else []), "--worker", subject, case]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    ask(process, None)
    return process


def ask(process: subprocess.Popen, command: str | None) -> dict:
    """The process's answer to a command; without one, its message that it is ready."""
    assert process.stdin and process.stdout
    if command:
        print(command, file=process.stdin, flush=True)
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args}: exit code {process.wait()}")
    return json.loads(line)


def work(subject: str, case: str, dtype: str, threads: int, clock: Callable[[], float]) -> None:
    """The work of such a process: prepare, then answer "run" and "memory" until the end of the input."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    kind, _, shape = case.partition(":")
    batch, length = map(int, (shape or "1x1").split("x"))
    with tempfile.TemporaryDirectory() as folder:
        if subject == "limit":
            run = products(kind, batch, length, torch.float32 if dtype == "float32" else torch.bfloat16)
        else:
            run = model(subject, kind, dtype, batch, length, Path(folder))
        answer({"ready": True})
        before = reset_peak()
        for line in sys.stdin:
            if line.strip() == "memory":
                peak = status("VmHWM")
                answer({"peak": peak, "growth": peak - before})
                break
            started = clock()
            run()
            answer({"seconds": clock() - started})


def model(subject: str, kind: str, dtype: str, batch: int, length: int, folder: Path) -> Callable[[], object]:
    """One pass, training step, loading or export of a model."""
    import torch
    import transformers

    sizes = {"vocab_size": 21128, "max_position_embeddings": max(512, length)}
    if subject == "bert":
        cls, config = transformers.BertModel, transformers.BertConfig(**sizes)
    elif subject == "peer":
        cls, config = transformers.NezhaModel, transformers.NezhaConfig(**sizes)
    else:
        import nezha

        cls, config = nezha.NezhaModel, nezha.NezhaConfig(**sizes)
    if kind == "load":
        cls(config).save_pretrained(folder)
        return lambda: cls.from_pretrained(folder)
    module = cls(config).train(kind == "train").to(torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    if kind in ("export", "onnx", "int8"):
        return graph(module, kind, batch, length, folder / "model.onnx", torch.get_num_threads())
    ids = torch.randint(1, 21128, (batch, length))
    mask = torch.ones_like(ids)
    called: Callable[..., object] = module
    if kind in ("compile", "dynamic"):
        called = torch.compile(module, dynamic=kind == "dynamic")
    elif kind == "aot":
        called = ahead_of_time(module, (ids, mask), folder)
    autocast = functools.partial(torch.autocast, "cpu", torch.bfloat16, enabled=dtype == "autocast")

    def train() -> None:
        with autocast():
            loss = module(ids, mask)[0].float().square().mean()
        loss.backward()
        module.zero_grad()

    @torch.inference_mode()
    def infer() -> None:
        with autocast():
            called(ids, mask)

    return train if kind == "train" else infer


def ahead_of_time(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], folder: Path) -> Callable[..., object]:
    """`module` as AOTInductor compiles it, for any batch and for lengths up to BERT's limit."""
    import torch

    longest = max(512, inputs[0].shape[1])
    names = {0: torch.export.Dim("batch", min=2), 1: torch.export.Dim("length", min=2, max=longest)}
    with torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=[names] * len(inputs), strict=False)
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "model.pt2"))
    return torch._inductor.aoti_load_package(package)


def graph(module: object, kind: str, batch: int, length: int, path: Path, threads: int) -> Callable[[], object]:
    """The export of `module` to `path`, or a run of the graph in onnxruntime."""
    import numpy
    import onnxruntime

    from nezha_convert.exports import onnx_graph

    ours = type(module).__module__.startswith("nezha.")
    write = functools.partial(onnx_graph.write_graph if ours else write_bert, module, "encoder")
    if kind == "export":
        return lambda: write("float32", path)
    write("int8" if kind == "int8" else "float32", path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    ones = numpy.ones((batch, length), numpy.int64)
    inputs = {"input_ids": ones, "attention_mask": ones, "token_type_ids": 0 * ones}
    return lambda: session.run(None, inputs)


def write_bert(module: object, head: str, precision: str, path: Path) -> None:
    """BERT as torch's exporter writes it, by the same options and quantizer as ours."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from nezha_convert.exports import onnx_graph

    names = {0: "batch", 1: "length"}
    program = torch.onnx.export(
        onnx_graph.named_outputs(module, head),
        tuple(torch.ones(2, 9, dtype=torch.long) for _ in onnx_graph.INPUTS),
        dynamo=True,
        opset_version=onnx_graph.OPSET,
        dynamic_shapes=dict.fromkeys(onnx_graph.INPUTS, names),
        input_names=onnx_graph.INPUTS,
        output_names=onnx_graph.OUTPUTS[head],
        verbose=False,
    )
    exact = path.with_name("float32.onnx") if precision == "int8" else path
    program.save(exact)
    if precision == "int8":
        quantize_dynamic(exact, path, weight_type=QuantType.QUInt8)


def products(kind: str, batch: int, length: int, dtype: torch.dtype) -> Callable[[], None]:
    """The matrix products of 12 layers, into allocated memory: [b, m, k] by [b, k, n] for each (b, m, k, n).

    Attention works on 128 queries of a sequence at a time, whose scores stay in cache. In a training step, each product
    needs two more, for the gradients of its factors.
    """
    import torch

    rows, blocks = batch * length, batch * -(-length // 128)
    shapes = [*4 * [(1, rows, 768, 768)], (1, rows, 768, 3072), (1, rows, 3072, 768)]
    shapes += blocks * [(12, min(length, 128), 64, length), (12, min(length, 128), length, 64)]
    if kind == "train":
        shapes += [other for b, m, k, n in shapes for other in ((b, m, n, k), (b, k, m, n))]
    ready = {
        (b, m, k, n): tuple(
            one.to(dtype) for one in (torch.randn(b, m, k), torch.randn(b, n, k).transpose(1, 2), torch.empty(b, m, n))
        )
        for b, m, k, n in shapes
    }

    def multiply() -> None:
        for shape in 12 * shapes:
            left, right, out = ready[shape]
            torch.bmm(left, right, out=out)

    return multiply


def answer(figures: dict) -> None:
    """Print a line of JSON."""
    print(json.dumps(figures), flush=True)


def reset_peak() -> float:
    """Reset the process's peak memory, which Linux allows; return the MiB in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(field: str) -> float:
    """A field of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field + ":"))
    return int(line.split()[1]) / 1024


def plot(bars: list[tuple[str, dict[str, list[float]]]], where: str) -> str:
    """An SVG of every case's time relative to BERT's: medians as bars, quartiles as lines."""
    from statistics import quantiles

    bars = [(case, ratios) for case, ratios in bars if case != "load"]
    left, width, height = 60, 110, 240
    top = (
        max([1.2, *(quantiles(values, n=4, method="inclusive")[2] for _, ratios in bars for values in ratios.values())])
        * 1.08
    )
    full = left + width * len(bars) + 20

    def y(value: float) -> float:
        return 40 + height * (1 - value / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{full}" height="{height + 90}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="20" font-size="14">Time of NEZHA-base in {where}; BERT-base with SDPA = 1</text>',
    ]
    for tick in range(int(top) + 1):
        parts.append(f'<text x="{left - 10}" y="{y(tick) + 4:.0f}" text-anchor="end">{tick}</text>')
    for number, (case, ratios) in enumerate(bars):
        for place, (subject, values) in enumerate(ratios.items()):
            low, middle, high = quantiles(values, n=4, method="inclusive")
            x = left + number * width + 12 + place * 42
            parts.append(
                f'<rect x="{x}" y="{y(middle):.1f}" width="38" height="{y(0) - y(middle):.1f}" '
                f'fill="{COLOURS[subject]}"/>'
                f'<path d="M{x + 19} {y(low):.1f}V{y(high):.1f}" stroke="black"/>'
                f'<text x="{x + 19}" y="{y(high) - 5:.0f}" text-anchor="middle">{middle:.2f}</text>'
            )
        label = case.replace("infer:", "inference ").replace("train:", "training ")
        parts.append(f'<text x="{left + number * width + 52}" y="{y(0) + 18:.0f}" text-anchor="middle">{label}</text>')
    parts.append(f'<path d="M{left} {y(1):.1f}H{full - 20}M{left} {y(0):.1f}H{full - 20}" stroke="black"/>')
    for place, subject in enumerate(COLOURS):
        x = left + place * 140
        parts.append(
            f'<rect x="{x}" y="{y(0) + 30:.0f}" width="12" height="12" fill="{COLOURS[subject]}"/>'
            f'<text x="{x + 18}" y="{y(0) + 40:.0f}">{NAMES[subject]}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
