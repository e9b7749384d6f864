"""What a service counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

#: Seconds.
LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters of one service.

    Attributes:
        requests: answered requests, by path and status.
        images: classified images, by model and label.
        latency: of answered requests, by path.
        batches: sizes of batches.
        waiting: number of images that wait.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "tlkit_requests", "Answered requests.", ("path", "status"), registry=self._registry
        )
        self.images = Counter(
            "tlkit_images", "Classified images.", ("model", "label"), registry=self._registry
        )
        self.latency = Histogram(
            "tlkit_request_seconds",
            "Latency of answered requests.",
            ("path",),
            registry=self._registry,
            buckets=LATENCIES,
        )
        self.batches = Histogram(
            "tlkit_batch_size", "Images computed together.", registry=self._registry, buckets=BATCH_SIZES
        )
        self.waiting = Gauge("tlkit_waiting_images", "Images that wait.", registry=self._registry)

    def text(self) -> bytes:
        """Returns all of them in Prometheus' text format."""
        return generate_latest(self._registry)
