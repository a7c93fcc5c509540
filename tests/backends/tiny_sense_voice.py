"""A model of SenseVoice's layout that tells a low sound from a high one: weights of a few bytes, loaded for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MELS, STACKED = 80, 7
TOKENS = ("<blk>", "<|zh|>", "<|NEUTRAL|>", "<|Speech|>", "<|woitn|>", "▁low", "▁high", "低", "高")
NUMBERS = ("x_length", "language", "text_norm")
METADATA = {
    "model_type": "sense_voice_ctc",
    "version": "1",
    "vocab_size": str(len(TOKENS)),
    "normalize_samples": "0",
    "lfr_window_size": str(STACKED),
    "lfr_window_shift": "6",
    "lang_auto": "0",
    "lang_zh": "3",
    "lang_en": "4",
    "lang_yue": "7",
    "lang_ja": "11",
    "lang_ko": "12",
    "with_itn": "14",
    "without_itn": "15",
    "neg_mean": ",".join(["0"] * MELS * STACKED),
    "inv_stddev": ",".join(["1"] * MELS * STACKED),
}


def write(folder: Path, **changes: str) -> Path:
    """The model's files. changes: of its metadata.

    A frame is low or high where the lower half of its mel bands outweighs the upper one, or the other way round, and
    blank where they are equal (digital silence); it says so in the language that is asked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tilt = np.tile(np.repeat(np.array([1, -1], np.float32), MELS // 2), STACKED)[:, None] / (MELS * STACKED)
    head = np.full((1, 4, len(TOKENS)), -100, np.float32)
    head[0, range(4), range(1, 5)] = 100
    signs = np.array([0, 0, 0, 0, 0, 1, -1, 1, -1], np.float32)
    base = np.array([10.5, -100, -100, -100, -100, 10, 10, -10, -10], np.float32)
    for_zh = np.array([0, 0, 0, 0, 0, -20, -20, 20, 20], np.float32)
    constants: dict[str, np.ndarray] = {
        "tilt": tilt.astype(np.float32),
        "head": head,
        "signs": signs,
        "base": base,
        "for_zh": for_zh,
        "zh": np.array([3], np.int32),
        "zero": np.array([0], np.float32),
        "axes": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "tilt"], ["low"]),
        helper.make_node("Mul", ["low", "signs"], ["sides"]),
        helper.make_node("Equal", ["language", "zh"], ["is_zh"]),
        helper.make_node("Cast", ["is_zh"], ["chosen"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["chosen", "axes"], ["choice"]),
        helper.make_node("Mul", ["choice", "for_zh"], ["language_bias"]),
        helper.make_node("Add", ["sides", "base"], ["scores"]),
        helper.make_node("Add", ["scores", "language_bias"], ["frames"]),
        helper.make_node("Mul", ["choice", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "head"], ["heads"]),
        helper.make_node("Concat", ["heads", "frames"], ["logits"], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", MELS * STACKED]),
        *(
            helper.make_tensor_value_info(name, TensorProto.INT32, ["N"])
            for name in ("x_length", "language", "text_norm")
        ),
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "L", len(TOKENS)])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, METADATA | changes)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "tokens.txt").write_text("".join(f"{token} {n}\n" for n, token in enumerate(TOKENS)), "utf-8")
    return folder
