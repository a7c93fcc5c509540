import pytest

from pipeline.text.personal import find_personal

# A resident id of a made-up person with a right check character, and card numbers from the vendors' test pages.
PERSONAL = [
    ("en", "Write to jane.doe+work@example.org today.", "email"),
    ("en", "My address is jane dot doe at example dot com.", "email"),
    ("en", "It's jane underscore doe at mail dot example dot org.", "email"),
    ("zh", "我的邮箱是zhang_san@example.cn，有空联系。", "email"),
    ("zh", "发到zhangsan艾特example点com吧。", "email"),
    ("en", "Call me on (415) 926-5358.", "phone"),
    ("en", "My number is four one five, nine two six, five three five eight.", "phone"),
    ("en", "My number is four one five nine two six double five seven eight.", "phone"),
    ("en", "Ring +44 20 7946 0018 after six.", "phone"),
    ("en", "She gave me one three eight zero zero one three eight zero zero zero.", "phone"),
    ("zh", "我的手机是13800138000。", "phone"),
    ("zh", "我的手机是138 0013 8000。", "phone"),
    ("zh", "请打一三八，零零一三，八零零零。", "phone"),
    ("zh", "我的号码是幺三八零零幺三八零零零。", "phone"),
    ("zh", "家里电话是010-62345678。", "phone"),
    ("zh", "家里电话是零一零，六二三四五六七八。", "phone"),
    ("zh", "身份证号是11010519491231002X。", "resident id"),
    ("zh", "身份证号是一一零一零五一九四九一二三一零零二叉。", "resident id"),
    ("en", "His Chinese id is 11010519491231002X.", "resident id"),
    ("en", "My social security number is 078-05-1120.", "social security"),
    ("en", "My social security number is 078051120.", "social security"),
    ("en", "It is zero seven eight, zero five, one one two zero.", "social security"),
    ("zh", "我的美国社会安全号是078051120。", "social security"),
    ("en", "The card is 4111 1111 1111 1111.", "card"),
    ("en", "The card is five five five five, five five five five, five five five five, four four four four.", "card"),
    ("zh", "卡号是四一一一一一一一一一一一一一一一。", "card"),
    ("zh", "卡号是6222 0212 3456 7894。", "card"),
    ("en", "The server is 52.95.110.1 now.", "ip"),
    ("en", "It is five two dot nine five dot one one zero dot one.", "ip"),
    ("zh", "服务器是五二点九五点一一零点一。", "ip"),
    ("zh", "我的微信是zhang_san88，加我吧。", "account"),
    ("zh", "加我QQ一二三四五六七八。", "account"),
    ("zh", "我的QQ号是12345678。", "account"),
    ("en", "My WeChat id is jane_doe99.", "account"),
    ("en", "I live at twelve Oak Street.", "address"),
    ("en", "He lives in 34 Old Mill Road.", "address"),
    ("en", "Bring it to 7 Elm Avenue, Apt 4.", "address"),
    ("zh", "我住在中山路十八号。", "address"),
    ("zh", "地址是人民路18号3栋502室。", "address"),
]
COMMON = [
    ("en", "The card is 4111 1111 1111 1112."),
    ("zh", "卡号是6222 0212 3456 7895。"),
    ("en", "In an emergency dial 911, or nine one one."),
    ("en", "In Britain it is nine nine nine, in Europe one one two."),
    ("en", "Call 1-800-555-0199 for free."),
    ("en", "Call me at 202-555-0143, says the film."),
    ("en", "one two three four five six seven eight nine ten"),
    ("en", "Ten, nine, eight, seven, six, five, four, three, two, one, zero!"),
    ("en", "Pi is three point one four one five nine two six five three five eight."),
    ("en", "On 2024-05-01 at 10:30 we met."),
    ("en", "It was 1,234,567,890 dollars."),
    ("en", "The router is at 192.168.1.1, the name server at 8.8.8.8."),
    ("en", "Where is 10 Downing Street?"),
    ("en", "Take a one way street."),
    ("en", "I live in a small street."),
    ("en", "WeChat is popular in China."),
    ("en", "My WeChat is very slow."),
    ("en", "Meet me at the dot on the map."),
    ("en", "He was born in nineteen eighty four."),
    ("en", "Flight one two three leaves from gate four five."),
    ("zh", "着火打119，生病打120，报警打110。"),
    ("zh", "着火打一一九，报警打一一零。"),
    ("zh", "买火车票打12306，或者打四零零八二零八八二零。"),
    ("zh", "客服电话是400-820-8820，银行是95588。"),
    ("zh", "一二三四五六七八九，开始！"),
    ("zh", "圆周率是三点一四一五九二六五三五八。"),
    ("zh", "二〇〇八、二〇一二、二〇一六年都有。"),
    ("zh", "一共1400000000人。"),
    ("zh", "我住在十号线旁边的中山路。"),
    ("zh", "人民路很长，三号楼在后面。"),
    ("zh", "微信是WeChat的中文名。"),
    ("zh", "我每天用微信和QQ聊天。"),
    ("zh", "版本是一点二点三点四。"),
    ("zh", "这个点很重要，那个点也是。"),
]


@pytest.mark.parametrize(("language", "text", "kind"), PERSONAL)
def test_personal(language, text, kind) -> None:
    found = find_personal(text, language)
    assert (found and found[0]) == kind
    assert found is None or found[1] in text


@pytest.mark.parametrize(("language", "text"), COMMON)
def test_what_belongs_to_everybody(language, text) -> None:
    assert find_personal(text, language) is None


@pytest.mark.parametrize("digits", ["110105194912310021", "11010519491331002X", "01010519491231002X"])
def test_an_id_needs_its_check_character_and_a_date(digits) -> None:
    assert find_personal(f"号码{digits}。", "zh") is None


def test_the_stretch_is_what_was_said() -> None:
    assert find_personal("Ring four one five, nine two six, five three five eight now.", "en") == (
        "phone",
        "four one five, nine two six, five three five eight",
    )
    assert find_personal("请打一三八零零一三八零零零，好吗？", "zh") == ("phone", "一三八零零一三八零零零")
