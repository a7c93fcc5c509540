"""The voices that can be cast, as data and as a library."""

from pipeline.voice import Gender, Voice
from speakers.library import VoiceLibrary, load_library

__all__ = ["Gender", "Voice", "VoiceLibrary", "load_library"]
