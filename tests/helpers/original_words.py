"""The process in which an original program reads many folders: `python original_words.py REQUEST`, on its own.

REQUEST is a JSON file: the program, where its code is, and folders that differ by a word of their config. Beside it
come outputs.npz (FOLDER'S NUMBER/OUTPUT) and results.json: by folder what else the program says of it, or its error.
It imports nothing of the checkout but the harness of `verify --original` and the maker of bert4keras' fixtures, which
import nothing of it in turn. PYTHONPATH says where the program and the numpy that it needs are.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.pop(0)  # this file's folder: the original must not import its neighbours
Arrays = dict[str, Any]
Reader = Callable[[Path, Arrays], tuple[Arrays, Any]]


def module_of(path: str) -> Any:
    """The file, as a module of its own."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loaded_fully(missing: list[str]) -> None:
    """Count a weight that the program did not find as its refusal: it would be random."""
    if missing := [name for name in missing if not name.endswith(("position_embeddings", "positions_encoding"))]:
        raise ValueError(f"no values for {', '.join(missing[:4])}")


def transformers_model(request: Arrays) -> Reader:
    """transformers 4.40.2: the class of the head, as a script names it."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    model_class = getattr(transformers, request["class"])

    def read(folder: Path, inputs: Arrays) -> tuple[Arrays, Any]:
        model, info = model_class.from_pretrained(folder, output_loading_info=True)
        loaded_fully([*info["missing_keys"], *map(str, info["mismatched_keys"])])
        with torch.no_grad():
            given = {name: torch.from_numpy(array) for name, array in inputs.items()}
            output = model.eval()(**given, return_dict=True)
        names = model.config.id2label if "Classification" in request["class"] else None
        labels = None if names is None else [str(names[i]) for i in sorted(names)]
        return {key: output[key].numpy() for key in output if key.endswith("logits")}, labels

    return read


def transformers_tokenizer(request: Arrays) -> Reader:
    """transformers 4.40.2: AutoTokenizer."""
    import transformers

    transformers.logging.set_verbosity_error()

    def read(folder: Path, inputs: Arrays) -> tuple[Arrays, Any]:
        # A folder without tokenizer.json was saved by the slow one, whose settings the fast one does not all read.
        whole = (folder / "tokenizer.json").is_file()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=whole)
        return {}, [tokenizer(*texts)["input_ids"] for texts in request["texts"]]

    return read


def huawei_pytorch(request: Arrays) -> Reader:
    """Huawei's NEZHA-PyTorch, as `verify --original` runs it."""
    process = module_of(request["harness"])

    def read(folder: Path, inputs: Arrays) -> tuple[Arrays, Any]:
        config = json.loads((folder / "bert_config.json").read_text("utf-8"))
        files = [str(path) for path in folder.glob("*.bin")]
        work = folder / "work"
        work.mkdir()
        asked = {"config": config, "files": files, "head": "pretraining", "code": request["code"], "num_labels": 2}
        outputs = process.run_pytorch(asked, [inputs], work)[0]
        return {name: array for name, array in outputs.items() if name.endswith("logits")}, None

    return read


def huawei_tensorflow(request: Arrays) -> Reader:
    """Huawei's NEZHA-TensorFlow, as `verify --original` runs it."""
    process = module_of(request["harness"])
    tf = process.import_tensorflow_1()
    process.import_tensorflow_1 = lambda: tf
    sys.argv = sys.argv[:1]
    first = True

    def read(folder: Path, inputs: Arrays) -> tuple[Arrays, Any]:
        nonlocal first
        if not first:  # each run puts its folder first, and a class that records over the one before
            sys.modules.pop("modeling", None)
        first = False
        config = json.loads((folder / "bert_config.json").read_text("utf-8"))
        (index,) = folder.glob("*.index")
        asked = {"config": config, "checkpoint": str(index.with_suffix("")), "head": "pretraining"}
        given = {name: array.astype(np.int32) for name, array in inputs.items()}
        outputs = process.run_tensorflow(asked | {"code": request["code"], "num_labels": 2}, [given])[0]
        return {name: array for name, array in outputs.items() if name.endswith("logits")}, None

    return read


def bert4torch(request: Arrays) -> Reader:
    """bert4torch: the model that its config asks for, with the parts that were saved."""
    import torch
    from bert4torch.models import build_transformer_model

    def read(folder: Path, inputs: Arrays) -> tuple[Arrays, Any]:
        config = str(folder / "bert4torch_config.json")
        model = build_transformer_model(config, with_pool=True, with_nsp=True, with_mlm=True)
        weights = torch.load(folder / "pytorch_model.pt", weights_only=True)
        loaded = model.load_state_dict(weights, strict=False)
        loaded_fully([*loaded.missing_keys, *loaded.unexpected_keys])
        with torch.no_grad():
            given = [torch.from_numpy(inputs[name]) for name in ("input_ids", "token_type_ids")]
            outputs = model.eval()(given)
        found = zip(("pooled_output", "prediction_logits", "seq_relationship_logits"), outputs[1:], strict=True)
        return {name: tensor.numpy() for name, tensor in found if name.endswith("logits")}, None

    return read


def bert4keras(request: Arrays) -> Reader:
    """bert4keras: the model that its config asks for, with the parts that were saved."""
    module_of(request["maker"]).modern_keras()
    from bert4keras.backend import keras
    from bert4keras.models import build_transformer_model

    def read(folder: Path, inputs: Arrays) -> tuple[Arrays, Any]:
        keras.backend.clear_session()
        config = str(folder / "bert_config.json")
        model = build_transformer_model(config, model="nezha", with_nsp=True, with_mlm="linear")
        (weights,) = folder.glob("*.weights")
        named = folder / "weights.h5"  # this Keras recognises HDF5 only by the suffix
        named.symlink_to(weights)
        model.load_weights(str(named))
        named.unlink()
        (nsp,) = [layer for layer in model.layers if layer.name.endswith("NSP-Proba")]
        nsp.activation = keras.activations.linear  # logits, as of the others
        outputs = model.predict([inputs["input_ids"], inputs["token_type_ids"]], verbose=0)
        two, three = sorted(outputs, key=np.ndim)
        return {"prediction_logits": three, "seq_relationship_logits": two}, None

    return read


def paddlenlp(request: Arrays) -> Reader:
    """PaddleNLP: the class of the head."""
    import paddle
    from paddlenlp import transformers

    model_class = getattr(transformers, request["class"])

    def read(folder: Path, inputs: Arrays) -> tuple[Arrays, Any]:
        model = model_class.from_pretrained(str(folder))
        stored = paddle.load(str(folder / "model_state.pdparams"))
        loaded_fully(sorted(set(model.state_dict()) - set(stored) - {"cls.predictions.decoder_weight"}))
        model.eval()
        with paddle.no_grad():
            outputs = model(**{name: paddle.to_tensor(array) for name, array in inputs.items()}, return_dict=True)
        return {key: outputs[key].numpy() for key in list(outputs.keys()) if key.endswith("logits")}, None

    return read


def keys(request: Arrays) -> list[str]:
    """The keys of a config that the program's own classes have attributes or arguments for."""
    program = request["program"]
    if program == "transformers":
        import transformers

        config = transformers.NezhaConfig()
        return sorted({*vars(config), *config.to_dict(), "num_labels", "use_return_dict", "attn_implementation"})
    if program == "paddlenlp":
        from paddlenlp import transformers

        return sorted({*vars(transformers.NeZhaConfig()), "num_labels"})
    if program == "bert4torch":
        import bert4torch.models as models

        return arguments(*(part.__init__ for part in models.NEZHA.__mro__), models.build_transformer_model)
    if program == "bert4keras":
        module_of(request["maker"]).modern_keras()
        from bert4keras import models

        made = (part.__init__ for part in models.NEZHA.__mro__)
        # build_transformer_model looks these up by hand.
        read = {"max_position_embeddings", "hidden_dropout_prob", "attention_probs_dropout_prob", "type_vocab_size"}
        return sorted({*read, *arguments(*made, models.Transformer.build, models.build_transformer_model)})
    return []


def arguments(*functions: Any) -> list[str]:
    """The names of their arguments, in order of the alphabet."""
    written = [function for function in functions if inspect.isfunction(function)]
    names = {name for function in written for name in inspect.signature(function).parameters}
    return sorted(names - {"self", "args", "kwargs", "config_path"})


READERS = {
    "transformers": transformers_model,
    "tokenizer": transformers_tokenizer,
    "huawei-torch": huawei_pytorch,
    "huawei-tf": huawei_tensorflow,
    "bert4torch": bert4torch,
    "bert4keras": bert4keras,
    "paddlenlp": paddlenlp,
}


def main(path: Path) -> None:
    """Read the folders of the request in `path`."""
    request = json.loads(path.read_text("utf-8"))
    if request.get("keys"):
        path.with_name("results.json").write_text(json.dumps(keys(request)))
        return
    read = READERS[request["program"]](request)
    with np.load(request["inputs"]) as stored:
        inputs = dict(stored)
    outputs, results = {}, []
    for number, folder in enumerate(request["folders"]):
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                arrays, said = read(Path(folder), inputs)
            outputs |= {f"{number}/{name}": array for name, array in arrays.items()}
            results.append({"said": said})
        except (Exception, SystemExit) as error:
            results.append({"error": f"{type(error).__name__}: {error}"[:300]})
    np.savez(path.with_name("outputs.npz"), **outputs)
    path.with_name("results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
