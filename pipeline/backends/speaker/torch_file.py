"""Tensors out of a file of torch's old format (before 1.6), without torch and without executing anything.

Such a file is five pickles (a magic number, a version, facts on the machine, the object, the keys of its storages) and
after them each storage: its count of numbers (int64) and the numbers. torch/serialization.py, `_legacy_load`.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.errors import ModelError

_MAGIC = 0x1950A86A20F9469CFC6C


class _FloatStorage:
    """Stands for the class of torch that a pickle names; it is never made."""


@dataclass(frozen=True)
class _Tensor:
    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def rebuild(cls, storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
        return cls(storage, offset, shape, strides)

    def array(self, storages: Mapping[str, np.ndarray]) -> np.ndarray:
        count = int(np.prod(self.shape, dtype=np.int64))
        contiguous = tuple(int(np.prod(self.shape[axis + 1 :], dtype=np.int64)) for axis in range(len(self.shape)))
        data = storages[self.storage][self.offset : self.offset + count]
        if self.strides != contiguous or len(data) != count:
            raise ValueError(f"a tensor of shape {self.shape} does not lie in one piece of its storage")
        return data.reshape(self.shape)


class _Unpickler(pickle.Unpickler):
    """Knows three names; a pickle that asks for any other is refused, so that a file can run nothing."""

    _known = {  # noqa: RUF012
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor.rebuild,
        ("torch", "FloatStorage"): _FloatStorage,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of weights needs")
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> str:
        """A storage, by its key; it comes later in the file."""
        kind, of, key, *_ = pid
        if kind != "storage" or of is not _FloatStorage:
            raise pickle.UnpicklingError(f"a storage of another kind than float32: {kind!r}")
        return str(key)


def read_tensors(file: Path, section: str) -> dict[str, np.ndarray]:
    """The float32 tensors by name of the map that the file's object holds under `section`.

    Raises ModelError naming the file if it is no such file or asks for anything else.
    """
    try:
        with file.open("rb") as stream:
            if _Unpickler(stream).load() != _MAGIC:
                raise ValueError("the first number is not torch's")
            _Unpickler(stream).load()
            _Unpickler(stream).load()
            tensors = _Unpickler(stream).load()[section]
            keys = _Unpickler(stream).load()
            storages = {key: _storage(stream) for key in keys}
        return {name: tensor.array(storages) for name, tensor in tensors.items()}
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{file}: not a file of weights in torch's old format: {error}") from error


def _storage(stream: BinaryIO) -> np.ndarray:
    count = int(np.frombuffer(stream.read(8), "<i8")[0])
    return np.frombuffer(stream.read(4 * count), "<f4", count)
