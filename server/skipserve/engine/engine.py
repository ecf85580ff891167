"""The engine: requests in, tokens out, one step at a time. Knows no process and no HTTP."""

from skipserve.engine.checks import check_request
from skipserve.engine.counting import WorkCounter
from skipserve.engine.runner import Runner
from skipserve.engine.sampler import Sample, sample
from skipserve.engine.scheduler import Scheduler
from skipserve.engine.sequence import Sequence
from skipserve.engine.types import FinishReason, Request, Stage, StepOutput
from skipserve.model.llava import Llava


class Engine:
    """Runs requests on a model.

    A driver without processes:

        engine.add(request)
        while engine.has_work:
            for output in engine.step():
                ...
    """

    def __init__(self, model: Llava) -> None:
        self._config = model.config
        self._scheduler = Scheduler()
        self._runner = Runner(model)
        self._counter = WorkCounter(model.config.sizes)

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return self.num_running > 0

    @property
    def num_running(self) -> int:
        """Requests under way."""
        return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        """Requests that have not started."""
        return self._scheduler.num_waiting

    def add(self, request: Request) -> None:
        """Take a request in.

        Raises:
            InvalidRequestError: the model cannot run it.
        """
        check_request(request, self._config)
        self._scheduler.add(Sequence(request, frozenset(self._config.eos_token_ids)))

    def cancel(self, request_id: str) -> StepOutput | None:
        """Forget a request; return the output that ends it, None if it is not here any more."""
        if not self._scheduler.remove(request_id):
            return None
        return StepOutput(request_id, None, finish_reason=FinishReason.CANCELLED)

    def step(self) -> list[StepOutput]:
        """Give each scheduled request one more token.

        Raises:
            Exception: whatever the model raised; `drop_running` then clears the way.
        """
        sequences = self._scheduler.schedule()
        logits = self._runner.run(sequences)
        samples = sample(logits, sequences)
        return self._record(sequences, samples)

    def drop_running(self) -> list[str]:
        """Forget the requests of a step that raised; return their ids."""
        return [sequence.request.id for sequence in self._scheduler.drop_running()]

    def _record(self, sequences: list[Sequence], samples: list[Sample]) -> list[StepOutput]:
        """Move the sequences on, count what was computed, and let go of those that are complete."""
        outputs = [self._advance(*pair) for pair in zip(sequences, samples, strict=True)]
        self._scheduler.retire()
        return outputs

    def _advance(self, sequence: Sequence, sampled: Sample) -> StepOutput:
        request = sequence.request
        is_prefill = sequence.is_prefill
        executed = self._counter.executed(
            request.plan,
            sequence.pending_classes,
            first_position=sequence.num_computed,
            num_images=len(request.images) if is_prefill else 0,
        )
        sequence.mark(Stage.PREFILL if is_prefill else Stage.DECODE)
        sequence.num_computed = sequence.num_tokens
        sequence.generated_ids.append(sampled.token_id)
        stage_seconds, sequence.stage_seconds = sequence.stage_seconds, {}
        return StepOutput(
            request_id=request.id,
            token_id=sampled.token_id,
            logprob=sampled.logprob,
            top_logprobs=sampled.top_logprobs,
            finish_reason=sequence.finish_reason,
            executed=executed,
            stage_seconds=stage_seconds,
        )
