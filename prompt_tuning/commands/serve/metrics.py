"""`GET /metrics`: what the engine counts and how requests went, in Prometheus' text format."""

import collections
from collections.abc import Iterator
from typing import get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from prompt_tuning.commands.serve.engine.engine import Engine
from prompt_tuning.commands.serve.engine.requests import Reason

_PREFIX = "prompt_tuning"
# Unit: seconds.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# `Engine.stats`: what is now, and what is counted from the start.
_NOW = {
    "waiting": "Requests that no slot or batch has taken yet.",
    "busy_slots": "Answers that are being decoded.",
    "slots": "Answers that can be decoded at once.",
    "resident_prompts": "Prompts on the device.",
    "loaded_prompts": "Prompts that can be asked for, on the device or the host.",
}
_COUNTED = {
    "requests": "Texts that were taken, to answer or to score.",
    "input_tokens": "Tokens of inputs.",
    "output_tokens": "Tokens of answers.",
    "scored_targets": "Targets that were scored.",
    "encoder_batches": "Batches that were encoded.",
    "score_batches": "Batches that were scored.",
    "decoder_steps": "Steps of all slots; tokens of answers per step is how full these were.",
    "prompt_loads": "Prompts that were read from files.",
    "prompt_swaps": "Prompts that came onto the device.",
    "prompt_evictions": "Prompts that left the device for others.",
}


class Meters:
    """Counts of one server.

    Args:
      engine: Its engine, which is asked each time that somebody looks.

    Attributes:
      requests: HTTP requests that were answered, by path and status.
      seconds: How long they took, by path.
      first_token: From the body of a completion to its first token.
      refused_entries: Entries of the watched folder that are no prompts.
    """

    def __init__(self, engine: Engine):
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine))
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            f"{_PREFIX}_http_requests",
            "HTTP requests by path and status; 499 is a client that went before its answer.",
            ("path", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            f"{_PREFIX}_http_request_seconds",
            "From the head of a request to the end of its answer.",
            ("path",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.first_token = Histogram(
            f"{_PREFIX}_first_token_seconds",
            "From the body of a completion to its first token.",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.refused_entries = Gauge(
            f"{_PREFIX}_refused_folder_entries",
            "Entries of the watched folder that could not be loaded; the log says why.",
            registry=self._registry,
        )

    def response(self) -> Response:
        """Returns all figures."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


class _EngineCollector(Collector):
    """The engine's numbers, as they are when they are asked for."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yields every number."""
        # What has not happened yet is not among them.
        stats = collections.Counter(self._engine.stats())
        for name, text in _NOW.items():
            yield GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=stats[name])
        for name, text in _COUNTED.items():
            yield CounterMetricFamily(f"{_PREFIX}_{name}", text, value=stats[name])
        finished = CounterMetricFamily(
            f"{_PREFIX}_finished",
            "Texts whose answers or scores ended, by reason.",
            labels=["reason"],
        )
        for reason in get_args(Reason):
            finished.add_metric([reason], stats[f"finished_{reason}"])
        yield finished
