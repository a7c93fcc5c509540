import pytest

from pipeline.config import FilterConfig
from pipeline.dialogue import Disfluency, Turn
from pipeline.text.filters import text_fault

BOTH = {
    "en": [
        "How do I make good tea?",
        "Warm the pot first, then use fresh water.",
        "And how long?",
        "About four minutes.",
    ],
    "zh": ["怎么泡一壶好茶？", "先把壶温热，再用新鲜的水。", "要泡多久呢？", "大概四分钟就好。"],
}


def dialogue(language: str, *changed: tuple[int, str], written: str = "") -> list[Turn]:
    texts = list(BOTH[language])
    for place, text in changed:
        texts[place] = text
    roles = ("user", "assistant") * 2
    return [
        Turn(role=role, written=written or text, spoken=text, author="llm")
        for role, text in zip(roles, texts, strict=True)
    ]


FAULTS = [
    ("en", 1, "Call me at four one five, nine two six, five three five eight.", "personal"),
    ("en", 3, "Write to jane dot doe at example dot com.", "personal"),
    ("zh", 1, "请打一三八零零一三八零零零。", "personal"),
    ("zh", 3, "我住在中山路十八号。", "personal"),
    ("en", 0, "I want to kill my boss.", "unsafe"),
    ("en", 3, "That is bullshit, my friend.", "unsafe"),
    ("zh", 0, "怎么制造炸弹？", "unsafe"),
    ("zh", 3, "我不想活了。", "unsafe"),
    ("en", 1, "Bonjour, comment allez-vous aujourd'hui?", "language"),
    ("en", 2, "ni hao ma, wo hen hao", "language"),
    ("en", 3, "大概四分钟就好。", "language"),
    ("en", 3, "Это очень вкусный чай.", "language"),
    ("zh", 1, "Warm the pot first.", "language"),
    ("zh", 2, "佢哋今日唔係好開心。", "language"),
    ("zh", 3, "很nice的茶。", "language"),
    ("zh", 3, "とてもおいしいお茶です。", "language"),
    ("en", 2, "How do I make good tea?", "repetition"),
    ("en", 3, "how do I make good tea", "repetition"),
    ("en", 3, "Sure! Warm the pot first, then use fresh water.", "repetition"),
    ("zh", 2, "怎么泡一壶好茶？", "repetition"),
    ("zh", 3, "怎么泡一壶好茶。", "repetition"),
    ("zh", 3, "好的。先把壶温热，再用新鲜的水。", "repetition"),
]
CLEAN = [
    ("en", (2, "Thank you!"), (3, "Thank you!")),
    ("en", (0, "What do you think? I like tea."), (2, "What do you think? I like cake.")),
    ("en", (1, "In French it is called thé, and merci means thanks.")),
    ("en", (1, "Kill some time with a book, and dial nine one one if it burns.")),
    ("zh", (2, "谢谢你！"), (3, "谢谢你！")),
    ("zh", (0, "你觉得呢？我喜欢茶。"), (2, "你觉得呢？我喜欢蛋糕。")),
    ("zh", (1, "打死我也不用剩水，着火就打一一九。")),
    ("zh", (1, "機器人也會泡茶。")),
]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_good_dialogue_passes(language) -> None:
    assert text_fault(dialogue(language), language, FilterConfig()) is None


@pytest.mark.parametrize(("language", "place", "text", "reason"), FAULTS)
def test_the_fault_and_its_turn(language, place, text, reason) -> None:
    assert text_fault(dialogue(language, (place, text)), language, FilterConfig()) == (place, reason)


@pytest.mark.parametrize("case", CLEAN)
def test_what_only_looks_like_it_passes(case) -> None:
    language, *changed = case
    assert text_fault(dialogue(language, *changed), language, FilterConfig()) is None


@pytest.mark.parametrize(
    ("reason", "off"),
    [
        ("personal", FilterConfig(personal="keep")),
        ("unsafe", FilterConfig(safety=False)),
        ("language", FilterConfig(language=False)),
    ],
)
def test_a_rule_can_be_switched_off(reason, off) -> None:
    cases = [case for case in FAULTS if case[3] == reason]
    assert cases
    for language, place, text, _ in cases:
        assert text_fault(dialogue(language, (place, text)), language, off) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("我觉得这个meeting有点boring。", None),
        ("今天的deadline要delay到下周。", None),
        ("我们去喝coffee吧，don't worry。", None),
        ("OK, no problem, see you tomorrow啊。", (1, "language")),
        ("Let us go now.", (1, "language")),
        ("请说bonjour comment allez-vous给她听好不好。", (1, "language")),
        ("他说wo hen hao xie xie的时候在笑呢。", (1, "language")),
    ],
)
def test_code_switching_mixes_in_english(text, fault) -> None:
    assert text_fault(dialogue("zh", (1, text)), "zh", FilterConfig(), code_switch=True) == fault
    assert text_fault(dialogue("zh", (1, text)), "zh", FilterConfig()) == (1, "language")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_personal_data_in_what_was_written(language) -> None:
    turns = dialogue(language, written="My card is 4111 1111 1111 1111.")
    assert text_fault(turns, language, FilterConfig()) == (0, "personal")


def test_disfluencies_are_not_judged() -> None:
    """ "I, I" and a word taken back are no part of what is said; what is left is."""
    turns = dialogue("en")
    restarted = "Warm the pot first, warm the pot first, then use fresh water."
    spans = (Disfluency(kind="restart", start=18, end=38),)
    turns[1] = turns[1].model_copy(update={"spoken": restarted, "disfluencies": spans})
    assert turns[1].fluent == BOTH["en"][1]
    assert text_fault(turns, "en", FilterConfig()) is None
    turns[3] = turns[3].model_copy(update={"spoken": restarted, "disfluencies": spans})
    assert text_fault(turns, "en", FilterConfig()) == (3, "repetition")


def test_no_turns_no_fault() -> None:
    assert text_fault([], "en", FilterConfig()) is None
