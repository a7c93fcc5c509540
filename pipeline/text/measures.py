"""Units of measure and currencies as they are written, and their names in both languages.

English names follow NIST SP 811 (2008), chapter 9: lower case, "square" and "cubic" before the unit, "per" for a
division. Mandarin names are those of WeTextProcessing's tn/chinese/data/measure, but that units of information keep
their letters, as they are said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# symbol: one of it, several of it (en), name (zh)
UNITS: dict[str, tuple[str, str, str]] = {
    symbol: (one, many or f"{one}s", han)
    for symbol, one, many, han in (
        ("km", "kilometer", "", "公里"),
        ("m", "meter", "", "米"),
        ("dm", "decimeter", "", "分米"),
        ("cm", "centimeter", "", "厘米"),
        ("mm", "millimeter", "", "毫米"),
        ("μm", "micrometer", "", "微米"),
        ("nm", "nanometer", "", "纳米"),
        ("mi", "mile", "", "英里"),
        ("yd", "yard", "", "码"),
        ("ft", "foot", "feet", "英尺"),
        ("sq ft", "square foot", "square feet", "平方英尺"),
        ("sq mi", "square mile", "", "平方英里"),
        ("ha", "hectare", "", "公顷"),
        ("kg", "kilogram", "", "千克"),
        ("g", "gram", "", "克"),
        ("mg", "milligram", "", "毫克"),
        ("μg", "microgram", "", "微克"),
        ("lb", "pound", "", "磅"),
        ("lbs", "pound", "", "磅"),
        ("oz", "ounce", "", "盎司"),
        ("L", "liter", "", "升"),
        ("l", "liter", "", "升"),
        ("mL", "milliliter", "", "毫升"),
        ("ml", "milliliter", "", "毫升"),
        ("°C", "degree Celsius", "degrees Celsius", "摄氏度"),
        ("°F", "degree Fahrenheit", "degrees Fahrenheit", "华氏度"),
        ("°", "degree", "", "度"),
        ("s", "second", "", "秒"),
        ("sec", "second", "", "秒"),
        ("secs", "second", "", "秒"),
        ("ms", "millisecond", "", "毫秒"),
        ("min", "minute", "", "分钟"),
        ("mins", "minute", "", "分钟"),
        ("h", "hour", "", "小时"),
        ("hr", "hour", "", "小时"),
        ("hrs", "hour", "", "小时"),
        ("mph", "mile per hour", "miles per hour", "英里每小时"),
        ("kph", "kilometer per hour", "kilometers per hour", "公里每小时"),
        ("rpm", "revolution per minute", "revolutions per minute", "转每分"),
        ("KB", "kilobyte", "", "KB"),
        ("MB", "megabyte", "", "MB"),
        ("GB", "gigabyte", "", "GB"),
        ("TB", "terabyte", "", "TB"),
        ("kbps", "kilobit per second", "kilobits per second", "千比特每秒"),
        ("Mbps", "megabit per second", "megabits per second", "兆比特每秒"),
        ("mbps", "megabit per second", "megabits per second", "兆比特每秒"),
        ("Gbps", "gigabit per second", "gigabits per second", "吉比特每秒"),
        ("Hz", "hertz", "hertz", "赫兹"),
        ("kHz", "kilohertz", "kilohertz", "千赫兹"),
        ("MHz", "megahertz", "megahertz", "兆赫兹"),
        ("GHz", "gigahertz", "gigahertz", "吉赫兹"),
        ("W", "watt", "", "瓦"),
        ("kW", "kilowatt", "", "千瓦"),
        ("MW", "megawatt", "", "兆瓦"),
        ("kWh", "kilowatt hour", "", "千瓦时"),
        ("V", "volt", "", "伏"),
        ("mAh", "milliampere hour", "", "毫安时"),
        ("Ω", "ohm", "", "欧姆"),
        ("N", "newton", "", "牛"),
        ("J", "joule", "", "焦"),
        ("kJ", "kilojoule", "", "千焦"),
        ("kcal", "kilocalorie", "", "千卡"),
        ("Pa", "pascal", "", "帕"),
        ("kPa", "kilopascal", "", "千帕"),
        ("hPa", "hectopascal", "", "百帕"),
        ("dB", "decibel", "", "分贝"),
        ("px", "pixel", "", "像素"),
    )
}
# Other names of a unit in Mandarin, for which a recogniser may write the same symbol.
ALSO_ZH: dict[str, tuple[str, ...]] = {
    "千克": ("公斤",),
    "公里": ("千米",),
    "平方米": ("平米", "平方"),
    "厘米": ("公分",),
    "摄氏度": ("度",),
}
_POWERS = {"²": ("square", "平方"), "2": ("square", "平方"), "³": ("cubic", "立方"), "3": ("cubic", "立方")}
_LENGTHS = ("km", "m", "dm", "cm", "mm", "mi", "yd", "ft")
for _length in _LENGTHS:
    for _sign, (_power, _han) in _POWERS.items():
        _one, _many, _name = UNITS[_length]
        UNITS[_length + _sign] = (f"{_power} {_one}", f"{_power} {_many}", _han + _name.replace("公里", "千米"))

# What a rate is counted by, behind a slash: km/h, $20/mo.
PER: dict[str, tuple[str, str]] = {
    **{symbol: (UNITS[symbol][0], UNITS[symbol][2]) for symbol in ("s", "min", "h", "hr", "kg", "L", "m2", "m²", "m³")},
    **{"d": ("day", "天"), "wk": ("week", "周"), "mo": ("month", "月"), "yr": ("year", "年")},
    **{word: (word, han) for word, han in (("day", "天"), ("week", "周"), ("month", "月"), ("year", "年"))},
    **{"hour": ("hour", "小时"), "minute": ("minute", "分钟"), "second": ("second", "秒"), "person": ("person", "人")},
}


def _any(symbols: Iterable[str]) -> str:
    return "|".join(re.escape(symbol) for symbol in sorted(symbols, key=lambda symbol: (-len(symbol), symbol)))


# A unit with its rate, as two groups; to stand behind a figure.
_RATE = rf"(?:/({_any(PER)}))?(?![\w²³/])"
UNIT_EN = rf"({_any(UNITS)}){_RATE}"
UNIT_ZH = rf"({_any(UNITS)}){_RATE.replace(chr(92) + 'w', 'A-Za-z0-9')}"

# sign or code: one, several, the hundredth part (one, several), name (zh)
CURRENCIES: dict[str, tuple[str, str, str, str, str]] = {
    "$": ("dollar", "dollars", "cent", "cents", "美元"),
    "£": ("pound", "pounds", "penny", "pence", "英镑"),
    "€": ("euro", "euros", "cent", "cents", "欧元"),
    "¥": ("yuan", "yuan", "", "", "元"),
    "₩": ("won", "won", "", "", "韩元"),
    "₹": ("rupee", "rupees", "", "", "卢比"),
    "US$": ("US dollar", "US dollars", "cent", "cents", "美元"),
    "A$": ("Australian dollar", "Australian dollars", "cent", "cents", "澳元"),
    "C$": ("Canadian dollar", "Canadian dollars", "cent", "cents", "加元"),
    "HK$": ("Hong Kong dollar", "Hong Kong dollars", "cent", "cents", "港元"),
}
_CODES = {"USD": "US$", "AUD": "A$", "CAD": "C$", "HKD": "HK$", "EUR": "€", "GBP": "£", "CNY": "¥", "RMB": "¥"}
CURRENCIES.update({code: CURRENCIES[sign] for code, sign in _CODES.items()})
CURRENCIES["CNY"] = CURRENCIES["RMB"] = ("yuan", "yuan", "", "", "人民币")
CURRENCIES["JPY"] = ("yen", "yen", "", "", "日元")
CURRENCY = f"(?:{_any(CURRENCIES)})"
