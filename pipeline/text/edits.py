"""What a rate does not tell of the edits: the worst stretch, content words lost or added, wrong figures and names."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.text.align import blocks, runs
from pipeline.text.tokens import Token

NAMES = ("gap", "dropped", "added", "figures", "longer")
_LOST = 0.6  # share of a token's letters without a hit beyond which it is another word, not one misheard
_NAME_LOST = 1 / 3  # Sofia may be written Sophia, Emma not Anna
_APART = 2  # hits in a row that end a stretch of edits


def differences(said: Sequence[Token], heard: Sequence[Token]) -> dict[str, float]:
    """gap, dropped, added, figures, longer (see SCORES) of an alignment by tokens, and by letters where tokens differ.

    gap: the edits in letters of the worst stretch without two hits in a row: a word of five letters that is missing
    is 5 in a turn of any length. dropped and added: content tokens of the one text that have hits for less than 0.4 of
    their letters; one that another stands for is both. figures: numbers of which any part differs (in Mandarin: in its
    sound, or as another numeral), of the text that has more of them, and names that lost a third of their letters.
    longer: tokens that `heard` has more.
    """
    gap = edits = hits = dropped = added = names = 0
    wrong: tuple[set[int], set[int]] = (set(), set())
    for same, (begin, end, start, stop) in blocks([token.key for token in said], [token.key for token in heard]):
        left, right = said[begin:end], heard[start:stop]
        if same:
            lost, extra = [0] * len(left), [0] * len(right)
            codes = [("equal", sum(len(token.letters) for token in left))]
            # Numerals of one sound: 一 and 亿.
            off = [one.number >= 0 <= two.number and one.text != two.text for one, two in zip(left, right, strict=True)]
            offs = (off, off)
        else:
            lost, extra, codes = _by_letters(left, right)
            differ = any(lost) or any(extra)  # else only the bounds of the words do
            offs = ([differ] * len(left), [differ] * len(right))
        for tag, count in codes:
            hits, edits = (hits + count, edits) if tag == "equal" else (0, edits + count)
            gap, edits = max(gap, edits), 0 if hits >= _APART else edits
        for numbers, tokens, off in zip(wrong, (left, right), offs, strict=True):
            numbers.update(token.number for token, is_off in zip(tokens, off, strict=True) if is_off)
        dropped += _gone(left, lost)
        added += _gone(right, extra)
        names += sum(
            token.name and miss >= _NAME_LOST * len(token.letters) for token, miss in zip(left, lost, strict=True)
        )
    figures = max(len(numbers - {-1}) for numbers in wrong) + names
    longer = max(0, len(heard) - len(said))
    return dict(zip(NAMES, map(float, (gap, dropped, added, figures, longer)), strict=True))


def _gone(tokens: Sequence[Token], lost: Sequence[int]) -> int:
    """Content tokens of which more than _LOST of the letters found no hit."""
    return sum(token.content and miss > _LOST * len(token.letters) for token, miss in zip(tokens, lost, strict=True))


def _by_letters(left: Sequence[Token], right: Sequence[Token]) -> tuple[list[int], list[int], list[tuple[str, int]]]:
    """Letters without a hit of each token of both texts, and the runs of edits in order, with their lengths."""
    owners = [[place for place, token in enumerate(side) for _ in token.letters] for side in (left, right)]
    lost, extra, codes = [0] * len(left), [0] * len(right), []
    letters = [[letter for token in side for letter in token.letters] for side in (left, right)]
    for tag, (begin, end, start, stop) in runs(*letters):
        codes.append((tag, max(end - begin, stop - start)))
        if tag != "equal":
            for place in owners[0][begin:end]:
                lost[place] += 1
            for place in owners[1][start:stop]:
                extra[place] += 1
    return lost, extra, codes
