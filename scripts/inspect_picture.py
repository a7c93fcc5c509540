"""The picture of a sample: both tracks on one time axis, the user above, the agent below, turns shaded and labelled."""

from __future__ import annotations

import functools
import io
import re
import textwrap
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

from pipeline import audio
from pipeline.dialogue import Clip, Role, Sample, SampleTurn
from pipeline.errors import UsageError
from pipeline.shards.format import Encoded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 110
POINTS = 9.0  # of the labels
LATIN_FONT = "DejaVu Sans"  # comes with matplotlib
LEFT, RIGHT = 1.2, 0.25  # inches beside the time axis
HEADROOM = 2.7  # of a track, where its waveform ends at 1
NAMES: dict[Role, str] = {"user": "user", "assistant": "agent"}
COLORS: dict[Role, str] = {"user": "#2c66b0", "assistant": "#b8541b"}
ACCEPTED, REFUSED = "#26734d", "#c01c28"
HAN = re.compile(r"[\u3400-\u9fff]")
HAN_FONT = re.compile(
    r"CJK|Source Han|WenQuanYi|PingFang|YaHei|Sim(Hei|Sun)|Heiti|Songti|Droid Sans Fallback|Arial Unicode"
)


def require_matplotlib() -> None:
    """Raises UsageError that names the way to get it."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UsageError("matplotlib draws the pictures: pip install 'speechchat[inspect]', or give --no-png") from None


def draw(encoded: Encoded, verdict: str, accepted: bool) -> tuple[bytes, float, float]:
    """PNG bytes, and where the time axis begins and ends as shares of the width. verdict: a few words in the corner."""
    import matplotlib
    from matplotlib.figure import Figure

    sample = encoded.sample
    width = min(max(1.05 * sample.duration, 9.0), 60.0)
    left, right = LEFT / width, 1 - RIGHT / width
    clips: dict[Role, Clip] = {"user": decoded(encoded, "user"), "assistant": decoded(encoded, "assistant")}
    # One scale for both, so that the eye can compare their loudness.
    peak = max(0.05, *(float(np.abs(clip.audio).max(initial=0)) for clip in clips.values()))
    with matplotlib.rc_context({"font.family": LATIN_FONT, "font.size": POINTS, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(width, 4.4), dpi=DPI, facecolor="white")
        lanes = figure.subplots(2, 1, sharex=True)
        figure.subplots_adjust(left=left, right=right, top=0.9, bottom=0.11, hspace=0.06)
        for axes, (role, clip) in zip(lanes, clips.items(), strict=True):
            time, low, high = envelope(clip, round((right - left) * width * DPI))
            axes.fill_between(time, low / peak, high / peak, color=COLORS[role], linewidth=0.5)
            frame(axes, sample, role)
            label_turns(axes, sample, role, (right - left) * width / sample.duration)
        lanes[1].set_xlabel("seconds", color="#555555", labelpad=2)
        edge = 0.12 / width
        figure.text(edge, 0.94, sample.key, weight="bold", fontsize=11)
        figure.text(left + 0.4 / width, 0.94, f"{sample.language} · {sample.duration:.2f} s", color="#555555")
        color = ACCEPTED if accepted else REFUSED
        figure.text(right, 0.94, verdict, color=color, weight="bold", ha="right")
        for voice in sample.voices:
            height = 0.64 if voice.role == "user" else 0.37
            figure.text(edge, height, NAMES[voice.role], color=COLORS[voice.role], weight="bold")
            figure.text(edge, height - 0.04, voice.id, color="#777777", fontsize=7.5)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue(), left, right


def frame(axes: Axes, sample: Sample, role: Role) -> None:
    """Limits and lines. The band for the labels is on the outer side of each track."""
    axes.set_ylim((-1.1, HEADROOM) if role == "user" else (-HEADROOM, 1.1))
    axes.set_xlim(0, sample.duration)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#999999")
    axes.tick_params(axis="x", length=3 if role == "assistant" else 0, color="#999999", labelcolor="#555555")


def label_turns(axes: Axes, sample: Sample, role: Role, scale: float) -> None:
    """Shade and label the turns of a track; a label may reach to the track's next turn. scale: inches a second."""
    turns = [turn for turn in sample.turns if turn.role == role]
    ends = [turn.start for turn in turns[1:]] + [sample.duration]
    away = 1 if role == "user" else -1  # from the waveform
    for turn, end in zip(turns, ends, strict=True):
        color = REFUSED if failed(turn) else COLORS[role]
        axes.axvspan(turn.start, turn.end, color=color, alpha=0.09, linewidth=0)
        text = label(turn.spoken)
        em = 1.02 if HAN.search(text) else 0.56  # mean width of a character, in units of the font's size
        room = max(end, turn.end) - turn.start
        columns = max(int((room * scale - 0.1) * 72 / POINTS / em), 6)
        lines = textwrap.wrap(text, columns, max_lines=3, placeholder="…")
        error = f"{turn.metric.upper()} {turn.error_rate:.2f}"
        if len(turn.takes) > 1:
            error += f", {len(turn.takes)} takes"
        # The error rate lies at the waveform and the text beyond it; seen from the user's track, bottom up.
        for offset, words, ink, size in (
            (2.0, error, color, 7.5),
            (14.0, "\n".join(lines), "#222222", POINTS),
        ):
            axes.annotate(
                words,
                (turn.start, away * 1.1),
                (4, away * offset),
                textcoords="offset points",
                va="bottom" if away > 0 else "top",
                color=ink,
                fontsize=size,
                fontfamily=[LATIN_FONT, han_font() or LATIN_FONT],
                linespacing=1.25,
                parse_math=False,  # a dollar sign in the text is never mathematics
            )


def label(text: str) -> str:
    """The text as the picture can write it: pinyin for Han where no font has their glyphs."""
    if not HAN.search(text) or han_font():
        return text
    from pypinyin import Style, lazy_pinyin

    plain = unicodedata.normalize("NFKC", text).translate(str.maketrans("。、「」", ".,''"))
    return re.sub(r" ([,.?!;:])", r"\1", " ".join(lazy_pinyin(plain, style=Style.TONE)))


@functools.cache
def han_font() -> str:
    """A font of this machine that has Han glyphs, "" if there is none."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    fonts = [font for font in fontManager.ttflist if HAN_FONT.search(font.name)]
    for font in sorted(fonts, key=lambda font: ("SC" not in font.name, abs(int(font.weight) - 400), font.name)):
        if FT2Font(font.fname).get_char_index(ord("说")):
            return font.name
    return ""


def failed(turn: SampleTurn) -> bool:
    """Whether the take that was kept broke a limit."""
    return any(take.reason for take in turn.takes if take.take == turn.take)


def decoded(encoded: Encoded, role: Role) -> Clip:
    """A track. Raises DataError."""
    data = encoded.user if role == "user" else encoded.assistant
    pcm, rate = audio.decode(data, f"{encoded.sample.key}.{role}.flac")
    return Clip(audio.from_pcm(pcm), rate)


def envelope(clip: Clip, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time in seconds, lowest and highest amplitude, each of shape [points] (fewer for fewer samples)."""
    edges = np.unique(np.linspace(0, len(clip.audio), points, endpoint=False, dtype=np.int64))
    return edges / clip.rate, np.minimum.reduceat(clip.audio, edges), np.maximum.reduceat(clip.audio, edges)
