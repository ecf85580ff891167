"""The engine: requests in, tokens out, one step at a time. Knows no process and no HTTP."""

import logging
import math
import time
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np

from skipserve.engine.checks import check_drops, check_request
from skipserve.engine.counting import WorkCounter
from skipserve.engine.device_memory import is_out_of_memory
from skipserve.engine.drops import Drops
from skipserve.engine.host_copy import HostCopy
from skipserve.engine.limits import EngineLimits
from skipserve.engine.memory import (
    default_batch_tokens,
    max_images_at_once,
    num_pool_pages,
)
from skipserve.engine.page_keys import PageKeys, find_visual
from skipserve.engine.pages import PagePool
from skipserve.engine.plans import PlanTable
from skipserve.engine.reports import (
    EngineState,
    Failed,
    FailureKind,
    FinishReason,
    StepOutput,
    StepReport,
)
from skipserve.engine.request import Request
from skipserve.engine.runner import Launched, Runner
from skipserve.engine.sampler import SampledTokens
from skipserve.engine.scheduler import Scheduler, Step
from skipserve.engine.sequence import NO_SEAT, Sequence
from skipserve.engine.tables import SeatTables
from skipserve.errors import InvalidRequestError
from skipserve.grammar.fault import GrammarFaultError
from skipserve.grammar.matcher import Grammars, Matcher
from skipserve.model.model import Model

logger = logging.getLogger(__name__)

_NOT_A_NUMBER = "the model's output is not a number"
_OUT_OF_MEMORY = "the device ran out of memory while the engine ran the request"
_EXPIRED = {
    FailureKind.QUEUE_TIMEOUT: "the request waited too long for the engine",
    FailureKind.DEADLINE: "the request took longer than it may",
}


@dataclass(frozen=True)
class StepResult:
    """What a step gave.

    Attributes:
        outputs: by request.
        report: over all requests; None where no step was complete.
        failed: requests that it could not go on with, and has forgotten.
    """

    outputs: list[StepOutput]
    report: StepReport | None
    failed: tuple[Failed, ...] = ()


class Engine:
    """Runs requests of any mix of plans on a model, many at a time.

    A driver without processes:

        engine.add(request)
        while engine.has_work:
            for output in engine.step().outputs:
                ...

    Attributes:
        num_cache_tokens: positions that the page pool holds.
        grammars: what answers can be held to; None where there are none.

    Args:
        model: what to run.
        limits: how much to take on.
        grammars: matchers of the model's grammars.
    """

    def __init__(
        self,
        model: Model,
        limits: EngineLimits | None = None,
        grammars: Grammars | None = None,
    ) -> None:
        self.grammars = grammars
        limits = limits or EngineLimits()
        config = model.config
        max_rows = limits.max_batch_tokens or default_batch_tokens(model.device)
        num_pages = num_pool_pages(model, limits, max_rows)
        self.num_cache_tokens = num_pages * limits.page_size
        self._config = config
        self._limits = limits
        looks_ahead = limits.looks_ahead
        self._looks_ahead = model.device.type != "cpu" if looks_ahead is None else looks_ahead
        self._eos_token_ids = frozenset(config.eos_token_ids)
        self._pool = PagePool(num_pages, limits.page_size)
        self._tables = SeatTables(limits.max_running, config.max_positions, limits.page_size)
        self._plans = PlanTable(config.sizes.decoder.num_layers)
        self._scheduler = Scheduler(
            self._pool, self._tables, max_rows, reuses_prefixes=limits.reuses_prefixes
        )
        self._runner = Runner(
            model,
            self._tables,
            self._plans,
            num_pages,
            max_images_at_once(model, max_rows),
            limits,
        )
        self._counter = WorkCounter(config.sizes)
        self._sequences: dict[str, Sequence] = {}
        self._launched: Launched | None = None
        # No request expires before.
        self._next_expiry = math.inf
        self._num_faults = 0
        self._is_audited = True
        # When the last step was recorded.
        self._recorded = 0.0

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return bool(self._sequences) or self._launched is not None

    @property
    def state(self) -> EngineState:
        """How the engine stands."""
        pool, runner, scheduler = self._pool, self._runner, self._scheduler
        return EngineState(
            num_running=scheduler.num_running,
            num_waiting=scheduler.num_waiting,
            num_pages=pool.num_pages,
            num_pages_used=pool.num_used,
            num_pages_cached=pool.num_cached,
            num_page_evictions=pool.num_evictions,
            num_preemptions=scheduler.num_preemptions,
            encoder_bytes=runner.encoder_cache.num_bytes,
            num_encoder_queries=runner.num_encoder_queries,
            num_encoder_hits=runner.num_encoder_hits,
            num_encoder_evictions=runner.encoder_cache.num_evictions,
            num_faults=self._num_faults,
        )

    def add(self, request: Request) -> None:
        """Take a request in.

        Raises:
            InvalidRequestError: the model cannot run it, or not with this much memory, or its
                grammar is none.
            UnknownPlanError: it names its plan by a key that is not known here.
        """
        check_request(request, self._config, self.num_cache_tokens)
        matcher = self._matcher(request)
        plan = self._plans.acquire(request.plan)
        drops = Drops.of(request)
        try:
            check_drops(drops, plan.plan)
        except InvalidRequestError:
            self._plans.release(plan)
            raise
        visual = find_visual(request, self._config.image_token_id)
        sequence = Sequence(
            request,
            keys=PageKeys(request, plan.kv_digests, self._limits.page_size, visual),
            visual_positions=visual,
            plan=plan,
            arrived=time.perf_counter(),
            drops=drops,
            matcher=matcher,
        )
        self._sequences[request.id] = sequence
        self._scheduler.add(sequence)
        self._next_expiry = min(self._next_expiry, *_expiries(sequence))

    def cancel(self, request_id: str) -> StepOutput | None:
        """Forget a request; return the output that ends it, None if it is not here any more."""
        if request_id not in self._sequences:
            return None
        self._forget(self._sequences[request_id])
        return StepOutput(request_id, None, finish_reason=FinishReason.CANCELLED)

    def expire(self) -> list[Failed]:
        """Forget the requests whose time is over, and say so."""
        now = time.perf_counter()
        if now < self._next_expiry:
            return []
        expired = []
        for sequence in list(self._sequences.values()):
            for kind, expiry in zip(_EXPIRED, _expiries(sequence), strict=True):
                if expiry <= now and not sequence.is_over:
                    self._forget(sequence)
                    expired.append(Failed(sequence.request.id, _EXPIRED[kind], kind))
        rest = self._sequences.values()
        self._next_expiry = min((min(_expiries(sequence)) for sequence in rest), default=math.inf)
        return expired

    def step(self) -> StepResult:
        """Run the next rows of the scheduled requests; those that are up to date get a token.

        Looking ahead, the rows are launched first, and then the tokens of the step before are read:
        the host works while the device does. A request that turns out to be complete has then had
        one row too many.

        If the device has no memory for the rows, one request is given up and the others that have
        rows there go back to wait, as if pages had run out.

        Raises:
            Exception: whatever else the model raised; `drop_running` then clears the way.
        """
        step = self._scheduler.schedule()
        launched = self._launch(step) if step.chunks else None
        is_lost = launched is None and bool(step.chunks)
        if self._looks_ahead:
            launched, self._launched = self._launched, launched
        result = StepResult([], None) if launched is None else self._record(launched)
        return replace(result, failed=result.failed + self._give_up(step)) if is_lost else result

    def drop_running(self) -> list[str]:
        """Forget the requests of a step that raised; return their ids."""
        self._launched = None
        running = [s for s in self._sequences.values() if s.seat != NO_SEAT or s.num_unread]
        for sequence in running:
            self._forget(sequence)
        return [sequence.request.id for sequence in running]

    def audit(self) -> None:
        """Check the books, unless nothing has changed; for moments in which nobody waits."""
        if not self._is_audited:
            self._num_faults = max(self._num_faults, len(self.check()))
            self._is_audited = True

    def check(self) -> list[str]:
        """Return what is wrong with the bookkeeping; nothing in a sound engine."""
        faults = self._scheduler.check(self._sequences.values())
        if self._plans.num_plans != len({s.plan.index for s in self._sequences.values()}):
            faults.append("the table of plans does not hold just those of the requests")
        return faults

    def _launch(self, step: Step) -> Launched | None:
        """Launch a step; None if the device has no memory for it.

        The exception holds the memory of the attempt, so it must not get out of here.
        """
        try:
            return self._runner.launch(step)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("no memory for a step of %d rows: %s", step.num_rows, str(error))
            return None

    def _give_up(self, step: Step) -> tuple[Failed, ...]:
        """Make it easier to run what a step could not, now that the one before it is read.

        The request that came last has to go, of those with many rows if there are any. Each time
        ends one request, or finds that the step before has ended all.
        """
        alive = [
            (chunk.stop - chunk.start > 1, chunk.sequence.arrived, chunk.sequence)
            for chunk in step.chunks
            if not chunk.sequence.is_over
        ]
        failed: tuple[Failed, ...] = ()
        if alive:
            *_, last = max(alive, key=itemgetter(0, 1))
            self._forget(last)
            failed = (Failed(last.request.id, _OUT_OF_MEMORY, FailureKind.OUT_OF_MEMORY),)
        self._scheduler.take_back(step)
        self._runner.free_memory()
        return failed

    def _record(self, launched: Launched) -> StepResult:
        """Read the tokens, move the sequences on, count, and let go of those that are complete."""
        step = launched.step
        sampling = step.sampling
        tokens = launched.samples.read() if launched.samples else SampledTokens([], {})
        _book_vision(launched)
        executed = self._counter.executed(step, launched.num_encoded)
        for sequence, chosen in launched.chosen.items():
            sequence.settle(chosen)
        num_plans = len({chunk.sequence.plan.index for chunk in step.chunks})
        self._enter(sampling, launched, tokens)
        failed = self._fail(sampling, tokens)
        if launched.scores is not None:
            failed += self._take_scores(step, launched.scores)
        self._scheduler.publish(step)
        now = time.perf_counter()
        outputs = [
            self._output(sequence, tokens, place, now)
            for place, sequence in enumerate(sampling)
            if not sequence.is_over
        ]
        report = StepReport(
            executed=executed,
            seconds=self._lap(launched.started),
            num_rows=step.num_rows,
            num_sequences=len(step.chunks),
            num_plans=num_plans,
            mode=launched.mode,
        )
        return StepResult(outputs, report, failed)

    def _matcher(self, request: Request) -> Matcher | None:
        """Return a matcher at the beginning of a request's grammar; None if it has none."""
        adjustments = request.sampling.adjustments
        grammar = None if adjustments is None else adjustments.grammar
        if grammar is None:
            return None
        if self.grammars is None:
            raise InvalidRequestError("this engine has no grammars", grammar.param)
        try:
            return self.grammars.start(grammar.text)
        except GrammarFaultError as fault:
            raise InvalidRequestError(fault.message, grammar.param) from fault

    def _fail(self, sampling: list[Sequence], tokens: SampledTokens) -> tuple[Failed, ...]:
        """Forget requests that cannot go on; the others of the step are unharmed.

        The logits of some are no numbers, others have no way on in their grammars.
        """
        failed = []
        for place in sorted({*tokens.faulty, *tokens.stuck}):
            sequence = sampling[place]
            if not sequence.is_over:
                self._forget(sequence)
                failed.append(_failure(sequence.request, tokens.stuck.get(place)))
        return tuple(failed)

    def _take_scores(self, step: Step, scores: HostCopy) -> tuple[Failed, ...]:
        """Give sequences what was found of their prompts; forget those where it is no number."""
        failed = []
        found = scores.wait()
        stop = 0
        for chunk in step.chunks:
            sequence, start = chunk.sequence, stop
            stop += len(chunk.scored)
            if start == stop or sequence.is_over:
                continue
            own, ranks, top_ids, top = (part[start:stop] for part in found)
            num_top = sequence.request.num_prompt_logprobs
            sequence.scores.append((own, ranks, top_ids[:, :num_top], top[:, :num_top]))
            if not own.isfinite().all():
                self._forget(sequence)
                failed.append(Failed(sequence.request.id, _NOT_A_NUMBER))
        return tuple(failed)

    def _lap(self, started: float) -> float:
        """Return what a step took; looking ahead, it was launched before the last one was over."""
        started, self._recorded = max(started, self._recorded), time.perf_counter()
        return self._recorded - started

    def _enter(self, sampling: list[Sequence], launched: Launched, tokens: SampledTokens) -> None:
        """Enter tokens into the tables, but for sequences that have lost their seats meanwhile."""
        has_seat = np.array([sequence.seat for sequence in sampling]) == launched.seats
        token_ids = np.array(tokens.token_ids, dtype=np.int64)
        places = launched.seats[has_seat], launched.positions[has_seat]
        self._tables.token_ids[places] = token_ids[has_seat]

    def _output(
        self, sequence: Sequence, tokens: SampledTokens, place: int, now: float
    ) -> StepOutput:
        """Give a sequence its token, and let go of it if it is complete."""
        token_id = tokens.token_ids[place]
        generated_ids = sequence.generated_ids
        is_first = not generated_ids
        generated_ids.append(token_id)
        finish_reason = sequence.finish_reason(self._eos_token_ids)
        if finish_reason is None and not is_first and place not in tokens.logprobs:
            return StepOutput(sequence.request.id, token_id)
        if finish_reason is not None:
            self._forget(sequence)
        logprobs = tokens.logprobs.get(place)
        return StepOutput(
            request_id=sequence.request.id,
            token_id=token_id,
            logprob=logprobs.logprob if logprobs else None,
            top_logprobs=logprobs.top if logprobs else (),
            finish_reason=finish_reason,
            num_cached_tokens=sequence.num_cached if is_first else 0,
            stage_seconds=sequence.take_stages(now, is_finished=finish_reason is not None),
            prompt_scores=sequence.take_scores() if is_first else None,
        )

    def _forget(self, sequence: Sequence) -> None:
        self._is_audited = False
        self._scheduler.end(sequence)
        self._plans.release(sequence.plan)
        del self._sequences[sequence.request.id]


def _failure(request: Request, stuck: str | None) -> Failed:
    """Say why a request cannot go on: it is stuck in its grammar, or its logits are no numbers."""
    adjustments = request.sampling.adjustments
    if stuck is None or adjustments is None or adjustments.grammar is None:
        return Failed(request.id, _NOT_A_NUMBER)
    param = adjustments.grammar.param
    return Failed(request.id, f"{param} cannot be followed: {stuck}", FailureKind.INVALID, param)


def _book_vision(launched: Launched) -> None:
    """Add the time of the vision tower to those for whom it ran."""
    if launched.encoding is not None:
        seconds = launched.encoding.seconds()
        for sequence in launched.num_encoded:
            sequence.vision_seconds += seconds


def _expiries(sequence: Sequence) -> tuple[float, float]:
    """Return when a sequence has waited too long to start, and when it must be complete."""
    request = sequence.request
    limits = (None if sequence.started else request.queue_seconds, request.deadline_seconds)
    queue_seconds, deadline_seconds = (math.inf if it is None else it for it in limits)
    return sequence.arrived + queue_seconds, sequence.arrived + deadline_seconds
