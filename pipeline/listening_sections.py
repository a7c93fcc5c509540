"""The sections of the configuration that are about listening, judging and repairing."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.dialogue import Language
from pipeline.sections import EXECUTION, Positive, Section, by_language


class RecognizerConfig(Section):
    """A recogniser. engine: faster-whisper, http (OpenAI's /audio/transcriptions), sherpa (SenseVoice and others on
    ONNX), or one of another package (entry point, or `package.module:build`). What belongs to one says so."""

    engine: str = "faster-whisper"
    model_path: Path | None = Field(None, json_schema_extra=EXECUTION, description="folder of the model's files")
    beam: int = Field(1, ge=1, le=10)
    threads: Positive = Field(1, json_schema_extra=EXECUTION)
    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=EXECUTION)
    compute: str = Field(
        "auto", json_schema_extra=EXECUTION, description="number format; auto: int8 on a CPU, float16 on a GPU"
    )
    batch: Positive | None = Field(
        None, json_schema_extra=EXECUTION, description="clips that go through the model at once; null: as it likes"
    )
    window: Literal["short", "full"] = Field(
        "short",
        description="faster-whisper: what it is given of a clip's silence; full: always 30 s, as it was trained",
    )
    words: bool = Field(False, description="word times, where the recogniser gives them; they go into the sample")
    model: str = Field(
        "",
        description="faster-whisper: a size, or owner/name on a hub; http: what the server is asked for",
    )
    base_url: str | None = Field(None, json_schema_extra=EXECUTION, description="http")
    key: str = Field("OPENAI_API_KEY", json_schema_extra=EXECUTION, description="http: environment variable of the key")
    concurrency: Positive = Field(8, json_schema_extra=EXECUTION, description="http: requests in flight of one worker")
    timeout: float = Field(60, gt=0, json_schema_extra=EXECUTION, description="http: seconds for one request")
    retries: int = Field(3, ge=0, le=20, json_schema_extra=EXECUTION, description="http")
    license: str = Field("", description="of the model's weights, as an SPDX identifier; needed unless it is embedded")
    languages: tuple[Language, ...] = Field(("en", "zh"), min_length=1, description="what the model understands")
    options: dict[str, Any] = Field({}, description="of an engine of another package")


class AsrConfig(RecognizerConfig):
    """Who listens. by_language: another recogniser for a language. second: asked where the first disagrees with the
    text; a turn passes if either of them follows it."""

    by_language: dict[Language, RecognizerConfig] = Field({})
    second: RecognizerConfig | None = None


class QualityConfig(Section):
    """engine: "dnsmos" or "none" (then no MOS is stored). speaker: "resemblyzer", which measures how alike the turns
    of a speaker are, or "none"."""

    engine: str = "dnsmos"
    speaker: str = "none"


SCORES: dict[str, str] = {
    "wer": "word error rate (en)",
    "cer": "character error rate, in English without the spaces",
    "mer": "mixed error rate: Han characters and Latin words (zh)",
    "ser": "syllable error rate over toneless pinyin (zh)",
    "tser": "syllable error rate over pinyin with its tones (zh)",
    "per": "error rate over toneless pinyin initials and finals (zh)",
    "gap": "edits in the worst stretch without a hit: characters (en), initials and finals (zh)",
    "dropped": "content words (en) or characters (zh) that are missing",
    "added": "content words (en) or characters (zh) that are too many",
    "figures": "numbers and names that are wrong",
    "longer": "words (en) or characters (zh) that the transcript has more than the text",
    "logprob": "mean log-probability a token, the recogniser's own",
    "no_speech": "probability of no speech, the recogniser's own",
    "compression_ratio": "of the transcript; above 2.4 it is a loop",
    "language": "probability of the dialogue's language, the recogniser's own",
    "doubt": "nats by which the recogniser finds its transcript likelier than the text (where they differ)",
    "surprise": "nats of the text's least likely token, the recogniser's own (where the transcript differs)",
    "chars_per_second": "characters of the text a second",
    "pace": "how fast the clip is for its voice and speed; 1 is as expected",
    "lead": "seconds of silence at the beginning",
    "tail": "seconds of silence at the end",
    "hush": "seconds of the longest silence inside",
    "snr": "dB of speech over what is between it",
    "mos_sig": "DNSMOS of the voice, 1 to 5",
    "mos_bak": "DNSMOS of the background, 1 to 5",
    "mos_ovr": "DNSMOS overall, 1 to 5",
    "similarity": "cosine of the turn's voice to the speaker's reference, or to the speaker's other turns",
    "swap": "the cosine to the other speaker, less the one to the own",
}
"""What can be measured of a turn, by name. Edit rates are edits a token of the text: 0 is perfect, above 1 possible."""

WORDS = frozenset({"wer", "cer", "mer", "ser", "tser", "per", "gap", "dropped", "added", "figures", "longer"})
"""Those that compare the text with a transcript."""

_HIGH_IS_BAD = WORDS | {"no_speech", "compression_ratio", "doubt", "surprise", "hush", "swap"}
_LOW_IS_BAD = frozenset({"logprob", "language", "snr", "mos_sig", "mos_bak", "mos_ovr", "similarity"})
_WRONG_WAY = {"limits": _LOW_IS_BAD, "appeal": _LOW_IS_BAD, "floors": _HIGH_IS_BAD}
_ASKED = ("doubt", "surprise")
"""What a recogniser says of the text itself: an appeal without it would forgive wrong words for nothing."""
UNTOLD: dict[str, tuple[str, ...]] = {"http": _ASKED, "sherpa": (*_ASKED, "language")}
"""Scores that no recogniser of this kind gives: a gate on one would hold nothing back."""

_LANGUAGE_OF = {"wer": "en", **dict.fromkeys(("mer", "ser", "tser", "per"), "zh")}


Threshold = Annotated[float, Field(allow_inf_nan=False)]


def _sense(kind: str) -> str:
    return "lower" if kind == "floors" else "higher"


class JudgeConfig(Section):
    """A turn passes if each score in `limits` is at most its limit, and each in `floors` at least its floor.

    appeal: a turn whose words break a limit passes nevertheless if all these scores were measured and are at most what
    stands here: where the recogniser wrote other words but finds the text itself about as likely, the ear is to blame.

    mode: score_only measures everything and refuses nothing. min_mos: lowest DNSMOS overall score, 1 to 5.
    """

    mode: Literal["gate", "score_only"] = "gate"
    limits: Annotated[
        dict[Language, dict[str, Threshold]],
        by_language(en={"wer": 0.1}, zh={"cer": 0.1}),
    ] = Field({})
    appeal: dict[Language, dict[str, Threshold]] = Field({})
    floors: dict[Language, dict[str, Threshold]] = Field({})
    min_mos: float | None = Field(None, ge=1, le=5)
    keep: Literal["none", "sample", "all"] = Field(
        "all", description="which rejected clips are kept; sample: one in ten"
    )

    @model_validator(mode="after")
    def _check(self) -> JudgeConfig:
        for kind in ("limits", "appeal", "floors"):
            for language, limits in getattr(self, kind).items():
                for name in limits:
                    if name not in SCORES:
                        near = difflib.get_close_matches(name, SCORES, n=1, cutoff=0.4)
                        hint = f"did you mean {near[0]!r}? " if near else ""
                        raise ValueError(f"{kind}.{language}.{name}: no such score; {hint}known: {', '.join(SCORES)}")
                    if name in _WRONG_WAY[kind]:
                        other = "limits" if kind == "floors" else "floors"
                        raise ValueError(f"{kind}.{language}.{name}: the {_sense(kind)} the better; use {other}")
                    if name in WORDS and limits[name] < 0:
                        raise ValueError(f"{kind}.{language}.{name}: {limits[name]:g} refuses everything; 0 is perfect")
                    if _LANGUAGE_OF.get(name, language) != language:
                        others = [item for item in SCORES if _LANGUAGE_OF.get(item, language) == language]
                        raise ValueError(
                            f"{kind}.{language}.{name}: {name} is not measured for {language}; measured are "
                            f"{', '.join(others)}"
                        )
        for language, limits in self.appeal.items():
            if limits and not set(_ASKED) & set(limits):
                raise ValueError(f"appeal.{language}: name doubt or surprise, or it forgives wrong words for nothing")
        return self

    def needs(self, *names: str) -> str:
        """The key of the first gate on one of these scores, "" if there is none."""
        for kind in ("limits", "appeal", "floors"):
            for language, limits in getattr(self, kind).items():
                for name in limits:
                    if name in names:
                        return f"judge.{kind}.{language}.{name}"
        return "judge.min_mos" if self.min_mos is not None and "mos_ovr" in names else ""


Rung = Literal["again", "slow", "spell", "split", "voice", "engine", "rephrase"]


class RepairConfig(Section):
    """What is done for a turn that fails, rung by rung, until it passes or the ladder or a budget ends.

    again: the takes of `tts.speeds` (a new seed where the engine knows chance). slow: at 0.8 of its pace. spell: signs
    and letters written out. split: clause by clause. voice: another voice of the cast, for all turns of that speaker.
    engine: a voice of another of `tts.engines`, likewise. rephrase: the LLM says it in other words.
    takes: of a turn at most, the first included. share: takes beyond the first that a dialogue has for each of its
    turns; what it does not need is for those after it in its unit.
    """

    ladder: tuple[Rung, ...] = ("again", "slow", "spell", "split", "voice", "engine")
    takes: Positive = 8
    share: float = Field(2.0, ge=0, le=100)

    @model_validator(mode="after")
    def _check(self) -> RepairConfig:
        if len(set(self.ladder)) < len(self.ladder):
            raise ValueError("ladder: name each rung once")
        return self
