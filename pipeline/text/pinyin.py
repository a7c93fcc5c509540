"""How Mandarin sounds: syllables with and without tones, their initials and finals, and when two are the same."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from pipeline.text.align import runs

# Readings, beside each other's, that characters have in today's Mandarin (《普通话异读词审音表》, 1985), without tones.
_READINGS = """
行 xing hang|长 chang zhang|重 zhong chong|还 hai huan|得 de dei|都 dou du|了 le liao|着 zhe zhao zhuo|地 de di
的 de di|觉 jue jiao|乐 le yue|差 cha chai ci|传 chuan zhuan|弹 tan dan|调 tiao diao|朝 chao zhao|藏 cang zang
曾 ceng zeng|单 dan shan chan|参 can shen cen|便 bian pian|大 da dai|会 hui kuai|角 jiao jue|降 jiang xiang|率 lv shuai
没 mei mo|模 mo mu|强 qiang jiang|色 se shai|谁 shei shui|什 shen shi|说 shuo shui|提 ti di|系 xi ji|校 xiao jiao
血 xue xie|薄 bo bao|剥 bo bao|露 lu lou|落 luo la lao|那 na nei|哪 na nei|这 zhe zhei|宿 su xiu|吓 xia he|车 che ju
熟 shu shou|给 gei ji|和 he huo hu|解 jie xie|壳 ke qiao|削 xiao xue|嚼 jiao jue|称 cheng chen|盛 sheng cheng
石 shi dan|识 shi zhi|似 si shi|属 shu zhu|畜 chu xu|粘 zhan nian|绿 lv lu|咽 yan ye|叶 ye xie|仇 chou qiu
区 qu ou|拓 tuo ta|折 zhe she|脉 mai mo|泊 bo po|扁 bian pian|伯 bo bai|虹 hong jiang
呢 ne ni|么 me mo|啊 a ya wa na|哦 o e|嗯 en n ng|诶 ei ai|俩 lia liang|朴 pu piao|尉 wei yu|厦 sha xia
乘 cheng sheng|澄 cheng deng|否 fou pi|咖 ka ga|卡 ka qia|期 qi ji|奇 qi ji|茄 qie jia|亲 qin qing|塞 sai se
杉 shan sha|省 sheng xing|术 shu zhu|涡 wo guo|巷 xiang hang|殷 yin yan|仔 zi zai|择 ze zhai
"""
_ALSO: dict[str, frozenset[str]] = {
    entry[0]: frozenset(entry[1:].split()) for line in _READINGS.split("\n") for entry in line.split("|") if entry
}
# pypinyin has no vowel for the sound that 恩 is also written for.
_SOUNDS = {"n": "en", "ng": "en", "m": "en"}
_SANDHI = "一不"  # whose tone is that of what follows
_TONES = "1234"  # the neutral one has no figure


def readings(tokens: Sequence[str]) -> list[str]:
    """The syllable with its tone (hang2; le, as neutral) of each Han character, by the words around it; what has none
    stays as it is."""
    from pypinyin import Style, lazy_pinyin

    line = "".join(token if len(token) == 1 else "\ue000" for token in tokens)
    sounds: list[str] = []
    for sound in lazy_pinyin(line, style=Style.TONE):  # twice as fast as TONE3
        # What has no reading comes back as it was, many characters at once.
        sounds.extend(sound if line.startswith(sound, len(sounds)) else [_figured(sound)])
    return [token if sound == sign else sound for token, sign, sound in zip(tokens, line, sounds, strict=True)]


@functools.cache
def _figured(marked: str) -> str:
    """háng as hang2."""
    from pypinyin.contrib.tone_convert import to_tone3

    sound = to_tone3(marked)
    return _SOUNDS.get(toneless(sound), sound)


@functools.lru_cache(4096)  # Latin words come here too
def toneless(syllable: str) -> str:
    """The syllable without its tone."""
    return syllable.rstrip(_TONES)


def nearest(said: Sequence[str], wanted: Sequence[str], heard: Sequence[str], sounds: Sequence[str]) -> list[str]:
    """`sounds`, the readings of `heard` by its own words, with those of them that are nearer to `wanted`, of `said`.

    A recogniser writes characters; which of a heteronym's readings it heard is not in them. So the same character is
    read alike, and another one as what it stands for, where that is among its readings: 行 for 航, but not for 汤.
    """
    found = list(sounds)
    for tag, place, other in _pairs(said, heard):
        if tag == "equal":
            found[other] = wanted[place]
    for tag, place, other in _pairs(list(map(toneless, wanted)), list(map(toneless, found))):
        if tag == "replace" and toneless(wanted[place]) in _ALSO.get(heard[other], ()):
            found[other] = wanted[place]
    return found


def wrong_tones(said: Sequence[str], wanted: Sequence[str], heard: Sequence[str], sounds: Sequence[str]) -> int:
    """How many syllables are right but for the tone.

    一 and 不 change theirs, the neutral tone is any tone unstressed, and a third tone before a third one is a second:
    these are right.
    """
    wrong = 0
    for tag, place, other in _pairs(list(map(toneless, wanted)), list(map(toneless, sounds))):
        tones = {wanted[place][-1], sounds[other][-1]}
        if tag == "equal" and len(tones) > 1 and tones <= set(_TONES):
            third = place + 1 < len(wanted) and wanted[place + 1][-1] == "3"
            wrong += said[place] not in _SANDHI and heard[other] not in _SANDHI and not (third and tones == {"2", "3"})
    return wrong


def _pairs(said: Sequence[str], heard: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """("equal" or "replace", place in the one, place in the other) of a shortest alignment."""
    for tag, (begin, end, start, stop) in runs(said, heard):
        for place, other in zip(range(begin, end), range(start, stop), strict=False):
            yield tag, place, other


@functools.cache
def phones(syllable: str) -> tuple[str, ...]:
    """Initial and final of a toneless syllable; the y and w of 一 and 五 count as initials."""
    from pypinyin.contrib.tone_convert import to_finals, to_initials

    initial, final = to_initials(syllable, strict=False), to_finals(syllable, strict=False)
    return tuple(part for part in (initial, final) if part) or (syllable,)
