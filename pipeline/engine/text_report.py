"""What became of the text of a run: yield by step and reason, lengths, tokens and cost, and samples to read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.config import Config
from pipeline.dialogue import Author, Dialogue, Language, Record, Reject, Role, Stage, TextLine, derive_seed
from pipeline.engine.failures import quarantined
from pipeline.plan import plan_units, unit_count
from pipeline.shards.disk import sha256_file
from pipeline.shards.store import RunFolder
from pipeline.sources import SourceCounts
from pipeline.stages.draw import draw_counts
from pipeline.stages.replies import Account, Bill, account, dialogue_costs
from pipeline.stages.verdicts import load_verdicts
from pipeline.stages.write import read_text
from pipeline.text.checks import count_units

Key = TypeVar("Key", bound=str | int)

_STEPS: tuple[Stage, ...] = ("source", "rewrite", "converse", "style", "filter", "review", "dedup")


class StepYield(Record):
    """Dialogues that reached a step, those that it dropped, by reason, and the rest. refused: replies of the LLM that
    were not used, by reason."""

    step: Stage
    entered: int
    dropped: dict[str, int]
    kept: int
    refused: dict[str, int]


class LanguageYield(Record):
    """turns: dialogues that are kept, by number of turns. lengths: their turns, by role and by words (en) or characters
    (zh) of the spoken form; limit: text.max_units, which disfluencies may exceed."""

    written: int
    kept: int
    turns: dict[int, int]
    lengths: dict[Role, dict[int, int]]
    limit: int


class Labels(Record):
    """Of what is kept: turns by emotion, by style and by author, disfluencies by kind and the turns that have any,
    dialogues that mix languages; scores: mean of the review's, 1 to 5, by aspect."""

    emotions: dict[str, int]
    styles: dict[str, int]
    authors: dict[Author, int]
    disfluencies: dict[str, int]
    disfluent_turns: int
    code_switched: int
    scores: dict[str, float]


class Excerpt(Record):
    """A dialogue to read. step, reason: "" for a survivor. turns: as "role: text", none where it never was a dialogue;
    detail: what was said of a reject, mostly the text that did not pass."""

    id: str
    step: str
    reason: str
    detail: str
    turns: tuple[str, ...]


class TextReport(Record):
    """planned = written + those whose unit has no text yet, written = kept + all that the steps dropped.

    lost: planned dialogues without text whose unit is quarantined. compared: dialogues that the barrier has judged,
    null where there is none; what it has not judged yet counts as kept. kept_bill: the part of account.total that was
    paid for dialogues that are kept. reused: dialogues that the LLM had a hand in and this run paid nothing for.
    """

    planned: int
    written: int
    kept: int
    lost: int
    compared: int | None
    sources: dict[str, SourceCounts]
    steps: tuple[StepYield, ...]
    languages: dict[Language, LanguageYield]
    labels: Labels
    account: Account
    kept_bill: Bill
    reused: int
    survivors: tuple[Excerpt, ...]
    rejects: tuple[Excerpt, ...]


@dataclass
class _Tally:
    written: Counter[Language] = field(default_factory=Counter)
    kept: Counter[Language] = field(default_factory=Counter)
    dropped: dict[Stage, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    refused: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    turns: dict[Language, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    lengths: dict[tuple[Language, Role], Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    authors: Counter[Author] = field(default_factory=Counter)
    emotions: Counter[str] = field(default_factory=Counter)
    styles: Counter[str] = field(default_factory=Counter)
    disfluencies: Counter[str] = field(default_factory=Counter)
    disfluent_turns: int = 0
    code_switched: int = 0
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0, 0.0]))  # count and sum
    compared: int = 0
    lost: int = 0
    reused: int = 0
    bill: Bill = field(default_factory=Bill)


def text_report(folder: RunFolder, config: Config, excerpts: int = 10) -> TextReport:
    """Reads the text and the journals unit by unit; memory does not grow with the run.

    excerpts: how many survivors and how many rejects that had a row are drawn; the same run gives the same ones.
    Raises DataError for a damaged file.
    """
    tally = _Tally()
    survivors, rejects = _Reservoir(excerpts, config.seed), _Reservoir(excerpts, config.seed + 1)
    for line, reject in _lines(folder, config, tally):
        _count(tally, line, reject)
        if reject is None or reject.stage != "source":  # of those that got no row there is nothing to read
            chosen = survivors if reject is None else rejects
            chosen.offer(line.plan.id, lambda line=line, reject=reject: _excerpt(line, reject))  # type: ignore[misc]
    return TextReport(
        planned=config.dialogues,
        written=tally.written.total(),
        kept=tally.kept.total(),
        lost=tally.lost,
        compared=tally.compared if config.dedup.barrier else None,
        sources=draw_counts(folder, unit_count(config)),
        steps=tuple(_yields(tally, config)),
        languages={language: _of_language(tally, language, config) for language in sorted(tally.written)},
        labels=Labels(
            emotions=_sorted(tally.emotions),
            styles=_sorted(tally.styles),
            authors=_sorted(tally.authors),
            disfluencies=_sorted(tally.disfluencies),
            disfluent_turns=tally.disfluent_turns,
            code_switched=tally.code_switched,
            scores={name: total / count for name, (count, total) in sorted(tally.scores.items())},
        ),
        account=account(folder, plan_units(config)),
        kept_bill=tally.bill,
        reused=tally.reused,
        survivors=survivors.drawn(),
        rejects=rejects.drawn(),
    )


def _lines(folder: RunFolder, config: Config, tally: _Tally) -> Iterator[tuple[TextLine, Reject | None]]:
    """Every text with what dropped it; counts on the way what is known of a unit and not of a text alone."""
    lost = set(quarantined(folder))
    for unit in plan_units(config):
        if not folder.text(unit.number).exists():
            tally.lost += len(unit.dialogues) if unit.number in lost else 0
            continue
        verdicts = _verdicts(folder, unit.number) if config.dedup.barrier else None
        [bills] = dialogue_costs(folder, [unit])
        for line in read_text(folder, unit):
            reject = line.reject or (verdicts or {}).get(line.plan.id)
            tally.compared += verdicts is not None and line.dialogue is not None
            paid = bills.get(line.plan.id)
            tally.reused += paid is None and _has_reply(line)
            if reject is None and paid is not None:
                tally.bill = _add(tally.bill, paid)
            yield line, reject


def _verdicts(folder: RunFolder, unit: int) -> dict[str, Reject] | None:
    """What the barrier dropped of a unit, None where it has not judged this text. Raises DataError."""
    found = load_verdicts(folder.verdicts(unit))
    return found[1] if found and found[0].text_sha256 == sha256_file(folder.text(unit)) else None


def _has_reply(line: TextLine) -> bool:
    if any(attempt.author == "llm" for attempt in line.failed):
        return True
    dialogue = line.dialogue
    return dialogue is not None and (bool(dialogue.scores) or any(turn.author == "llm" for turn in dialogue.turns))


def _add(one: Bill, other: Bill) -> Bill:
    return Bill(**{name: getattr(one, name) + getattr(other, name) for name in Bill.model_fields})


def _count(tally: _Tally, line: TextLine, reject: Reject | None) -> None:
    language = line.plan.language
    tally.written[language] += 1
    for attempt in line.failed:
        if attempt.author == "llm":
            tally.refused[attempt.step][attempt.reason] += 1
    if reject is not None:
        tally.dropped[reject.stage][reject.reason] += 1
        return
    assert line.dialogue is not None  # a line holds the one or the other
    tally.kept[language] += 1
    _count_kept(tally, line.dialogue, language)


def _count_kept(tally: _Tally, dialogue: Dialogue, language: Language) -> None:
    tally.turns[language][len(dialogue.turns)] += 1
    tally.code_switched += dialogue.code_switch
    for score in dialogue.scores:
        tally.scores[score.name][0] += 1
        tally.scores[score.name][1] += score.value
    for turn in dialogue.turns:
        tally.lengths[language, turn.role][count_units(turn.spoken, language)] += 1
        tally.authors[turn.author] += 1
        tally.emotions.update([turn.emotion] if turn.emotion else ())
        tally.styles.update([turn.style] if turn.style else ())
        tally.disfluencies.update(item.kind for item in turn.disfluencies)
        tally.disfluent_turns += bool(turn.disfluencies)


def _yields(tally: _Tally, config: Config) -> Iterator[StepYield]:
    text = config.text
    off = {"rewrite": not text.rewrite.enabled, "style": not text.style.enabled, "review": not text.review.enabled}
    off["dedup"] = not config.dedup.barrier
    entered = tally.written.total()
    # A text that was edited by hand may name any stage.
    for step in (*_STEPS, *sorted(tally.dropped.keys() - set(_STEPS))):
        dropped, refused = _by_number(tally.dropped[step]), _by_number(tally.refused[step])
        if dropped or refused or not off.get(step):
            left = entered - sum(dropped.values())
            yield StepYield(step=step, entered=entered, dropped=dropped, kept=left, refused=refused)
            entered = left


def _of_language(tally: _Tally, language: Language, config: Config) -> LanguageYield:
    roles: tuple[Role, ...] = ("user", "assistant")
    return LanguageYield(
        written=tally.written[language],
        kept=tally.kept[language],
        turns=_sorted(tally.turns[language]),
        lengths={role: _sorted(sizes) for role in roles if (sizes := tally.lengths[language, role])},
        limit=config.text.max_units[language],
    )


def _sorted(counts: Mapping[Key, int]) -> dict[Key, int]:
    return dict(sorted(counts.items()))


def _by_number(counts: Mapping[str, int]) -> dict[str, int]:
    """The most frequent first; the same counts in the same order, whatever was met first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class _Reservoir:
    """Those of the lowest hashes: a fair draw that is the same whatever the order, and holds `size` at most."""

    def __init__(self, size: int, seed: int):
        self._size = size
        self._seed = seed
        self._held: list[tuple[int, str, Excerpt]] = []

    def offer(self, key: str, make: Callable[[], Excerpt]) -> None:
        mark = derive_seed(self._seed, "excerpt", key)
        if len(self._held) < self._size or (self._held and mark < self._held[-1][0]):
            self._held = sorted([*self._held, (mark, key, make())], key=lambda item: item[:2])[: self._size]

    def drawn(self) -> tuple[Excerpt, ...]:
        return tuple(excerpt for _, _, excerpt in sorted(self._held, key=lambda item: item[1]))


def _excerpt(line: TextLine, reject: Reject | None) -> Excerpt:
    return Excerpt(
        id=line.plan.id,
        step=reject.stage if reject else "",
        reason=reject.reason if reject else "",
        detail=reject.detail if reject else "",
        turns=tuple(f"{turn.role}: {turn.spoken}" for turn in (line.dialogue.turns if line.dialogue else ())),
    )
