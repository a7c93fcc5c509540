"""Personal data in written and in spoken text: numbers may be in figures or said digit by digit.

What belongs to everybody is not personal: emergency and service numbers (110, 911, 12306, 95588), free and shared-cost
lines (400-…, 800-…), numbers set aside for fiction (555-01…), private or well-known network addresses, a street with a
number that nobody says to live at (10 Downing Street).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

from pipeline.dialogue import Language

Personal = Literal["email", "phone", "resident id", "social security", "card", "ip", "account", "address"]

_EMAIL = re.compile(
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|[\w'-]+(?: (?:dot|dash|underscore) [\w-]+)* at [\w-]+(?: dot [\w-]+)*? dot (?:com|org|net|edu|gov|co|io|cn|uk)\b"
    r"|[A-Za-z0-9_.-]+ ?(?:艾特|at) ?[A-Za-z0-9-]+ ?点 ?(?:com|cn|net|org|edu|康姆)",
    re.I,
)

# ---- numbers ------------------------------------------------------------------------------------------------------

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_VALUE = {**{word: str(value) for value, word in enumerate(_WORDS)}, "oh": "0", "o": "0"}
_HAN_VALUE = str.maketrans("零〇一幺二三四五六七八九叉", "001123456789X")
_DIGIT: dict[Language, str] = {"en": rf"(?:{'|'.join(_VALUE)})", "zh": "[零〇一幺二三四五六七八九]"}
_RUN: dict[Language, re.Pattern[str]] = {
    "en": re.compile(
        rf"(?<![\w'-])(?:(?:double|triple) )?{_DIGIT['en']}"
        rf"(?:[ ,-]{{1,2}}(?:(?:double|triple) )?{_DIGIT['en']}\b){{4,}}",
        re.I,
    ),
    "zh": re.compile(rf"{_DIGIT['zh']}(?:[，、 -]?{_DIGIT['zh']}){{6,}}(?: ?[Xx叉])?"),
}
_DATE_OR_TIME = re.compile(r"\b(?:19|20)\d\d([-/.])\d{1,2}\1\d{1,2}(?!\d)|(?<!\d)\d{1,2}:\d\d(?!\d)", re.A)
_FIGURES = re.compile(r"(?<![\d.,])\+?\(?\d(?:[ ().-]{0,2}\d){6,}[Xx]?(?![\d,])", re.A)
_SPOKEN_IP: dict[Language, re.Pattern[str]] = {
    "en": re.compile(
        rf"\b{_DIGIT['en']}(?: {_DIGIT['en']}){{0,2}}(?: dot {_DIGIT['en']}(?: {_DIGIT['en']}){{0,2}}){{3}}\b", re.I
    ),
    "zh": re.compile(rf"{_DIGIT['zh']}{{1,3}}(?:点{_DIGIT['zh']}{{1,3}}){{3}}"),
}
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])", re.A)
_PUBLIC_RESOLVERS = frozenset(("1.1.1.1", "8.8.8.8", "8.8.4.4", "114.114.114.114"))

_RESIDENT = re.compile(r"[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dX]", re.A)
_SSN = re.compile(r"(?!000|666|9)\d{3}(-?)(?!00)\d\d\1(?!0000)\d{4}", re.A)
_SSN_CUE = re.compile(r"social security|\bSSN\b|社会安全号|社保号", re.I)
# Numbers as people give them: of mainland China, of North America, of Great Britain, or international.
_PHONE_SHAPE: tuple[tuple[str | None, re.Pattern[str]], ...] = (
    ("CN", re.compile(r"1[3-9]\d{9}|0[1-9]\d{9,10}")),
    ("US", re.compile(r"1?[2-9]\d\d[2-9]\d{6}")),
    ("GB", re.compile(r"0[1-9]\d{8,9}")),
    (None, re.compile(r"\+\d{8,15}")),
)
_FICTION = re.compile(r"55501\d\d$")
_COUNTING = "01234567890123456789"

# ---- accounts and addresses ---------------------------------------------------------------------------------------

_ACCOUNT_ID = r"(?:[1-9]\d{4,11}|(?=[A-Za-z-]*[\d_])[A-Za-z][A-Za-z0-9_-]{5,19})"
_ACCOUNT = re.compile(
    rf"(?:微信|薇信|扣扣|\b(?:wechat|qq|wx|vx))\s?(?:号码?|账号|id|number|account)?\s?(?:是|为|叫|is|：|:)?\s?"
    rf"(?:{_ACCOUNT_ID}|{_DIGIT['zh']}{{5,12}}|{_DIGIT['en']}(?: {_DIGIT['en']}){{4,11}}\b)",
    re.I | re.A,
)
_COUNT_EN = (
    r"(?:\d{1,5}[A-Za-z]?|(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty|hundred|oh)"
    r"(?:[ -](?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty|hundred|oh))*)"
)
_WAY_EN = r" (?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Way|Place)\b"
_STREET_EN = rf"{_COUNT_EN}(?: [A-Z]\w+){{1,3}}{_WAY_EN}"
_COUNT_ZH = "[0-9零〇一二三四五六七八九十百千]+"
_ADDRESS: dict[Language, re.Pattern[str]] = {
    "en": re.compile(
        r"\b(?:lives?|living|resides?|address is|home is|moved|deliver it|ship it|send it)(?: in| at| to)? "
        rf"{_STREET_EN}"
        rf"|\b{_STREET_EN}\.?,? (?:Apartment|Apt|apartment|Suite|Unit|#)"
    ),
    "zh": re.compile(
        rf"(?:住|家在|地址|寄到|送到)[^，。！？]{{0,20}}?[路街道巷]{_COUNT_ZH}[号弄](?!线)"
        rf"|[路街道巷]{_COUNT_ZH}[号弄][^，。！？]{{0,12}}?{_COUNT_ZH}(?:室|单元|栋|幢)"
    ),
}
_ADDRESS_CUE: dict[Language, re.Pattern[str]] = {
    "en": re.compile(_WAY_EN),
    "zh": re.compile("[号弄]"),
}


def find_personal(text: str, language: Language) -> tuple[Personal, str] | None:
    """What in `text` could lead to a person, and the stretch that says so, or None.

    `text` may be written (figures) or spoken (digit by digit).
    """
    if ("@" in text or " dot " in text or "点" in text) and (match := _EMAIL.search(text)):
        return "email", match[0]
    if (match := _ACCOUNT.search(text)) is not None:
        return "account", match[0]
    if found := _network_address(text, language):
        return "ip", found
    for match in _RUN[language].finditer(text):
        if not text[: match.start()].endswith(("点", "point ")) and (kind := _kind(_figures(match[0], language), text)):
            return kind, match[0]
    if any(char.isdecimal() for char in text):
        for match in _FIGURES.finditer(_DATE_OR_TIME.sub(";", text)):
            if kind := _kind(match[0], text):
                return kind, match[0]
    if _ADDRESS_CUE[language].search(text) and (match := _ADDRESS[language].search(text)):
        return "address", match[0]
    return None


def _figures(run: str, language: Language) -> str:
    """A run of spoken digits as figures; groups between commas stay apart."""
    if language == "zh":
        return re.sub("[，、 ]", "-", run.translate(_HAN_VALUE))
    out, times = [], 1
    for word in re.findall(r"[a-z]+|,", run.lower()):
        if word in _VALUE:
            out.append(_VALUE[word] * times)
        elif word == ",":
            out.append("-")
        times = {"double": 2, "triple": 3}.get(word, 1)
    return "".join(out)


def _kind(number: str, text: str) -> Personal | None:
    """What a run of at least seven figures (with marks between them) is in `text`."""
    digits = re.sub(r"[^\dX]", "", number.upper())
    if digits in _COUNTING or digits[::-1] in _COUNTING or len(set(digits)) == 1:
        return None
    if _is_resident_id(digits):
        return "resident id"
    if 13 <= len(digits) <= 19 and digits[0] in "23456" and _has_luhn(digits):
        return "card"
    groups = re.sub(r"[^\d]+", "-", number.strip("()"))
    if (shape := _SSN.fullmatch(groups)) and (shape[1] or _SSN_CUE.search(text)):
        return "social security"
    return "phone" if _is_phone(("+" if number.startswith("+") else "") + digits) else None


def _is_resident_id(digits: str) -> bool:
    """GB 11643: area, date of birth, order, and a check character by ISO 7064 MOD 11-2."""
    if not _RESIDENT.fullmatch(digits):
        return False
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(digits[:17]))
    return "10X98765432"[total % 11] == digits[17]


def _has_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    if not digits.isdecimal():
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(map(int, digits[::-2]))) % 10 == 0


def _is_phone(number: str) -> bool:
    regions = [region for region, shape in _PHONE_SHAPE if shape.fullmatch(number)]
    if not regions or _FICTION.search(number):
        return False
    import phonenumbers as phones

    of_firms = (
        phones.PhoneNumberType.TOLL_FREE,
        phones.PhoneNumberType.PREMIUM_RATE,
        phones.PhoneNumberType.SHARED_COST,
        phones.PhoneNumberType.UAN,
    )
    for region in regions:
        try:
            parsed = phones.parse(number, region)
        except phones.NumberParseException:
            continue
        if phones.is_valid_number(parsed) and phones.number_type(parsed) not in of_firms:
            return True
    return False


def _network_address(text: str, language: Language) -> str | None:
    written = [(match[0], match[0]) for match in _IP.finditer(text)] if text.count(".") > 2 else []
    if " dot " in text or text.count("点") > 2:
        for match in _SPOKEN_IP[language].finditer(text):
            parts = re.split(" dot |点", match[0].lower())
            written.append((match[0], ".".join(_figures(part, language) for part in parts)))
    for stretch, address in written:
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            continue
        # Four single figures are the number of a version.
        if known.is_global and address not in _PUBLIC_RESOLVERS and len(address) > 7:
            return stretch
    return None
