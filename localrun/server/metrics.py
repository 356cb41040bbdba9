"""Counters, kept as plain integers and turned into Prometheus text when somebody asks."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from localrun.messages import End

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from localrun.scheduler.scheduler import Scheduler


@dataclass(slots=True)
class Counts:
    """What happened since the start. Touched on the event loop only.

    Attributes:
        calls: Requests by path; unknown paths together.
        failures: Errors by code.
        n_prompt_tokens: Tokens of all prompts that were answered.
        n_cached_tokens: Of these, how many came from the KV cache.
        n_completion_tokens: Tokens made.
        wait_s: Seconds that answered requests waited in the engine, summed.
        prefill_s: Seconds of prefill, summed.
        decode_s: Seconds of decode, summed.
    """

    calls: dict[str, int] = field(default_factory=dict[str, int])
    failures: dict[str, int] = field(default_factory=dict[str, int])
    n_prompt_tokens: int = 0
    n_cached_tokens: int = 0
    n_completion_tokens: int = 0
    wait_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    def called(self, path: str) -> None:
        """A request came to a route with this pattern."""
        self.calls[path] = self.calls.get(path, 0) + 1

    def failed(self, code: str) -> None:
        """A request ended with an error."""
        self.failures[code] = self.failures.get(code, 0) + 1

    def completed(self, end: End) -> None:
        """A completion came to its end."""
        self.n_prompt_tokens += end.n_prompt
        self.n_cached_tokens += end.n_cached
        self.n_completion_tokens += end.n_completion
        self.wait_s += end.wait_s
        self.prefill_s += end.prefill_s
        self.decode_s += end.decode_s


def prometheus_text(counts: Counts, scheduler: "Scheduler", n_calls: int) -> bytes:
    """All of it in Prometheus' text format."""
    # Only who scrapes pays for the import.
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Snapshot(Collector):
        def collect(self) -> "Iterator[Metric]":
            yield from _counters(counts)
            yield from _gauges(scheduler, n_calls)

    registry = CollectorRegistry()
    registry.register(Snapshot())
    return generate_latest(registry)


def _counters(counts: Counts) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import CounterMetricFamily

    by_path = CounterMetricFamily("localrun_requests", "Requests by path.", labels=["path"])
    for path, n in counts.calls.items():
        by_path.add_metric([path], n)
    by_code = CounterMetricFamily("localrun_errors", "Errors by code.", labels=["code"])
    for code, n in counts.failures.items():
        by_code.add_metric([code], n)
    yield from (by_path, by_code)
    for name, meaning, value in (
        ("localrun_prompt_tokens", "Prompt tokens of answered requests.", counts.n_prompt_tokens),
        ("localrun_cached_tokens", "Of these, from the KV cache.", counts.n_cached_tokens),
        ("localrun_completion_tokens", "Tokens made.", counts.n_completion_tokens),
        ("localrun_wait_seconds", "Waiting in the engine, summed.", counts.wait_s),
        ("localrun_prefill_seconds", "Prefill, summed.", counts.prefill_s),
        ("localrun_decode_seconds", "Decode, summed.", counts.decode_s),
    ):
        yield CounterMetricFamily(name, meaning, value=value)


def _gauges(scheduler: "Scheduler", n_calls: int) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import GaugeMetricFamily

    state = scheduler.state
    yield GaugeMetricFamily("localrun_open_requests", "Requests being answered.", value=n_calls)
    yield GaugeMetricFamily(
        "localrun_waiting_requests", "Requests without a runner.", value=len(state.waiting)
    )
    loaded = GaugeMetricFamily("localrun_leases", "Requests on a runner.", labels=["model"])
    for runner in scheduler.status():
        loaded.add_metric([runner.model[:19]], runner.n_leases)
    yield loaded
    held = GaugeMetricFamily("localrun_held_bytes", "Granted to runners.", labels=["device"])
    budget = GaugeMetricFamily("localrun_budget_bytes", "What runners may hold.", labels=["device"])
    for device, n_bytes in state.budget.items():
        held.add_metric([device], state.held(device))
        budget.add_metric([device], n_bytes)
    yield from (held, budget)
