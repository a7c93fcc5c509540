"""Two sides of what was heard: on one a rule is fitted, on the other it is tried, and they have nothing in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.dialogue import derive_seed
from pipeline.engine.gate_measure import Case
from pipeline.text.words import words_of

SIDES = ("fit", "held")


def split(cases: Sequence[Case], speakers: Mapping[str, str] | None = None) -> list[str]:
    """Of each clip of a language "fit" or "held", so that no voice, no sentence and no foreign clip is on both sides;
    "" where it cannot be.

    Voices go one after the other, those with most turns first, to the side that has fewer turns. A sentence belongs
    where it occurs first; a clip is left out if its voice is on the other side, or the sentence that it was to be
    (kind "swapped"). A foreign clip may stand for several turns: it counts for one, see `_foreign`.

    speakers: voices by the file of what was said (`Case.clip`), so that those of foreign clips are known.
    """
    turns = Counter(voice for voice, _ in {(case.voice, case.item) for case in cases})
    side_of: dict[str, str] = {}
    sizes = dict.fromkeys(SIDES, 0)
    for voice in sorted(turns, key=lambda voice: (-turns[voice], derive_seed("gate", voice), voice)):
        side_of[voice] = min(SIDES, key=lambda side: sizes[side])
        sizes[side_of[voice]] += turns[voice]
    # What a swapped clip says is the sentence of its turn too, and what it was to say that of another.
    said: dict[str, tuple[str, ...]] = {}
    same: dict[tuple[str, ...], tuple[str, ...]] = {}
    for case in cases:
        if case.kind != "swapped":
            ways = [tuple(words_of(text, case.language)) for text in case.texts]
            said[case.item] = ways[-1]
            same |= dict.fromkeys(ways, ways[-1])
    first: dict[tuple[str, ...], str] = {}
    for case in sorted(cases, key=lambda case: (case.kind == "swapped", case.item)):
        first.setdefault(said.get(case.item, ()), side_of[case.voice])
    for case in sorted((case for case in cases if case.kind == "swapped"), key=lambda case: case.item):
        wanted = tuple(words_of(case.texts[-1], case.language))
        first.setdefault(same.setdefault(wanted, wanted), side_of[case.voice])
    sides = []
    for case in cases:
        side = side_of[case.voice]
        sentences = {said.get(case.item, ())}
        if case.kind == "swapped":
            sentences.add(same[tuple(words_of(case.texts[-1], case.language))])
        sides.append(side if all(first[sentence] == side for sentence in sentences) else "")
    _foreign(cases, sides, speakers or {}, side_of)
    return sides


def _foreign(cases: Sequence[Case], sides: list[str], speakers: Mapping[str, str], home: Mapping[str, str]) -> None:
    """Settle the foreign clips in `sides`: each counts once, and neither its voice nor its sentence is on both sides.

    Voices that say most go first, each to the side where more of its clips stand for a turn of that side; else to the
    one that has fewer foreign clips. home: sides of the voices that speak the language itself too.
    """
    places: dict[str, dict[str, dict[str, int]]] = {}  # by voice, clip and side: the first place
    for place, case in enumerate(cases):
        if case.kind == "foreign":
            if sides[place]:
                by_clip = places.setdefault(speakers.get(case.clip, case.clip), {})
                by_clip.setdefault(case.clip, {}).setdefault(sides[place], place)
            sides[place] = ""
    first: dict[str, str] = {}
    sizes = dict.fromkeys(SIDES, 0)
    for voice in sorted(places, key=lambda voice: (-len(places[voice]), derive_seed("gate", voice), voice)):
        found = {
            side: [
                (by_side[side], cases[by_side[side]].said)
                for _, by_side in sorted(places[voice].items())
                if side in by_side and first.get(cases[by_side[side]].said, side) == side
            ]
            for side in SIDES
        }
        side = home.get(voice) or min(SIDES, key=lambda side: (-len(found[side]), sizes[side]))
        for place, sentence in found[side]:
            sides[place] = first[sentence] = side
        sizes[side] += len(found[side])


def once(cases: Sequence[Case]) -> list[Case]:
    """Without the clips of the kind "foreign" that are there already, for another turn."""
    seen = {case.clip: case.key for case in reversed(cases) if case.kind == "foreign"}
    return [case for case in cases if case.kind != "foreign" or seen[case.clip] == case.key]


def with_voices(cases: list[Case]) -> tuple[list[Case], list[dict[str, float]]]:
    """The clips and those of the kind "voice", and the likeness of each to its speaker, where embeddings are there: to
    another good clip in the same voice, and for the kind "voice" to one in another."""
    embedded = sorted(
        (case for case in cases if case.embedding), key=lambda case: derive_seed("gate", case.item, case.voice)
    )
    voices = sorted({case.voice for case in embedded})
    by_voice = {voice: [case for case in embedded if case.voice == voice] for voice in voices}
    likeness: dict[str, float] = {}
    others: list[Case] = []
    strange: list[dict[str, float]] = []
    for case in embedded:
        own = by_voice[case.voice]
        if len(own) > 1:
            likeness[case.key] = _cosine(case, own[(own.index(case) + 1) % len(own)])
        foreign = [voice for voice in voices if voice != case.voice]
        if foreign:
            other = by_voice[foreign[derive_seed("gate", case.key, "voice") % len(foreign)]][0]
            others.append(case.model_copy(update={"kind": "voice", "what": f"to {other.voice}"}))
            strange.append({"similarity": _cosine(case, other)})
    mine = [
        {"similarity": likeness[case.key]} if case.kind == "good" and case.key in likeness else {} for case in cases
    ]
    return [*cases, *others], [*mine, *strange]


def _cosine(case: Case, other: Case) -> float:
    left, right = np.array(case.embedding), np.array(other.embedding)
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
