"""What the description of a person says of gender and age, by words.

Only what is said of the person counts: not "a mother" in "who cares for her mother". English names the person first
("a father of twins"), so what follows "of", "who", "with" is of others; Mandarin last (双胞胎的爸爸), so what stands
before the last 的 of the first clause is. Where the words leave a doubt, nothing is said.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from pipeline.dialogue import Language
from pipeline.text.numerals import words_en
from pipeline.voice import Age, Gender

CHILD_TO = 12
OLD_FROM = 65

Who = tuple[Gender | None, Age | None]


def who(persona: str, language: Language) -> Who:
    """Gender and age of the person described, each None where the text does not give it."""
    return _english(persona.lower().replace("’", "'")) if language == "en" else _mandarin(persona)


def _only(found: set[Gender]) -> Gender | None:
    return found.pop() if len(found) == 1 else None


def _of_years(years: int) -> Age:
    return "child" if years <= CHILD_TO else "old" if years >= OLD_FROM else "adult"


# English.

_OTHERS = re.compile(
    r"\b(?:who|whose|whom|that|which|with|without|of|for|from|about|by|near|to|after|before|like|and)\b"
)
_SELF = r"(?<!\bhis )(?<!\bher )(?<!\btheir )(?<!\bmy )(?<!\byour )(?<!'s )\b(?:{})\b(?!')(?!-(?!to-be\b|in-law\b))"
_NOUNS: dict[Gender, str] = {
    "female": r"(?:grand|step|god)?(?:mother|daughter)|(?:great-)?grandma|granny|nana|mum|mom|mommy|mummy|aunt|auntie|"
    r"sister|wife|widow|bride|niece|woman|girl|schoolgirl|lady|female|mrs|ms|nun|queen|princess|actress|waitress|"
    r"stewardess|hostess|heroine|landlady|\w+woman|pregnant",
    "male": r"(?:grand|step|god)?(?:father|son)|(?:great-)?grandpa|grandad|granddad|dad|daddy|uncle|brother|husband|"
    r"widower|groom|bridegroom|nephew|man|boy|schoolboy|gentleman|guy|male|mr|monk|king|prince|waiter|steward|landlord|"
    r"(?:sales|business|fire|police|post|fisher|handy|sports|crafts|camera|door|country|mail|stunt)man",
}
_PRONOUNS: dict[Gender, str] = {"female": r"\b(?:she|hers?|herself)\b", "male": r"\b(?:he|him|his|himself)\b"}
_WORDS: dict[Age, str] = {
    "child": r"child|kid|toddler|kindergart\w+|preschooler|(?:little|small) (?:boy|girl)",
    "old": r"grand(?:mother|father|parent|ma|pa|dad)|grandad|granny|elderly|elder|pensioner|retired|retiree|"
    r"senior citizen|older|old (?:man|woman|lady|gentleman)|octogenarian",
    "adult": r"adult|middle-aged|teenager|teenage|teen",
}
_DECADES = {"teens": 15, "twenties": 25, "thirties": 35, "forties": 45, "fifties": 55, "sixties": 65, "seventies": 75}
_DECADES |= {"eighties": 85, "nineties": 95}
_YEARS = re.compile(r"\b(\d{1,3}|[a-z]+(?:-[a-z]+)?)[- ]years?[- ]olds?\b|\baged? (\d{1,3}|[a-z]+(?:-[a-z]+)?)\b")
_DECADE = re.compile(rf"\bin (?:his|her|their|the|my) (?:(early|mid|late)[- ])?(?:({'|'.join(_DECADES)})|(\d)0'?s)\b")


def _english(text: str) -> Who:
    heads = [_OTHERS.split(clause, maxsplit=1)[0] for clause in re.split(r"[,;.:()]", text)]
    found: set[Gender] = {
        gender for gender, nouns in _NOUNS.items() if any(re.search(_SELF.format(nouns), head) for head in heads)
    }
    return _only(found or _pronouns(text, _PRONOUNS, _NOUNS)), _age_en(heads)


def _pronouns(text: str, pronouns: Mapping[Gender, str], nouns: Mapping[Gender, str]) -> set[Gender]:
    """Genders of the pronouns: the person's, unless somebody of that gender was named before."""
    found: set[Gender] = set()
    for gender, words in pronouns.items():
        pronoun = re.search(words, text)
        if pronoun and not re.search(nouns[gender], text[: pronoun.start()]):
            found.add(gender)
    return found


def _age_en(heads: list[str]) -> Age | None:
    for head in heads:
        years = _years_en(head)
        if years is not None:
            return _of_years(years)
    for age, words in _WORDS.items():
        if any(re.search(_SELF.format(words), head) for head in heads):
            return age
    return None


def _years_en(head: str) -> int | None:
    decade = _DECADE.search(head)
    if decade:
        middle = int(decade[3]) * 10 + 5 if decade[3] else _DECADES[decade[2]]
        return middle + {"early": -3, "late": 3}.get(decade[1], 0)
    found = _YEARS.search(head)
    if not found:
        return None
    word = found[1] or found[2]
    return int(word) if word.isdigit() else _numbers().get(word)


@functools.cache
def _numbers() -> dict[str, int]:
    return {words_en(str(number)): number for number in range(1, 120)}


# Mandarin.

_CLAUSE = re.compile(r"[，,。；;、：:（）()\s]+")
_ZH: dict[Gender, str] = {
    "female": r"女|女人|女士|女性|女子|女孩儿?|女孩子|女生|女儿|"
    r"姑娘|小姐|妈妈|母亲|妈|奶奶|外婆|姥姥|婆婆|阿姨|大妈|大娘|大婶|婶婶|姑姑|姐姐|"
    r"大姐|妹妹|太太|妻子|媳妇|新娘|新娘子|孕妇|主妇|寡妇|老太|空姐|女王|公主",
    "male": r"男|男人|男士|男性|男子|男孩儿?|男孩子|男生|儿子|"
    r"先生|爸爸|父亲|爸|爷爷|外公|姥爷|公公|叔叔|大叔|大爷|大伯|伯伯|舅舅|哥哥|"
    r"大哥|小哥|弟弟|丈夫|新郎|小伙子?|老头儿?|老汉|鳏夫|国王|王子",
}
_ZH_PRONOUNS: dict[Gender, str] = {"female": "她(?!们)", "male": "(?<!其)他(?!们|人)"}
# 女司机, 男护士: a trade after the sign for the gender.
_MARKED: dict[Gender, str] = {"female": "女", "male": "男"}
_PLAIN: dict[Gender, str] = {"female": r"女|女性|女士|女生|女人|女孩", "male": r"男|男性|男士|男生|男人|男孩|先生"}
_ZH_WORDS: dict[Age, str] = {
    "child": r"孩子|小孩儿?|小朋友|儿童|幼儿|小男孩儿?|小女孩儿?|小学生|娃娃?",
    "old": r"奶奶|爷爷|外婆|外公|姥姥|姥爷|大爷|大娘|老人|老人家|老先生|老太太?|老头儿?|老汉|老伯|老大爷|老两口",
    "adult": r"成年人|中年人|年轻人|青年|中学生|大学生|研究生",
}
_OWN = re.compile(r"(?P<years>\d{1,3}|[一二三四五六七八九十两百]+)(?:多|来|几)?岁|(?P<old>退休|年迈|高龄)")
# What stands before another person: looking after, having, going with.
_VERBS = re.compile(r"照顾|照看|陪|带|跟|和|与|想念|爱|喜欢|养|有|给|找|帮|替|教|像")
_PEOPLE = re.compile("|".join([*_ZH.values(), r"孩子|老人|宝宝|朋友|同学|老师|学生|父母|爸妈"]))


def _mandarin(text: str) -> Who:
    clauses = [clause for clause in _CLAUSE.split(text) if clause]
    if not clauses:
        return None, None
    head = clauses[0].rpartition("的")[2]
    if _VERBS.search(head):
        head = ""
    found: set[Gender] = {
        gender
        for gender, words in _ZH.items()
        if re.search(rf"(?:{words})$", head)
        or re.search(rf"^(?:一?[位名个])?(?:年轻|中年|老|退休|单身)?{_MARKED[gender]}(?!儿|朋友|友)", head)
        or any(re.fullmatch(_PLAIN[gender], clause) for clause in clauses)
    }
    return _only(found or _pronouns(text, _ZH_PRONOUNS, _ZH)), _age_zh(clauses, head)


def _age_zh(clauses: list[str], head: str) -> Age | None:
    for clause in clauses:
        own = _OWN.search(clause)
        if own and not _PEOPLE.search(clause[own.end() :].rpartition("的")[0]):
            return "old" if own["old"] else _of_years(_years_zh(own["years"]))
    for age, words in _ZH_WORDS.items():
        if re.search(rf"(?:{words})$", head):
            return age
    return None


def _years_zh(number: str) -> int:
    import cn2an

    return int(number) if number.isdigit() else int(cn2an.cn2an(number, "smart"))
