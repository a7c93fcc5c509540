"""How well each voice of the library can be followed, and how it sounds.

    python scripts/bench/bench_voices.py [--voices af_heart,zf_xiaoxiao] [--language zh] [--library FILE] [--details]

Every voice speaks the same sentences, the recogniser writes down what it hears, DNSMOS judges the sound. One JSON line
a figure: wer (en) or cer and per (zh) as edits per reference token over all sentences, mos_ovr from 1 to 5, rtf as CPU
seconds per second of speech. `baseline` is the limit of the gate in the preset (rates) or the median over the voices
of the language (mos_ovr, rtf), `ratio` is value / baseline, `runs` the number of sentences. About 2 s a sentence.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.audio import resample
from pipeline.backends import make_quality, make_recognizer, make_synthesizer
from pipeline.config import Config, load_config
from pipeline.dialogue import Language, SpeechRequest
from pipeline.errors import SpeechchatError
from pipeline.text.rates import error_rates
from speakers import Voice, VoiceLibrary, load_library

# English: the first four from the Harvard sentences (IEEE 1969). Mandarin: everyday; whisper-base writes another
# character for 坐, 蕉 and 支 whoever speaks, so that only differences between voices tell (and per more than cer).
SENTENCES: dict[Language, tuple[str, ...]] = {
    "en": (
        "Rice is often served in round bowls.",
        "Glue the sheet to the dark blue background.",
        "It is easy to tell the depth of a well.",
        "These days a chicken leg is a rare dish.",
        "Could you tell me how far the moon is from here?",
        "I would rather stay at home and read a good book tonight.",
    ),
    "zh": (
        "今天的天气非常好，我们一起去公园散步吧。",
        "请问去火车站应该坐几路公共汽车？",
        "我最喜欢的水果是苹果和香蕉。",
        "他每天早上六点起床，然后去学校上课。",
        "人工智能是计算机科学的一个分支。",
        "如果你有时间，我想请你喝一杯咖啡。",
    ),
}
RATES: dict[Language, tuple[str, ...]] = {"en": ("wer",), "zh": ("cer", "per")}


class Bench:
    def __init__(self, config: Config, library: VoiceLibrary):
        self.tts = make_synthesizer(config)
        self.asr = make_recognizer(config)
        self.quality = make_quality(config)

    def figures(self, voice: Voice, language: Language, count: int, details: bool) -> dict[str, float]:
        """Means over the sentences (rtf: over their seconds)."""
        texts = SENTENCES[language][:count]
        requests = [SpeechRequest(text, language, voice, take=0, speed=1.0, seed=0) for text in texts]
        start = time.process_time()
        clips = self.tts.synthesize(requests)
        busy = time.process_time() - start
        heard = self.asr.transcribe([resample(clip, self.asr.rate) for clip in clips], [language] * len(clips))
        found: dict[str, list[float]] = {name: [] for name in RATES[language]}
        for text, transcript in zip(texts, heard, strict=True):
            rates = error_rates(text, transcript.text, language)
            for name, values in found.items():
                values.append(rates[name])
            if details and any(rates[name] for name in found):
                print(f"{voice.id}: {text} -> {transcript.text}", file=sys.stderr)
        if self.quality:
            scores = self.quality.score([resample(clip, self.quality.rate) for clip in clips])
            found["mos_ovr"] = [s.value for clip in scores for s in clip if s.name == "mos_ovr"]
        means = {name: statistics.fmean(values) for name, values in found.items()}
        return {**means, "rtf": busy / sum(clip.seconds for clip in clips)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voices", help="ids, separated by commas; all if absent")
    parser.add_argument("--language", choices=sorted(SENTENCES))
    parser.add_argument("--library", type=Path, help="another voices.yaml")
    parser.add_argument("--sentences", type=int, default=6, choices=range(1, 7), help="for each voice")
    parser.add_argument("--details", action="store_true", help="what was heard wrongly, on stderr")
    options = parser.parse_args(arguments)
    try:
        config, library = load_config("quickstart"), load_library(options.library)
        chosen = [library.voice(id) for id in options.voices.split(",")] if options.voices else library.voices
        bench = Bench(config, library)
        for language in [options.language] if options.language else sorted(SENTENCES):
            speakers = [voice for voice in chosen if language in voice.languages]
            figures = {v.id: bench.figures(v, language, options.sentences, options.details) for v in speakers}
            report(figures, config.judge.limits[language], options.sentences)
    except SpeechchatError as error:
        print(f"bench_voices: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def report(figures: Mapping[str, Mapping[str, float]], limits: Mapping[str, float], runs: int) -> None:
    units = {"wer": "edits/word", "cer": "edits/character", "per": "edits/phone", "mos_ovr": "MOS", "rtf": "s/s"}
    for voice, values in figures.items():
        for name, value in values.items():
            others = statistics.median(other[name] for other in figures.values())
            baseline = limits.get(name, others)
            line = {
                "name": f"voices.{voice}.{name}",
                "value": round(value, 4),
                "unit": units[name],
                "baseline": round(baseline, 4),
                "ratio": round(value / baseline, 4) if baseline else None,
                "runs": runs,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
