"""The process in which an original program runs: `python process.py FOLDER`. `programs.py` starts it.

FOLDER holds `request.json` and `inputs.npz` (keys CASE/NAME). The process adds `outputs.npz`, or `outputs.json` for a
tokenizer. It imports the original's files from the user's clone and changes nothing in them. What they need and no
longer find, it puts into memory: TensorFlow 1's `tensorflow.contrib`, clients of a model store that is never called, a
`cuda()` for machines without a GPU. If the original does not find a weight in the checkpoint, the process ends with an
error, because that weight would stay random.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

Arrays = dict[str, "np.ndarray[Any, np.dtype[Any]]"]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
POOLED = ("pretraining", "next-sentence-prediction", "sequence-classification", "multiple-choice")


# NEZHA-TensorFlow


def import_tensorflow_1() -> Any:
    """Make TensorFlow 2's v1 API the module `tensorflow`, with the names of `tensorflow.contrib` that are imported."""
    tf = import_module("tensorflow").compat.v1
    import_module("tf_keras")  # it has tf.layers.dense today; load it before the name `tensorflow` changes
    assert tf.layers.dense
    tf_slim = import_module("tf_slim")
    variables, utils = import_module("tf_slim.ops.variables"), import_module("tf_slim.layers.utils")
    tf.disable_v2_behavior()
    tf.logging.set_verbosity(tf.logging.ERROR)
    sys.modules["tensorflow"] = tf
    for name in ("", ".framework", ".framework.python", ".layers", ".layers.python", ".layers.python.layers"):
        sys.modules[f"tensorflow.contrib{name}"] = ModuleType(f"tensorflow.contrib{name}")
    operations: Any = ModuleType("tensorflow.contrib.framework.python.ops")
    operations.add_arg_scope, operations.variables = tf_slim.add_arg_scope, variables
    sys.modules["tensorflow.contrib.framework.python.ops"] = operations
    layers: Any = sys.modules["tensorflow.contrib.layers.python.layers"]
    layers.utils = utils
    return tf


def run_tensorflow(request: dict[str, Any], cases: list[Arrays]) -> list[Arrays]:
    """NEZHA-TensorFlow. Each case gets its own graph, for the attention needs the length when the graph is built."""
    tf = import_tensorflow_1()
    sys.path.insert(0, str(Path(request["code"]) / "NEZHA-TensorFlow"))
    modeling: Any = import_module("modeling")

    models: list[Any] = []

    class Recorded(modeling.BertModel):  # type: ignore[misc]
        """The original, but each instance is kept: the scripts' `create_model` does not return it."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            models.append(self)

    original, modeling.BertModel = modeling.BertModel, Recorded
    Recorded.__name__ = original.__name__
    results = []
    for case in cases:
        with tf.Graph().as_default(), tf.Session() as session:
            config = modeling.BertConfig.from_dict(request["config"])
            places = {name: tf.placeholder(tf.int32, case[name].shape) for name in INPUTS}
            fetched = tensorflow_head(tf, modeling, request, config, places, case)
            model = models.pop()
            fetched |= {"embeddings": model.get_embedding_output(), "pooler": model.get_pooled_output()}
            fetched |= {f"layer_{i}": layer for i, layer in enumerate(model.get_all_encoder_layers())}
            variables = tf.trainable_variables()
            assignments, names = modeling.get_assignment_map_from_checkpoint(variables, request["checkpoint"])
            if not refuse_random(request, (variable.name for variable in variables if variable.name not in names)):
                del fetched["pooler"]
            tf.train.init_from_checkpoint(request["checkpoint"], assignments)
            session.run(tf.global_variables_initializer())
            results.append(session.run(fetched, {places[name]: case[name] for name in INPUTS}))
    return results


def tensorflow_head(
    tf: Any, modeling: Any, request: dict[str, Any], config: Any, places: dict[str, Any], case: Arrays
) -> dict[str, Any]:
    """The output tensors of the head that a run_*.py builds, and its losses if the case has labels."""
    ids, mask, types = (places[name] for name in INPUTS)
    head = request["head"]
    if head in ("encoder", "pretraining", "masked-lm", "next-sentence-prediction"):
        model = modeling.BertModel(
            config=config, is_training=False, input_ids=ids, input_mask=mask, token_type_ids=types
        )
        return {} if head == "encoder" else pretraining_heads(tf, head, config, model, case)
    batch, length = case["input_ids"].shape
    options = {"is_training": False, "input_ids": ids, "input_mask": mask, "segment_ids": types}
    options |= {"bert_config": config, "use_one_hot_embeddings": False}
    if head == "question-answering":
        run_squad = import_module("run_squad")

        start, end = run_squad.create_model(**options, input_span_mask=tf.ones((batch, length), tf.int32))
        return {"start_logits": start, "end_logits": end}
    if head == "sequence-classification":
        script, fourth, zeros = import_module("run_classifier"), "probabilities", np.zeros(batch, np.int32)
    else:
        script, fourth, zeros = import_module("run_classifier_ner"), "predictions", np.zeros((batch, length), np.int32)
        tf.flags.FLAGS.task_name, tf.flags.FLAGS.max_seq_length = "ner", length
    labels = tf.constant(case.get("labels", zeros))
    loss, _, logits, result = script.create_model(**options, labels=labels, num_labels=request["num_labels"])
    return {"logits": logits} | ({"loss": loss, fourth: result} if "labels" in case else {})


def pretraining_heads(tf: Any, head: str, config: Any, model: Any, case: Arrays) -> dict[str, Any]:
    """The same for the heads of run_pretraining.py, on `model`."""
    run_pretraining = import_module("run_pretraining")

    batch, length = case["input_ids"].shape
    fetched = {}
    if head in ("pretraining", "masked-lm"):
        positions = tf.constant(np.tile(np.arange(length, dtype=np.int32), (batch, 1)))
        labels = tf.constant(case.get("mlm_labels", np.zeros((batch, length), np.int32)))
        weights = tf.constant(case.get("mlm_weights", np.ones((batch, length), np.float32)))
        words = model.get_embedding_table()
        loss, _, logs = run_pretraining.get_masked_lm_output(
            config, model.get_sequence_output(), words, positions, labels, weights
        )
        logits = tf.reshape(logs.op.inputs[0], (batch, length, -1))  # the input of its log_softmax
        fetched["logits" if head == "masked-lm" else "prediction_logits"] = logits
        fetched |= {"mlm_loss": loss, "mlm_log_probs": logs} if "mlm_labels" in case else {}
    if head in ("pretraining", "next-sentence-prediction"):
        labels = tf.constant(case.get("nsp_labels", np.zeros(batch, np.int32)))
        loss, _, logs = run_pretraining.get_next_sentence_output(config, model.get_pooled_output(), labels)
        fetched["logits" if head == "next-sentence-prediction" else "seq_relationship_logits"] = logs.op.inputs[0]
        fetched |= {"nsp_loss": loss, "nsp_log_probs": logs} if "nsp_labels" in case else {}
    return fetched


def run_tokenizer(request: dict[str, Any]) -> list[list[str]]:
    """The tokens that NEZHA-TensorFlow's `FullTokenizer` makes of each text."""
    import_tensorflow_1()
    sys.path.insert(0, str(Path(request["code"]) / "NEZHA-TensorFlow"))
    tokenization = import_module("tokenization")

    tokenizer = tokenization.FullTokenizer(request["vocab"], do_lower_case=request["lower_case"])
    return [tokenizer.tokenize(text) for text in request["texts"]]


def run_byte_bpe(request: dict[str, Any]) -> list[list[str]]:
    """The tokens that the `FullTokenizer` of a byte BPE program of Huawei's makes of each text."""
    sys.modules["six"] = SimpleNamespace(PY2=False, PY3=True)  # type: ignore[assignment]
    file = Path(request["code"])
    sys.path.insert(0, str(file.parent))
    tokenization = import_module(file.stem)

    tokenizer = tokenization.FullTokenizer(request["vocab"], request["lower_case"], **request["options"])
    return [tokenizer.tokenize(text) for text in request["texts"]]


# NEZHA-PyTorch and transformers


def run_pytorch(request: dict[str, Any], cases: list[Arrays], folder: Path) -> list[Arrays]:
    """NEZHA-PyTorch's modeling_nezha.py on the CPU."""
    torch: Any = import_module("torch")
    for name in ("boto3", "botocore", "requests"):  # its file_utils.py imports them for downloads
        sys.modules[name] = ModuleType(name)
    exceptions: Any = SimpleNamespace(ClientError=Exception)
    progress: Any = SimpleNamespace(tqdm=None)
    sys.modules["botocore.exceptions"] = exceptions
    sys.modules.setdefault("tqdm", progress)
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    sys.path.insert(0, str(Path(request["code"]) / "NEZHA-PyTorch"))
    original = import_module("modeling_nezha")

    head = request["head"]
    model, pooled = load_pytorch_model(original, request, folder)
    names = {
        "encoder": (),
        "pretraining": ("prediction_logits", "seq_relationship_logits"),
        "next-sentence-prediction": ("", "logits"),
        "question-answering": ("start_logits", "end_logits"),
    }.get(head, ("logits",))
    results = []
    record = recorder(model if head == "encoder" else model.bert, pooled)
    for case in cases:
        model.num_choices = case["input_ids"].shape[1]  # the number of logits in a row of multiple choice
        with torch.no_grad():
            ids, mask, types = (torch.from_numpy(case[name]).long() for name in INPUTS)
            output = model(ids, token_type_ids=types, attention_mask=mask)
        outputs = output if isinstance(output, tuple) else (output,)
        computed = record | {name: output for name, output in zip(names, outputs, strict=False) if name}
        results.append({name: tensor.numpy().copy() for name, tensor in computed.items()})
    return results


def load_pytorch_model(original: Any, request: dict[str, Any], folder: Path) -> tuple[Any, bool]:
    """The head's class of NEZHA-PyTorch with the checkpoint's weights, in evaluation mode; whether it has a pooler."""
    head = request["head"]
    model_class, options = {
        "encoder": (original.BertModel, {}),
        "pretraining": (original.BertForPreTraining, {}),
        "next-sentence-prediction": (original.BertForPreTraining, {}),
        "masked-lm": (original.BertForMaskedLM, {}),
        "sequence-classification": (original.BertForSequenceClassification, {"num_labels": request["num_labels"]}),
        "multiple-choice": (original.NeZhaForMultipleChoice, {}),
        "question-answering": (original.NeZhaForQuestionAnswering, {}),
    }[head]
    state = {name.removeprefix("module."): tensor for name, tensor in load_state(request["files"]).items()}
    (folder / "bert_config.json").write_text(json.dumps(request["config"]), encoding="utf-8")
    model = model_class.from_pretrained(str(folder), state_dict=dict(state), **options).eval()
    loaded = {name.replace("gamma", "weight").replace("beta", "bias") for name in state}
    loaded |= {name.removeprefix("bert.") for name in loaded} if head == "encoder" else set()
    random = (name for name in model.state_dict() if name not in loaded and "decoder.weight" not in name)
    return model, refuse_random(request, random)


def run_transformers(request: dict[str, Any], cases: list[Arrays]) -> list[Arrays]:
    """The Nezha classes of the release of transformers in the folder `code`, which PYTHONPATH names."""
    import torch

    transformers: Any = import_module("transformers")

    model_class = getattr(transformers, f"Nezha{request['class']}")
    # Each layer has a table [max_position, max_position, d] and fails on longer inputs: fit it to the longest case.
    longest = max(case["input_ids"].shape[-1] for case in cases)
    config = transformers.NezhaConfig.from_dict(request["config"] | {"max_position_embeddings": longest})
    state = load_state(request["files"])
    model, loaded = model_class.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
    pooled = refuse_random(request, loaded["missing_keys"])
    model.eval()
    results = []
    record = recorder(getattr(model, "nezha", model), pooled)
    for case in cases:
        with torch.no_grad():
            output = model(**{name: torch.from_numpy(array).long() for name, array in case.items()}, return_dict=True)
        computed = record | {name: output[name] for name in output if name.endswith("logits") or name == "loss"}
        computed |= {f"attentions_{i}": layer for i, layer in enumerate(output.get("attentions") or ())}
        results.append({name: tensor.numpy().copy() for name, tensor in computed.items()})
    return results


def load_state(files: list[str]) -> dict[str, Any]:
    """The tensors of torch and safetensors files, read by these libraries themselves."""
    import torch

    state: dict[str, Any] = {}
    for file in files:
        if file.endswith(".safetensors"):
            from safetensors.torch import load_file

            state |= load_file(file)
        elif not file.endswith(".json"):
            state |= torch.load(file, map_location="cpu", weights_only=True)
    return state


def recorder(base: Any, pooled: bool) -> dict[str, Any]:
    """A dictionary that has, after each forward pass of `base`, the outputs of its embeddings, layers and pooler."""
    record: dict[str, Any] = {}

    def keep(module: Any, name: str) -> None:
        def hook(module: Any, args: Any, output: Any) -> None:
            record[name] = output[0] if isinstance(output, tuple) else output

        module.register_forward_hook(hook)

    keep(base.embeddings, "embeddings")
    for i, layer in enumerate(base.encoder.layer):
        keep(layer, f"layer_{i}")
    if base.pooler is not None and pooled:
        keep(base.pooler, "pooler")
    return record


def refuse_random(request: dict[str, Any], names: Iterable[str]) -> bool:
    """End the process if the original did not load some weight, which is then still random; whether it has a pooler.

    Every program makes a pooler. One that is not in the checkpoint may be random where the head does not use it.
    """
    missing = set(names)
    poolers = {name for name in missing if "pooler" in name}
    if missing != poolers or (poolers and request["head"] in POOLED):
        listing = ", ".join(sorted(missing)[:6])
        raise SystemExit(f"the original finds no values for {len(missing)} of its weights: {listing}")
    return not poolers


def main() -> None:
    """Read the request in the folder, run it, and write the outputs."""
    folder = Path(sys.argv.pop())  # the originals parse the rest as their flags
    sys.path.pop(0)  # this file's folder: the original must not import its neighbours
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    if "texts" in request:
        tokenize = run_byte_bpe if request["program"] == "byte BPE" else run_tokenizer
        (folder / "outputs.json").write_text(json.dumps(tokenize(request)), encoding="utf-8")
        return
    cases: list[Arrays] = [{} for _ in range(request["cases"])]
    with np.load(folder / "inputs.npz") as stored:
        for key in stored:
            case, name = key.split("/")
            cases[int(case)][name] = stored[key]
    if request["program"] == "tensorflow":
        results = run_tensorflow(request, cases)
    elif request["program"] == "pytorch":
        results = run_pytorch(request, cases, folder)
    else:
        results = run_transformers(request, cases)
    outputs = {f"{i}/{name}": array for i, result in enumerate(results) for name, array in result.items()}
    np.savez(folder / "outputs.npz", **outputs)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
