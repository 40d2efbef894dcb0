"""What the server counts about itself, in Prometheus's form, in a registry of its own."""

from collections.abc import Mapping
from functools import cache
from typing import Protocol

import anyio
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})
SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STEP_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
STEPS = frozenset({"runtime", "image", "sandbox", "clone"})
UNMATCHED = "unmatched"
DEPLOYMENT_STATUSES = ("pending", "building", "succeeded")
"""Of those that are still followed; one that succeeded waits for its application's health."""
AGENT_STATES = (
    "starting", "idle", "working", "waiting_permission", "waiting_question", "done", "exited",
    "error", "unknown",
)  # fmt: skip


class Terminals(Protocol):
    """What is counted of terminals; `TerminalService` is it."""

    @property
    def attached(self) -> int: ...

    @property
    def panes(self) -> int: ...


class Metrics:
    """Labels take few values by design: route templates, never paths; known methods only."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "craftastic_http_requests",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "craftastic_http_request_seconds",
            "Seconds from a request to the end of its answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=self.registry,
        )
        # The library looks its children up under a lock, by names that it checks each time.
        self._answered = cache(self._requests.labels)
        self._took = cache(self._seconds.labels)
        self._running = Gauge(
            "craftastic_http_requests_in_progress",
            "Requests that are being answered, WebSockets included.",
            registry=self.registry,
        )

        self._agents = Gauge(
            "craftastic_agent_runs",
            "Agents whose sessions live, by what they do, over all server processes.",
            ("state",),
            registry=self.registry,
        )
        self._model_requests = Counter(
            "craftastic_model_requests",
            "Calls of model APIs that the gateway forwarded.",
            registry=self.registry,
        )
        self._model_tokens = Counter(
            "craftastic_model_tokens",
            "Tokens that model APIs said to have used.",
            ("direction",),
            registry=self.registry,
        )

        self._deployments = Gauge(
            "craftastic_deployments",
            "Deployments that are still followed, over all server processes.",
            ("status",),
            registry=self.registry,
        )
        self._deployments_ended = Counter(
            "craftastic_deployments_ended",
            "Deployments that ended.",
            ("kind", "status"),
            registry=self.registry,
        )
        self._coolify_calls = Counter(
            "craftastic_coolify_calls",
            "What Coolify was asked about deployments, by how it answered.",
            ("outcome",),
            registry=self.registry,
        )

        self._steps = Histogram(
            "craftastic_create_step_seconds",
            "Seconds that a step of starting an environment took.",
            ("step", "runtime"),
            buckets=STEP_SECONDS,
            registry=self.registry,
        )

        self._tasks = Gauge(
            "craftastic_tasks",
            "Tasks of the server's event loop.",
            registry=self.registry,
        )
        self._viewers = Gauge(
            "craftastic_terminal_viewers",
            "Viewers that are attached to terminals of this process.",
            registry=self.registry,
        )
        self._panes = Gauge(
            "craftastic_terminal_panes",
            "Terminals whose output this process reads.",
            registry=self.registry,
        )

    def watch(self, terminals: Terminals) -> None:
        """Count these terminals whenever the numbers are asked for."""
        self._viewers.set_function(lambda: terminals.attached)
        self._panes.set_function(lambda: terminals.panes)

    def deployments_are(self, counts: Mapping[str, int]) -> None:
        """Tell how many deployments are followed by status; one that is not named has none."""
        for status in DEPLOYMENT_STATUSES:
            self._deployments.labels(status).set(counts.get(status, 0))

    def deployment_ended(self, kind: str, status: str) -> None:
        """Count a deployment that ended.

        Args:
            kind: `deploy` or `rollback`.
            status: `succeeded`, `failed` or `cancelled`.
        """
        self._deployments_ended.labels(kind, status).inc()

    def coolify_called(self, outcome: str) -> None:
        """Count a question to Coolify: `ok`, `refused` or `unavailable`."""
        self._coolify_calls.labels(outcome).inc()

    def model_used(self, requests: int, input_tokens: int, output_tokens: int) -> None:
        """Count what calls of a model API cost."""
        self._model_requests.inc(requests)
        self._model_tokens.labels("input").inc(input_tokens)
        self._model_tokens.labels("output").inc(output_tokens)

    def step_took(self, step: str, runtime: str, seconds: float) -> None:
        """Count a step of starting an environment; one that is not known counts as `other`."""
        self._steps.labels(step if step in STEPS else "other", runtime).observe(seconds)

    def agents_are(self, counts: Mapping[str, int]) -> None:
        """Tell how many agents are in each state; a state that is not named has none."""
        for state in AGENT_STATES:
            self._agents.labels(state).set(counts.get(state, 0))

    def request_started(self) -> None:
        self._running.inc()

    def request_ended(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            method: Any text; one that is not known counts as `OTHER`.
            route: The route's template; None when no route matched.
            status: The HTTP status; 0 when the client went away before an answer.
            seconds: How long it took; WebSockets are not in the histogram.
        """
        method = method if method in METHODS else "OTHER"
        route = route or UNMATCHED
        self._running.dec()
        self._answered(method, route, str(status)).inc()
        if method != "WEBSOCKET":
            self._took(method, route).observe(seconds)

    def text(self) -> bytes:
        """Return all numbers; call it on the event loop, whose tasks are counted."""
        self._tasks.set(len(anyio.get_running_tasks()))
        return generate_latest(self.registry)
