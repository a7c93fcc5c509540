"""The sums of an estimate: what a configuration comes to at given rates. Nothing is planned, read or written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.engine.estimate_rates import Rates
from pipeline.plan import unit_count

KEPT = {"none": 0.0, "sample": 0.1, "all": 1.0}
"""Share of the rejected dialogues whose clips are kept, by `judge.keep`."""
HOUR = 3600


@dataclass(frozen=True)
class Cluster:
    """What a run may use at once. cpus: cores. gpus: such as the rates are of."""

    cpus: float
    gpus: float = 0.0


class Work:
    """All are expectations: planned, spoken, accepted are dialogues; audio, takes are seconds (of what is accepted, of
    all that is synthesised); cpu, gpu are hours by stage; sizes are bytes and files are counts, by kind.

    A dialogue that is refused costs what was done until then.
    """

    def __init__(self, config: Config, rates: Rates, prices: Mapping[str, float]):
        self.config = config
        self.rates = rates
        self.prices = prices
        self.units = unit_count(config)
        self.planned = config.dialogues
        self.spoken = self.planned * rates["text_yield"]
        self.accepted = self.spoken * rates["speech_yield"]
        self.audio = self.accepted * rates["seconds_per_dialogue"]
        recorded = self.spoken * rates["seconds_per_dialogue"]
        self.takes = recorded * rates["speech_share"] * (1 + rates["first_take_failure"] * rates["repairs"])
        self.requests, self.prompt_tokens, self.reply_tokens = (
            self.planned * rates[key] * rates["attempts"] for key in ("requests", "prompt_tokens", "reply_tokens")
        )
        # Who pays an LLM by the token does not also pay for its GPUs.
        self.token_prices = config.writer.prices.get(config.writer.model)
        self.by_token = "token_million" in prices or self.token_prices is not None
        own_gpus = 0.0 if self.by_token else self.reply_tokens * rates["token_gpu"]
        self.cpu = {
            "write": (self.requests * rates["request_cpu"] + self.reply_tokens * rates["token_cpu"]) / HOUR,
            "speak": self.takes * rates["speak_cpu"] / HOUR,
            "listen": self.takes * rates["listen_cpu"] / HOUR,
            "pack": recorded * rates["pack_cpu"] / HOUR,
        }
        self.gpu = {
            "write": own_gpus / HOUR,
            "speak": self.takes * rates["speak_gpu"] / HOUR,
            "listen": self.takes * rates["listen_gpu"] / HOUR,
        }
        refused = (recorded - self.audio) * rates["shard_bytes_per_second"]
        self.sizes = {
            "shards": self.audio * rates["shard_bytes_per_second"],
            "records": self.planned * rates["record_bytes_per_dialogue"],
            "rejects": refused * rates["reject_clips"] * KEPT[config.judge.keep],
        }
        self.files = dict(self._files())

    def _files(self) -> Iterator[tuple[str, float]]:
        """By folder, as `RunFolder` lays them out; a unit without a sample has a manifest only, one without a reject
        has no list of them."""
        text, speech = self.rates["text_yield"], self.rates["speech_yield"]
        clips = text * (1 - speech) * KEPT[self.config.judge.keep]
        yield "shards", self.units * (1 + 2 * self._some(text * speech))
        yield "dialogues", self.units
        yield "sources", self.units
        yield "rejects", self.units * (self._some(1 - text * speech) + 2 * self._some(clips))
        if self.config.dedup.barrier:
            yield "dedup", self.units
        if self.requests:
            yield "replies", self.units

    def _some(self, share: float) -> float:
        """Share of the units in which at least one dialogue is of a kind that this share of all is of."""
        return 1 - (1 - share) ** self.config.unit_size

    @property
    def slots(self) -> float:
        """Requests that all writers together have in flight at most."""
        writer, workers = self.config.writer, self.config.engine.writers
        if self.config.embedded:
            return workers
        own = sum(item.concurrency or writer.concurrency for item in writer.endpoints.values())
        return workers * (own or writer.concurrency)


class Wall:
    """Hours on a cluster: of the text and of the speech, each by what could be the one to wait for; of the barrier
    between them, one process; of all of it. missing: what no GPU is there for; unless it is "", the rest means nothing.
    """

    def __init__(self, work: Work, cluster: Cluster):
        self.cluster = cluster
        rates, cpu, gpu, engine = work.rates, work.cpu, work.gpu, work.config.engine
        self.missing = ""
        if not cluster.gpus and (hours := math.fsum(gpu.values())):
            self.missing = f"{hours:,.1f} GPU hours"
        elif not cluster.gpus and engine.studio_gpus:
            self.missing = f"engine.studio_gpus={engine.studio_gpus:g}"
        cpus, gpus = cluster.cpus * rates["utilisation"], (cluster.gpus or 1) * rates["utilisation"]
        # Little's law: so many requests, each so long, so many at once.
        queue = work.reply_tokens * rates["latency"] / work.slots / HOUR
        self.text = {"CPUs": cpu["write"] / cpus, "GPUs": gpu["write"] / gpus, "requests in flight": queue}
        spoken = cpu["speak"] + cpu["listen"] + cpu["pack"]
        self.speech = {"CPUs": spoken / cpus, "GPUs": (gpu["speak"] + gpu["listen"]) / gpus}
        places = [float(engine.studios)] if engine.studios else []
        if engine.studio_gpus:
            places.append((cluster.gpus or 1) / engine.studio_gpus)
        if places:  # a studio works on the CPUs that it claims
            self.speech["studios"] = spoken / (min(places) * engine.studio_cpus * rates["utilisation"])
        self.barrier = work.planned / rates["dedup_per_second"] / HOUR if work.config.dedup.barrier else 0.0
        if self.barrier:
            self.all = max(self.text.values()) + self.barrier + max(self.speech.values())
        else:
            shared = (self.text[name] + self.speech[name] for name in ("CPUs", "GPUs"))
            self.all = max(*shared, *self.text.values(), *self.speech.values())
