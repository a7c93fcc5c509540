"""Which language a text is in: by script for the two of the house, by function words for those that share one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.dialogue import Language
from pipeline.text.words import HAN, words_of

_HAN = re.compile(f"[{HAN}]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]+(?:['’][A-Za-zÀ-ɏ]+)*")
_OTHER = re.compile(f"[^\\W\\d_A-Za-zÀ-ɏ{HAN}]")
_KANA = re.compile("[\u3041-\u309f\u30a1-\u30fa]")

# Function words and numerals: a sentence of some length holds several of its own language's.
_ENGLISH_WORDS = """
a about after again all also always am an and another any anything are aren't as at away back be because been before
being but by can can't cannot could couldn't did didn't do does doesn't doing don't down each else even ever every
for from get give go going good got had has hasn't have haven't having he he's her here here's hers him his how
how's i i'd i'll i'm i've if in into is isn't it it'll it's its just know let let's like make many may maybe me mine
more most much must my myself need never no nobody not nothing now of off oh ok okay on only or other our out over
please quite really right same say she she's should shouldn't so some someone something soon still sure take tell
than thank thanks that that's the their them then there there's these they they're thing things think this those
though through time to today together tomorrow too try two under until up us use very want was wasn't way we we'll
we're we've well were what what's when when's where where's which while who who's whose why will with without won't
work would wouldn't yeah yes yesterday yet you you'd you'll you're you've your yours yourself zero one three four
five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty
thirty forty fifty sixty seventy eighty ninety hundred thousand million billion first second third point percent
dollar dollars
"""
_SHARED_WORDS = "a am an as do for i in is it me no on or so to us was we will"  # other languages write these too
# French; German; Spanish, Portuguese and Italian; Dutch, Swedish, Indonesian and Turkish; Mandarin in pinyin.
_FOREIGN_WORDS = """
je tu il elle nous vous ils elles est sont suis être et le la les des du une un dans avec pas que qui ce cette mon
votre vos bien oui merci bonjour très mais où comment pourquoi au aux sur c'est j'ai n'est qu'est ça moi toi quel
quelle fait faire aime voudrais
ich er sie wir ihr ist sind bin das der den dem ein eine und nicht mit auf für wie warum ja nein danke hallo aber
auch sehr von zu haben hast kann kannst mir mich dich dir du bist sein wenn
el los las es soy eres está estoy y de en con por para qué cómo dónde cuándo quién mi su hola gracias muy pero
también más hay usted lo al tengo puedo quiero o os é são sou não com você eu em um uma obrigado olá muito mas seu
isso gli è sono sei di che non cosa dove perché mio ciao grazie molto ma anche più chi della
ik jij het een niet voor wat hoe waar maar ook dat zijn jag är och det inte vad hur vem som saya anda yang tidak apa
dan adalah bir ne bu
ni hao shi xie zhe hen xiang zai nin qing wen yao mei tian jin ta le bù nǐ hǎo wǒ shì
"""
_ENGLISH, _SHARED, _FOREIGN = (frozenset(words.split()) for words in (_ENGLISH_WORDS, _SHARED_WORDS, _FOREIGN_WORDS))
# Characters of written Cantonese that Mandarin does not use, and some that it hardly does.
_CANTONESE = re.compile("[嘅咗喺哋啲嘢佢嗰冇嚟睇]")


def language_of(text: str) -> Language | None:
    """The language whose script most of `text` is in (a Han character weighs as much as a Latin word), or None."""
    han, latin, other = (len(pattern.findall(text)) for pattern in (_HAN, _LATIN_WORD, _OTHER))
    if not han + latin or other > han + latin or len(_KANA.findall(text)) > han // 4:
        return None
    return "zh" if han >= latin else "en"


def is_foreign(text: str, language: Language, words: Sequence[str] | None = None) -> bool:
    """Whether a text in the script of `language` is in another: French, pinyin, … for en; Cantonese for zh.

    words: `words_of(text, language)` where it is at hand.
    """
    if language == "zh":
        return len(_CANTONESE.findall(text)) > 1
    words = words_of(text, "en") if words is None else words
    english = sum(map(_ENGLISH.__contains__, words))
    if english > len(words) // 3:
        return False
    foreign = len(_FOREIGN.intersection(words))
    if not text.isascii():
        foreign += sum(not word.isascii() for word in words)
    if foreign > english - sum(map(_SHARED.__contains__, words)):
        return foreign > 1 or (foreign == 1 and len(words) > 3)
    return english == 0 and len(words) > 5
