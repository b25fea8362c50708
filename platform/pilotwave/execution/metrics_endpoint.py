"""Metrics of a campaign in this process, for a Prometheus that asks this machine; on Ray its agents do this.

May import prometheus_client (which Ray brings), and the modules beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any
from wsgiref.simple_server import WSGIServer

from pilotwave.errors import InputError, MissingDependencyError
from pilotwave.execution.metrics import COMMON, METRICS, PREFIX, SECONDS


class MetricsEndpoint:
    """Serves ``http://HOST:PORT/metrics``; a meter, see :class:`pilotwave.execution.metrics.Meter`.

    Args:
        host: Which address of this machine; there are no passwords, so others than this machine's own are open to
            whoever can reach them.
        port: 0 takes a free one.

    Attributes:
        port: The one it has.

    Raises:
        MissingDependencyError: prometheus_client is not installed.
        InputError: The port is taken, or the address is not this machine's.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
        except ImportError as error:
            raise MissingDependencyError(
                "runtime.metrics_port needs prometheus_client, which is not installed; run: "
                "pip install prometheus-client"
            ) from error
        registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        for metric in METRICS:
            labels = (*COMMON, *metric.labels)
            name = PREFIX + metric.name
            match metric.kind:
                case "counter":
                    made: Any = Counter(name, metric.help, labels, registry=registry)
                case "gauge":
                    made = Gauge(name, metric.help, labels, registry=registry)
                case "histogram":
                    made = Histogram(name, metric.help, labels, registry=registry, buckets=SECONDS)
            self._metrics[metric.name] = made
        self._common: Mapping[str, str] = {}
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise InputError(
                f"runtime.metrics_port: {host}:{port} cannot be listened on ({error.strerror or error}); choose "
                "another port, or another runtime.metrics_host"
            ) from error
        self.port = self._server.server_port

    def of(self, common: Mapping[str, str]) -> MetricsEndpoint:
        """Gives all metrics these labels."""
        self._common = dict(common)
        return self

    def add(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        """Increases a counter."""
        self._metrics[name].labels(**self._common, **labels).inc(amount)

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Sets a gauge."""
        self._metrics[name].labels(**self._common, **labels).set(value)

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Puts one value into a histogram."""
        self._metrics[name].labels(**self._common, **labels).observe(value)

    def close(self) -> None:
        """The campaign has ended; what it said last can be read until :meth:`shut`."""

    def shut(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


__all__ = ["MetricsEndpoint"]
