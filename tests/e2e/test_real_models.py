"""The models that `speechchat models pull` fetched."""

from __future__ import annotations

import hashlib

import pytest

from pipeline import models


@pytest.mark.embedded
def test_the_real_models_are_in_the_cache() -> None:
    for name in ("kokoro", "kokoro-voices", "whisper-base", "gemma-3-270m", "dnsmos"):
        folder = models.check(name)
        assert all((folder / file.name).stat().st_size == file.size for file in models.MODELS[name].files)
        use = models.uses(name, "any")
        assert (use.name, use.license) == (name, models.MODELS[name].license)
        main = models.MODELS[name].main
        assert not main or use.sha256 == hashlib.sha256((folder / main).read_bytes()).hexdigest()
