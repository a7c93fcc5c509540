"""Tiny models with random weights, written to disk as Coqui writes trained ones. They speak noise, by the real code.

Run by the Python of the environment that has Coqui:  python -m tests.coqui.tiny FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SPEAKERS = ("anna", "bert", "ming")
LETTERS = "abcdefghijklmnopqrstuvwxyz你好吗我很"
WIDTH = 64
D_VECTOR = 256


def vits(folder: Path) -> None:
    """A VITS (about 2 MB) of three speakers and both languages, by a table of speakers."""
    import torch

    torch.save({name: place for place, name in enumerate(SPEAKERS)}, folder / "speakers.pth")
    _vits(folder, ("en", "zh-cn"), use_speaker_embedding=True, speakers_file=str(folder / "speakers.pth"))


def dvector(folder: Path) -> None:
    """An English VITS like YourTTS: it takes speaker embeddings, has two of its own, and makes one of a clip."""
    import torch
    from TTS.encoder.configs.speaker_encoder_config import SpeakerEncoderConfig
    from TTS.encoder.utils.generic_utils import setup_encoder_model

    known = {
        f"{name}.wav": {"name": name, "embedding": [float(place + 1)] * D_VECTOR}
        for place, name in enumerate(SPEAKERS[:2])
    }
    torch.save(known, folder / "vectors.pth")
    encoder = SpeakerEncoderConfig(
        model_params={
            "model_name": "lstm",
            "input_dim": 80,
            "proj_dim": D_VECTOR,
            "lstm_dim": 32,
            "num_lstm_layers": 1,
            "use_lstm_with_projection": True,
        },
        num_loader_workers=0,
        num_classes_in_batch=1,
        num_utter_per_class=1,
    )
    encoder.save_json(str(folder / "config_se.json"))
    torch.manual_seed(2)
    torch.save({"model": setup_encoder_model(encoder).state_dict()}, folder / "model_se.pth")
    _vits(
        folder,
        ("en",),
        use_d_vector_file=True,
        d_vector_file=[str(folder / "vectors.pth")],
        d_vector_dim=D_VECTOR,
        speaker_encoder_model_path=str(folder / "model_se.pth"),
        speaker_encoder_config_path=str(folder / "config_se.json"),
    )


def _vits(folder: Path, languages: tuple[str, ...], **args: Any) -> None:
    import torch
    from TTS.tts.configs.shared_configs import CharactersConfig
    from TTS.tts.configs.vits_config import VitsArgs, VitsConfig
    from TTS.tts.models.vits import Vits

    (folder / "language_ids.json").write_text(json.dumps({name: place for place, name in enumerate(languages)}))
    config = VitsConfig(
        model_args=VitsArgs(
            resblock_type_decoder="2",
            hidden_channels=WIDTH,
            hidden_channels_ffn_text_encoder=WIDTH,
            num_heads_text_encoder=2,
            num_layers_text_encoder=1,
            num_layers_posterior_encoder=1,
            num_layers_flow=1,
            upsample_initial_channel_decoder=32,
            resblock_kernel_sizes_decoder=[3],
            resblock_dilation_sizes_decoder=[[1, 3]],
            speaker_embedding_channels=WIDTH,
            init_discriminator=False,
            use_language_embedding=True,
            embedded_language_dim=4,
            language_ids_file=str(folder / "language_ids.json"),
            **args,
        ),
        characters=CharactersConfig(
            characters_class="TTS.tts.models.vits.VitsCharacters",
            pad="_",
            characters=LETTERS,
            punctuations=" ,.?!，。？！",
            phonemes="",
        ),
        text_cleaner="basic_cleaners",
        use_phonemes=False,
        add_blank=True,
    )
    torch.manual_seed(1)
    model = Vits(config)
    config.save_json(str(folder / "config.json"))
    torch.save({"model": model.state_dict()}, folder / "model.pth")


def xtts(folder: Path) -> None:
    """An XTTS of two layers; its vocoder is of the real size (90 MB), which nothing in its configuration changes."""
    import torch
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.models.xtts import Xtts, XttsArgs

    signs = ["[STOP]", "[UNK]", "[SPACE]", "[START]", "[en]", "[zh-cn]", *"abcdefghijklmnopqrstuvwxyz12345,.?!"]
    tokenizer = Tokenizer(WordLevel({sign: place for place, sign in enumerate(signs)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Split(Regex(r"\[[^\]]+\]|."), "isolated")
    tokenizer.save(str(folder / "vocab.json"))
    config = XttsConfig(
        model_args=XttsArgs(
            gpt_layers=2,
            gpt_n_model_channels=WIDTH,
            gpt_n_heads=2,
            gpt_max_audio_tokens=12,
            gpt_max_text_tokens=120,
            gpt_number_text_tokens=len(signs),
            gpt_start_text_token=signs.index("[START]"),
            gpt_stop_text_token=signs.index("[STOP]"),
            gpt_num_audio_tokens=1026,
            gpt_start_audio_token=1024,
            gpt_stop_audio_token=1025,
            gpt_use_perceiver_resampler=True,
            decoder_input_dim=WIDTH,
        ),
        languages=["en", "zh-cn"],
    )
    torch.manual_seed(3)
    model = Xtts(config)
    config.save_json(str(folder / "config.json"))
    torch.save({"model": model.state_dict()}, folder / "model.pth")


if __name__ == "__main__":
    for make in (vits, dvector, xtts):
        place = Path(sys.argv[1]) / make.__name__
        place.mkdir(parents=True)
        make(place)
