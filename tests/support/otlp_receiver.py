"""A collector on a free loopback port: takes OTLP over HTTP and keeps spans and metrics."""

import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span


class OtlpReceiver:
    """Receives while the context lasts.

    Attributes:
        url: where it listens.
        paths: what was asked for.
        received: the spans that came, by resource.
        metrics: by name, as they last came.
    """

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.received: list[ResourceSpans] = []
        self.metrics: dict[str, Metric] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.add(self.path)
                if self.path.endswith("/metrics"):
                    receiver.take_metrics(body)
                else:
                    receiver.received += ExportTraceServiceRequest.FromString(body).resource_spans
                # That of metrics is empty too.
                reply = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "OtlpReceiver":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take_metrics(self, body: bytes) -> None:
        """Keep what a body tells."""
        for received in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in received.scope_metrics:
                self.metrics |= {metric.name: metric for metric in scope.metrics}

    @property
    def resource(self) -> dict[str, object]:
        """The attributes of the one who sent."""
        return attributes(self.received[0].resource.attributes)

    @property
    def spans(self) -> Iterator[Span]:
        """All spans."""
        for received in self.received:
            for scope in received.scope_spans:
                yield from scope.spans


def attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    """Return attributes as a dictionary."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind or "string_value")
