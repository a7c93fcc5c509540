"""Tars as trainers read them: plain files without time, owner or machine, same samples, same bytes."""

from __future__ import annotations

import tarfile

from pipeline.shards.format import BLOCK, tar_header


def tar_member(name: str, data: bytes) -> bytes:
    """A file as it lies in a tar: its header, its content, and zeros to the end of the block."""
    return tar_header(name.encode(), len(data)) + data + bytes(-len(data) % BLOCK)


def tar_end(size: int) -> bytes:
    """What closes a tar whose members take `size` bytes."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % tarfile.RECORDSIZE)
