"""A whole, verifiable run without a model: the real studio, writer and totals, with tones for voices.

The fakes stand where the models do. What the recogniser mishears is decided by the sentence and the take alone, so that
the same arguments always give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.backends.tts.router import Router
from pipeline.config import AsrConfig, Config, EngineConfig, JudgeConfig, RepairConfig, TtsConfig
from pipeline.dialogue import (
    Clip,
    Dialogue,
    Language,
    ModelUse,
    PlannedDialogue,
    Reject,
    Role,
    Score,
    Source,
    Split,
    TextAttempt,
    TextLine,
    Transcript,
    Turn,
    Word,
    derive_seed,
)
from pipeline.engine.base import Job
from pipeline.engine.run import freeze, write_totals
from pipeline.plan import Unit, plan_units
from pipeline.shards.store import RunFolder, publish
from pipeline.stages.cast import Casting
from pipeline.stages.listen import Listener
from pipeline.stages.pack import Origin
from pipeline.stages.speak import Speaking
from pipeline.stages.studio import Studio
from pipeline.voice import SpeechRequest, Unsaid, VoiceKind
from speakers import load_library

RATE = 24000

Line = tuple[str, str]  # written, spoken
ROWS: dict[Language, tuple[tuple[Line, ...], ...]] = {
    "en": (
        (
            ("What do you call that river?", "What do you call that river?"),
            (
                "It is the Seine & it runs < 800 km.",
                "It is the Seine and it runs less than eight hundred kilometers.",
            ),
        ),
        (
            ("Do you like tea?", "Do you like tea?"),
            ("Yes, with a little milk.", "Yes, with a little milk."),
            ("So do I.", "So do I."),
            ("Then let us have some at 5.", "Then let us have some at five."),
        ),
    ),
    "zh": (
        (
            ("你喜欢喝茶吗？", "你喜欢喝茶吗？"),
            ("喜欢，每天喝2杯。", "喜欢，每天喝两杯。"),
        ),
        (
            ("今天天气怎么样？", "今天天气怎么样？"),
            ("今天晴，很适合出去走走。", "今天晴，很适合出去走走。"),
        ),
    ),
}
# Misheard at the first take and understood at the second.
STUMBLES = {ROWS["en"][0][0][1]: "What do you call that liver?", ROWS["zh"][0][1][1]: "喜欢，每天喝凉杯。"}
# Misheard at every take: what a rejected dialogue ends with.
HOPELESS: dict[Language, Line] = {
    "en": ("She sells sea shells.", "She sells sea shells."),
    "zh": ("四是四，十是十。", "四是四，十是十。"),
}
MISHEARD = {HOPELESS["en"][1]: "He sells these shells.", HOPELESS["zh"][1]: "是是是，是是是。"}
REFUSED_REPLY = "User: I am a river"


class ToneSynthesizer:
    """A syllable-like pulsing tone for each request, of a pitch that belongs to the voice; float32 at 24 kHz."""

    name = "tones"
    rate = RATE
    languages: frozenset[Language] = frozenset({"en", "zh"})
    kinds: frozenset[VoiceKind] = frozenset({"styles"})
    stochastic = False
    deterministic = True
    batch = 1

    def __init__(self) -> None:
        self._said: list[SpeechRequest] = []

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Clip | Unsaid]:
        self._said += requests
        return [self._clip(request) for request in requests]

    def said(self) -> list[SpeechRequest]:
        """What was asked for since the last call."""
        said, self._said = self._said, []
        return said

    def _clip(self, request: SpeechRequest) -> Clip:
        seconds = len(request.text) * (0.06 if request.language == "en" else 0.18) / request.speed
        time = np.arange(int(seconds * RATE)) / RATE
        pitch = 90 + derive_seed(request.voice.id) % 160
        noise = np.random.default_rng(derive_seed(request.text, request.take)).standard_normal(len(time))
        voiced = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3, 5))
        envelope = np.sin(np.pi * time * 4) ** 2 * np.sin(np.pi * time / seconds) ** 0.3
        return Clip((0.2 * envelope * (voiced + 0.2 * noise)).astype(np.float32), RATE)


class ScriptedRecognizer:
    """Hears what the synthesizer was last asked to say, but for STUMBLES and MISHEARD."""

    name = "script"
    rate = 16000
    deterministic = True
    careful = True

    def __init__(self, synthesizer: ToneSynthesizer, words: bool = False):
        self._synthesizer = synthesizer
        self._words = words
        self._known: dict[bytes, Transcript] = {}

    def transcribe(
        self, clips: Sequence[Clip], languages: Sequence[Language], careful: bool = False, texts: object = None
    ) -> list[Transcript]:
        """A clip that is heard again is heard the same."""
        if not careful:
            self._known = {
                clip.audio.tobytes(): Transcript(
                    self._heard(request), -0.2, 0.01, 1.1, words=self._times(self._heard(request), clip)
                )
                for clip, request in zip(clips, self._synthesizer.said(), strict=True)
            }
        return [self._known[clip.audio.tobytes()] for clip in clips]

    @staticmethod
    def _heard(request: SpeechRequest) -> str:
        if request.take == 0 and request.text in STUMBLES:
            return STUMBLES[request.text]
        return MISHEARD.get(request.text, request.text)

    def _times(self, text: str, clip: Clip) -> tuple[Word, ...]:
        """Words, in Mandarin pairs of characters, of equal length with as long a pause before each of them."""
        words = text.split() if " " in text else [text[at : at + 2] for at in range(0, len(text), 2)]
        step = clip.seconds / (2 * len(words))
        spans = [(word, (2 * place + 1) * step, (2 * place + 2) * step) for place, word in enumerate(words)]
        return tuple(Word(text=word, start=start, end=end) for word, start, end in spans if self._words)


class LengthQuality:
    """Scores that depend on the clip's length only, in the range of DNSMOS."""

    name = "length"
    rate = 16000

    def score(self, clips: Sequence[Clip]) -> list[tuple[Score, ...]]:
        values = [round(2.8 + len(clip.audio) % 97 / 97, 3) for clip in clips]
        return [tuple(Score(name=name, value=value) for name in ("mos_sig", "mos_bak", "mos_ovr")) for value in values]


def make_run(
    root: Path,
    dialogues: int = 4,
    unit_size: int = 2,
    languages: Sequence[Language] = ("en", "zh"),
    rejected: int = 1,
    *,
    splits: Mapping[Split, float] | None = None,
    keep: Literal["none", "sample", "all"] = "all",
    words: bool = False,
) -> RunFolder:
    """A finished run in `root`, all in split train unless `splits` says otherwise.

    The first `rejected` dialogues of the plan are rejected: in turn by the judge (its clips kept) and for their text.
    Of the others, those with a sentence of STUMBLES needed a second take, and every second one of a language ends
    with a turn of the LLM. words: the recogniser gives the times of its words.
    """
    config = Config(
        dialogues=dialogues,
        unit_size=unit_size,
        languages=dict.fromkeys(languages, 1.0),
        splits=dict(splits or {"train": 1.0}),
        asr=AsrConfig(words=words),
        tts=TtsConfig(speeds=(1.0, 0.88)),
        repair=RepairConfig(ladder=("again",)),
        judge=JudgeConfig(limits={"en": {"wer": 0.1}, "zh": {"cer": 0.1}}, keep=keep),
        engine=EngineConfig(kind="local"),
    )
    folder = RunFolder(root)
    synthesizer = ToneSynthesizer()
    recognizer = ScriptedRecognizer(synthesizer, words)
    writer = ModelUse(role="writer", name="script", sha256="", license="CC0-1.0")
    models = (writer, ModelUse(role="tts", name="tones", sha256="", license="CC0-1.0"))
    origin = Origin("speechchat tests", dict.fromkeys(("text", "speech", "judge"), "0" * 16), models)
    freeze(Job(config, root, origin))
    casting = Casting(config, load_library())
    speaking = Speaking(Router({"kokoro": synthesizer}), config, None)
    listener = Listener(config, recognizer, quality=LengthQuality())
    studio = Studio(config, folder, casting, speaking, listener, origin)
    for unit in plan_units(config):
        _write_text(folder, unit, unit_size, rejected)
        studio.run(unit)
    write_totals(folder, config)
    return folder


def _write_text(folder: RunFolder, unit: Unit, unit_size: int, rejected: int) -> None:
    lines = []
    for planned in unit.dialogues:
        number = unit.number * unit_size + planned.index
        lines.append(_text_line(planned, number, number < rejected).model_dump_json() + "\n")
    publish(folder.text(unit.number), "".join(lines).encode())


def _text_line(planned: PlannedDialogue, number: int, refused: bool) -> TextLine:
    if refused and number % 2:
        link = TextAttempt(step="converse", turn=1, author="source", text="http://example.org", reason="url")
        reject = Reject(id=planned.id, language=planned.language, stage="filter", reason="url", detail="turn 1: a link")
        return TextLine(plan=planned, dialogue=None, reject=reject, failed=(link,))
    rows = ROWS[planned.language]
    lines = rows[planned.ordinal % len(rows)]
    if refused:
        lines = (*lines[:-1], HOPELESS[planned.language])
    by_llm = planned.ordinal % 2 == 0
    turns = []
    for place, (written, spoken) in enumerate(lines):
        role: Role = "user" if place % 2 == 0 else "assistant"
        author: Literal["llm", "source"] = "llm" if by_llm and place == len(lines) - 1 else "source"
        turns.append(Turn(role=role, written=written, spoken=spoken, author=author))
    source = Source(name="synthetic", license="CC0-1.0", row=f"{planned.language}#{planned.ordinal}")
    dialogue = Dialogue(plan=planned, system="", source=source, turns=tuple(turns))
    failed = () if by_llm else (TextAttempt(step="converse", turn=1, author="llm", text=REFUSED_REPLY, reason="role"),)
    return TextLine(plan=planned, dialogue=dialogue, reject=None, failed=failed)
