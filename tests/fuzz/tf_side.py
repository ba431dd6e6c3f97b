"""Reads bundles with TensorFlow: prefixes on stdin, a line of JSON for each.

Run ``python tf_side.py`` in an environment that has TensorFlow. Each bundle is read in a separate process, because
TensorFlow aborts the process at some of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf

SECONDS = 20


def described(prefix: str) -> dict[str, Any]:
    """The tensors by name as [type, shape, SHA-256], or the error."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        dtypes = reader.get_variable_to_dtype_map()
        found = {}
        for name, shape in reader.get_variable_to_shape_map().items():
            array = reader.get_tensor(name)
            data = array.tobytes() if hasattr(array, "tobytes") else bytes(array)
            found[name] = [dtypes[name].name, list(shape), hashlib.sha256(data).hexdigest()]
        json.dumps(found, ensure_ascii=False).encode()
        return {"read": found}
    except Exception as error:  # any error of TensorFlow is an answer
        return {"refused": f"{type(error).__name__}: {str(error)[:300]}"}


def main() -> None:
    """Print a line of JSON for each prefix."""
    for line in sys.stdin:
        prefix = line.rstrip("\n")
        readable, writable = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(SECONDS)
            with os.fdopen(writable, "w") as out:
                json.dump(described(prefix), out)
            os._exit(0)
        os.close(writable)
        with os.fdopen(readable) as out:
            text = out.read()
        _, status = os.waitpid(child, 0)
        died = {"died": signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else str(status)}
        print(text if text and not status else json.dumps(died), flush=True)


if __name__ == "__main__":
    main()
