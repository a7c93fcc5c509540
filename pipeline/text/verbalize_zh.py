"""Figures and signs of Mandarin text in Han characters. What no rule here knows stays as it is; Latin words stay too.

One pattern, whose alternatives are tried in order at each place, finds everything that is read; a figure that can be
said in several ways (1963 is a year or a count) keeps them all, because a recogniser writes the same figure for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pipeline.text.measures import ALSO_ZH, CURRENCIES, CURRENCY, PER, UNIT_ZH, UNITS
from pipeline.text.numerals import han_cardinal, han_colloquial, han_digits, roman_value

Readings = tuple[str, ...]

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)"
_DASH = r"\s?[-–~～]\s?"
_MULTIPLES = "十百千万亿"
_VULGAR = {"½": "二分之一", "⅓": "三分之一", "⅔": "三分之二", "¼": "四分之一", "¾": "四分之三", "⅕": "五分之一",
           "⅛": "八分之一"}  # fmt: skip
_CODE = "|".join(sorted(code for code in CURRENCIES if code.isalpha()))

# Before figures that name something; each is said digit by digit.
_NAMED_BEFORE = re.compile(
    r"(?:电话|号码|手机|热线|拨打|拨|致电|呼叫|尾号|编号|验证码|密码|邮编|邮政编码|房号|门牌|学号|工号|账号|卡号|代码|区号|航班|车牌"
    r"|房间|QQ|ID)[是为：:，, ]*$"
)
_NAMED_AFTER = re.compile(
    r"(?:室|房|号房|号楼|教室|病房|包间|包厢|宿舍|路公交|路车|国道|省道|高校|事件|晚会|号航班|打个?电话)"
)
_DIALLED = re.compile(r"1[12]\d|1[012]\d{3}|9\d{4}")
# Before a measure word two is 两 (《实用语文规范知识小词典》, 二与两); in 二月, 二号, 二年级, 二两, 第二 it is not.
_MEASURE = re.compile(
    r"[个位只本条张块天次种点倍岁米句杯件份名辆台家遍周人元毛斤克吨升部门首双对群场座片瓶盒袋碗顿趟篇把头匹朵棵颗套副步项类样支根"
    r"间封段轮]|年(?!级)|公里|公斤|千克|厘米|毫米|英里|英尺|英寸|平方|立方|美元|欧元|英镑|港元|日元|小时|分(?!之)|秒|星期|刻钟|千|万|亿"
)


def _two(spoken: str, after: str, before: str) -> str:
    return "两" if spoken == "二" and _MEASURE.match(after) and not before.endswith("第") else spoken


def _ways(number: str, after: str, before: str = "") -> Readings:
    """The ways a number before `after` is read, the likeliest first."""
    figure = number.replace(",", "")
    if not figure.replace(".", "").isdigit():
        return (han_cardinal(figure),)
    digits = han_digits(figure)
    plain = figure.isdigit()
    if plain and figure[0] == "0" and len(figure) > 1:
        return (digits,)
    cardinal = _two(han_cardinal(figure), after, before)
    twos = han_colloquial(cardinal)
    long = plain and "," not in number and len(figure) >= 8 and not figure.endswith("0000")
    named = plain and len(figure) >= 3 and (_NAMED_BEFORE.search(before) or _NAMED_AFTER.match(after))
    dialled = before.endswith("打") and _DIALLED.fullmatch(figure) and not _MEASURE.match(after)
    model = plain and len(figure) >= 3 and re.search(r"[A-Za-z]-?$", before)
    year = re.fullmatch(r"[12]\d{3}", figure) and (
        re.match(r"\s*年(?![前多来级])", after) or not re.search(r"\w", before + after)
    )
    year = year or (re.search("公元前?$", before) and after.startswith("年"))
    year = year or (len(figure) == 4 and re.search("年[是为]?$", before))
    height = plain and len(figure) == 2 and re.search(r"\d米$", before)
    generation = re.fullmatch(r"\d0", figure) and re.match("后(?![面来边])", after)
    spell = long or named or dialled or model or year or generation or height
    return tuple(dict.fromkeys((digits, cardinal, *twos) if spell else (cardinal, digits, *twos)))


def _day(figure: str) -> str:
    return han_cardinal(str(int(figure)))


def _date(match: re.Match[str]) -> Readings:
    year, month, day = match["year"], match["month"], match["day"]
    if not (1 <= int(month) <= 12 and 1 <= int(day or 1) <= 31):
        return ()
    return (f"{han_digits(year)}年{_day(month)}月" + (f"{_day(day)}日" if day else ""),)


def _month(match: re.Match[str]) -> Readings:
    return (f"{han_digits(match['in_year'])}年{_day(match['in_month'])}月",)


def _clock(match: re.Match[str]) -> Readings:
    hour, minute, second, half = match["hour"], match["minute"], match["second"], match["half"]
    if not (int(hour) < 24 and int(minute) < 60) or _SCORE_BEFORE.search(match.string[: match.start()]):
        spoken = int(minute) > 59 or _SCORE_BEFORE.search(match.string[: match.start()])
        return _score(hour, minute) if spoken and not second and not half else ()
    head = ({"a": "上午", "p": "下午"}[half.lower()] if half else "") + _two(_day(hour), "点", "") + "点"
    tail = f"零{han_digits(minute[1])}" if minute[0] == "0" else han_cardinal(minute)
    if second:
        last = f"零{han_digits(second[1])}" if second[0] == "0" and second != "00" else _day(second)
        return (f"{head}{'零' if minute == '00' else tail}分{last}秒",)
    if minute == "00":
        return (head, f"{head}整")
    return (f"{head}{tail}分", f"{head}{tail}", *((f"{head}半",) if minute == "30" else ()))


def _half_day(match: re.Match[str]) -> Readings:
    return ({"a": "上午", "p": "下午"}[match["noon"].lower()] + _two(_day(match["oclock"]), "点", "") + "点",)


_SCORE_BEFORE = re.compile(r"(?:比分|战胜|击败|赢|输|胜|负|领先|落后|平|不敌|淘汰|逆转|比例|大胜)[^，。！？,!?]{0,8}$")
_SCORE_AFTER = re.compile(r"\s?(?:战胜|击败|赢|输|取胜|获胜|领先|落后|战平|不敌|淘汰|逆转|大胜|险胜)")


def _score(left: str, right: str) -> Readings:
    return (f"{_day(left)}比{_day(right)}",)


def _ratio(match: re.Match[str]) -> Readings:
    left, right = match["left"], match["right"]
    # Two figures behind the colon are minutes, or seconds (25:30), unless something is won or compared.
    if len(right) == 2 and right < "60" and not _SCORE_BEFORE.search(match.string[: match.start()]):
        return ()
    return _score(left, right)


def _dash_score(match: re.Match[str]) -> Readings:
    after, before = match.string[match.end() :], match.string[: match.start()]
    if not (_SCORE_AFTER.match(after) or _SCORE_BEFORE.search(before)):
        return ()
    return _score(match["home"], match["guests"])


def _fraction(match: re.Match[str]) -> Readings:
    sign, whole, top, bottom = match["minus"], match["whole"], match["top"], match["bottom"]
    if not int(bottom):
        return ()
    said = ("负" if sign else "") + (f"{_day(whole)}又" if whole else "") + f"{_day(bottom)}分之{_day(top)}"
    return {"24/7": ("二十四小时",)}.get(match.group(), (said,))


def _vulgar(match: re.Match[str]) -> Readings:
    return ((f"{han_cardinal(match['count'])}又" if match["count"] else "") + _VULGAR[match["vulgar"]],)


def _amount(match: re.Match[str]) -> Readings:
    """Money before figures; 万 and the like stand between the number and the name: 三点五万元."""
    name = CURRENCIES[match["currency"]][4]
    head = "负" if match["loss"] else ""
    multiple = match["multiple"] or {"k": "千", "K": "千", "M": "百万", "B": "十亿"}.get(
        match["short_multiple"] or "", ""
    )
    start = [_two(way, multiple or name, "") for way in _ways(match["sum"], multiple or name)]
    if match["sum_end"]:
        start = [f"{start[0]}到{_ways(match['sum_end'], multiple or name)[0]}"]
    return tuple(f"{head}{way}{multiple}{name}" for way in start)


def _quantity(match: re.Match[str]) -> Readings:
    """A number or a range with %, a unit of measure, or nothing but what follows in the text."""
    start, end, sign = match["start"], match["end"], match["sign"]
    text, before = match.string, match.string[: match.start()]
    unit, per = _unit(match)
    if match["percent"]:
        share = {"%": "百分之", "‰": "千分之"}[match["percent"]]
        said = "到".join(han_cardinal(part) for part in (start, end) if part)
        return (f"{'负' if sign else ''}{share}{said}",)
    multiple = match["scale"] or ""
    after = (multiple or (unit or "")) + text[match.end() :].lstrip()
    head, tail = f"{per}{'负' if sign else ''}", f"{multiple}{unit or ''}"
    if not end:
        ways = _ways(start, after, before + (sign or ""))
        return tuple(f"{head}{way}{name}" for name in (tail, *ALSO_ZH.get(tail, ())) for way in ways)
    if _NAMED_BEFORE.search(before):
        return (han_digits(start) + han_digits(end) + tail,)
    if any(re.match(r"0\d", part) for part in (start, end)):  # 08-08 may be a date, 01-02 the name of a thing
        return ()
    years = after.startswith(("年", "学年")) or not re.search(r"\w", before + after)
    ends = [
        han_digits(part)
        if len(part) == 4 and years
        else _ways(part, after, before)[0]
        if not years
        else han_cardinal(part)
        for part in (start, end)
    ]
    return (f"{head}{_two(ends[0], after, before)}到{_two(ends[1], after, before)}{tail}",)


def _unit(match: re.Match[str]) -> tuple[str | None, str]:
    """Name of the unit of a quantity, and what it is counted by, which is said first: 每小时十公里."""
    groups = match.groups()
    place = match.re.groupindex["unit"]
    symbol, per = groups[place], groups[place + 1]
    return UNITS[symbol][2] if symbol else None, f"每{PER[per][1]}" if per else ""


def _month_day(match: re.Match[str]) -> Readings:
    """A day or month with its zero: 03月05日 is 三月五日, but 3点05分 keeps it."""
    return (_day(match["padded"]),)


def _phone(match: re.Match[str]) -> Readings:
    return (("加" if match["phone"].startswith("+") else "") + han_digits(match["phone"]),)


def _parts(match: re.Match[str]) -> Readings:
    """An address of four parts digit by digit, a version of three or more by its parts."""
    parts = match["parts"].split(".")
    spell = len(parts) == 4
    return ("点".join(han_digits(part) if spell or part[0] == "0" else han_cardinal(part) for part in parts),)


def _roman(match: re.Match[str]) -> Readings:
    value = roman_value(match["roman"] or match["bare"])
    return (han_cardinal(str(value)),) if value else ()


_SIGNS = "+ × * x ÷ = ≠ < > ≤ ≥ <= >= ≈ ± √ π − -"
_SAID = "加 乘 乘 乘 除以 等于 不等于 小于 大于 小于等于 大于等于 小于等于 大于等于 约等于 正负 根号 派 减 减"
_SIGN_WORDS = dict(zip(_SIGNS.split(), _SAID.split(), strict=True))
_POWER_WORDS = {"²": "的平方", "³": "的立方", "^2": "的平方", "^3": "的立方"}

_A = r"(?<![A-Za-z0-9.,/])"  # not within a figure or a Latin word
_Z = r"(?![A-Za-z0-9])"
_KINDS: dict[str, tuple[str, Callable[[re.Match[str]], Readings]]] = {
    "a_date": (
        rf"{_A}(?P<year>[12]\d{{3}})(?:(?P<mark>[-/.])(?P<month>\d{{1,2}})(?P=mark)(?P<day>\d{{1,2}}))"
        r"(?![\d/-]|\.\d)", _date),
    "a_parts": (r"(?<![\d.])(?P<parts>\d+(?:\.\d+){2,})(?![\d.]*\d)(?!年)", _parts),
    "a_month": (rf"{_A}(?P<in_year>[12]\d{{3}})[-/](?P<in_month>0[1-9]|1[0-2])(?![\d/-]|\.\d)", _month),
    "a_year": (r"(?<!\d)(?P<short>\d\d)年(?=\d{1,2}月)", lambda match: (f"{han_digits(match['short'])}年",)),
    "a_clock": (
        r"(?<![\d.,:：])(?P<hour>\d{1,2})[:：](?P<minute>\d\d)(?:[:：](?P<second>[0-5]\d))?"
        r"(?:\s?(?P<half>[aApP])\.?[mM]\b\.?)?(?![\d:：]|[.,]\d)", _clock),
    "a_span": (r"(?<=[:：]\d\d)-(?=\d{1,2}[:：]\d\d)", lambda _: ("到",)),
    "a_until": (r"(?<=[年月日号点分时度元%])\s?[-–~]\s?(?=\d)", lambda _: ("到",)),
    "a_per": (r"(?<=[\d元块角斤公里次人])/(?=(?:小时|[年月周天日时分秒斤个人次件])(?![A-Za-z]))", lambda _: ("每",)),
    "a_first": (r"\b[Nn]o\.\s?(?P<first>\d+)(?![\d.])", lambda match: (f"第{han_cardinal(match['first'])}",)),
    "a_half": (rf"{_A}(?P<oclock>\d|1[0-2])\s?(?P<noon>[aApP])\.?[mM](?![A-Za-z])\.?", _half_day),
    "a_ratio": (r"(?<![\d.,:：])(?P<left>\d+)\s?[:：∶]\s?(?P<right>\d+)(?![\d:：]|[.,]\d)", _ratio),
    "a_phone": (
        r"(?<![\d.,-])(?P<phone>\+?(?:\d{1,3}[- ])?1\d{2}[- ]?\d{4}[- ]?\d{4}|0\d{2,3}-\d{7,8}|[48]00-\d{3,4}-\d{3,4}"
        r"|(?:\d{1,3}-)?\d{3}-\d{4}|(?:\d{1,3}-)?\d{3}-\d{3,4}-\d{4})(?![\d-])", _phone),
    "a_fraction": (
        r"(?<![\d.,/A-Za-z])(?P<minus>-)?(?:(?P<whole>\d+)又)?(?P<top>\d+) ?/ ?(?P<bottom>\d+)(?![\d/]|[.,]\d)",
        _fraction),
    "a_vulgar": (rf"(?P<count>\d+)?(?P<vulgar>[{''.join(_VULGAR)}])", _vulgar),
    "a_home": (r"(?<![\d.,-])(?P<home>\d{1,3})-(?P<guests>\d{1,3})(?![\d-])", _dash_score),
    "a_money": (
        rf"(?P<loss>(?<![\d)])[-−])?(?P<currency>{CURRENCY})\s?(?P<sum>{_NUMBER})"
        rf"(?:{_DASH}(?:{CURRENCY})?(?P<sum_end>{_NUMBER}))?"
        rf"(?:(?P<multiple>[{_MULTIPLES}]+)|(?P<short_multiple>[kKMB]){_Z})?", _amount),
    "a_padded": (r"(?<!\d)0(?P<padded>[1-9])(?=[月日号时点])", _month_day),
    "a_quantity": (
        rf"(?P<sign>(?<![\w)])[-−])?(?<![\d.,/])(?P<start>{_NUMBER})(?:%?{_DASH}(?P<end>{_NUMBER})(?!\s*=))?"
        rf"(?!/\d|-\d(?![\d.]*\s*=)|[.,:：]\d|\d)"
        rf"(?:\s?(?P<percent>[%‰])|(?P<scale>[{_MULTIPLES}]+)?(?:\s?(?P<unit>){UNIT_ZH})?)", _quantity),
    "a_roman": (r"(?:(?<=第)(?P<roman>[IVXLC]+)|(?<![A-Za-z])(?P<bare>[IVX]{2,})(?=[型期级类章卷世]))" + _Z, _roman),
    "a_power": (r"(?<=[\dA-Za-z)])(?P<power>[²³]|\^[23](?!\d))", lambda match: (_POWER_WORDS[match["power"]],)),
    "a_exponent": (r"(?<=\d)\^(?P<exponent>\d+)", lambda match: (f"的{han_cardinal(match['exponent'])}次方",)),
    "a_operator": (
        r"(?<=[\dA-Za-z)²³])\s*(?P<operator>[<>]=|[+×*÷=≠<>≤≥≈−±]|(?<=\d)x(?=\d)|-(?=\s?\d[\d.]*\s*=))"
        r"\s*(?=[-−√±]?[\dA-Za-z(])"
        r"|(?P<prefix>[<>]=|[<>≤≥≈±√])\s*(?=\d)|(?P<letter>π)",
        lambda match: (_SIGN_WORDS[match["operator"] or match["prefix"] or match["letter"]],)),
    "a_and": (r"(?<=[^\s,.，。])\s*&\s*(?=[^\s,.，。])", lambda _: ("和",)),
    "a_plus": (r"(?<=[A-Za-z0-9])\++", lambda match: ("加" * len(match[0]),)),
}  # fmt: skip
_FIGURE = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, (pattern, _) in _KINDS.items()), re.A)
_PATTERNS = {kind: re.compile(pattern, re.A) for kind, (pattern, _) in _KINDS.items()}
# Where nothing of this is, nothing has to be read.
_ANY = re.compile(r"[0-9IVX×÷=<>≤≥≠≈±√π²³½⅓⅔¼¾⅕⅛+−&]")


def segments(text: str) -> Iterator[Readings]:
    """`text` cut at its figures: each part as the ways it can be read, the likeliest first (plain text: one way)."""
    if not _ANY.search(text):
        yield (text,)
        return
    end = begin = 0
    while found := _FIGURE.search(text, begin):
        begin = found.end()
        for match, read in _candidates(found):
            if readings := read(match):
                yield (text[end : match.start()],)
                yield readings
                begin = end = match.end()
                break
    yield (text[end:],)


def _candidates(found: re.Match[str]) -> Iterator[tuple[re.Match[str], Callable[[re.Match[str]], Readings]]]:
    """What may stand at the place that was found, in order: the kinds from the one that was found on."""
    kinds = list(_KINDS)
    first = next(place for place, kind in enumerate(kinds) if found[kind] is not None)
    yield found, _KINDS[kinds[first]][1]
    for kind in kinds[first + 1 :]:
        if match := _PATTERNS[kind].match(found.string, found.start()):
            yield match, _KINDS[kind][1]


def read_figures(text: str) -> str:
    """`text` with its figures in Han numerals; a figure that no rule knows stays."""
    return "".join(readings[0] for readings in segments(text))
