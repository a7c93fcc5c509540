"""The voices that can be cast, as data and as a library."""

from speakers.library import Gender, Voice, VoiceLibrary, load_library

__all__ = ["Gender", "Voice", "VoiceLibrary", "load_library"]
