"""Who a persona is: by words, in both languages, and nothing where there is a doubt."""

from __future__ import annotations

from importlib import resources

import pytest
import yaml

from pipeline.dialogue import Language
from pipeline.text.persona import who

# What the shipped personas say, by id: English, then Mandarin. All others say nothing.
SAID = {
    "bus-driver": "- old / - old",
    "curious-eight": "- child / - child",
    "new-mother": "female - / female -",
    "grandmother": "female old / female old",
    "teen-sarcastic": "- adult / - adult",
    "widower": "male old / male old",
    "twins-father": "male - / male -",
    "bride": "female - / female -",
    "gamer": "- - / - adult",
    "pensioner-walker": "- old / female old",
    "graduate": "- - / - adult",
    "saleswoman": "female - / - -",
    "only-child-carer": "male adult / male adult",
    "ten-year-inventor": "- child / - child",
    "dog-walker": "female - / female -",
    "hard-of-hearing": "male old / - old",
    "mechanic": "male - / - -",
}


def said(persona: str, language: Language) -> str:
    return " ".join(item or "-" for item in who(persona, language))


def test_of_the_shipped_personas_just_these_give_gender_or_age() -> None:
    personas = yaml.safe_load(resources.files("prompts").joinpath("personas.yaml").read_text("utf-8"))
    found = {item["id"]: f"{said(item['en'], 'en')} / {said(item['zh'], 'zh')}" for item in personas}
    assert {id: words for id, words in found.items() if words != "- - / - -"} == SAID
    assert len(found) > 50


@pytest.mark.parametrize(
    ("persona", "told"),
    [
        ("A mother of two sons", "female -"),
        ("a nurse who cares for her husband", "female -"),
        ("a man who looks after his mother and daughter", "male -"),
        ("a teenager hugging her father", "female adult"),
        ("a carer who misses her mother", "female -"),
        ("Mr. Brown, a baker", "male -"),
        ("Ms Li, 34 years old, an engineer", "female adult"),
        ("a 68-year-old woman", "female old"),
        ("a sixty-eight-year-old engineer", "- old"),
        ("The user is a 12 year old boy", "male child"),
        ("a thirteen-year-old girl", "female adult"),
        ("a woman in her early sixties", "female adult"),
        ("a woman in her late sixties", "female old"),
        ("a man in his 70s", "male old"),
        ("a grandfather, aged 80", "male old"),
        ("a student aged twenty; his mother is ill", "male adult"),
        ("an elderly fisherman", "male old"),
        ("a little boy with a toy", "male child"),
        ("she’s a policewoman", "female -"),
        # Of others, of nobody, or of two.
        ("a father of a ten-year-old", "male -"),
        ("somebody whose wife left", "- -"),
        ("a teacher whose husband says he is lazy", "- -"),
        ("a fisherman's wife's doctor", "- -"),
        ("a women's magazine editor, fond of old ladies", "- -"),
        ("a human resources manager from Germany", "- -"),
        ("a man, a woman", "- -"),
        ("a primary school teacher", "- -"),
        ("a collector of many years old maps", "- -"),
        ("", "- -"),
    ],
)
def test_english(persona: str, told: str) -> None:
    assert said(persona, "en") == told


@pytest.mark.parametrize(
    ("persona", "told"),
    [
        ("八岁女儿的妈妈", "female -"),
        ("陪68岁母亲看病的男人", "male -"),
        ("照顾妈妈的男人", "male -"),
        ("李女士，68岁，退休教师", "female old"),
        ("30岁，女性，教师", "female adult"),
        ("女程序员", "female -"),
        ("一位男护士", "male -"),
        ("一个七岁的小男孩", "male child"),
        ("十二岁的初中生", "- child"),
        ("十三岁的初中生", "- adult"),
        ("68岁的退休工人", "- old"),
        ("七十多岁的人", "- old"),
        ("六十五岁的王大爷", "male old"),
        ("二十岁出头的小伙子", "male adult"),
        ("老公出差的家庭主妇", "female -"),
        ("喜欢跟爷爷下棋的孩子", "- child"),
        ("爱聊天，她是个飞行员", "female -"),
        # Of others, or of nobody.
        ("女儿在国外的老人", "- old"),
        ("退休父亲的女儿", "female -"),
        ("带着奶奶看病的年轻人", "- adult"),
        ("跟奶奶一起住，爱聊天", "- -"),
        ("刚下夜班的护士，很累，要照顾女儿", "- -"),
        ("男朋友在外地的护士", "- -"),
        ("其他人都爱找的医生", "- -"),
        ("爱跟他们聊天的司机", "- -"),
        ("", "- -"),
    ],
)
def test_mandarin(persona: str, told: str) -> None:
    assert said(persona, "zh") == told
