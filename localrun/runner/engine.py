"""Continuous batching over one model: admit, plan, decode, sample, emit.

Everything here runs on one thread. `in_flight` alone is read by another (the frame reader), to
know whether a cancelled request is inside the running decode call.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from localrun.errors import BadRequest, LocalrunError, RunnerFailed
from localrun.llama import Decoded, Matcher, Model
from localrun.messages import (
    Delta,
    End,
    Failed,
    FinishReason,
    Stats,
    Step,
    Submit,
    failed,
)
from localrun.runner.check import check_submit
from localrun.runner.draw import Drawer, Drawn
from localrun.runner.lane import Lane, Prefix
from localrun.runner.pace import Pace
from localrun.runner.plan import Chunk, Limits, Pending, plan_step
from localrun.runner.sequence import Sequence
from localrun.runner.solo import SOLO_CHUNK, SoloLane

if TYPE_CHECKING:
    from array import array


class Engine:
    """The sequences of one model.

    Args:
        model: Weights and vocabulary.
        lane: The shared pool.
        solo: Where deterministic requests run, one at a time.
        n_slots: Sequences that run at once.
        clock: Seconds, monotonic.
        make_grammar: Has a request's grammar made beside the steps; `constrain` follows.
    """

    def __init__(
        self,
        model: Model,
        lane: Lane,
        solo: SoloLane,
        *,
        n_slots: int,
        clock: Callable[[], float],
        make_grammar: Callable[[Submit], None],
    ) -> None:
        self.model, self.lane, self.solo = model, lane, solo
        self.n_ctx, self.n_slots, self._clock = lane.n_ctx, n_slots, clock
        self._make_grammar = make_grammar
        self.in_flight: frozenset[int] = frozenset()
        self._by_id: dict[int, Sequence] = {}
        self._waiting: list[Sequence] = []
        self._pace = Pace()
        self._deltas: list[Delta] = []
        self._ends: list[End] = []
        self._failures: list[Failed] = []
        self._has_first_token = False
        self._n_prompt = self._n_computed = self._n_completion = self._n_steps = 0

    # ── requests ──────────────────────────────────────────────────────────────────────────

    def submit(self, request: Submit, prompt: "array[int]") -> None:
        """Queue a request; a wrong one fails on its own."""
        try:
            if request.request_id in self._by_id:
                raise BadRequest(f"request {request.request_id} is already running")
            check_submit(request, prompt, self.model, self.n_ctx)
        except LocalrunError as error:
            self._failures.append(failed(request.request_id, error))
            return
        sequence = Sequence.begin(request, prompt, self._clock())
        self._by_id[request.request_id] = sequence
        self._waiting.append(sequence)
        self._n_prompt += len(prompt)
        if request.grammar:
            self._make_grammar(request)

    def constrain(self, request_id: int, made: Matcher | LocalrunError) -> None:
        """A request's grammar is ready, or cannot be: then the request ends with that error."""
        sequence = self._by_id.get(request_id)
        if isinstance(made, LocalrunError):
            if sequence is not None:
                self._fail(sequence, made)
        elif sequence is None:
            made.close()
        else:
            sequence.matcher, sequence.awaits_grammar = made, False

    def end_reasoning(self, request_id: int) -> None:
        """Have a request that is reasoning answer now; ignored if it is not."""
        sequence = self._by_id.get(request_id)
        if sequence is not None and sequence.reasoning is not None:
            sequence.reasoning.ask_to_close()

    def cancel(self, request_id: int) -> None:
        """End a request now with reason `cancelled`; unknown ids are ignored."""
        if (sequence := self._by_id.get(request_id)) is not None:
            self._finish(sequence, "cancelled")

    def credit(self, request_id: int, n_bytes: int) -> None:
        """The client has taken `n_bytes` more."""
        if (sequence := self._by_id.get(request_id)) is not None:
            sequence.n_uncredited = max(0, sequence.n_uncredited - max(0, n_bytes))

    def fail_deterministic(self, error: LocalrunError) -> None:
        """The deterministic lane cannot be opened: its waiting requests end with this error."""
        for sequence in [s for s in self._waiting if s.request.deterministic]:
            self._fail(sequence, error)

    def abort(self) -> None:
        """Break off the running decode call. The one method for another thread."""
        for lane in (self.lane, *self.solo.lanes()):
            lane.context.abort(wanted=True)

    def stats(self) -> Stats:
        """Counters since the load, and the state of now."""
        return Stats(
            n_running=len(self.lane.running) + len(self.solo.running),
            n_waiting=len(self._waiting),
            n_kept=len(self.lane.kept) + len(self.lane.spilled),
            n_cells=self.lane.ledger.n_cells,
            n_cells_used=self.lane.ledger.n_used,
            n_prompt_tokens=self._n_prompt,
            n_prompt_computed=self._n_computed,
            n_completion_tokens=self._n_completion,
            n_steps=self._n_steps,
        )

    # ── the step ──────────────────────────────────────────────────────────────────────────

    def step(self, *, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """One turn of the engine.

        Args:
            interrupted: Asked right before a decode call: true means that messages wait, which
                may cancel what would be computed, so the turn ends.

        Returns:
            Whether there was anything to compute; if not, wait for a message.
        """
        self._admit()
        worked = False
        for lane in (self.lane, *self.solo.lanes()):
            if chunks := self._plan(lane):
                worked = True
                if self._decode(lane, chunks, interrupted):
                    self._sample(lane, chunks)
        return worked

    @property
    def is_urgent(self) -> bool:
        """Whether what was produced should not wait: an end, an error or a first token."""
        return self._has_first_token or bool(self._ends or self._failures)

    def take_frames(self) -> list[Step | Failed]:
        """What the last turns produced, in order; empties it."""
        frames: list[Step | Failed] = []
        if self._deltas or self._ends:
            frames.append(Step(tuple(self._deltas), tuple(self._ends)))
        frames += self._failures  # what they had said before comes first
        self._deltas, self._ends, self._failures = [], [], []
        self._has_first_token = False
        return frames

    def _admit(self) -> None:
        """Start waiting sequences in order of arrival, as far as slots and cells go."""
        is_blocked = False
        for sequence in tuple(self._waiting):
            if sequence.awaits_grammar:
                continue
            if sequence.request.deterministic:
                if self.solo.take(sequence):
                    self._start(sequence)
                continue
            is_blocked = is_blocked or len(self.lane.running) >= self.n_slots
            if not is_blocked and not sequence.is_parked:
                is_blocked = not self._place(sequence)

    def _place(self, sequence: Sequence) -> bool:
        """Admit one sequence or park it behind its leader; False if there is no room yet."""
        prefix = self.lane.find_prefix(sequence)
        sequence.leader, sequence.leader_target = prefix.leader, prefix.n_ahead
        if prefix.leader is not None:
            return True
        # Beside its prompt a sequence needs room to go on; each running one takes a cell a step.
        n_here = 0 if prefix.n_restored else prefix.n_shared
        n_needed = max(len(sequence.tokens), prefix.n_restored) - n_here
        n_needed = min(n_needed + len(self.lane.running) + 1, self.lane.ledger.n_cells - n_here)
        if not self.lane.make_room(n_needed, protect=prefix.source):
            if self.lane.running:
                return False
            self.lane.make_room(self.lane.ledger.n_cells)
            prefix = Prefix()
        self.lane.admit(sequence, prefix)
        if sequence.n_cached < 0:
            sequence.n_cached = sequence.n_past
        self._start(sequence)
        return True

    def _start(self, sequence: Sequence) -> None:
        self._waiting.remove(sequence)
        sequence.n_cached = max(sequence.n_cached, 0)
        sequence.started_s = sequence.started_s or self._clock()
        if sequence.drawer is None:
            sequence.drawer = Drawer(
                self.model,
                sequence.request,
                sequence.tokens[: sequence.n_prompt],
                n_ctx=self.n_ctx,
                matcher=sequence.matcher,
                reasoning=sequence.reasoning,
            )

    def _plan(self, lane: Lane) -> list[Chunk]:
        """Chunks of the next call that fit the pool; the youngest give way if they must."""
        while True:
            ready = [s for s in lane.running if not s.is_paused]
            pending = [
                Pending(s.request.request_id, s.n_past, s.n_pending, s.is_decoding) for s in ready
            ]
            n_decode = sum(work.is_decoding for work in pending)
            is_solo = lane is not self.lane
            settings = lane.context.settings
            limits = Limits(
                settings.n_batch,
                SOLO_CHUNK if is_solo else self._pace.prefill_tokens(n_decode),
                settings.n_outputs_max,
            )
            chunks = plan_step(pending, limits)
            if lane.make_room(sum(chunk.n_tokens for chunk in chunks)):
                return chunks
            self._preempt(lane)

    def _preempt(self, lane: Lane) -> None:
        """Send the youngest sequence back to the queue; it will be computed again.

        The oldest is never chosen: its window fits the pool, so it always finishes.
        """
        if len(lane.running) < 2:
            raise RunnerFailed("the KV pool is smaller than one context window")
        youngest = lane.running[-1]
        lane.release(youngest, keep=False)
        self._waiting.append(youngest)
        self._waiting.sort(key=lambda s: s.arrived_s)

    def _decode(self, lane: Lane, chunks: list[Chunk], interrupted: Callable[[], bool]) -> bool:
        n_prefill = sum(c.n_tokens for c in chunks if not self._by_id[c.key].is_decoding)
        # Only a call that is mostly prompt is worth breaking off for one cancelled request.
        n_rows = sum(c.n_tokens for c in chunks)
        self.in_flight = frozenset(c.key for c in chunks if 2 * c.n_tokens >= n_rows)
        lane.context.abort(wanted=False)
        if interrupted():
            self.in_flight = frozenset()
            return False
        begun = self._clock()
        outcome = lane.decode(chunks, self._by_id)
        self.in_flight = frozenset()
        if outcome is Decoded.NO_ROOM:
            self._preempt(lane)
        if outcome is not Decoded.DONE:
            return False
        self._n_steps += 1
        self._n_computed += n_prefill
        self._pace.observe(n_rows - n_prefill, n_prefill, self._clock() - begun)
        return True

    def _sample(self, lane: Lane, chunks: list[Chunk]) -> None:
        """Draw one token for each chunk that got logits."""
        rows = iter(lane.batch.output_rows)
        for chunk in chunks:
            if chunk.wants_logits:
                self._draw(lane, self._by_id[chunk.key], next(rows))

    def _draw(self, lane: Lane, sequence: Sequence, row: int) -> None:
        if sequence.request.n_predict == 0:
            self._finish(sequence, "length")
            return
        assert sequence.drawer is not None
        try:
            drawn = sequence.drawer.draw(lane.context, row)
        except LocalrunError as error:
            self._fail(sequence, error)
            return
        for one in drawn:
            reason = self._append(sequence, sequence.drawer, one)
            if reason is not None:
                self._finish(sequence, reason)
                return

    def _append(self, sequence: Sequence, drawer: Drawer, drawn: Drawn) -> FinishReason | None:
        """Add a token to a completion, and say whether that ends it."""
        sequence.tokens.append(drawn.token)
        sequence.n_completion += 1
        self._n_completion += 1
        if not sequence.first_token_s:
            sequence.first_token_s = self._clock()
            self._has_first_token = True
        if self.model.vocabulary.is_end(drawn.token):
            return "stop"
        sequence.unsent.append(drawn.token)
        if drawn.logprob is not None:
            sequence.logprobs.append(drawn.logprob)
        self._emit(sequence, sequence.text.feed(drawn.piece))
        if sequence.text.stopped or drawer.is_complete:
            return "stop"
        is_full = len(sequence.tokens) >= (sequence.request.n_ctx or self.n_ctx)
        return "length" if sequence.n_completion == sequence.request.n_predict or is_full else None

    # ── endings ───────────────────────────────────────────────────────────────────────────

    def _emit(self, sequence: Sequence, text: str) -> None:
        if text:
            self._send(sequence, text)
            sequence.n_uncredited += len(text.encode())

    def _send(self, sequence: Sequence, text: str) -> None:
        """A delta of this text and all tokens since the last one."""
        self._deltas.append(
            Delta(
                sequence.request.request_id,
                text,
                tuple(sequence.unsent),
                tuple(sequence.logprobs),
            )
        )
        sequence.unsent.clear()
        sequence.logprobs.clear()

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        now = self._clock()
        rest = sequence.text.flush()
        # What is unsent after a stop string is that string alone: the text does not have it either.
        if rest or (sequence.unsent and not sequence.text.stopped):
            self._send(sequence, rest)
        started = sequence.started_s or now
        first = sequence.first_token_s or now
        self._ends.append(
            End(
                request_id=sequence.request.request_id,
                reason=reason,
                n_prompt=sequence.n_prompt,
                n_cached=max(sequence.n_cached, 0),
                n_completion=sequence.n_completion,
                wait_s=started - sequence.arrived_s,
                prefill_s=first - started,
                decode_s=now - first,
                stop=sequence.text.stop,
                n_reasoning=sequence.reasoning.n_tokens if sequence.reasoning else 0,
            )
        )
        self._forget(sequence)

    def _fail(self, sequence: Sequence, error: LocalrunError) -> None:
        self._failures.append(failed(sequence.request.request_id, error))
        self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        del self._by_id[sequence.request.request_id]
        if sequence.lane is not None:
            sequence.lane.release(sequence, keep=True)
        else:
            self._waiting.remove(sequence)
        sequence.close()
