"""What a calibration listens to: turns of a run as it would speak them at the first take, and what is done to them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

from pipeline.config import Config
from pipeline.dialogue import Language, Role, derive_seed
from pipeline.engine.gate_texts import Slips, Wrong
from pipeline.errors import UsageError
from pipeline.plan import plan_units
from pipeline.shards.store import RunFolder
from pipeline.stages.cast import Casting
from pipeline.stages.speak import request
from pipeline.stages.write import read_text
from pipeline.text.words import words_of
from pipeline.voice import SpeechRequest
from speakers import VoiceLibrary

KINDS: dict[str, str] = {
    "good": "as the run speaks it at the first take",
    "swapped": "the good clip, where another text of like length was to be said",
    "dropped": "spoken without one content word",
    "doubled": "one content word spoken twice",
    "substituted": "one content word (en) or character (zh) replaced",
    "tone": "one character of another tone (zh)",
    "cut": "20 to 40 % missing at the end",
    "foreign": "a text of the other language that takes about as long, in a voice of that language",
    "silence": "nothing but hiss, from -70 to -30 dBFS",
    "slow": "spoken at 0.6 of the speed",
    "fast": "spoken at 1.6 of the speed",
    "clipped": "12 dB over full scale",
    "overdriven": "12 dB over full scale, then turned down by 6 dB",
    "noise20": "noise, 20 dB below the speech",
    "noise10": "noise, 10 dB below",
    "noise5": "noise, 5 dB below",
    "noise0": "noise as loud as the speech",
    "voice": "the clip of another voice of the language, by its likeness alone",
}
"""What clips are made of, in the order of reports. Nothing is made for "voice"."""
SNRS = {"noise20": 20.0, "noise10": 10.0, "noise5": 5.0, "noise0": 0.0}
DRAWN = 12
SPEEDS = {"slow": 0.6, "fast": 1.6}
_SLIPS: dict[str, Callable[[Slips, str], Wrong | None]] = {
    "dropped": Slips.dropped,
    "doubled": Slips.doubled,
    "substituted": Slips.substituted,
    "tone": Slips.tone,
}


@dataclass(frozen=True)
class Probe:
    """One clip to be made and heard. said: what an engine is asked for it, None where it is made of the good clip, or
    of nothing. value: share cut off, dB of noise, dBFS of hiss; what: the change, for people. wanted: what was to be
    said, "" where it is the text of its turn."""

    kind: str
    said: SpeechRequest | None = None
    value: float = 0.0
    what: str = ""
    wanted: str = ""


@dataclass(frozen=True)
class Item:
    """A turn of the run. id: of its dialogue, with its number. texts: what the gate compares with; good: what its
    engine is asked for."""

    id: str
    language: Language
    role: Role
    texts: tuple[str, ...]
    good: SpeechRequest
    probes: tuple[Probe, ...]

    @property
    def voice(self) -> str:
        return self.good.voice.id


def plan(
    config: Config,
    folder: RunFolder,
    library: VoiceLibrary,
    good: int,
    seed: int,
    kinds: Collection[str] = (*KINDS,),
) -> list[Item]:
    """Turns enough for `good` clips of each kind and language, or all that there are: sentences that occur nowhere
    else first, in an order drawn by the seed, the languages in turn.

    config: the run's own. kinds: those wanted beside the good clips. Accepted and rejected dialogues are alike: that a
    gate took a turn must not choose it. Raises UsageError where the run has no text, DataError for a damaged one.
    """
    turns = list(_turns(config, folder, library))
    if not turns:
        raise UsageError(
            f"{folder.root} has no text yet: `speechchat run … --out {folder.root} --until write` writes it, and no "
            "more is needed"
        )
    chosen: dict[Language, list[Item]] = {}
    for language in config.active_languages:
        own = sorted((turn for turn in turns if turn.language == language), key=lambda turn: _order(turn, seed))
        slips = Slips((turn.texts[0] for turn in own), language, seed)
        foreign = sorted((turn for turn in turns if turn.language != language), key=lambda turn: _order(turn, seed))
        chosen[language] = _enough(_unlike(own), slips, _unlike(foreign), good, seed, {"good", *kinds})
    together = zip_longest(*chosen.values())
    return [item for item in chain.from_iterable(together) if item is not None]


def _turns(config: Config, folder: RunFolder, library: VoiceLibrary) -> Iterator[Item]:
    casting = Casting(config, library)
    for unit in plan_units(config):
        for line in read_text(folder, unit) if folder.text(unit.number).exists() else ():
            if line.dialogue is None:
                continue
            cast = casting.cast(line.plan, line.dialogue.persona)
            language = line.plan.language
            for number, turn in enumerate(line.dialogue.turns):
                voice = cast.voice(turn.role)
                asked = request(turn.spoken, number, voice, language, line.plan.seed, 0, config.tts.speeds[0])
                texts = (turn.spoken, turn.fluent) if turn.disfluencies else (turn.spoken,)
                yield Item(f"{line.plan.id}#{number}", language, turn.role, texts, asked, ())


def _order(turn: Item, seed: int) -> tuple[int, str]:
    return derive_seed("gate", seed, turn.id), turn.id


def _unlike(turns: Sequence[Item]) -> list[Item]:
    """Each sentence once, then those again that other voices say too."""
    first: dict[tuple[str, ...], Item] = {}
    again: dict[tuple[object, ...], Item] = {}
    for turn in turns:
        words = tuple(_words(turn))
        if words and first.setdefault(words, turn).voice != turn.voice:
            again.setdefault((words, turn.voice), turn)
    return [*first.values(), *again.values()]


def _enough(
    turns: Sequence[Item], slips: Slips, foreign: Sequence[Item], good: int, seed: int, kinds: Collection[str]
) -> list[Item]:
    """The first turns that give `good` clips of each kind; of the last ones no more than is missing."""
    counts: Counter[str] = Counter()
    items: list[Item] = []
    for number, turn in enumerate(turns):
        if items and all(count >= good for count in counts.values()):
            break
        others = _alike(turn, turns, seed, "swapped"), _alike(turn, foreign[:good], seed, "foreign")
        probes = _probes(turn, number, slips, *others, seed)
        wanted = tuple(probe for probe in probes if probe.kind in kinds and counts[probe.kind] < good)
        if not wanted:
            continue
        if wanted[0].kind != "good":
            wanted = (probes[0], *wanted)
        counts.update(probe.kind for probe in wanted)
        items.append(replace(turn, probes=wanted))
    return items


def _alike(turn: Item, others: Sequence[Item], seed: int, kind: str) -> Item | None:
    """Of a few that are drawn, one that says something else in nearly the same time: of a text that takes much longer
    or shorter the seconds alone would tell."""
    draw = random.Random(derive_seed("gate", seed, turn.id, kind))
    drawn = [other for other in draw.sample(others, min(DRAWN, len(others))) if _words(other) != _words(turn)]
    return min(drawn, key=lambda other: abs(seconds(other) - seconds(turn)), default=None)


def _words(turn: Item) -> list[str]:
    return words_of(turn.texts[0], turn.language)


def seconds(item: Item) -> float:
    """About what the text takes: with Kokoro's voices a letter or space takes 0.07 s, a Han character 0.2 s."""
    return len(item.texts[0]) * (0.07 if item.language == "en" else 0.2) + 0.3


def _probes(
    turn: Item, number: int, slips: Slips, swapped: Item | None, foreign: Item | None, seed: int
) -> list[Probe]:
    asked, text = turn.good, turn.texts[0]
    draw = derive_seed("gate", seed, turn.id, "values")
    share = draw % 1000 / 1000
    # Colours in turn: 300 clips of a kind are 150 of each.
    colour = ("white", "pink")[number % 2]
    slipped = {kind: slip(slips, text) for kind, slip in _SLIPS.items()}
    cut, level = round(0.2 + 0.2 * share, 3), round(-70 + 40 * share, 1)
    probes = [
        Probe("good", asked),
        *(
            Probe(kind, replace(asked, text=wrong.text), what=wrong.what)
            for kind, wrong in slipped.items()
            if wrong is not None
        ),
        Probe("cut", value=cut, what=f"{cut:.0%}"),
        Probe("silence", value=level, what=f"{level:g} dBFS"),
        *(Probe(kind, replace(asked, speed=round(asked.speed * factor, 3))) for kind, factor in SPEEDS.items()),
        Probe("clipped"),
        Probe("overdriven"),
        *(Probe(kind, value=snr, what=colour) for kind, snr in SNRS.items()),
    ]
    if swapped is not None:
        probes.append(Probe("swapped", asked, wanted=swapped.texts[0]))
    if foreign is not None:
        probes.append(Probe("foreign", foreign.good, what=foreign.texts[0]))
    return probes
