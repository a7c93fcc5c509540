"""A voice and an ear that need no model: each sign is said as three notes, and what was done to a clip decides what is
heard of it.

Named in a configuration as `tests.engine.gate_modem:build_tts`, so that worker processes find them too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config, RecognizerConfig, TtsEngineConfig
from pipeline.dialogue import Clip, Dialogue, Language, ModelUse, Score, Source, TextLine, Transcript, Turn
from pipeline.engine.base import Job
from pipeline.engine.run import freeze
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.pack import Origin
from pipeline.voice import SpeechRequest, Unsaid, VoiceKind

LOG = "SPEECHCHAT_TEST_GATE"
"""Names a file to which the voice and the ear, in whatever process, add a line a clip."""
RATE = 24000
NOTE = {"en": 0.03, "zh": 0.09}
"""Seconds of one of the two (en) or three (zh) notes of a sign."""
NOTES = {"en": 2, "zh": 3}
BASE = 28
LOW, STEP = 400.0, 100.0
HAN = 0x4E00


def _digits(text: str, language: Language) -> list[int]:
    kept = [sign for sign in text.lower() if sign.isalpha() or (sign == " " and language == "en")]
    codes = [ord(sign) - HAN if sign >= "一" else "abcdefghijklmnopqrstuvwxyz ".find(sign) for sign in kept]
    return [code // BASE**place % BASE for code in codes for place in reversed(range(NOTES[language]))]


def _text(digits: Sequence[int], language: Language) -> str:
    size = NOTES[language]
    codes = [
        sum(
            digit * BASE**place
            for place, digit in zip(reversed(range(size)), digits[start : start + size], strict=True)
        )
        for start in range(0, len(digits) - size + 1, size)
    ]
    if language == "zh":
        return "".join(chr(HAN + code % 20000) for code in codes)
    return "".join("abcdefghijklmnopqrstuvwxyz "[code % 27] for code in codes)


def _log(line: str) -> None:
    if path := os.environ.get(LOG):
        with Path(path).open("a", encoding="utf-8") as log:
            log.write(line + "\n")


class Modem:
    """Says "mute" not at all, and breaks down at "broken"."""

    name = "modem"
    rate = RATE
    languages: frozenset[Language] = frozenset({"en", "zh"})
    kinds: frozenset[VoiceKind] = frozenset({"styles"})
    stochastic = False
    deterministic = True
    batch = 1

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        return [self._say(request) for request in requests]

    def _say(self, request: SpeechRequest) -> Clip | Unsaid:
        _log(f"say {request.language} {request.voice.id} {request.speed:g} {request.text}")
        if "broken" in request.text:
            raise ValueError("a bug in the engine")
        if "mute" in request.text:
            return Unsaid("refused", "no")
        count = round(NOTE[request.language] / request.speed * RATE)
        time = np.arange(count) / RATE
        notes = [np.sin(2 * np.pi * (LOW + STEP * digit) * time) for digit in _digits(request.text, request.language)]
        return Clip((0.3 * np.concatenate([np.zeros(2400), *notes, np.zeros(2400)])).astype(np.float32), RATE)


class Ear:
    """Hears the notes. Hastily "liver" for "river"; with care what is there, and how likely the text is."""

    name = "ear"
    rate = 16000
    deterministic = True
    careful = True

    def transcribe(
        self, clips: Sequence[Clip], languages: Sequence[Language], careful: bool = False, texts: Any = None
    ) -> list[Transcript]:
        return [self._hear(clip, language, careful) for clip, language in zip(clips, languages, strict=True)]

    def _hear(self, clip: Clip, language: Language, careful: bool) -> Transcript:
        _log(f"hear {language} {careful}")
        loud = np.flatnonzero(np.abs(clip.audio) > 0.25 * np.abs(clip.audio).max())
        size = round(NOTE[language] * self.rate)
        digits = []
        for start in range(int(loud[0]), int(loud[-1]) - size // 2, size):
            frame = clip.audio[start + size // 6 : start + size - size // 6]
            spectrum = np.abs(np.fft.rfft(frame * np.hanning(len(frame)), 4096)) ** 2
            place = int(spectrum.argmax())
            if spectrum[max(0, place - 80) : place + 80].sum() > 0.5 * spectrum.sum():
                digits.append(int(np.clip(round((place * self.rate / 4096 - LOW) / STEP), 0, BASE - 1)))
        text = _text(digits, language)
        if not careful:
            text = text.replace("river", "liver")
        doubt = (0.5, 0.7) if careful else (None, None)
        return Transcript(text, -0.2, 0.0, 1.0, 0.9, doubt=doubt[0], surprise=doubt[1])


class Judge:
    """The purer the better: DNSMOS of a made-up kind, from the share of the strongest tone."""

    name = "judge"
    rate = 16000

    def score(self, clips: Sequence[Clip]) -> list[tuple[Score, ...]]:
        rows = []
        for clip in clips:
            flat = np.abs(np.fft.rfft(clip.audio)) + 1e-9
            value = float(np.exp(np.mean(np.log(flat))) / np.mean(flat))
            rows.append(
                tuple(Score(name=name, value=round(5 - 4 * value, 3)) for name in ("mos_sig", "mos_bak", "mos_ovr"))
            )
        return rows


def build_tts(section: TtsEngineConfig) -> Modem:
    return Modem()


def build_asr(section: RecognizerConfig) -> Ear:
    return Ear()


def build_quality(config: Config) -> Judge:
    return Judge()


def models(config: Config | TtsEngineConfig | RecognizerConfig) -> tuple[ModelUse, ...]:
    return (ModelUse(role="speech", name="modem", sha256="", license="CC0-1.0"),)


HERE = "tests.engine.gate_modem"
SETTINGS = (
    f"tts.engines.kokoro.kind={HERE}:build_tts",
    f"asr.engine={HERE}:build_asr",
    f"quality.engine={HERE}:build_quality",
    "audio.trim=level",
)
EN = (
    "the river runs through the old town",
    "we bought seven green apples yesterday",
    "my teacher reads books about animals",
    "please open the window before dinner",
    "the train leaves from another station",
    "her brother plays music every evening",
    "this garden smells like fresh flowers",
    "the doctor forgot his black umbrella",
)
ZH = (
    "我们明天去北京旅游",
    "这本历史书非常有趣",
    "老师喜欢喝绿茶",
    "妈妈在厨房做晚饭",
    "他的汽车停在门口",
    "公园里开满了鲜花",
    "弟弟每天学习英语",
    "请打开房间的窗户",
)


def write_run(root: Path, english: Sequence[str] = EN, chinese: Sequence[str] = ZH) -> RunFolder:
    """A run that has text only: dialogues of two turns, each a sentence of the language."""
    count = max(len(english), len(chinese)) // 2 * 2
    config = Config.model_validate(
        {
            "dialogues": count,
            "unit_size": 2,
            "splits": {"train": 1},
            "cast": {"users": {"en": EN_USERS, "zh": ZH_USERS}},
        }
    )
    folder = RunFolder(root)
    writer = ModelUse(role="writer", name="script", sha256="", license="CC0-1.0")
    freeze(Job(config, root, Origin("tests", dict.fromkeys(("text", "speech", "judge"), "0" * 16), (writer,))))
    for unit in plan_units(config):
        lines = []
        for planned in unit.dialogues:
            texts = english if planned.language == "en" else chinese
            pair = [texts[(2 * planned.ordinal + place) % len(texts)] for place in (0, 1)]
            turns = tuple(
                Turn(role=role, written=text, spoken=text, author="source")
                for role, text in zip(("user", "assistant"), pair, strict=True)  # type: ignore[arg-type]
            )
            source = Source(name="made up", license="CC0-1.0", row=planned.id)
            dialogue = Dialogue(plan=planned, system="", source=source, turns=turns)
            lines.append(TextLine(plan=planned, dialogue=dialogue, reject=None, failed=()).model_dump_json() + "\n")
        publish(folder.text(unit.number), "".join(lines).encode())
    return folder


EN_USERS = ["af_bella", "am_adam"]
ZH_USERS = ["zm_yunjian"]


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "heard.jsonl").read_text("utf-8").splitlines()]
