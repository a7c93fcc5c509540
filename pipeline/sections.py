"""The sections of the configuration about text and about how work is done; speech_sections.py has those about speech.

A key is either *content* (it reaches the bytes of a shard, so it is part of a stage's digest and is frozen in
RUN/config.yaml) or *execution* (where and how fast: marked `EXECUTION`, free to change between two starts of a run).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.dialogue import Language

EXECUTION: dict[str, Any] = {"execution": True}

Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def by_language(**values: Any) -> BeforeValidator:
    """What a map by language holds for a language that the configuration does not name."""
    return BeforeValidator(lambda given: {**values, **given} if isinstance(given, dict) else given)


class SourceConfig(Section):
    """A source of text. Rows are drawn in order; those that cannot be spoken are passed over and counted.

    kind: chatterbot (topics of the corpus), instructions (Alpaca: instruction, input, output), conversations
    (ShareGPT or `messages`), questions, dialogues (ready, spoken as they are), topics (no rows: the LLM is given a
    topic, a persona and a scenario).
    """

    kind: Literal["chatterbot", "instructions", "conversations", "questions", "dialogues", "topics"] = "chatterbot"
    data: str | None = Field(
        None,
        json_schema_extra=EXECUTION,
        description="a .jsonl, .json, .csv or .parquet file, a folder of them, or a data set on the hub; "
        "chatterbot: folder of the corpus, the installed package if null; topics: a file like the shipped one, or null",
    )
    license: str = Field("", description="travels into every sample; needed but for chatterbot and topics")
    subset: str | None = Field(None, description="configuration of a data set on the hub")
    split: str = "train"
    revision: str | None = Field(None, description="of a data set on the hub")
    fields: dict[str, str] = Field(
        {},
        description="our name of a field: theirs, a dotted path; ours are instruction, input, output, question, "
        "messages, role, content, system, id, language",
    )
    language: Literal["auto", "en", "zh"] = Field("auto", description="of the rows; auto: told by their script")
    topics: dict[Language, tuple[str, ...]] = Field(
        {}, description="chatterbot, topics: only these; all if none is named"
    )
    max_turns: int = Field(4, ge=1, le=64, description="a longer conversation is cut")
    weight: Weight = Field(1, description="share of the dialogues of a language, among the sources that have it")
    laps: Positive | None = Field(
        None,
        description="how often each row may be used; null: once, but endlessly for chatterbot and topics. Dialogues "
        "that no row is left for are rejected as `exhausted`",
    )
    max_broken: float = Field(
        0.01, ge=0, le=1, description="share of unreadable rows above which the source is refused"
    )


class RewriteConfig(Section):
    """An instruction becomes a spoken question that stands on its own."""

    enabled: bool = False
    prompt: str = "rewrite"


class ConverseConfig(Section):
    """How a dialogue is made of a row.

    mode: reword (the source's replies in other words; the LLM's failures are replaced by them), reply (the LLM answers
    the source's user lines turn by turn), whole (one request writes the whole dialogue), none (as it is).
    turns: number of turns and its weight (whole only). code_switch: share of Mandarin dialogues that mix in English.
    """

    mode: Literal["reword", "reply", "whole", "none"] = "reword"
    prompt: str | None = Field(None, description="null: the one that is made for the mode")
    turns: dict[Annotated[int, Field(ge=2, le=32, multiple_of=2)], Weight] = Field(
        {2: 0.5, 4: 0.35, 6: 0.15}, min_length=1
    )
    personas: bool = Field(
        True, description="give each dialogue a persona and a scenario of the shipped ones (whole only)"
    )
    code_switch: float = Field(0, ge=0, le=1)

    @property
    def template(self) -> str | None:
        """Name of the prompt, None where no LLM is asked."""
        names = {"reword": "reply", "reply": "reply", "whole": "converse"}
        return None if self.mode == "none" else self.prompt or names[self.mode]

    @model_validator(mode="after")
    def _check(self) -> ConverseConfig:
        if not any(self.turns.values()):
            raise ValueError("turns needs at least one weight above 0")
        return self


class StyleConfig(Section):
    """Rewriting for the ear; emotions and styles: labels that a turn may get, none asked for if empty."""

    enabled: bool = False
    prompt: str = "style"
    emotions: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()


class DisfluencyConfig(Section):
    """Fillers, restarts and self-repairs in user turns, put in by rule and labelled. rate: share of user turns."""

    rate: float = Field(0, ge=0, le=1)
    kinds: tuple[Literal["filler", "restart", "repair"], ...] = Field(("filler", "restart", "repair"), min_length=1)


class FilterConfig(Section):
    """Rules on each finished text. personal: what to do about e-mail addresses, phone and id numbers."""

    safety: bool = Field(True, description="reject violence, hate, sex, self-harm, crime and foul words by lists")
    personal: Literal["reject", "keep"] = "reject"
    language: bool = Field(True, description="reject a turn in another language than its dialogue's")


class ReviewConfig(Section):
    """The LLM as a judge of the text. limits: lowest score, 1 to 5, by aspect. base_url, model: null: the writer's."""

    enabled: bool = False
    prompt: str = "review"
    base_url: str | None = Field(None, json_schema_extra=EXECUTION)
    model: str | None = None
    key: str = Field(
        "OPENAI_API_KEY", json_schema_extra=EXECUTION, description="environment variable that holds the key"
    )
    limits: dict[
        Literal["coherence", "naturalness", "consistency", "safety", "self_contained"],
        Annotated[float, Field(ge=1, le=5)],
    ] = Field({"coherence": 3, "naturalness": 3, "consistency": 3, "safety": 4, "self_contained": 3}, min_length=1)


class TextConfig(Section):
    """What is written and what of it is kept. max_units: words (en) or characters (zh) of a turn."""

    max_units: Annotated[dict[Language, Positive], by_language(en=60, zh=100)] = {}
    max_dialogue_units: Annotated[dict[Language, Positive], by_language(en=400, zh=600)] = {}
    grounding: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of an LLM reply's content that the source's own reply must hold (reword only); 0 = off; "
        "null: 0.8 for the embedded LLM, which drifts, and 0 for an endpoint",
    )
    rewrite: RewriteConfig = RewriteConfig()
    converse: ConverseConfig = ConverseConfig()
    style: StyleConfig = StyleConfig()
    disfluency: DisfluencyConfig = DisfluencyConfig()
    filter: FilterConfig = FilterConfig()
    review: ReviewConfig = ReviewConfig()


class DedupConfig(Section):
    """The barrier between text and speech: exact and near duplicates, and benchmark questions.

    A dialogue is dropped if it is like one of a lower id that was kept, or of a run in `against`.
    """

    enabled: bool = False
    similarity: float = Field(0.8, gt=0, le=1, description="Jaccard similarity from which two texts are the same")
    ngram: Annotated[dict[Language, Positive], by_language(en=3, zh=4)] = Field(
        {}, description="words (en), characters (zh)"
    )
    against: tuple[Path, ...] = Field((), description="earlier runs whose dialogues count as lower ids")
    benchmarks: tuple[Path, ...] = Field((), description="files of benchmark questions: .txt a line each, .jsonl, .csv")
    overlap: Annotated[dict[Language, Positive], by_language(en=8, zh=13)] = Field(
        {}, description="words (en) or characters (zh) in a row that a turn may not share with a benchmark question"
    )

    @property
    def barrier(self) -> bool:
        """Whether all the text is needed before the first dialogue is spoken."""
        return self.enabled or bool(self.benchmarks)


class EndpointConfig(Section):
    """One of several servers with OpenAI's chat completions. Nothing here but `model` reaches the text."""

    base_url: str = Field(json_schema_extra=EXECUTION)
    model: str
    key: str = Field(
        "OPENAI_API_KEY", json_schema_extra=EXECUTION, description="environment variable that holds the key"
    )
    weight: float = Field(1, gt=0, json_schema_extra=EXECUTION)
    concurrency: Positive | None = Field(None, json_schema_extra=EXECUTION, description="writer.concurrency if null")
    requests_per_minute: Positive | None = Field(None, json_schema_extra=EXECUTION)
    tokens_per_minute: Positive | None = Field(None, json_schema_extra=EXECUTION)


class WriterConfig(Section):
    """The LLM. Without base_url and endpoints the embedded model is started on loopback.

    Limits a minute are of the whole run, shared out among engine.writers workers.
    """

    base_url: str | None = Field(None, json_schema_extra=EXECUTION)
    model: str = "gemma-3-270m"
    model_path: Path | None = Field(None, json_schema_extra=EXECUTION, description="GGUF file for the embedded server")
    endpoints: dict[str, EndpointConfig] = Field(
        {}, description="several servers at once, by a name of your own; base_url and model are then not used"
    )
    structured: Literal["auto", "json_schema", "json_object", "none"] = Field(
        "auto",
        json_schema_extra=EXECUTION,
        description="how a server is held to JSON; auto: the first of these that it takes",
    )
    temperature: float = Field(0.4, ge=0, le=2)
    max_tokens: Positive = Field(80, description="of one turn; a whole dialogue may have as many for each of its turns")
    attempts: int = Field(3, ge=1, le=16, description="replies asked for at each step before it has failed")
    extra_body: dict[str, Any] = {}
    concurrency: Positive = Field(16, json_schema_extra=EXECUTION, description="requests in flight of one worker")
    requests_per_minute: Positive | None = Field(None, json_schema_extra=EXECUTION)
    tokens_per_minute: Positive | None = Field(None, json_schema_extra=EXECUTION)
    timeout: float = Field(60, gt=0, json_schema_extra=EXECUTION, description="seconds for one request")
    retries: int = Field(4, ge=0, le=20, json_schema_extra=EXECUTION)
    prices: dict[str, tuple[Weight, Weight]] = Field(
        {},
        json_schema_extra=EXECUTION,
        description="by model: dollars a million tokens, of the prompt and of the reply",
    )
    budget: float | None = Field(
        None, gt=0, json_schema_extra=EXECUTION, description="dollars; the run stops before it could spend more"
    )
    reuse: Path | None = Field(
        None,
        json_schema_extra=EXECUTION,
        description="an earlier run whose replies are taken where the request is the same",
    )


class RuntimeEnvConfig(Section):
    """What Ray prepares on a node for the workers of a stage, once a node; the keys are those of Ray's `runtime_env`.

    For a whole stage: a studio with another torch, a writer behind a proxy. One speech engine whose packages disagree
    with those of the recogniser beside it gets `tts.engines.NAME.environment`, a process of its own. What is the same
    for all workers belongs to the job, which ships the code too (scripts/launch/); it is the base of this,
    and env_vars are added to its. Ray's dashboard shows env_vars, so keys of endpoints stay in the nodes' own
    environment.
    """

    pip: list[str] | dict[str, Any] | str | None = Field(None, description="packages, or a requirements file here")
    uv: list[str] | dict[str, Any] | str | None = Field(None, description="as pip, installed by uv")
    conda: str | dict[str, Any] | None = Field(None, description="name of an environment on the nodes, or its recipe")
    image_uri: str | None = Field(None, description="container image with Ray and speechchat in it")
    py_executable: str | None = Field(None, description="command that starts the worker instead of the node's Python")
    py_modules: list[str] | None = Field(None, description="URIs of zipped packages or wheels, on shared storage")
    working_dir: str | None = Field(None, description="URI of a zip that replaces the job's working directory")
    env_vars: dict[str, str] | None = None
    config: dict[str, Any] | None = Field(None, description="setup_timeout_seconds, eager_install")

    @property
    def given(self) -> dict[str, Any]:
        """As Ray takes it; empty if nothing is asked for."""
        return self.model_dump(exclude_none=True)


class EngineConfig(Section):
    """How the work is done; nothing here reaches a byte of the output."""

    kind: Literal["ray", "local"] = "ray"
    address: str | None = Field(None, description='Ray cluster; null starts one here, "auto" finds a running one')
    studios: int | None = Field(
        None,
        ge=1,
        description="studio workers; null: as many as the nodes that are there have room for. An autoscaler brings "
        "nodes for a number",
    )
    studio_cpus: float = Field(1, gt=0)
    studio_gpus: float = Field(0, ge=0, description="a share of one GPU, or whole ones")
    studio_units: int | None = Field(
        None, ge=1, description="units that a studio works on at once; null: as many as keep its engines' batches full"
    )
    studio_bytes: int | None = Field(
        None,
        ge=1,
        description="memory of a studio for speech: it gets another unit (beyond the first) only while all of its "
        "units, judged by their text and by what others took, stay below; null: no bound but studio_units",
    )
    studio_runtime_env: RuntimeEnvConfig = RuntimeEnvConfig()
    writers: Positive = 2
    writer_cpus: float = Field(0, ge=0, description="0: a writer waits for a server; its place comes before studios'")
    writer_gpus: float = Field(0, ge=0, description="as studio_gpus")
    writer_runtime_env: RuntimeEnvConfig = RuntimeEnvConfig()
    window: int | None = Field(
        None,
        ge=1,
        description="units in flight, from the writer's hands to the studio's; null: 16, or what the workers have in "
        "hand and as much again for the studios, if that is more",
    )
    tries: int = Field(3, ge=1, le=20, description="tries of a unit before it is quarantined")
    restarts: int = Field(3, ge=0, le=100, description="restarts of one worker before it is given up")
    deadline: float | None = Field(
        1800, gt=0, description="seconds after which a dialogue that is still being spoken has hung; null: never"
    )
    patience: float = Field(
        0, ge=0, description="seconds to wait for nodes with room for a worker (an autoscaler brings them)"
    )

    @model_validator(mode="after")
    def _check(self) -> EngineConfig:
        for name in ("studio_gpus", "writer_gpus"):
            count = getattr(self, name)
            if count > 1 and count % 1:
                raise ValueError(f"{name}={count:g}: a share of one GPU is 1 at most, above that only whole ones")
        return self
