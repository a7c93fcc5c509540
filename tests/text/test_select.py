from pathlib import Path

import pytest
import yaml

from pipeline.text.language import is_foreign, language_of
from pipeline.text.select import MAX_UNITS, select_fault

LANGUAGES = ("en", "zh")
TABLES = {
    name: yaml.safe_load(Path(__file__).with_name(f"select.{name}.yaml").read_text("utf-8")) for name in LANGUAGES
}
CASES = [
    (language, text, reason if kind == "drop" else None)
    for language, table in TABLES.items()
    for reason, kinds in table.items()
    for kind, texts in kinds.items()
    for text in texts
]


def test_the_table_has_enough_of_each() -> None:
    assert [sorted(table) for table in TABLES.values()] == [
        ["attachment", "code", "script", "structured", "table", "task", "url"]
    ] * 2
    assert all(len(texts) >= 8 for table in TABLES.values() for kinds in table.values() for texts in kinds.values())


@pytest.mark.parametrize(("language", "text", "reason"), CASES)
def test_select(language, text, reason) -> None:
    assert select_fault(text, language) == reason


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text", ["", "   ", "\n\n", "...", "？！", "<noinput>", "—", "\t", "_"])
def test_nothing_to_say(language, text) -> None:
    assert select_fault(text, language) == "empty"


@pytest.mark.parametrize(("language", "unit"), [("en", "tea "), ("zh", "茶")])
def test_a_line_may_have_so_many_units(language, unit) -> None:
    assert select_fault(unit * MAX_UNITS[language], language) is None
    assert select_fault(unit * (MAX_UNITS[language] + 1), language) == "too long"


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_endless_word_is_too_long(language) -> None:
    assert select_fault("a" * 10 * MAX_UNITS[language] + "a", language) == "too long"


@pytest.mark.parametrize(
    ("language", "cue", "sentence"),
    [
        ("en", "Summarize the following article: ", "The town built a new bridge over the old river this year. "),
        ("zh", "总结以下文章：", "这座小城今年在老河上修了一座新桥，大家都很高兴。"),
    ],
)
def test_a_passage_is_one_where_it_is_long(language, cue, sentence) -> None:
    """A sentence or two can be said; a page cannot."""
    assert select_fault(cue + sentence, language) is None
    assert select_fault(cue + sentence * 7, language) == "attachment"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How are you?", "en"),
        ("Café au lait", "en"),
        ("What does 你好 mean?", "en"),
        ("你好吗？", "zh"),
        ("機器人", "zh"),
        ("我用Python写字", "zh"),
        ("привет", None),
        ("コンピューター", None),
        ("今日はとても暑いですね", None),
        ("안녕하세요", None),
        ("12:30", None),
        ("", None),
    ],
)
def test_language_of(text, language) -> None:
    assert language_of(text) == language


FOREIGN = [
    ("en", "Bonjour, comment allez-vous aujourd'hui?"),
    ("en", "Ich möchte gern ein Bier, bitte."),
    ("en", "No sé qué decir."),
    ("en", "Mi piace molto la musica italiana."),
    ("en", "Eu não sei o que fazer."),
    ("en", "Ik weet het niet, maar ik kom."),
    ("en", "ni hao ma, wo hen hao"),
    ("en", "Wǒ jīntiān hěn gāoxìng."),
    ("zh", "佢哋今日唔係好開心。"),
    ("zh", "我唔知道你喺边度做嘢。"),
    ("zh", "嗰个细路睇咗好多书。"),
]
NATIVE = [
    ("en", "Gracias means thank you in Spanish."),
    ("en", "Leonardo da Vinci"),
    ("en", "La La Land"),
    ("en", "Vincent van Gogh painted it in Arles."),
    ("en", "I'd like a café au lait and a crème brûlée."),
    ("en", "Rio de Janeiro"),
    ("en", "Yes, really?"),
    ("en", "one two three four five six seven"),
    ("en", "Shame is a common human emotion."),
    ("zh", "唔，我想想。"),
    ("zh", "他是我的朋友。"),
    ("zh", "關係很好，沒問題。"),
]


@pytest.mark.parametrize(("language", "text"), FOREIGN)
def test_another_language_in_the_same_script(language, text) -> None:
    assert is_foreign(text, language)


@pytest.mark.parametrize(("language", "text"), NATIVE)
def test_its_own_language(language, text) -> None:
    assert not is_foreign(text, language)
