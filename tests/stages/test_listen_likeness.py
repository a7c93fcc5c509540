"""Whose voice a turn is in: told by the speaker's other turns, or by what is known of the voice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio import encode_flac, read_clip, to_pcm
from pipeline.backends import engine_names, make_encoder, speech_models
from pipeline.backends.speaker.resemblyzer import Resemblyzer
from pipeline.config import Config, load_config
from pipeline.dialogue import Clip, Role
from pipeline.errors import ConfigError, DataError
from pipeline.stages.likeness import Likeness, References, Voiced
from pipeline.voice import Recipe, Voice
from speakers import VoiceLibrary
from speakers.table import write_table

DATA = Path(__file__).parents[1] / "backends" / "data"
HER, HIM = (read_clip(DATA / f"{name}.flac") for name in ("af_heart", "zm_yunxi"))


class Compass:
    """A `SpeakerEncoder` to whom the mean of a clip is the direction of a voice, in right angles."""

    name = "compass"
    rate = 16000
    dim = 2

    def __init__(self) -> None:
        self.embedded = 0

    def embed(self, clips: Sequence[Clip]) -> np.ndarray:
        assert all(clip.rate == self.rate for clip in clips)
        self.embedded += len(clips)
        angles = np.array([np.pi / 2 * float(clip.audio.mean()) for clip in clips])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def windows(self, clips: Sequence[Clip], density: float) -> list[np.ndarray]:
        return [self.embed([clip]) for clip in clips]


def voiced(angle: float, role: Role, voice: str = "", rate: int = 16000) -> Voiced:
    return Voiced(Clip(np.full(rate, angle, np.float32), rate), role, voice)


def voice(id: str, clip: str = "") -> Voice:
    recipe = Recipe(clip=clip) if clip else Recipe(timbre=((id, 1.0),))
    return Voice(id=id, gender="female", languages=("en",), engine="kokoro", license="CC0-1.0", recipe=recipe)


def test_a_speaker_is_known_by_the_other_turns() -> None:
    turns = [voiced(0, "user"), voiced(1, "assistant"), voiced(0.5, "user"), voiced(1, "assistant")]
    found = Likeness(Compass(), {}).scores(turns, [])
    half = np.sqrt(0.5)
    assert found[0] == pytest.approx({"similarity": half, "swap": -half}, abs=1e-6)
    assert found[2] == pytest.approx({"similarity": half, "swap": 0}, abs=1e-6)
    # To the mean of 0 and half a right angle.
    assert found[1] == pytest.approx({"similarity": 1, "swap": np.cos(0.75 * np.pi / 2) - 1}, abs=1e-6)


def test_company_is_compared_to_and_not_scored() -> None:
    found = Likeness(Compass(), {}).scores([voiced(0, "user")], [voiced(0.2, "user"), voiced(1, "assistant")])
    assert found == [pytest.approx({"similarity": np.cos(0.1 * np.pi), "swap": -np.cos(0.1 * np.pi)}, abs=1e-6)]


def test_where_there_is_nothing_to_compare_to_there_is_no_score() -> None:
    likeness = Likeness(Compass(), {})
    assert likeness.scores([voiced(0, "user"), voiced(1, "assistant")], []) == [{}, {}]
    assert likeness.scores([voiced(0, "user"), voiced(0, "user")], []) == [pytest.approx({"similarity": 1})] * 2
    # What the speaker said in another voice, before the voice was changed, is nothing to go by.
    assert likeness.scores([voiced(0, "user", "new")], [voiced(0, "user", "old"), voiced(1, "assistant")]) == [{}]


def test_what_is_known_of_a_voice_goes_before_the_other_turns() -> None:
    north = {"anna": np.array([1, 0], np.float32)}
    turns = [voiced(1, "user", "anna"), voiced(1, "user", "anna"), voiced(0, "assistant", "bob")]
    found = Likeness(Compass(), north).scores(turns, [])
    assert found[0] == pytest.approx({"similarity": 0, "swap": 0}, abs=1e-6)
    assert found[2] == {}  # of bob there is one turn and no reference


def test_a_clip_is_embedded_once() -> None:
    encoder = Compass()
    likeness = Likeness(encoder, {})
    first, again, other = voiced(0, "user"), voiced(0, "user", rate=8000), voiced(1, "assistant")
    before = likeness.scores([first, other], [first])
    assert encoder.embedded == 2
    assert likeness.scores([first, other], [first]) == before
    assert encoder.embedded == 2
    likeness.scores([again], [])  # the same numbers at another rate are another clip
    assert encoder.embedded == 3


def test_references_come_from_the_table_and_from_clips(tmp_path: Path) -> None:
    # Silence around the speech is not part of the voice.
    quiet = np.zeros(24000, np.float32)
    padded = np.concatenate([quiet, np.full(16000, 0.5, np.float32), quiet])
    (tmp_path / "cora.flac").write_bytes(encode_flac(to_pcm(padded), 16000, {}))
    voices = (voice("anna"), voice("bella"), voice("cora", str(tmp_path / "cora.flac")))
    table = tmp_path / "voices.parquet"
    write_table(VoiceLibrary(voices), table, {"anna": np.array([0, 3], np.float32), "bella": np.ones(2, np.float32)})
    found = References((voices[0], voices[2]), table, Compass())
    assert sorted(found) == ["anna", "cora"] and len(found) == 2
    assert found["anna"] == pytest.approx([0, 1])  # of length 1
    assert found["cora"] == pytest.approx([np.sqrt(0.5)] * 2, abs=1e-4)
    assert found.get("bella") is None
    assert dict(References((voices[0],), None, Compass())) == {}


def test_references_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    table = tmp_path / "voices.parquet"
    write_table(VoiceLibrary((voice("anna"),)), table, {"anna": np.ones(3, np.float32)})
    with pytest.raises(ConfigError, match=r"voices\.parquet: embedding \(anna\): 3 numbers where compass has 2"):
        References((voice("anna"),), table, Compass())
    with pytest.raises(DataError, match=r"gone\.flac"):
        References((voice("cora", str(tmp_path / "gone.flac")),), None, Compass())["cora"]


def test_the_configuration_names_the_encoder() -> None:
    def config(name: str) -> Config:
        return load_config("quickstart", [f"quality.speaker={name}"])

    assert make_encoder(config("none")) is None
    assert engine_names("speaker") == ["none", "resemblyzer"]
    with pytest.raises(
        ConfigError, match=r"^quality\.speaker: unknown engine 'resemblizer'; did you mean 'resemblyzer'"
    ):
        make_encoder(config("resemblizer"))


@pytest.mark.embedded
def test_an_encoder_is_among_the_models_of_a_run() -> None:
    config = load_config("quickstart", ["quality.speaker=resemblyzer"])
    assert isinstance(make_encoder(config), Resemblyzer)
    [use] = [item for item in speech_models(config) if item.role == "speaker"]
    assert (use.name, use.license, len(use.sha256)) == ("resemblyzer", "Apache-2.0", 64)
    assert not [item for item in speech_models(load_config("quickstart")) if item.role == "speaker"]


@pytest.mark.embedded
def test_swapped_voices_are_told_from_real_speech() -> None:
    def halves(clip: Clip) -> list[Clip]:
        middle = len(clip.audio) // 2
        return [Clip(clip.audio[:middle], clip.rate), Clip(clip.audio[middle:], clip.rate)]

    her, him = halves(HER), halves(HIM)
    likeness = Likeness(Resemblyzer(), {})
    right = [
        Voiced(clip, role, "") for pair in zip(her, him, strict=True) for clip, role in zip(pair, ROLES, strict=True)
    ]
    found = likeness.scores(right, [])
    assert all(item["swap"] < -0.1 and item["similarity"] > 0.7 for item in found)
    # The voices of the last two turns are exchanged.
    swapped = [*right[:2], Voiced(right[3].clip, "user", ""), Voiced(right[2].clip, "assistant", "")]
    wrong = likeness.scores(swapped[2:], swapped[:2])
    assert all(item["swap"] > 0.1 and item["similarity"] < 0.7 for item in wrong)


ROLES: tuple[Role, Role] = ("user", "assistant")
