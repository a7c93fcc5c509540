"""Fillers, restarts and self-repairs, put into fluent text where people make them, and labelled.

What is put in is only ever added, so that the fluent text comes back to the letter when it is cut out again. That is
why a restart at the start of a sentence labels the second of "Can you, can you tell me", in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from pipeline.dialogue import Disfluency, Disfluent, Language, derive_seed

_FILLERS: dict[Language, tuple[str, ...]] = {
    "en": ("um", "uh", "er", "you know"),
    "zh": ("嗯", "呃", "那个", "就是"),
}
_CUES: dict[Language, tuple[str, ...]] = {
    "en": (", no, ", ", I mean, ", ", sorry, "),
    "zh": ("，不对，", "，不是，", "，哦不，"),
}

# A filler comes before a sentence (en: only of I, which keeps its capital), after a comma, or behind a small word, when
# the speaker looks for the next one.
_SEARCHING = re.compile(
    r"(?<![\w'’-])(?:to|the|a|an|for|about|with|because|and|but|so|is|are|my|some|like|in|at)(?= [A-Za-z])"
    r"|(?<=[A-Za-z]),(?= [A-Za-z])"
)
_SENTENCE_OF_I = re.compile(r"(?:^|(?<=[.!?] ))(?=I(?:['’](?:m|d|ve|ll))? )")
_CLAUSE_ZH = re.compile(
    "^(?=[\u4e00-\u9fff]{3})|(?<=[\u4e00-\u9fff][，。！？])(?=[\u4e00-\u9fff]{2})"
    "|(?<=但是|所以|因为|然后|而且|不过|如果)(?=[\u4e00-\u9fff]{2})"
)

# Words that begin a clause and that a speaker says again to gain time; the longest first.
_RESTARTS: dict[Language, re.Pattern[str]] = {
    "en": re.compile(
        r"(?:^|(?<=[.!?,] )|(?<=\band )|(?<=\bbut )|(?<=\bbecause ))"
        r"((?:can|could|would|will|do|did|have|are|should) (?:you|we|I|they)"
        r"|(?:what|how|where|when|why|who) (?:is|are|do|can)"
        r"|I (?:think|want|need|was|am|have|would)|is (?:there|it|that)|there (?:is|are)|I(?:['’](?:m|d|ve|ll))?"
        r"|we|he|she|they|it|it['’]s|that['’]s|my|the|what|how|why|where|when|if|so|but)(?= [A-Za-z])",
        re.I,
    ),
    "zh": re.compile(
        "(?:^|(?<=[，。！？；]))"
        "(我觉得|你知道|有没有|能不能|可不可以|是不是|为什么|我们|你们|他们|她们|我想|我要|你能|你会|这个|那个|怎么|什么|如果|请问"
        "|[我他她](?![们的])|你(?![们的好])|这(?![个么些里儿边样])|那(?![个么些里儿边样]))(?=[\u4e00-\u9fff]{2})"
    ),
}

# Closed classes: what was meant and what slipped out instead.
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink", "purple", "grey")
_NUMERIC = (
    rf"(?:and|point|percent|hundred|thousand|million|billion|times|oh|o|zero|one|{'|'.join(_NUMBERS)}|\w+teen|\w+ty)"
)
_BEHIND_NUMBER = re.compile(rf"(?:^|\s){_NUMERIC},?\s$", re.I)
_NUMERALS_ZH = ("两", "三", "四", "五", "六", "七", "八", "九")
_NO_NUMERAL = "零〇一二两三四五六七八九十百千万亿半几多点第"
# What may come before and is said again with it, the class, what may not follow.
_CLASSES: dict[Language, tuple[tuple[str, tuple[str, ...], str], ...]] = {
    "en": (
        ("(?:on |next |this |last |every )?", _DAYS, ""),
        ("(?:at |for |in )?", _NUMBERS, rf"(?!,? {_NUMERIC}\b)"),
        ("(?:in the |this |tomorrow |yesterday )", ("morning", "afternoon", "evening"), ""),
        ("(?:a |the )", ("small", "medium", "large"), "(?= [a-z])(?! (?:of|and|or|number|amount)\\b)"),
        ("(?:a |the )", _COLOURS, r"(?= [a-z])(?! (?:and|or|hole|market|tea|light|box|belt|house|sheep|panther)\b)"),
    ),
    "zh": (
        ("[下这上]?(?:周|星期|礼拜)", ("一", "二", "三", "四", "五", "六"), f"(?![{_NO_NUMERAL}到至])"),
        ("(?:下午|上午|早上|晚上)?", tuple(f"{one}点" for one in _NUMERALS_ZH), f"(?![{_NO_NUMERAL}])"),
        ("", tuple(f"{one}个" for one in _NUMERALS_ZH), f"(?![{_NO_NUMERAL}])"),
        ("", ("今天", "明天", "后天", "昨天"), ""),
        ("(?:今天|明天|昨天)?", ("早上", "中午", "下午", "晚上"), "(?!好)"),
        ("", ("大杯", "中杯", "小杯"), ""),
        ("", ("红色", "蓝色", "绿色", "黄色", "黑色", "白色"), "(?!和平)"),
    ),
}
_BEFORE: dict[Language, str] = {"en": r"(?<![\w'’-])", "zh": f"(?<![{_NO_NUMERAL}粉深浅暗淡亮紫橙棕灰金银])"}
_BEHIND: dict[Language, str] = {"en": r"(?![\w'’-])", "zh": ""}
_SLIPS: dict[Language, tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]] = {
    language: tuple(
        (re.compile(f"{_BEFORE[language]}({lead})({'|'.join(words)}){_BEHIND[language]}{after}"), words)
        for lead, words, after in classes
    )
    for language, classes in _CLASSES.items()
}


def add_disfluencies(
    spoken: str, language: Language, seed: int, kinds: Sequence[Disfluent]
) -> tuple[str, tuple[Disfluency, ...]]:
    """`spoken` with one disfluency of one of `kinds` (or two fillers), and where it is; unchanged where none fits.

    The same arguments give the same text. Cut out (`dialogue.fluent`), the labelled stretches leave `spoken` exactly.
    """
    first = _pick(len(kinds), seed, "kind") if kinds else 0
    for kind in (*kinds[first:], *kinds[:first]):
        places = sorted(set(_PLACES[kind](spoken, language, seed)))
        if places:
            chosen = [places[_pick(len(places), seed, kind)]]
            others = [place for place in places if abs(place[0] - chosen[0][0]) > 8]
            if kind == "filler" and others and _pick(3, seed, "second") == 0:
                chosen.append(others[_pick(len(others), seed, "which")])
            return _insert(spoken, kind, sorted(chosen))
    return spoken, ()


def _insert(spoken: str, kind: Disfluent, places: Sequence[tuple[int, str]]) -> tuple[str, tuple[Disfluency, ...]]:
    spans: list[Disfluency] = []
    added = 0
    for place, words in places:
        start = place + added
        spoken = spoken[:start] + words + spoken[start:]
        spans.append(Disfluency(kind=kind, start=start, end=start + len(words)))
        added += len(words)
    return spoken, tuple(spans)


def _pick(count: int, seed: int, what: object) -> int:
    return derive_seed(seed, "disfluency", what) % count


def _fillers(spoken: str, language: Language, seed: int) -> Iterator[tuple[int, str]]:
    for number, match in enumerate((_SEARCHING if language == "en" else _CLAUSE_ZH).finditer(spoken)):
        filler = _FILLERS[language][_pick(len(_FILLERS[language]), seed, ("filler", number))]
        if language == "zh":
            yield match.end(), f"{filler}，"
        else:
            yield match.end(), f" {filler}," if match[0] == "," else f", {filler},"
    if language == "en":
        openings = ("Um, ", "Uh, ", "Well, ", "Well, you know, ")
        for match in _SENTENCE_OF_I.finditer(spoken):
            yield match.end(), openings[_pick(len(openings), seed, "opening")]


def _restarts(spoken: str, language: Language, seed: int) -> Iterator[tuple[int, str]]:
    for match in _RESTARTS[language].finditer(spoken):
        words = match[1]
        if language == "en" and not re.match(r"I\b", words):
            words = words[0].lower() + words[1:]
        yield match.end(), f"{'，' if language == 'zh' else ', '}{words}"


def _repairs(spoken: str, language: Language, seed: int) -> Iterator[tuple[int, str]]:
    for number, (pattern, words) in enumerate(_SLIPS[language]):
        for match in pattern.finditer(spoken):
            if words is _NUMBERS and _BEHIND_NUMBER.search(spoken[: match.start()]):
                continue
            lead, meant = match.groups()
            others = [word for word in words if word != meant]
            slip = others[_pick(len(others), seed, ("slip", number))]
            cue = _CUES[language][_pick(len(_CUES[language]), seed, "cue")]
            yield match.start(), f"{lead}{slip}{cue}"


_PLACES: dict[Disfluent, Callable[[str, Language, int], Iterator[tuple[int, str]]]] = {
    "filler": _fillers,
    "restart": _restarts,
    "repair": _repairs,
}
