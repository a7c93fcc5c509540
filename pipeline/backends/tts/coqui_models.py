"""How the families of Coqui's models make a voice and speak a line: VITS (several lines at once), XTTS, any other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from pipeline.backends.tts.coqui_voice import Unfit, checked_clip, cloned, refuse_unknown
from pipeline.voice import Recipe, VoiceKind

VOICES = 512
"""Voices of which what the model makes of them is kept: of XTTS each is 130 kB."""

ONLY = "default"
"""The name of the speaker of a model that has one."""

_LIMITS = {"zh": 100}
_LIMIT = 300
"""Characters from which a text is cut, for models that say nothing of it; half a minute of speech."""

# What these make of a text is the same each time, so that a new seed is no new take.
_WITHOUT_CHANCE = {"align_tts", "fast_pitch", "fast_speech", "fastspeech2", "glow_tts", "speedy_speech"}


@dataclass(frozen=True)
class Line:
    """A piece of text, in a language as the model calls it, by a voice as `Family.voice` makes it."""

    text: str
    tongue: str
    voice: Any
    speed: float


class Family(Protocol):
    """together: whether it speaks several lines at once. seeded: whether torch's seed alone decides what it says."""

    kinds: frozenset[VoiceKind]
    stochastic: bool
    together: bool
    seeded: bool

    def voice(self, recipe: Recipe) -> Any:
        """What a line needs to be spoken by this voice. Raises Unfit."""
        ...

    def limit(self, tongue: str) -> int:
        """Characters of a line at most."""
        ...

    def check(self, line: Line) -> None:
        """Raises Unfit where the line has signs that the model does not know, or is too long for it."""
        ...

    def speak(self, lines: Sequence[Line]) -> list[np.ndarray]: ...


def family_of(api: Any) -> Family:
    """api: a loaded `TTS.api.TTS`."""
    kind = api.synthesizer.tts_model.config.model
    return Vits(api) if kind == "vits" else Xtts(api) if kind == "xtts" else Any_(api)


class _Known(ABC):
    """What most models have in common: speakers by name, or by embeddings that an encoder may make of a clip."""

    stochastic = True
    together = False
    seeded = True

    def __init__(self, api: Any):
        self._api = api
        self._model = api.synthesizer.tts_model
        self._manager: Any = getattr(self._model, "speaker_manager", None)
        self._names = tuple(getattr(self._manager, "speaker_names", ())) or (ONLY,)
        self.kinds: frozenset[VoiceKind] = self._kinds()
        self.voice = lru_cache(VOICES)(self._voice)

    def _kinds(self) -> frozenset[VoiceKind]:
        kinds: set[VoiceKind] = {"name"} if self._names != (ONLY,) or self._manager is None else set()
        if getattr(self._manager, "encoder", None) is not None:
            kinds.add("clip")
        if self._takes("use_d_vector_file"):
            kinds.add("embedding")
        return frozenset(kinds)

    def _takes(self, key: str) -> bool:
        return bool(self._model.config.model_args.get(key) or self._model.config.get(key))

    def _named(self, recipe: Recipe) -> str:
        if recipe.name not in self._names:
            known = ", ".join(self._names[:8]) + (", …" if len(self._names) > 8 else "")
            raise Unfit("voice", f"the model has no speaker {recipe.name!r}; it has {known}")
        return recipe.name

    @abstractmethod
    def _voice(self, recipe: Recipe) -> Any:
        """What the model is to be given for this voice. Raises Unfit."""

    def limit(self, tongue: str) -> int:
        return _LIMITS.get(tongue.partition("-")[0].lower(), _LIMIT)

    def check(self, line: Line) -> None:
        self._ids(line)

    def _ids(self, line: Line) -> list[int]:
        tokenizer = self._model.tokenizer
        tokenizer.not_found_characters = []
        ids: list[int] = tokenizer.text_to_ids(line.text, language=line.tongue)
        refuse_unknown(tokenizer.not_found_characters, line.text)
        return ids


class Vits(_Known):
    """VITS and YourTTS. A voice is the number of a speaker, or a vector."""

    together = True

    def __init__(self, api: Any):
        super().__init__(api)
        self._length_scale = self._model.length_scale

    def _voice(self, recipe: Recipe) -> Any:
        import torch

        if recipe.kind == "clip":
            vector = cloned(self._model, recipe)["d_vector"]
        elif recipe.kind == "embedding":
            wanted = self._model.args.d_vector_dim
            if len(recipe.embedding) != wanted:
                raise Unfit(
                    "voice", f"the model takes embeddings of {wanted} numbers, this has {len(recipe.embedding)}"
                )
            vector = recipe.embedding
        elif self._named(recipe) == ONLY:
            return None
        elif self._takes("use_d_vector_file"):
            vector = self._manager.get_mean_embedding(recipe.name, num_samples=None, randomize=False)
        else:
            return self._manager.name_to_id[recipe.name]
        return torch.as_tensor(np.asarray(vector, np.float32)).flatten()

    def speak(self, lines: Sequence[Line]) -> list[np.ndarray]:
        import torch

        model, device = self._model, self._model.device
        ids = [torch.tensor(self._ids(line)) for line in lines]
        voices = [line.voice for line in lines]
        vectors = isinstance(voices[0], torch.Tensor)
        languages = model.language_manager.name_to_id
        # [B, 1, 1]: a speed of its own for each line.
        speeds = torch.tensor([line.speed for line in lines], device=device).reshape(-1, 1, 1)
        model.length_scale = self._length_scale / speeds
        said = model.inference(
            torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device),
            {
                "x_lengths": torch.tensor([len(item) for item in ids], device=device),
                "d_vectors": torch.stack(voices).to(device) if vectors else None,
                "speaker_ids": None if vectors or voices[0] is None else torch.tensor(voices, device=device),
                "language_ids": torch.tensor([languages[line.tongue] for line in lines], device=device),
            },
        )
        waves, frames = said["model_outputs"].squeeze(1), said["y_mask"]
        hop = waves.shape[-1] // frames.shape[-1]
        lengths = (frames.sum(dim=(1, 2)) * hop).long().tolist()
        return [wave[:length].cpu().numpy() for wave, length in zip(waves, lengths, strict=True)]


class Xtts(_Known):
    """XTTS. A voice is what the model hears in a clip: latents of its GPT, and an embedding for its vocoder."""

    def _kinds(self) -> frozenset[VoiceKind]:
        return frozenset({"clip"} if self._manager is None else {"clip", "name"})

    def __init__(self, api: Any):
        super().__init__(api)
        if self._manager is not None:
            self._names = tuple(self._manager.speakers)

    def _voice(self, recipe: Recipe) -> Any:
        if recipe.kind == "name":
            return tuple(self._manager.speakers[self._named(recipe)].values())
        config = self._model.config
        heard = cloned(
            self._model,
            recipe,
            gpt_cond_len=config.gpt_cond_len,
            gpt_cond_chunk_len=config.gpt_cond_chunk_len,
            max_ref_length=config.max_ref_len,
            sound_norm_refs=config.sound_norm_refs,
        )
        return heard["gpt_conditioning_latents"], heard["speaker_embedding"]

    def limit(self, tongue: str) -> int:
        limits: dict[str, int] = self._model.tokenizer.char_limits
        return limits.get(tongue.partition("-")[0], _LIMIT)

    def check(self, line: Line) -> None:
        tokenizer, tongue = self._model.tokenizer, line.tongue.partition("-")[0]
        unknown = tokenizer.tokenizer.token_to_id("[UNK]")
        text = line.text.lower()
        ids = tokenizer.encode(text, tongue)
        if unknown in ids:
            signs = dict.fromkeys(tokenizer.preprocess_text(text, tongue).replace(" ", ""))
            refuse_unknown((sign for sign in signs if unknown in tokenizer.tokenizer.encode(sign).ids), line.text)
        most = self._model.args.gpt_max_text_tokens
        if len(ids) >= most:
            raise Unfit("too_long", f"{line.text[:60]!r} makes {len(ids)} tokens, the model takes less than {most}")

    def speak(self, lines: Sequence[Line]) -> list[np.ndarray]:
        config = self._model.config
        return [
            self._model.inference(
                line.text,
                line.tongue,
                *line.voice,
                temperature=config.temperature,
                length_penalty=config.length_penalty,
                repetition_penalty=config.repetition_penalty,
                top_k=config.top_k,
                top_p=config.top_p,
                speed=line.speed,
            )["wav"]
            for line in lines
        ]


class Any_(_Known):
    """Any other model, through Coqui's own synthesizer with its vocoder. A voice is its arguments."""

    seeded = False  # some draw from numpy, some from Python

    def __init__(self, api: Any):
        super().__init__(api)
        self.stochastic = self._model.config.model not in _WITHOUT_CHANCE
        self._length_scale = getattr(self._model, "length_scale", None)

    def _kinds(self) -> frozenset[VoiceKind]:
        kinds = super()._kinds() - {"embedding"}
        return kinds | {"clip"} if self._model.config.supports_cloning else kinds

    def _voice(self, recipe: Recipe) -> Any:
        if recipe.kind == "clip":
            return {"speaker_wav": str(checked_clip(recipe))}
        name = self._named(recipe)
        return {"speaker_name": None if name == ONLY else name}

    def check(self, line: Line) -> None:
        if self._model.tokenizer is not None:  # Bark and Tortoise have one of their own inside
            super().check(line)

    def speak(self, lines: Sequence[Line]) -> list[np.ndarray]:
        return [self._say(line) for line in lines]

    def _say(self, line: Line) -> np.ndarray:
        from TTS.utils.synthesizer import PAD_SILENCE_SAMPLES

        if self._length_scale is not None:
            self._model.length_scale = self._length_scale / line.speed
        wave = self._api.synthesizer.tts(line.text, language_name=line.tongue, split_sentences=False, **line.voice)
        audio = np.asarray(wave, np.float32)[:-PAD_SILENCE_SAMPLES]
        if self._length_scale is None and line.speed != 1:
            import librosa

            audio = librosa.effects.time_stretch(audio, rate=line.speed)
        return audio
