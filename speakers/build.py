"""Building a large library: recipes drawn around the base voices, by a seed, without a model.

After Ke-SpeechChat, whose 42,002 speakers are mixes of speakers of one gender and of near speaking rates. All numbers
of a recipe lie on a grid, so that two recipes differ by a step at least, and no recipe is drawn twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import count as count_up
from itertools import product

from pipeline.dialogue import Language, Split
from pipeline.errors import ConfigError
from pipeline.voice import Gender, Voice
from speakers.library import VoiceLibrary
from speakers.pool import Base, Cell, Limits, Pool
from speakers.recipes import canonical

GENDERS: tuple[Gender, ...] = ("female", "male")
LANGUAGES: Mapping[Language, float] = {"en": 1.0, "zh": 1.0}
SPLITS: Mapping[Split, float] = {"train": 0.96, "validation": 0.02, "test": 0.02}
LIMITS: Mapping[Language, Limits] = {
    "en": Limits(shift=(-4, 4), speed=(0.88, 1.12)),
    "zh": Limits(shift=(-3.5, 4), speed=(0.88, 1.12), lenders=("en",)),
}
"""Of what the recogniser still followed when random recipes were measured (`speechchat voices audit`)."""
NO_PARENTS = frozenset({"af_nicole"})
"""She whispers, and so would her mixes (DNSMOS 2.2)."""


def build(
    library: VoiceLibrary,
    count: int,
    seed: int = 0,
    languages: Mapping[Language, float] = LANGUAGES,
    splits: Mapping[Split, float] = SPLITS,
    near: float = 1.15,
    limits: Mapping[Language, Limits] = LIMITS,
    without: Collection[str] = (),
) -> VoiceLibrary:
    """`count` voices: those of `library` that speak the languages, then recipes drawn around its stock voices.

    without: ids that are left out (an audit's rejects); more are drawn in their place, and the others stay as they are.

    Half of them are women; languages and splits are by weight. A longer library begins with the shorter one.
    near: how many times as fast as its slowest parent the fastest one of a voice may speak. Rate and pitch of a voice
    are foretold by those that it speaks like; the pitch stays within PITCH. Raises ConfigError where so many different
    recipes cannot be made.
    """
    if without:
        longer = build(library, count + len(without), seed, languages, splits, near, limits)
        return VoiceLibrary(tuple(voice for voice in longer.voices if voice.id not in without)[:count])
    wanted = {name: weight for name, weight in languages.items() if weight > 0}
    own = [voice for voice in library.voices if wanted.keys() & set(voice.languages)]
    if count < len(own):
        raise ConfigError(f"--count {count}: the base library alone has {len(own)} voices of {', '.join(wanted)}")
    cells = _apportion(own, count, wanted, splits)
    known = {canonical(voice.recipe) for voice in own}
    bases = list(_bases(library.voices))
    pools = {cell: Pool(cell, bases, limits[cell.language], near, seed) for cell in sorted(set(cells))}
    _check(Counter(cells), pools, known)
    drawn = {cell: pool.recipes(known) for cell, pool in pools.items()}
    taken = {voice.id for voice in own}
    ids = {cell[:2]: _ids(f"{cell.language}_{cell.gender[0]}", taken) for cell in pools}
    return VoiceLibrary((*own, *(pools[cell].voice(next(ids[cell[:2]]), next(drawn[cell])) for cell in cells)))


def _ids(prefix: str, taken: set[str]) -> Iterator[str]:
    return (id for id in (f"{prefix}_{number:06d}" for number in count_up(1)) if id not in taken)


def _apportion(
    own: Iterable[Voice], count: int, languages: Mapping[Language, float], splits: Mapping[Split, float]
) -> list[Cell]:
    """The cell of each voice to be drawn: always the one that is furthest behind its share of all voices."""
    total = sum(languages.values()) * len(GENDERS) * sum(splits.values())
    shares = {
        Cell(language, gender, split): languages[language] * splits[split] / total
        for language, gender, split in product(sorted(languages), GENDERS, sorted(splits))
        if splits[split] > 0
    }
    have = Counter(Cell(voice.languages[0], voice.gender, voice.split) for voice in own)
    cells = []
    for place in range(have.total() + 1, count + 1):
        cell = max(shares, key=lambda item: shares[item] * place - have[item])
        have[cell] += 1
        cells.append(cell)
    return cells


def _bases(voices: Iterable[Voice]) -> Iterator[Base]:
    for voice in voices:
        recipe = voice.recipe
        stock = len(recipe.timbre) == 1 and not recipe.prosody and recipe.shift == 0 and recipe.speed == 1
        if stock and recipe.timbre[0][0] not in NO_PARENTS:
            yield Base(recipe.timbre[0][0], voice)


def _check(asked: Mapping[Cell, int], pools: Mapping[Cell, Pool], known: set[str]) -> None:
    short = []
    for cell, number in sorted(asked.items()):
        # Only where it is close are they counted one by one: those that the library has already do not count.
        if number > pools[cell].size - len(known):
            possible = sum(1 for _ in pools[cell].recipes(known))
            if possible < number:
                short.append(f"{cell}: {number} are asked for, {possible} different recipes are possible")
    if short:
        raise ConfigError("; ".join(short) + "; ask for fewer, give them other weights, or add base voices")
