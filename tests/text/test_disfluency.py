import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dialogue import fluent
from pipeline.text.checks import unspeakable
from pipeline.text.disfluency import add_disfluencies

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("filler", "restart", "repair")
# Where each kind fits, and where it does not.
FITS = [
    ("en", "filler", "I want to go to the park.", True),
    ("en", "filler", "Well, that was a long day.", True),
    ("en", "filler", "Stop!", False),
    ("en", "filler", "Good night.", False),
    ("en", "restart", "Can you tell me the way?", True),
    ("en", "restart", "I'm late again.", True),
    ("en", "restart", "Stop!", False),
    ("en", "restart", "Theories are fine.", False),
    ("en", "repair", "See you on Tuesday.", True),
    ("en", "repair", "A table for four people, please.", True),
    ("en", "repair", "Shall we meet tomorrow evening?", True),
    ("en", "repair", "I'd like a small coffee.", True),
    ("en", "repair", "Where is the blue bag?", True),
    ("en", "repair", "It is twenty-four hours away.", False),
    ("en", "repair", "It costs two hundred and five dollars.", False),
    ("en", "repair", "Good evening!", False),
    ("en", "repair", "What is a black hole?", False),
    ("en", "repair", "Everyone is often tense.", False),
    ("zh", "filler", "我想去公园走走。", True),
    ("zh", "filler", "太好了，我们走吧。", True),
    ("zh", "filler", "好。", False),
    ("zh", "filler", "再见。", False),
    ("zh", "restart", "我想买一本书。", True),
    ("zh", "restart", "好的，你能帮我吗？", True),
    ("zh", "restart", "你好。", False),
    ("zh", "restart", "这么多书！", False),
    ("zh", "repair", "我们下周二开会。", True),
    ("zh", "repair", "三点在门口等我。", True),
    ("zh", "repair", "要两个苹果。", True),
    ("zh", "repair", "明天下雨吗？", True),
    ("zh", "repair", "来一杯大杯的咖啡。", True),
    ("zh", "repair", "那件红色的毛衣好看。", True),
    ("zh", "repair", "圆周率是三点一四。", False),
    ("zh", "repair", "现在二十三点了。", False),
    ("zh", "repair", "有一点贵。", False),
    ("zh", "repair", "早上好！", False),
    ("zh", "repair", "那件粉红色的毛衣好看。", False),
    ("zh", "repair", "周一到周五都上班。", True),
]
TEXTS = {
    "en": "I think we can meet on Tuesday at ten o'clock, and then you can show me the blue house.",
    "zh": "我觉得我们可以周二下午三点见面，然后你带我去看那个红色的房子。",
}


@pytest.mark.parametrize(("language", "kind", "text", "fits"), FITS)
def test_where_a_kind_fits(language, kind, text, fits) -> None:
    for seed in range(6):
        spoken, spans = add_disfluencies(text, language, seed, (kind,))
        assert fluent(spoken, spans) == text
        assert {span.kind for span in spans} == ({kind} if fits else set())
        assert (spoken != text) == fits


@given(
    text=st.text(max_size=80)
    | st.lists(st.sampled_from([*TEXTS["en"].split(), *TEXTS["zh"], ", ", "。"])).map(" ".join),
    language=st.sampled_from(["en", "zh"]),
    seed=st.integers(0, 2**31),
    kinds=st.lists(st.sampled_from(KINDS), max_size=3, unique=True),
)
def test_cut_out_it_is_the_text_again(text, language, seed, kinds) -> None:
    spoken, spans = add_disfluencies(text, language, seed, tuple(kinds))
    assert fluent(spoken, spans) == text
    assert len(spoken) == len(text) + sum(span.end - span.start for span in spans)
    assert {span.kind for span in spans} <= set(kinds)
    assert len({span.kind for span in spans}) <= 1
    assert len(spans) <= 2


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_can_be_spoken_and_holds_no_half_word(language) -> None:
    seen = set()
    for seed in range(60):
        spoken, spans = add_disfluencies(TEXTS[language], language, seed, KINDS)
        assert unspeakable(spoken, language) is None
        assert spans
        seen.update(span.kind for span in spans)
        if language == "en":
            for span in spans:
                assert not re.search(r"\w\Z", spoken[: span.start]) or not re.match(
                    r"\w", spoken[span.start : span.end]
                )
                assert not re.search(r"\w\Z", spoken[: span.end]) or not re.match(r"\w", spoken[span.end :])
    assert seen == set(KINDS)


@pytest.mark.parametrize(
    ("language", "text", "kind", "pattern"),
    [
        ("en", "See you on Tuesday.", "repair", r"See you on (?!Tue)\w+day, (?:no|I mean|sorry), on Tuesday\."),
        ("en", "Can you tell me?", "restart", r"Can you, can you tell me\?"),
        ("en", "I think so too.", "restart", r"I think, I think so too\."),
        ("zh", "我们周二开会。", "repair", "我们周[一三四五六]，(?:不对|不是|哦不)，周二开会。"),
        ("zh", "我想买书。", "restart", "我想，我想买书。"),
        ("zh", "我想买书。", "filler", "(?:嗯|呃|那个|就是)，我想买书。"),
    ],
)
def test_how_it_reads(language, text, kind, pattern) -> None:
    for seed in range(8):
        assert re.fullmatch(pattern, add_disfluencies(text, language, seed, (kind,))[0])


def test_another_kind_stands_in_where_one_does_not_fit() -> None:
    for seed in range(8):
        spoken, spans = add_disfluencies("Tuesday.", "en", seed, KINDS)
        assert [span.kind for span in spans] == ["repair"]
        assert spoken.endswith("Tuesday.")
    assert add_disfluencies("Stop!", "en", 1, KINDS) == ("Stop!", ())
    assert add_disfluencies(TEXTS["en"], "en", 1, ()) == (TEXTS["en"], ())


def test_the_seed_decides_and_nothing_else() -> None:
    made = [add_disfluencies(TEXTS["en"], "en", seed, KINDS)[0] for seed in range(30)]
    assert len(set(made)) > 8
    code = (
        "from pipeline.text.disfluency import add_disfluencies as add\n"
        f"for seed in range(29, -1, -1): print(add({TEXTS['en']!r}, 'en', seed, {KINDS!r})[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[::-1] == made
