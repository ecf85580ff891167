"""HTTP on one connection: uvicorn's, with limits on what a client may keep waiting."""

import asyncio
import socket
import struct
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from skipserve.api.connections import Connections, logger
from skipserve.api.door import Refusal
from skipserve.api.errors import SAFE_HEADERS, error_response
from skipserve.errors import (
    HeadersTooLargeError,
    InvalidRequestError,
    RequestTimeoutError,
    SkipserveError,
    UnavailableError,
)

_MAX_HEADER_BYTES = 32 * 1024
# Each piece of a body costs about 25 us: so many are free, then they must be so large on average.
_FREE_PIECES = 256
_PIECE_BYTES = 512


def web_server_config(app: ASGIApp, connections: Connections, **more: Any) -> uvicorn.Config:
    """Return how uvicorn serves an application within limits."""
    return uvicorn.Config(
        app,
        http=partial(LimitedProtocol, connections),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        **more,
    )


class _Parser(h11.Connection):
    """h11's, which also keeps its last complaint, and counts the pieces that a body comes in.

    Args:
        turn_away: answers a request, or will, and returns True; False where others see to it.
    """

    fault: h11.RemoteProtocolError | None = None
    _num_pieces = 0
    _num_bytes = 0

    def __init__(self, turn_away: Callable[[h11.Request], bool]) -> None:
        super().__init__(h11.SERVER, _MAX_HEADER_BYTES)
        self._turn_away = turn_away

    def next_event(self) -> Any:
        """Return the next event.

        Raises:
            RemoteProtocolError: what came is no HTTP, or a body in pieces that are too small.
        """
        try:
            event = super().next_event()
            if isinstance(event, h11.Data):
                self._count(event)
            elif isinstance(event, h11.Request):
                self._num_pieces = self._num_bytes = 0
                if self._turn_away(event):
                    return h11.PAUSED
        except h11.RemoteProtocolError as error:
            self.fault = error
            raise
        return event

    def _count(self, piece: h11.Data) -> None:
        self._num_pieces += 1
        self._num_bytes += len(piece.data)
        if self._num_pieces - _FREE_PIECES > self._num_bytes / _PIECE_BYTES:
            raise h11.RemoteProtocolError("the body comes in pieces that are too small")


class LimitedProtocol(H11Protocol):
    """One connection.

    Its client must send the head of a request in time, and read what it is sent in time. Until it
    reads, no further request of its is begun.

    Attributes:
        address: the client's.

    Args:
        connections: all of the server.
        args: uvicorn's own.
        kwargs: uvicorn's own.
    """

    def __init__(self, connections: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn: _Parser = _Parser(self._turn_away)
        self.address = ""
        self._connections = connections
        self._limits = connections.limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._refusal_timer: asyncio.TimerHandle | None = None
        self._is_first = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let the connection in if there is room."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        if self._connections.enter(self):
            self._look()
        else:
            self._refuse(UnavailableError("there are too many connections; try again later"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._connections.leave(self)
        self._head_timer = _cancel(self._head_timer)
        self._write_timer = _cancel(self._write_timer)
        self._refusal_timer = _cancel(self._refusal_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what a client sends, unless it was told enough."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._look()

    def handle_events(self) -> None:
        """Act on what came; later, where what was sent before is not read yet, or not sent."""
        if self.flow.write_paused or self._refusal_timer is not None:
            self.flow.pause_reading()
        else:
            super().handle_events()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._look()
        self._expect_reading()

    def pause_writing(self) -> None:
        """Begin to wait for the client, which does not read."""
        super().pause_writing()
        self._expect_reading()
        self._look()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._write_timer = _cancel(self._write_timer)
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.handle_events()
            self._look()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that is not used any more."""
        super().timeout_keep_alive_handler()
        self._expect_reading()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        fault = self.conn.fault
        if fault is not None and fault.error_status_hint == HeadersTooLargeError.status:
            self._refuse(
                HeadersTooLargeError(f"the headers may hold at most {_MAX_HEADER_BYTES} bytes")
            )
        elif fault is not None and "pieces" in str(fault):
            self._refuse(InvalidRequestError(f"{fault}: send {_PIECE_BYTES} bytes or more at once"))
        else:
            self._refuse(InvalidRequestError("this is not a request of HTTP/1.1"))

    def give_way(self) -> None:
        """End the connection, whatever its client has not read."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            # Else the kernel would keep what is unread, and try again and again.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def cut_off(self) -> bool:
        """End the connection of a server that ends; where no reply was begun, an error is one.

        Returns:
            Whether its client was owed a reply, or the rest of one.
        """
        is_owed = not self._wants_request or self.transport.get_write_buffer_size() > 0
        if is_owed and self.conn.our_state is h11.SEND_RESPONSE and not self.transport.is_closing():
            # What works on the reply is to send none beside this.
            self.cycle.disconnected = True
            self._refuse(UnavailableError("the server is shutting down; try again later"))
        else:
            self.give_way()
        return is_owed

    @property
    def _wants_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        """Note whom this connection waits for, and measure the time that a head takes."""
        if self.transport.is_closing():
            return
        is_idle = self._wants_request or self.cycle.more_body or self.flow.write_paused
        self._connections.note(self, is_idle=is_idle)
        if not self._wants_request:
            self._head_timer = _cancel(self._head_timer)
        elif self._head_timer is None:
            self._head_timer = self._later(self._limits.header_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.conn.trailing_data[0] and self.conn.our_state is h11.IDLE:
            self._refuse(RequestTimeoutError("the head of the request did not arrive in time"))
        else:
            self.transport.close()
            self._expect_reading()

    def _expect_reading(self) -> None:
        """Give the client so long to read what keeps the connection from going on or ending."""
        waits = self.flow.write_paused or self.transport.is_closing()
        if waits and self._write_timer is None and self.transport.get_write_buffer_size():
            self._write_timer = self._later(self._limits.write_seconds, self._reading_is_late)

    def _reading_is_late(self) -> None:
        self._write_timer = None
        if self._connections.lines.admits(reason="unread"):
            logger.info("%s does not read what it is sent: cut off", self.address)
        self.give_way()

    def _turn_away(self, request: h11.Request) -> bool:
        """Turn a request away by its head, if it is to be, when it is its turn."""
        refusal = self._connections.turn_away(request, self.address, is_first=self._is_first)
        self._is_first = False
        if refusal is None:
            return False
        self._head_timer = _cancel(self._head_timer)
        self._refusal_timer = self._later(refusal.wait_seconds, lambda: self._tell(refusal))
        return True

    def _tell(self, refusal: Refusal) -> None:
        """Tell it, and go on: what is left of the request is read and dropped."""
        self._refusal_timer = None
        if self.transport.is_closing():
            return
        self._write(refusal.error, refusal.request_id, path=refusal.path)
        if self.conn.our_state is h11.MUST_CLOSE:
            self.transport.close()
            self._expect_reading()
            return
        self.flow.resume_reading()
        self.handle_events()
        self._look()

    def _refuse(self, error: SkipserveError) -> None:
        """Tell an error in the one form, where nothing else was begun, and end the connection."""
        self._connections.record_refusal(error)
        request_id = f"req-{uuid.uuid4().hex}"
        if self._connections.lines.admits(status=error.status, error=error.type):
            logger.info("%s from %s: %s", request_id, self.address, error.message)
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self._write(error, request_id, (b"connection", b"close"))
        self.transport.close()
        self._expect_reading()

    def _write(
        self, error: SkipserveError, request_id: str, *more: tuple[bytes, bytes], path: str = ""
    ) -> None:
        response = error_response(error, path, request_id)
        response.headers.update(SAFE_HEADERS)
        headers = [
            *response.raw_headers,
            (b"x-request-id", request_id.encode()),
            *more,
        ]
        events = (
            h11.Response(status_code=response.status_code, headers=headers),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        )
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))

    def _later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, act)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a timer; return what stands in its place."""
    if timer is not None:
        timer.cancel()
    return None
