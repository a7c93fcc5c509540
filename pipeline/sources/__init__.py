"""Where text comes from: rows by language, selected by rule before anything is paid, from many sources in turns."""

from pipeline.sources.base import PreviewRow, SourceCounts
from pipeline.sources.chatterbot import LICENSE, MULTI_TURN, NAME, ChatterbotSource
from pipeline.sources.preview import preview
from pipeline.sources.rotation import Sources

__all__ = [
    "LICENSE",
    "MULTI_TURN",
    "NAME",
    "ChatterbotSource",
    "PreviewRow",
    "SourceCounts",
    "Sources",
    "preview",
]
