"""Cloned voices: which of many reference clips are good enough, who is who, and the one that each speaker keeps."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import get_args

import numpy as np

from pipeline.backends.speaker.likeness import mean
from pipeline.dialogue import Language, Split, derive_seed
from pipeline.engine.prompt_checks import Heard, Listeners, Refused, Rules, listen
from pipeline.engine.prompt_files import Prompt
from pipeline.engine.prompt_store import PromptStore
from pipeline.errors import UsageError
from pipeline.voice import Gender, Recipe, Voice

BATCH = 16
"""Clips that are read and go through the encoder together."""


@dataclass(frozen=True)
class Terms:
    """What is true of all voices of a table. gender, languages: where a clip's own data do not say so.

    shares: of the splits; a speaker's split depends on nothing but its name and the seed.
    """

    engine: str
    license: str
    consent: str
    gender: Gender | None = None
    languages: tuple[Language, ...] = ()
    seed: int = 0
    shares: tuple[tuple[Split, float], ...] = (("train", 0.96), ("validation", 0.02), ("test", 0.02))


@dataclass
class Clones:
    """voices: one a speaker, sorted by id. embeddings, float32 [dim], mean over the speaker's good clips, mos (of the
    clip) and clips (good ones): by id. refused: all other clips, in the order in which that became clear."""

    voices: tuple[Voice, ...] = ()
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)
    mos: dict[str, float] = field(default_factory=dict)
    clips: dict[str, int] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)

    @property
    def heard(self) -> int:
        return len(self.voices) + len(self.refused)


@dataclass
class _Speaker:
    """best: the clip that is kept, with its sha256 and mos. total: sum of the embeddings of the good clips, `names`."""

    gender: Gender
    best: Prompt
    sha256: str
    mos: float
    total: np.ndarray
    names: list[str] = field(default_factory=list)
    languages: set[Language] = field(default_factory=set)

    @property
    def embedding(self) -> np.ndarray:
        """The mean over the good clips, float32 [dim]."""
        return mean(self.total[None])


def clone(
    prompts: Iterable[Prompt],
    rules: Rules,
    terms: Terms,
    store: PromptStore,
    models: Listeners,
    progress: Callable[[int], None] = lambda clips: None,
) -> Clones:
    """The voices of `prompts`, listened to in their order. store: reads them, and keeps the bytes of those that are no
    files. progress: gets the number of clips done.

    Raises UsageError where a speaker has two genders, where two speakers get one id, and where no clip is kept.
    """
    clones, speakers, owners = Clones(), dict[str, _Speaker](), dict[str, str]()
    done, stream = 0, iter(prompts)
    while batch := list(islice(stream, BATCH)):
        known = [replace(p, gender=p.gender or terms.gender, languages=p.languages or terms.languages) for p in batch]
        for prompt, heard in zip(known, listen(known, rules, store, models), strict=True):
            if not isinstance(heard, Refused) and heard.sha256 in owners:
                heard = Refused(prompt.name, "duplicate", f"the same file as {owners[heard.sha256]}")
            if isinstance(heard, Refused):
                clones.refused.append(heard)
                continue
            owners[heard.sha256] = prompt.name
            _add(speakers, prompt, heard, store)
        done += len(batch)
        progress(done)
    _merge(speakers, rules.same, clones.refused, store)
    if not speakers:
        raise UsageError(_none_kept(clones, rules))
    _publish(speakers, terms, clones, store)
    return clones


def split_of(speaker: str, terms: Terms) -> Split:
    """The split of a speaker, which no other speaker has a say in."""
    names, weights = zip(*terms.shares, strict=True)
    return random.Random(derive_seed(terms.seed, "clone", speaker)).choices(names, weights)[0]


def _add(speakers: dict[str, _Speaker], prompt: Prompt, heard: Heard, store: PromptStore) -> None:
    if prompt.speaker not in speakers:
        nobody = np.zeros_like(heard.embedding, np.float64)
        speakers[prompt.speaker] = _Speaker(heard.gender, prompt, "", 0.0, nobody)
    known = speakers[prompt.speaker]
    if known.gender != heard.gender:
        raise UsageError(
            f"{prompt.name}: the speaker {prompt.speaker!r} is {heard.gender} here and {known.gender} before; mend one"
        )
    known.total = known.total + heard.embedding
    known.names.append(prompt.name)
    known.languages.update(prompt.languages)
    if heard.mos > known.mos:
        store.drop(known.best)
        known.best, known.sha256, known.mos = store.keep(prompt, heard.sha256), heard.sha256, heard.mos


def _merge(speakers: dict[str, _Speaker], same: float, refused: list[Refused], store: PromptStore) -> None:
    """Leaves out speakers who are somebody that comes before them by name: one person is in one split only."""
    names = sorted(speakers)
    own = np.array([speakers[name].embedding for name in names])
    kept: list[str] = []
    for number, name in enumerate(names):
        alike = own[: len(kept)] @ own[number]
        if same < 1 and kept and alike.max() >= same:
            other = kept[int(alike.argmax())]
            detail = f"{name!r} sounds like {other!r} ({alike.max():.2f}), who is kept"
            refused += [Refused(clip, "duplicate", detail) for clip in speakers[name].names]
            store.drop(speakers.pop(name).best)
        else:
            own[len(kept)] = own[number]
            kept.append(name)


def _publish(speakers: dict[str, _Speaker], terms: Terms, clones: Clones, store: PromptStore) -> None:
    ids: dict[str, str] = {}
    voices = []
    for name, speaker in speakers.items():
        id = _id(terms.engine, name)
        if id in ids:
            raise UsageError(f"the speakers {ids[id]!r} and {name!r} would both be called {id}: rename one of them")
        ids[id] = name
        best = speaker.best
        voices.append(
            Voice(
                id=id,
                gender=speaker.gender,
                languages=tuple(code for code in get_args(Language) if code in speaker.languages),
                age=best.age,
                engine=terms.engine,
                license=terms.license,
                consent=terms.consent,
                split=split_of(name, terms),
                recipe=Recipe(clip=str(best.path.absolute()), clip_text=best.text, clip_sha256=speaker.sha256),
            )
        )
        clones.embeddings[id] = speaker.embedding
        clones.mos[id] = speaker.mos
        clones.clips[id] = len(speaker.names)
        clones.refused += [
            Refused(clip, "spare", f"{best.name} is better") for clip in speaker.names if clip != best.name
        ]
    clones.voices = tuple(sorted(voices, key=lambda voice: voice.id))


def _id(engine: str, speaker: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "_", f"{engine}_{speaker}".lower()).strip("_")
    if re.search(r"[a-z0-9]", speaker.lower()):
        return plain
    # A name without a Latin letter, a Chinese one for example.
    return f"{plain}_{hashlib.sha256(speaker.encode()).hexdigest()[:8]}"


def _none_kept(clones: Clones, rules: Rules) -> str:
    if not clones.refused:
        return "no clip was found: name a folder that holds reference clips, with a sub-folder a speaker"
    counts = Counter(item.reason for item in clones.refused)
    first = clones.refused[0]
    ways = {
        "unlabelled": "say it of each, or of all",
        "noisy": f"--min-mos {rules.min_mos:g} may be lowered",
        "too_short": f"--min-seconds {rules.seconds[0]:g} may be lowered",
        "too_long": "cut the clips, or raise --max-seconds",
    }
    hint = ways.get(counts.most_common(1)[0][0], "look at the clips")
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    return f"no clip of {clones.heard} was kept: {listed} (first {first.name}: {first.detail}); {hint}"
