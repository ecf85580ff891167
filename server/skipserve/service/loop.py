"""The loop of the engine process: messages in, steps, reports out."""

import logging
import queue
import socket
import threading

import torch

from skipserve.engine.engine import Engine
from skipserve.engine.plans import UnknownPlanError
from skipserve.engine.reports import Failed, FailureKind, StepOutput, StepReport
from skipserve.errors import InvalidRequestError, SkipserveError
from skipserve.service.arrivals import Arrivals
from skipserve.service.ipc import FrameError, pack, read_to_engine
from skipserve.service.messages import Cancel, FromEngine, PlanWanted, Progress, Submit, ToEngine

logger = logging.getLogger(__name__)


class EngineLoop:
    """Feeds an engine from a socket and reports what it does.

    A report goes out after each step, for requests that were cancelled and, while there is nothing
    to do, every `sign_seconds`: a step that hangs is silent. The loop's own thread sends them: 256
    outputs take it less than 0.1 ms, and another thread would gain nothing.
    """

    def __init__(self, engine: Engine, connection: socket.socket, sign_seconds: float) -> None:
        self._engine = engine
        self._connection = connection
        self._sign_seconds = sign_seconds
        # None: the other side has closed the socket.
        self._inbox: queue.SimpleQueue[ToEngine | None] = queue.SimpleQueue()
        self._arrivals = Arrivals(engine.grammars, self._inbox.put)

    def run(self) -> None:
        """Run until the other side closes the socket."""
        threading.Thread(target=self._receive, name="receive", daemon=True).start()
        is_open = True
        try:
            while is_open:
                is_open = self._handle_messages()
                self._expire()
                if self._engine.has_work:
                    self._step()
        except ConnectionError:
            logger.info("the other side is gone")

    def _receive(self) -> None:
        """Take messages in while steps run, large images among them."""
        with self._connection.makefile("rb") as stream:
            message: ToEngine | None
            try:
                while (message := read_to_engine(stream)) is not None:
                    self._arrivals.take(message)
            except (FrameError, ConnectionError):
                logger.exception("the socket gave no message")
        self._inbox.put(None)

    def _handle_messages(self) -> bool:
        """Act on what has come, waiting only if there is nothing else to do.

        Returns:
            Whether the socket is still open.
        """
        messages = self._take_messages()
        outputs = [output for message in messages if (output := self._apply(message)) is not None]
        if not messages and not self._engine.has_work:
            self._engine.audit()
        if outputs or not self._engine.has_work:
            self._report(tuple(outputs))
        return None not in messages

    def _take_messages(self) -> list[ToEngine | None]:
        messages = []
        try:
            messages.append(self._inbox.get(not self._engine.has_work, self._sign_seconds))
            while True:
                messages.append(self._inbox.get_nowait())
        except queue.Empty:
            return messages

    def _apply(self, message: ToEngine | None) -> StepOutput | None:
        match message:
            case Submit(request):
                try:
                    self._engine.add(request)
                except UnknownPlanError:
                    self._send(PlanWanted(request.id))
                except InvalidRequestError as error:
                    failed = Failed(request.id, error.message, FailureKind.INVALID, error.param)
                    self._send(failed)
            case Cancel(request_id):
                return self._engine.cancel(request_id)
        return None

    def _expire(self) -> None:
        if expired := self._engine.expire():
            for failed in expired:
                self._send(failed)
            self._report()

    def _step(self) -> None:
        try:
            result = self._engine.step()
        except torch.AcceleratorError:
            # The device's context is lost: nothing would run on it any more.
            raise
        except Exception as error:
            logger.exception("a step failed")
            self._fail_running(_message_for_clients(error))
            self._report()
        else:
            # The last tokens of a request come before its end.
            self._report(tuple(result.outputs), result.report)
            for failed in result.failed:
                self._send(failed)

    def _fail_running(self, message: str) -> None:
        for request_id in self._engine.drop_running():
            self._send(Failed(request_id, message))

    def _report(self, outputs: tuple[StepOutput, ...] = (), step: StepReport | None = None) -> None:
        self._send(Progress(self._engine.state, outputs, step))

    def _send(self, message: FromEngine) -> None:
        self._connection.sendall(pack(message))


def _message_for_clients(error: Exception) -> str:
    if isinstance(error, SkipserveError):
        return error.message
    return "the engine failed while it ran the request"
