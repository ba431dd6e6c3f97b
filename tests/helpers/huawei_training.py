"""Records how Huawei's NEZHA-TensorFlow trains, by its own unmodified program on TensorFlow 2.21's v1 API.

    python tests/helpers/huawei_training.py CLONE [--check]

CLONE is a clone of huawei-noah/Pretrained-Language-Model at `0598f02`. Two files are written into fixtures:

- ``huawei-tf-pretraining/training.npz``: the graph of ``run_pretraining.py`` without dropout starts from that
  checkpoint and takes STEPS steps of ``create_optimizer(..., optimizer_algo="lamb")`` on the inputs of two cases of
  ``expected.npz`` in turn. ``losses`` [STEPS, 2] are those of words and of pairs; ``gradients`` and ``step_N`` are
  sketches of the first gradients and of how far the weights have come after N steps [variables by name, 1 + SKETCH].
- ``training/lamb.npz``: the weights of WEIGHTS, joined, after the steps KEPT; `gradients` are their slopes.

The program does not say whether its step is counted up before or after the rate is read from it; either happens. Here
each step is fed its number, counted from 0.

With ``--check`` nothing is written: the largest difference from the stored files is printed, and the exit code is 1 if
it is above float32's noise. It needs ``pip install 'nezha-convert[tf]' && pip install --no-deps tf-keras``.
"""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
RATE, STEPS, WARMUP = 1e-3, 30, 3
CASES = ("short", "clipped")
SKETCH = 4
"""Inner products with random vectors that stand for a tensor, beside its norm."""

WEIGHTS = {
    "dense/kernel": np.full((3, 4), 0.2),
    "far/kernel": np.full((4, 5), 5.0),
    "near/kernel": np.full((2, 3), 0.01),
    "empty/kernel": np.zeros((2, 2)),
    "still/kernel": np.full((2, 3), 0.5),
    "dense/bias": np.full(4, 0.3),
    "LayerNorm/gamma": np.ones(4),
}
"""A usual tensor, one whose trust ratio is cut, a short one, one of zeros, one without gradient, two without decay."""

KEPT = (1, 2, 4, 15, 30)


def gradients(step: int) -> dict[str, np.ndarray]:
    """The gradient of each tensor of WEIGHTS in a step; that of every third step is longer than the norm allowed."""
    rng = np.random.default_rng(step)
    scale = {"far/kernel": 1e-4, "near/kernel": 3e-4, "still/kernel": 0.0}
    length = 1.0 if step % 3 == 0 else 0.05
    return {
        name: (scale.get(name, length) * rng.normal(size=weight.shape)).astype(np.float32)
        for name, weight in WEIGHTS.items()
    }


def sketch(name: str, tensor: np.ndarray) -> np.ndarray:
    """The norm of a tensor and its inner products with SKETCH random vectors of unit length, in float64."""
    flat = tensor.astype(np.float64).ravel()
    vectors = np.random.default_rng(zlib.crc32(name.encode())).normal(size=(SKETCH, flat.size))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.array([np.linalg.norm(flat), *(vectors @ flat)])


def pretraining(tf: Any, folder: Path) -> dict[str, np.ndarray]:
    """The content of training.npz."""
    modeling, scripts = import_module("modeling"), import_module("run_pretraining")
    create_optimizer = import_module("optimization").create_optimizer
    stored = np.load(folder / "expected.npz")
    config = modeling.BertConfig.from_json_file(str(folder / "bert_config.json"))
    losses, before, first, kept = [], {}, {}, {}
    with tf.Graph().as_default(), tf.Session() as session:
        graphs = []
        for number, case in enumerate(CASES):
            with tf.variable_scope(tf.get_variable_scope(), reuse=number > 0):
                inputs = {name: tf.constant(stored[f"{case}/{name}"]) for name in ("input_ids", "input_mask")}
                model = modeling.BertModel(
                    config, is_training=False, token_type_ids=tf.constant(stored[f"{case}/segment_ids"]), **inputs
                )
                batch, length = stored[f"{case}/input_ids"].shape
                positions = tf.constant(np.tile(np.arange(length, dtype=np.int32), (batch, 1)))
                words, _, _ = scripts.get_masked_lm_output(
                    config,
                    model.get_sequence_output(),
                    model.get_embedding_table(),
                    positions,
                    tf.constant(stored[f"{case}/mlm_labels"]),
                    tf.constant(stored[f"{case}/mlm_weights"]),
                )
                labels = tf.constant(stored[f"{case}/nsp_labels"])
                pairs, _, _ = scripts.get_next_sentence_output(config, model.get_pooled_output(), labels)
                graphs.append((words, pairs))
        chosen = tf.placeholder(tf.int32, [])
        words, pairs = tf.cond(tf.equal(chosen, 0), lambda: graphs[0], lambda: graphs[1])
        number = tf.train.get_or_create_global_step().value()
        train = create_optimizer(words + pairs, RATE, STEPS, WARMUP, optimizer_algo="lamb")
        variables = sorted(tf.trainable_variables(), key=lambda variable: variable.name)
        assignments, names = modeling.get_assignment_map_from_checkpoint(variables, str(folder / "model.ckpt-12345"))
        assert {variable.name for variable in variables} <= set(names)
        tf.train.init_from_checkpoint(str(folder / "model.ckpt-12345"), assignments)
        session.run(tf.global_variables_initializer())
        short = {variable.op.name: variable for variable in variables}
        slopes = dict(zip(short, map(tf.convert_to_tensor, tf.gradients(words + pairs, variables)), strict=True))
        before, first = session.run([short, slopes], {chosen: 0})
        for step in range(STEPS):
            *both, _ = session.run([words, pairs, train], {chosen: step % len(CASES), number: step})
            losses.append(both)
            if step + 1 in (2, STEPS):  # the first step has a rate of 0
                after = session.run(short)
                kept[f"step_{step + 1}"] = np.stack([sketch(name, after[name] - before[name]) for name in short])
    kept |= {"losses": np.array(losses), "gradients": np.stack([sketch(name, first[name]) for name in short])}
    return {name: array.astype(np.float32) for name, array in kept.items()}


def lamb(tf: Any) -> dict[str, np.ndarray]:
    """The content of lamb.npz."""
    create_optimizer = import_module("optimization").create_optimizer
    kept = []
    with tf.Graph().as_default(), tf.Session() as session:
        variables = {name: tf.get_variable(name, initializer=w.astype(np.float32)) for name, w in WEIGHTS.items()}
        slopes = {name: tf.placeholder(tf.float32, weight.shape) for name, weight in WEIGHTS.items()}
        loss = tf.add_n([tf.reduce_sum(variables[name] * slopes[name]) for name in WEIGHTS])
        number = tf.train.get_or_create_global_step().value()
        train = create_optimizer(loss, RATE, STEPS, WARMUP, optimizer_algo="lamb")
        session.run(tf.global_variables_initializer())
        for step in range(1, STEPS + 1):
            fed = {slopes[name]: gradient for name, gradient in gradients(step).items()}
            session.run(train, {number: step - 1, **fed})
            if step in KEPT:
                kept.append(np.concatenate([weight.ravel() for weight in session.run([*variables.values()])]))
    return {"weights": np.stack(kept)}


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("clone", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # without it there is no tf.layers
    tf = import_module("nezha_convert.parity.originals.process").import_tensorflow_1()
    sys.argv[1:] = []  # run_pretraining.py parses the rest as its flags
    sys.path.insert(0, str(arguments.clone / "NEZHA-TensorFlow"))
    worst = 0.0
    for path, found in (
        (FIXTURES / "huawei-tf-pretraining" / "training.npz", pretraining(tf, FIXTURES / "huawei-tf-pretraining")),
        (FIXTURES / "training" / "lamb.npz", lamb(tf)),
    ):
        if not arguments.check:
            np.savez_compressed(path, **found)
            continue
        with np.load(path) as stored:
            assert sorted(stored) == sorted(found)
            for name in stored:
                worst = max(worst, float(np.abs(stored[name] - found[name]).max() / np.abs(stored[name]).max()))
    print(f"largest difference: {worst:.1e}" if arguments.check else "written")
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
