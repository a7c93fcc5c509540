import pytest

from pipeline.text.safety import find_unsafe

UNSAFE = [
    ("en", "I want to kill my boss.", "violence"),
    ("en", "How do I poison my neighbor?", "violence"),
    ("en", "I'm going to shoot up the school tomorrow.", "violence"),
    ("en", "I hope that you die.", "violence"),
    ("en", "Let's beat him to death.", "violence"),
    ("en", "I want to kill myself.", "self-harm"),
    ("en", "What is the easiest way to die?", "self-harm"),
    ("en", "How can I commit suicide?", "self-harm"),
    ("en", "I just want to die.", "self-harm"),
    ("en", "How can I build a pipe bomb at home?", "crime"),
    ("en", "Where can I buy some cocaine?", "crime"),
    ("en", "How do I hack into my girlfriend's phone?", "crime"),
    ("en", "Teach me how to rob a bank.", "crime"),
    ("en", "I hate all Muslims.", "hate"),
    ("en", "Those retards again.", "hate"),
    ("en", "Send me nudes.", "sexual"),
    ("en", "Do you want to have sex?", "sexual"),
    ("en", "You fucking idiot!", "profanity"),
    ("en", "That is bullshit.", "profanity"),
    ("zh", "我想杀了他。", "violence"),
    ("zh", "我要弄死你！", "violence"),
    ("zh", "你怎么不去死？去死吧！", "violence"),
    ("zh", "怎么毒死邻居？", "violence"),
    ("zh", "我想自杀。", "self-harm"),
    ("zh", "我不想活了。", "self-harm"),
    ("zh", "怎样割腕不疼？", "self-harm"),
    ("zh", "怎么制造炸弹？", "crime"),
    ("zh", "哪里能买到冰毒？", "crime"),
    ("zh", "怎么黑进别人的微信？", "crime"),
    ("zh", "教我洗钱。", "crime"),
    ("zh", "帮我办假证。", "crime"),
    ("zh", "黑人都是垃圾。", "hate"),
    ("zh", "我恨所有的外地人。", "hate"),
    ("zh", "黄片在哪里看？", "sexual"),
    ("zh", "他想跟她上床。", "sexual"),
    ("zh", "傻逼，滚。", "profanity"),
    ("zh", "他妈的，真烦！", "profanity"),
    ("zh", "这个meeting真是bullshit。", "profanity"),
]
SAFE = [
    ("en", "How do I kill time at the airport?"),
    ("en", "Can I shoot a photo here?"),
    ("en", "I'll shoot you an email."),
    ("en", "My mom is going to kill me."),
    ("en", "How do I kill the weeds in my garden?"),
    ("en", "What doesn't kill you makes you stronger."),
    ("en", "I would never hurt you."),
    ("en", "In which city did Hitler commit suicide?"),
    ("en", "I do not want to die."),
    ("en", "I want to die peacefully in my sleep."),
    ("en", "I cut myself while shaving."),
    ("en", "How do I make a bath bomb?"),
    ("en", "That party was the bomb."),
    ("en", "How can I steal the show?"),
    ("en", "She got away with murder."),
    ("en", "I take aspirin for my headache."),
    ("en", "Why is cocaine illegal?"),
    ("en", "A chink in the armor."),
    ("en", "Dick Van Dyke was in it."),
    ("en", "Did you read Moby Dick?"),
    ("en", "The cock crows at dawn."),
    ("en", "My sex is on the form."),
    ("en", "The battery died."),
    ("en", "I study in Essex, Scunthorpe is near."),
    ("zh", "怎么跟老板杀价？"),
    ("zh", "推荐一个杀毒软件。"),
    ("zh", "打死我也不去。"),
    ("zh", "打死他也不说。"),
    ("zh", "我笑死了。"),
    ("zh", "我想死你了！"),
    ("zh", "去死海旅游要多少钱？"),
    ("zh", "自杀预防热线是多少？"),
    ("zh", "如何预防诈骗？"),
    ("zh", "怎么偷懒？"),
    ("zh", "怎么杀菌消毒？"),
    ("zh", "门口交警很多。"),
    ("zh", "理性交流很重要。"),
    ("zh", "你可以把它叫做爱。"),
    ("zh", "我给她做爱心早餐。"),
    ("zh", "买一根大麻花。"),
    ("zh", "吸毒有什么危害？"),
    ("zh", "他妈的手艺很好。"),
    ("zh", "今日你有空吗？"),
    ("zh", "游戏里怎么杀怪物？"),
    ("zh", "早点上床睡觉。"),
    ("zh", "我想去人民公园。"),
]


@pytest.mark.parametrize(("language", "text", "category"), UNSAFE)
def test_unsafe(language, text, category) -> None:
    found = find_unsafe(text, language)
    assert found is not None
    assert found[0] == category
    assert found[1] in text.lower()


@pytest.mark.parametrize(("language", "text"), SAFE)
def test_safe(language, text) -> None:
    assert find_unsafe(text, language) is None


def test_no_word_is_found_within_another() -> None:
    assert find_unsafe("That is shit.", "en") == ("profanity", "shit")
    assert find_unsafe("The shitake is a mushroom.", "en") is None
