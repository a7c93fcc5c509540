"""ONNX models on the CPU."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError


def open_session(file: Path, threads: int, inputs: Collection[str] = ()) -> Any:
    """An `onnxruntime.InferenceSession`; `threads` share one operator.

    ModelError naming the file if it is no model, or has other inputs than these (where they are given).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads would spin and take the CPU from the model that runs next on this worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's own errors share no base class but Exception.
        if type(error).__module__.startswith("onnxruntime."):
            raise ModelError(f"{file}: not a model that onnxruntime can load: {error}") from error
        raise
    found = [item.name for item in session.get_inputs()]
    if inputs and set(found) != set(inputs):
        raise ModelError(f"{file}: a model of another kind: its inputs are {', '.join(found)}, not {', '.join(inputs)}")
    return session
