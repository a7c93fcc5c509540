"""Which words the recogniser most often does not find in what the voices say."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

from pipeline.dialogue import Language, Record, fluent
from pipeline.shards.manifest import Manifest
from pipeline.shards.reader import read_reject_list, read_samples
from pipeline.shards.store import RunFolder
from pipeline.text import pinyin, tokens
from pipeline.text.rates import alignment

WORST = 12  # words of a language
DIALOGUES = 1000
"""Dialogues that are looked through; of a longer run units at equal distances, so that the time has a bound."""


class LostWord(Record):
    """A content word that was said `said` times, and `lost` times missing or another in the transcript (in Mandarin:
    of another sound, tones aside)."""

    language: Language
    word: str
    lost: int
    said: int


class WordReport(Record):
    """words: at least twice lost, the most often lost first, by language. turns: first takes that were heard, of
    accepted and rejected dialogues, in `units` of the run's finished units."""

    words: tuple[LostWord, ...]
    turns: int
    units: int


def worst_words(folder: RunFolder) -> WordReport:
    """Raises DataError."""
    said: Counter[tuple[Language, str]] = Counter()
    lost: Counter[tuple[Language, str]] = Counter()
    units = turns = 0
    for manifest in _some(folder):
        units += 1
        for language, text, transcript in _heard(folder, manifest):
            turns += 1
            for word, found in words(text, transcript, language):
                said[language, word] += 1
                lost[language, word] += not found
    ranked = sorted(
        (item for item in lost.items() if item[1] > 1),
        key=lambda item: (item[0][0], -item[1], said[item[0]], item[0][1]),
    )
    report: list[LostWord] = []
    for (language, word), count in ranked:
        if sum(item.language == language for item in report) < WORST:
            report.append(LostWord(language=language, word=word, lost=count, said=said[language, word]))
    return WordReport(words=tuple(report), turns=turns, units=units)


def words(text: str, transcript: str, language: Language) -> Iterator[tuple[str, bool]]:
    """The content words of `text`, normalised, and whether the transcript has them."""
    pieces = [piece for piece in alignment(text, transcript, language) if piece[1]]
    if language == "en":
        for op, said, _ in pieces:
            for token in tokens.english(said):
                if token.content:
                    yield token.text, op == "equal"
    else:
        yield from _words_zh(pieces)


def _words_zh(pieces: list[tuple[str, str, str]]) -> Iterator[tuple[str, bool]]:
    import jieba

    jieba.setLogLevel(logging.WARNING)
    said = "".join(piece[1] for piece in pieces)
    found = [hit for piece in pieces for hit in _hits_zh(*piece)]
    content = [token.content for token in tokens.mandarin(list(said), pinyin.readings(list(said)))]
    start = 0
    for word in jieba.cut(said, HMM=False):
        own = range(start, start + len(word))
        start += len(word)
        if any(content[place] for place in own):
            yield word, all(found[place] or not content[place] for place in own)


def _hits_zh(op: str, said: str, heard: str) -> list[bool]:
    """For each character whether it was heard; a homophone was."""
    if op != "substitute":
        return [op == "equal"] * len(said)
    left, right = ([pinyin.toneless(sound) for sound in pinyin.readings(list(text))] for text in (said, heard))
    return [one == two for one, two in zip(left, right, strict=True)]


def _some(folder: RunFolder) -> Iterator[Manifest]:
    """The finished units, or so many of them at equal distances that they hold about DIALOGUES, or fewer."""
    total = sum(manifest.planned for manifest in folder.manifests())
    step = max(1, -(-total // DIALOGUES))
    for place, manifest in enumerate(folder.manifests()):
        if place % step == 0:
            yield manifest


def _heard(folder: RunFolder, manifest: Manifest) -> Iterator[tuple[Language, str, str]]:
    """(language, text, transcript) of each first take of which something could be heard. The stumbles of a turn are no
    words that a recogniser must find."""
    for sample in read_samples(folder, manifest):
        for turn in sample.turns:
            if turn.takes and turn.takes[0].seconds:
                text = turn.takes[0].text or fluent(turn.spoken, turn.disfluencies)
                yield sample.language, text, turn.takes[0].transcript
    for reject in read_reject_list(folder, manifest):
        for item in reject.turns:
            if item.takes and item.takes[0].seconds:
                text = item.takes[0].text or fluent(item.spoken, item.disfluencies)
                yield reject.language, text, item.takes[0].transcript
