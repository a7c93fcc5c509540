"""Whether a reference clip is good enough to clone a voice from: the cheap checks first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from pipeline.audio import Vad, normalize_loudness, resample
from pipeline.backends.quality.base import QualityModel
from pipeline.backends.speaker.base import SpeakerEncoder
from pipeline.backends.speaker.likeness import DENSITY, mean, unity
from pipeline.dialogue import Clip
from pipeline.engine.prompt_files import Prompt
from pipeline.engine.prompt_store import PromptStore
from pipeline.errors import DataError, UsageError
from pipeline.voice import Gender

Reason = Literal[
    "unlabelled", "unreadable", "silent", "too_short", "too_long", "noisy", "two_people", "duplicate", "spare"
]

LOUDNESS = -23.0
"""LUFS at which voices are compared: the encoder's answer moves with the level (cosine 0.95 at 6 dB more)."""
MARGIN = 0.1
"""Seconds that stay before and after what the VAD takes for speech: it is late at soft onsets."""


@dataclass(frozen=True)
class Rules:
    """What a clip must be. seconds: of speech at least, of the file at most. min_mos: DNSMOS overall, 1 to 5.

    unity: two people speak below it (likeness.unity). same: two speakers are one person from this cosine of their mean
    embeddings on; 1 merges nobody. Chosen and measured on 36 synthetic voices, clips of 3 to 15 s, two voices always of
    one gender and language. At 0.84, 1 of 108 clips of one voice is refused; all of 72 with one voice after the other
    are found, 34 of 36 where two take turns. At 0.85, all of 36 voices are known again by two other sentences, and at
    most 4 of 390 pairs of different voices are taken for one. Real people vary more from one recording to the next.
    """

    seconds: tuple[float, float] = (3.0, 15.0)
    min_mos: float = 4.0
    unity: float = 0.84
    same: float = 0.85


@dataclass(frozen=True)
class Refused:
    """A clip that is not kept. unlabelled: nothing says whose gender or
    language it is; duplicate: the same file, or the same person under another name; spare: nothing is wrong with it,
    but its speaker has a better one."""

    name: str
    reason: Reason
    detail: str


class Heard(NamedTuple):
    """A good clip. gender: of who speaks; mos: DNSMOS overall; embedding: float32 [dim], of length 1."""

    gender: Gender
    sha256: str
    mos: float
    embedding: np.ndarray


class Listeners(NamedTuple):
    """The models that judge a clip."""

    vad: Vad
    quality: QualityModel
    encoder: SpeakerEncoder


class _Spoken(NamedTuple):
    gender: Gender
    sha256: str
    mos: float
    speech: Clip


def listen(prompts: Sequence[Prompt], rules: Rules, store: PromptStore, models: Listeners) -> Iterator[Heard | Refused]:
    """What was heard of each prompt, in order, or why it is refused. All go through the encoder together."""
    verdicts = [_judge(prompt, rules, store, models) for prompt in prompts]
    speech = [resample(item.speech, models.encoder.rate) for item in verdicts if isinstance(item, _Spoken)]
    windows = iter(models.encoder.windows(speech, DENSITY))
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        if isinstance(verdict, Refused):
            yield verdict
            continue
        seen = next(windows)
        found = unity(seen)
        if found < rules.unity:
            detail = f"its parts are alike by {found:.2f}, one person's by {rules.unity:g} at least"
            yield Refused(prompt.name, "two_people", detail)
        else:
            yield Heard(verdict.gender, verdict.sha256, verdict.mos, mean(seen))


def _judge(prompt: Prompt, rules: Rules, store: PromptStore, models: Listeners) -> Refused | _Spoken:
    def refuse(reason: Reason, detail: str) -> Refused:
        return Refused(prompt.name, reason, detail)

    if prompt.gender is None or not prompt.languages:
        name = "languages" if prompt.gender else "gender"
        way_out = f"give the metadata a column {name!r}, or all clips --{name}"
        return refuse("unlabelled", f"the {name} of the speaker {prompt.speaker!r} is not known: {way_out}")
    try:
        clip, sha256 = store.read(prompt)
    except (DataError, UsageError) as error:
        return refuse("unreadable", str(error).removeprefix(f"{prompt.name}: "))
    least, most = rules.seconds
    if clip.seconds > most:
        return refuse("too_long", f"{clip.seconds:.1f} s, {most:g} at most")
    if not np.isfinite(clip.audio).all():
        return refuse("unreadable", "holds samples that are no numbers")
    speech = _speech(resample(clip, models.vad.rate), models.vad)
    if not len(speech.audio):
        return refuse("silent", "nobody speaks in it")
    if speech.seconds < least:
        return refuse("too_short", f"{speech.seconds:.1f} s of speech, {least:g} at least")
    # Of the whole clip: without its pauses the same voice gets up to 0.7 less.
    scores = {score.name: score.value for score in models.quality.score([resample(clip, models.quality.rate)])[0]}
    if scores["mos_ovr"] < rules.min_mos:
        return refuse("noisy", f"DNSMOS {scores['mos_ovr']:.2f}, {rules.min_mos:g} at least")
    return _Spoken(prompt.gender, sha256, scores["mos_ovr"], normalize_loudness(speech, LOUDNESS, -1.0))


def _speech(clip: Clip, vad: Vad) -> Clip:
    """Where somebody speaks, with short pauses: a voice is heard in speech, and silence looks like another person."""
    spoken = np.zeros(len(clip.audio), bool)
    for start, end in vad.speech(clip):
        spoken[round(max(0.0, start - MARGIN) * clip.rate) : round((end + MARGIN) * clip.rate)] = True
    return Clip(clip.audio[spoken], clip.rate)
