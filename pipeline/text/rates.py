"""How far what was heard is from what was to be said: edit rates, and the alignment behind them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from pipeline.dialogue import Language
from pipeline.text import edits, pinyin, tokens
from pipeline.text.align import blocks, distance, rate
from pipeline.text.normalize import bare_zh, mixed_zh, normalize, simple_zh
from pipeline.text.verbalize_zh import read_figures, segments

# The rate that a language is usually reported in.
MAIN_METRIC: dict[Language, str] = {"en": "wer", "zh": "cer"}
_JOINED = 3  # words that may be written as one


def error_rates(reference: str, hypothesis: str, language: Language) -> dict[str, float]:
    """Every score of `hypothesis` (a transcript) against `reference` (the spoken text), both normalised here.

    A rate is (substitutions + deletions + insertions) / max(1, tokens of the reference): 0 is perfect, above 1 is
    possible, and against an empty reference it counts the tokens of the hypothesis.

    en: "wer" over words, which may be written as one or apart (every day); "cer" over the characters of the words
    without the spaces between them.
    zh: "cer" over characters; "mer" over Han characters and Latin words; "ser" over the toneless syllables; "tser"
    counts a wrong tone of a right syllable too; "per" over the initials and finals of the syllables (盐 and 言 are both
    y-an) and the letters of Latin words. A small recogniser hears Mandarin well and then writes a homophone, so that
    characters refuse good speech, and it guesses tones from the context; a wrong or missing syllable still costs an
    initial and a final. Of a character with several readings the one nearest to the reference counts.
    A figure in a Mandarin hypothesis may stand for a cardinal or for digits said one by one (1963): the reading with
    the lower cer counts.
    Both: "gap", "dropped", "added" and "figures", numbers of at least 0 that are no rates (`edits.differences`).
    """
    if language == "en":
        said, heard = _both(reference, hypothesis, language)
        if said == heard:  # as most are
            return dict.fromkeys(("wer", "cer", *edits.NAMES), 0.0)
        return {
            "wer": rate(said.split(), heard.split()),
            "cer": rate(said.replace(" ", ""), heard.replace(" ", "")),
            **edits.differences(tokens.english(said, reference), tokens.english(heard)),
        }
    left = mixed_zh(read_figures(simple_zh(reference)))
    right = _bounded(left, mixed_zh(_heard_zh("".join(left), hypothesis)))
    if left == right:
        return dict.fromkeys(("cer", "mer", "ser", "tser", "per", *edits.NAMES), 0.0)
    return _mandarin(left, right)


def _mandarin(left: list[str], right: list[str]) -> dict[str, float]:
    wanted = pinyin.readings(left)
    sounds = pinyin.nearest(left, wanted, right, pinyin.readings(right))
    keys, heard_keys = list(map(pinyin.toneless, wanted)), list(map(pinyin.toneless, sounds))
    slips = pinyin.wrong_tones(left, wanted, right, sounds)
    said, heard = tokens.mandarin(left, wanted), tokens.mandarin(right, sounds)
    syllables = rate(keys, heard_keys)
    return {
        "cer": rate("".join(left), "".join(right)),
        "mer": rate(left, right),
        "ser": syllables,
        "tser": syllables + slips / max(1, len(left)),
        "per": rate(
            [phone for token in said for phone in token.letters], [phone for token in heard for phone in token.letters]
        ),
        **edits.differences(said, heard),
    }


def _bounded(said: list[str], heard: list[str]) -> list[str]:
    """`heard` with the bounds that `said` has between the same Latin letters: wi fi is wifi."""
    bounds = {"".join(words): words for words in _latin(said)}
    return [word for words in _latin(heard) for word in bounds.get("".join(words), words)]


def _bounded_en(said: list[str], heard: list[str]) -> list[str]:
    """`heard` with the bounds that `said` has where they differ in nothing else: every day is everyday. Only words
    of letters: a sign or a figure is another number where it stands apart."""
    bounded: list[str] = []
    for same, (begin, end, start, stop) in blocks(said, heard):
        bounded += heard[start:stop] if same else _rebound(said[begin:end], heard[start:stop])
    return bounded


def _rebound(said: list[str], heard: list[str]) -> list[str]:
    bounds = {
        "".join(said[begin:end]): said[begin:end]
        for begin in range(len(said))
        for end in range(begin + 1, min(begin + _JOINED, len(said)) + 1)
    }
    rebound: list[str] = []
    place = 0
    while place < len(heard):
        ends = range(min(place + _JOINED, len(heard)), place, -1)
        joined = ((end, "".join(heard[place:end])) for end in ends)
        found = ((end, bounds[word]) for end, word in joined if word in bounds and word.isalpha())
        place, words = next(found, (place + 1, heard[place : place + 1]))
        rebound += words
    return rebound


def _latin(parts: list[str]) -> Iterator[list[str]]:
    """`parts` by runs of Latin words, or of others."""
    for _, words in itertools.groupby(parts, lambda part: part.isascii()):
        yield list(words)


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
    samples: dict[Language, tuple[str, str]] = {"en": ("one 1", "one 2"), "zh": ("一1", "一2")}
    error_rates(*samples[language], language)


def _both(reference: str, hypothesis: str, language: Language) -> tuple[str, str]:
    said = normalize(reference, language)
    if language == "en":
        heard = normalize(hypothesis, language)
        return said, heard if heard == said else " ".join(_bounded_en(said.split(), heard.split()))
    return said, bare_zh(_heard_zh(said, hypothesis))


def _heard_zh(said: str, hypothesis: str) -> str:
    """The hypothesis with each figure (from left to right) in the reading that is nearest to `said`."""
    parts = list(segments(simple_zh(hypothesis)))
    chosen = [readings[0] for readings in parts]
    for place, readings in enumerate(parts):
        if len(readings) > 1:
            heard = [bare_zh("".join([*chosen[:place], reading, *chosen[place + 1 :]])) for reading in readings]
            chosen[place] = readings[min(range(len(readings)), key=lambda way: distance(said, heard[way]))]
    return "".join(chosen)
