"""How far what was heard is from what was to be said: edit rates, and the alignment behind them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from pipeline.dialogue import Language
from pipeline.text.normalize import bare_zh, normalize, simple_zh
from pipeline.text.verbalize_zh import segments

# The rate that a language is usually reported in.
MAIN_METRIC: dict[Language, str] = {"en": "wer", "zh": "cer"}


def error_rates(reference: str, hypothesis: str, language: Language) -> dict[str, float]:
    """Edit rates of `hypothesis` (a transcript) against `reference` (the spoken text), both normalised here.

    A rate is (substitutions + deletions + insertions) / max(1, tokens of the reference): 0 is perfect, above 1 is
    possible, and against an empty reference it counts the tokens of the hypothesis.

    en: "wer" over words; "cer" over the characters of the words without the spaces between them.
    zh: "cer" over characters; "per" over the toneless pinyin initials and finals of the characters (盐 and 言 are
    both y-an). A small recogniser hears Mandarin well and then writes a homophone, so that characters refuse good
    speech, and it guesses tones from the context; a wrong or missing syllable still costs an initial and a final.
    A figure in a Mandarin hypothesis may stand for a cardinal or for digits said one by one (1963): the reading with
    the lower cer counts.
    """
    said, heard = _both(reference, hypothesis, language)
    if language == "en":
        return {
            "wer": _rate(said.split(), heard.split()),
            "cer": _rate(said.replace(" ", ""), heard.replace(" ", "")),
        }
    return {"cer": _rate(said, heard), "per": _rate(_phones(said), _phones(heard))}


def alignment(reference: str, hypothesis: str, language: Language) -> list[tuple[str, str, str]]:
    """The runs of (op, part of the reference, part of the hypothesis) after normalisation, in order.

    op is "equal", "substitute", "delete" (the hypothesis part is "") or "insert" (the reference part is ""); parts are
    words (en, between spaces) or characters (zh).
    """
    import jiwer

    said, heard = _both(reference, hypothesis, language)
    left, right = (said.split(), heard.split()) if language == "en" else (list(said), list(heard))
    if not left:
        return [("insert", "", heard)] if heard else []
    space = " " if language == "en" else ""
    return [
        (
            chunk.type,
            space.join(left[chunk.ref_start_idx : chunk.ref_end_idx]),
            space.join(right[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in jiwer.process_words(" ".join(left), " ".join(right)).alignments[0]
    ]


def warm(language: Language) -> None:
    """Load the tables of `language` once, so that the first turn of a worker costs what the others do."""
    samples: dict[Language, str] = {"en": "one 1", "zh": "一1"}
    error_rates(samples[language], samples[language], language)


def _both(reference: str, hypothesis: str, language: Language) -> tuple[str, str]:
    said = normalize(reference, language)
    return said, normalize(hypothesis, language) if language == "en" else _heard_zh(said, hypothesis)


def _heard_zh(said: str, hypothesis: str) -> str:
    """The normalised hypothesis, each figure (from left to right) in the reading that is nearest to `said`."""
    parts = list(segments(simple_zh(hypothesis)))
    chosen = [readings[0] for readings in parts]
    for place, readings in enumerate(parts):
        if len(readings) > 1:
            heard = [bare_zh("".join([*chosen[:place], reading, *chosen[place + 1 :]])) for reading in readings]
            chosen[place] = readings[min(range(len(readings)), key=lambda way: _rate(said, heard[way]))]
    return bare_zh("".join(chosen))


def _rate(said: Sequence[str], heard: Sequence[str]) -> float:
    import jiwer

    if not said:
        return float(len(heard))
    return float(jiwer.wer(" ".join(said), " ".join(heard)))


def _phones(text: str) -> list[str]:
    from pypinyin import lazy_pinyin

    return [phone for syllable in lazy_pinyin(text) for phone in _split(syllable)]


@functools.cache
def _split(syllable: str) -> tuple[str, ...]:
    """Initial and final of a toneless syllable; the y and w of 一 and 五 count as initials."""
    from pypinyin.contrib.tone_convert import to_finals, to_initials

    initial, final = to_initials(syllable, strict=False), to_finals(syllable, strict=False)
    return tuple(part for part in (initial, final) if part) or (syllable,)
