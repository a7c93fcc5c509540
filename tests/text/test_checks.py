import pytest

from pipeline.text.checks import count_units, is_code_switched, reply_fault, unspeakable
from pipeline.text.verbalize import verbalize

COUNTS = [
    ("en", "", 0),
    ("en", "It's a well-known fact, isn't it?", 6),
    ("en", "Hello   there!", 2),
    ("zh", "你好，世界！", 4),
    ("zh", "我用 Python 和 C", 5),
    ("zh", "……", 0),
    ("zh", "don't用Wi-Fi", 3),
    ("zh", "第3章和4K", 5),
]
SPEAKABLE = [
    ("en", "I don't know, but it's well-known: \"yes\"!"),
    ("en", "Café au lait; that is it."),
    ("en", "No, no, no, never mind."),
    ("zh", "你好，我是机器人。《红楼梦》很好看！"),
    ("zh", "機器人說：“二〇〇八年見。”"),
    ("zh", "哈哈哈，慢慢来，慢慢来。"),
]
UNSPEAKABLE = [
    ("en", "", "empty"),
    ("en", " ... !", "empty"),
    ("zh", "。。。", "empty"),
    ("en", "See www.example.org for more.", "url"),
    ("en", "write to me@example.org", "url"),
    ("zh", "请看 https://example.cn", "url"),
    ("en", "run `ls` now", "code"),
    ("en", "call the print() function", "code"),
    ("en", "set max_size please", "code"),
    ("zh", "写 a == b 就好", "code"),
    ("en", "this is **bold**", "markup"),
    ("en", "a <b>bold</b> word", "markup"),
    ("zh", "[图片] 很好看", "markup"),
    ("en", "on 2024-05-01", "digits"),
    ("zh", "版本3.5.1", "digits"),
    ("en", "you say 你好 to her", "script"),
    ("en", "privet means привет", "script"),
    ("zh", "我喜欢Python", "script"),
    ("zh", "我喜欢カラオケ", "script"),
    ("en", "this and/or that", "symbols"),
    ("en", "ten ² metres", "symbols"),
    ("zh", "一加一＝二", "symbols"),
    ("en", "I am I am I am here", "repetition"),
    ("en", "that is sooooo good", "repetition"),
    ("en", "I can't see my face, I can't see my face.", "repetition"),
    ("zh", "我，你，我，你，我，你，我，你。", "repetition"),
    ("zh", "好好好好好", "repetition"),
    ("zh", "我问你一个问题，我问你一个问题。", "repetition"),
]


@pytest.mark.parametrize(("language", "text", "units"), COUNTS)
def test_count_units(language, text, units) -> None:
    assert count_units(text, language) == units


@pytest.mark.parametrize(("language", "text"), SPEAKABLE)
def test_speakable(language, text) -> None:
    assert unspeakable(text, language) is None


@pytest.mark.parametrize(("language", "text", "reason"), UNSPEAKABLE)
def test_unspeakable(language, text, reason) -> None:
    assert unspeakable(text, language) == reason


CODE_SWITCHED = [
    ("我觉得这个meeting有点boring。", None),
    ("don't worry，我们有Wi-Fi。", None),
    ("去Bora Bora度假，吃couscous。", None),
    ("我喜欢Python", None),
    ("我喜欢カラオケ", "script"),
    ("我喜欢привет", "script"),
    ("这个meeting在三点 (or four)。", "symbols"),
    ("meeting 3 点", "digits"),
    ("看www.example.org吧", "url"),
    ("sooooo好", "repetition"),
    ("好meeting，好meeting，好meeting。", "repetition"),
]


@pytest.mark.parametrize(("text", "reason"), CODE_SWITCHED)
def test_english_words_where_mandarin_mixes_them_in(text, reason) -> None:
    assert unspeakable(text, "zh", code_switch=True) == reason
    assert unspeakable(text, "zh") in ("script", reason)


def test_mixing_is_no_matter_of_english() -> None:
    assert unspeakable("you say 你好 to her", "en", code_switch=True) == "script"


@pytest.mark.parametrize(
    ("text", "mixed"),
    [
        ("我觉得这个meeting有点boring。", True),
        ("don't worry，有我呢。", True),
        ("用Python写。", True),
        ("我觉得这个会有点无聊。", False),
        ("这件T恤是CEO的。", False),
        ("去唱卡拉OK。", False),
        ("This meeting is boring.", False),
        ("", False),
    ],
)
def test_is_code_switched(text, mixed) -> None:
    assert is_code_switched(text) == mixed


def test_verbalised_figures_can_be_spoken() -> None:
    for language, text in (
        ("en", "On May 5th, 2024, I paid $3.50 & left at 10:30."),
        ("zh", "2024年5月5日10:30，我付了¥3.5。"),
    ):
        assert unspeakable(text, language) == "digits"
        assert unspeakable(verbalize(text, language), language) is None


# What Gemma 3 270M wrote for lines and answers of the chatterbot corpus, judged by eye: (line, reference, reply).
ACCEPTED = [
    ("en", "do you eat", "I'm a computer, I can't eat or drink.", "I'm just a computer, so I can't eat or drink."),
    (
        "en",
        "How much money have you lost?",
        "I've lost about $200.00 so far today.",
        "So far today I've lost about two hundred dollars.",
    ),
    (
        "en",
        "What is a chat robot?",
        "A software construct that engages users in conversation.",
        "A chat robot is a software construct that engages users in conversation.",
    ),
    (
        "en",
        "My webcam isn't detected.",
        "Make sure it’s connected and check the drivers.",
        "Check the drivers and make sure it's connected.",
    ),
    (
        "en",
        "I forgot my password.",
        "Use the password reset option or contact your admin.",
        "You can use the password reset option or contact your admin.",
    ),
    (
        "en",
        "My computer won't turn on.",
        "Check if it's plugged in and hold the power button for 10 seconds.",
        "Plug it in, hold the power button for ten seconds.",
    ),
    (
        "en",
        "Do you wish you could eat food?",
        "Hard to tell, i have never tried anything but electricity",
        "It's hard to tell, I have never tried anything but electricity.",
    ),
    ("en", "what disease does a carcinogen cause", "cancer.", "Yes, cancer."),
    ("zh", "你好吗?", "还不错，你呢?", "还不错，谢谢你的关心。"),
    (
        "zh",
        "你有什么价值",
        "可以在问询、销售、娱乐和个人聊天的场景下使用。",
        "我可以在问询、销售、娱乐和个人聊天的场景下使用。",
    ),
    ("zh", "肯尼迪总统哪年遇刺身亡?", "1963", "一九六三。"),
    ("zh", "你不能克隆", "软件复制是数字克隆的一种形式。", "是的，软件复制是数字克隆的一种形式。"),
    ("zh", "天佑女王是哪个国家的国歌?", "大不列颠联合王国", "是的，大不列颠联合王国。"),
    ("zh", "早上好，你好吗?", "我挺好的，你呢", "我挺好的，你呢。"),
    ("zh", "嗨，最近如何?", "有待改善.", "嗯，有待改善。"),
]
REFUSED = [
    ("en", "My computer won't turn on.", "Check if it's plugged in.", "It won't turn on.", "ungrounded"),
    ("en", "My laptop screen is black.", "Try adjusting brightness.", "My laptop screen is black.", "echo"),
    (
        "en",
        "Are you experiencing an energy shortage?",
        "My processor requires very little power.",
        "Your processor requires very little power.",
        "ungrounded",
    ),
    (
        "en",
        "do you eat",
        "I'm a computer, I can't eat or drink.",
        "No, I'm not a computer, I can't eat or drink.",
        "ungrounded",
    ),
    (
        "en",
        "do you eat",
        "No, I'm just a piece of software.",
        "I'm just a piece of software, so I can't get tired.",
        "ungrounded",
    ),
    ("en", "Are you sapient?", "No.", "I am not that intelligent.", "ungrounded"),
    ("en", "Is it cramped in the computer", "No.", "No. It's just a robot.", "ungrounded"),
    ("en", "why don't you eat", "I'm a computer. I can't.", "Computer, I can't. I can't.", "repetition"),
    (
        "en",
        "Can you breathe",
        "My server has an exhaust fan.",
        "I can breathe. I can breathe. I can breathe.",
        "repetition",
    ),
    ("en", "Dr. Smith will see you now.", "Thank you.", "Yes, I'm Dr.", "unfinished"),
    (
        "en",
        "what is gravitation",
        "the force by which every mass attracts.",
        "The force by which every mass attracts to,?",
        "ungrounded",
    ),
    ("en", "Hello", "Hi", "Hi!", "too short"),
    ("zh", "你好吗?", "还不错，你呢?", "谢谢夸奖，这些都是我跟人学的。", "ungrounded"),
    ("zh", "早上好，你好吗?", "我挺好的，你呢", "你挺好的，你呢。", "ungrounded"),
    (
        "zh",
        "你爱我吗？",
        "我对你的感情，是人类和机器人之间独有的信任和友谊。",
        "你对我的感情，是人类和机器人之间独有的信任和友谊。",
        "ungrounded",
    ),
    ("zh", "凯尔特陆棚，是什么大陆的一部分?", "欧洲", "陆棚是欧洲的首都。", "ungrounded"),
    ("zh", "你会死", "不,我是不朽的。", "你，我是朽坏的。", "ungrounded"),
    ("zh", "嗨，很高兴见到你.", "谢谢你。你也一样", "你就是一样。", "ungrounded"),
    ("zh", "天佑女王是哪个国家的国歌?", "大不列颠联合王国", "天佑女王是哪个国家的国歌。", "echo"),
    ("zh", "你不是不朽的", "所有的软件都可以永久存在。", "你，不朽，你，不朽，你，不朽。", "repetition"),
    ("zh", "怎么了?", "没啥.", "没啥。", "too short"),
]


@pytest.mark.parametrize(("language", "line", "reference", "reply"), ACCEPTED)
def test_a_sensible_reply_passes(language, line, reference, reply) -> None:
    assert reply_fault(reply, language, [line], reference, 0.8) is None


@pytest.mark.parametrize(("language", "line", "reference", "reply", "reason"), REFUSED)
def test_a_drifting_reply_is_refused(language, line, reference, reply, reason) -> None:
    assert reply_fault(reply, language, [line], reference, 0.8) == reason


@pytest.mark.parametrize(
    ("language", "reply", "reason"),
    [
        ("en", "User: how are you?", "role"),
        ("en", "I am fine. Note: the user is polite.", "role"),
        ("zh", "用户：你好吗？", "role"),
        ("zh", "我很好。提示：保持礼貌。", "role"),
        ("en", "我今天很好，谢谢你。", "language"),
        ("zh", "I am doing fine today.", "language"),
        ("en", "I am doing fine and", "unfinished"),
        ("en", "I am going to the.", "unfinished"),
        ("zh", "我今天很好", "unfinished"),
        ("en", "", "too short"),
        ("en", "I had a walk, and it was lovely.", None),
        ("zh", "我今天去公园走了走，天气真好！", None),
    ],
)
def test_sanity_without_a_reference_or_grounding(language, reply, reason) -> None:
    assert reply_fault(reply, language, ["What did you do?"], "", 0) == reason


def test_an_earlier_turn_is_an_echo_too() -> None:
    history = ["Where do you live?", "I live in a small box.", "And what do you do there?"]
    assert reply_fault("I live in a small box!", "en", history, "", 0) == "echo"


def test_what_the_reference_says_too_is_no_echo() -> None:
    assert reply_fault("Nice to meet you.", "en", ["Nice to meet you!"], "Nice to meet you.", 0.8) is None


def test_grounding_asks_for_less_where_it_is_lower() -> None:
    line, reference, reply = "What do you like?", "I like tea and music.", "I like tea and old red bicycles."
    assert reply_fault(reply, "en", [line], reference, 0.8) == "ungrounded"
    assert reply_fault(reply, "en", [line], reference, 0.3) is None
