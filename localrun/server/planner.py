"""From a model and the options of a request to the demand on the scheduler."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from localrun.config import Settings
from localrun.errors import OutOfMemory, PromptTooLong
from localrun.gguf import ModelInfo
from localrun.hardware.budget import CPU, Budget
from localrun.hardware.placement import Placement, Wish, place
from localrun.messages import Load
from localrun.options import Options
from localrun.scheduler.events import Demand
from localrun.scheduler.scheduler import Scheduler
from localrun.store.library import StoredModel

_ROOM_FOR_ANSWER = 1024
_MAX_PLANS = 256
_FIXED_BY = {
    "num_gpu": "n_gpu_layers",
    "num_batch": "n_batch",
    "num_thread": "n_threads",
    "main_gpu": "main_gpu",
    "use_mmap": "use_mmap",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A load for one model and one wish, with the window that it gives a request."""

    model: str
    info: ModelInfo
    load: Load
    needs: dict[str, int]
    fixed: tuple[tuple[str, object], ...]
    asked_window: int

    @property
    def window(self) -> int:
        """Tokens a sequence of this plan may hold."""
        return min(self.asked_window, self.load.n_ctx) if self.asked_window else self.load.n_ctx


class Planner:
    """Plans loads against what the machine has. Used on the event loop."""

    def __init__(
        self, settings: Settings, scheduler: Scheduler, measure: Callable[[], Budget]
    ) -> None:
        self._settings, self._scheduler, self._measure = settings, scheduler, measure
        self._budget: Budget | None = None
        self._measuring: asyncio.Task[Budget] | None = None
        self._plans: dict[object, Placement] = {}

    def warm_up(self) -> None:
        """Measure once in the background: the first time costs the imports."""
        self._measuring = self._begin_measure()

    async def close(self) -> None:
        """Wait for a measure that is being taken."""
        if self._measuring is not None:
            await asyncio.wait((self._measuring,))

    async def budget(self) -> Budget:
        """What runners may hold together; measured anew while none holds anything."""
        if self._budget is None or not self._scheduler.has_models:
            await asyncio.shield(self._begin_measure())
        assert self._budget is not None
        return self._budget

    def _begin_measure(self) -> "asyncio.Task[Budget]":
        if self._measuring is None:
            self._measuring = asyncio.get_running_loop().create_task(self._take_measure())
        return self._measuring

    async def _take_measure(self) -> Budget:
        try:
            found = await asyncio.to_thread(self._measure)
        finally:
            self._measuring = None
        if self._budget is None or not self._scheduler.has_models:
            self._budget = found
            self._scheduler.measured(found.free_bytes)
        return self._budget

    async def plan(self, model: StoredModel, info: ModelInfo, options: Options) -> Plan:
        """Plan a load beside the models that are loaded, or else as if they were gone.

        Raises:
            OutOfMemory: If the model does not fit the machine at all.
        """
        budget = await self.budget()
        wish = self._wish(options)
        free = self._scheduler.free_beside(model.model_digest)
        try:
            placement = self._place(model, info, _reduced(budget, free), wish)
        except OutOfMemory:
            placement = self._place(model, info, budget, wish)
        load = load_of(placement, tuple(map(str, model.model_paths)), embeds=info.is_embedder)
        load, needs = _with_adapters(load, placement.need_bytes, model)
        if options.num_thread > 0:  # who names a number of threads gets that number
            load = msgspec.structs.replace(load, adapts_threads=False)
        asked = options.num_ctx or 0
        window = min(asked, info.n_ctx_train) if info.n_ctx_train else asked
        return Plan(model.model_digest, info, load, needs, _fixed(options, load), window)

    def settle(self, plan: Plan, options: Options, n_prompt: int) -> tuple[int, int]:
        """The window of this request, and what it demands of a runner (0: whatever is loaded).

        A request without `num_ctx` takes the window that is loaded if its prompt and a fair answer
        fit there: another client's smaller window is no reason to load the weights again.

        Raises:
            PromptTooLong: If the prompt and one more token do not fit.
        """
        window = demanded = plan.window
        loaded = self._scheduler.loaded_window(plan.model)
        if not plan.asked_window and loaded:
            answer = options.num_predict if options.num_predict > 0 else _ROOM_FOR_ANSWER
            if loaded >= window or loaded >= n_prompt + answer:
                window, demanded = loaded, 0
        if n_prompt + 1 > window:
            raise PromptTooLong(n_prompt + 1, window, plan.info.n_ctx_train)
        return window, demanded

    def demand(self, plan: Plan, demanded: int, keep_alive_s: float | None) -> Demand:
        """The plan as a demand."""
        return Demand(plan.model, plan.load, plan.needs, demanded, plan.fixed, keep_alive_s)

    def _wish(self, options: Options) -> Wish:
        settings = self._settings
        return Wish(
            num_ctx=options.num_ctx or settings.context_length or None,
            num_gpu=options.num_gpu,
            num_batch=options.num_batch,
            num_thread=options.num_thread,
            num_parallel=settings.num_parallel,
            kv_cache_type=settings.kv_cache_type,
            flash_attention=settings.flash_attention,
            use_mmap=options.use_mmap,
            main_gpu=options.main_gpu,
        )

    def _place(self, model: StoredModel, info: ModelInfo, budget: Budget, wish: Wish) -> Placement:
        key = (model.model_digest, budget, wish)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            found = self._plans[key] = place(info, budget, wish)
        return found


def load_of(placement: Placement, paths: tuple[str, ...], *, embeds: bool) -> Load:
    """The placement as the message that has a runner load it."""
    names = {field.name for field in msgspec.structs.fields(Load)} - {"paths"}
    fields = {name: getattr(placement, name) for name in names if hasattr(placement, name)}
    # A runner asks for memory in these; where the placement has one sum only, it is all weights.
    fields.setdefault("weights_bytes", placement.need_bytes)
    return Load(paths, embeds=embeds, **fields)


def _with_adapters(
    load: Load, needs: Mapping[str, int], model: StoredModel
) -> tuple[Load, dict[str, int]]:
    """Add the model's adapters, which lie where most of the weights do."""
    if not model.adapter_paths:
        return load, dict(needs)
    weights = dict(load.weights_bytes)
    device = max(weights, key=lambda name: weights[name], default=CPU)
    weights[device] = weights.get(device, 0) + model.adapter_bytes
    paths = tuple(map(str, model.adapter_paths))
    load = msgspec.structs.replace(load, adapters=paths, weights_bytes=weights)
    return load, {**needs, device: needs.get(device, 0) + model.adapter_bytes}


def _fixed(options: Options, load: Load) -> tuple[tuple[str, object], ...]:
    """What the request insists on: a runner loaded otherwise cannot serve it."""
    chosen = Options()
    insisted = [
        field
        for option, field in _FIXED_BY.items()
        if getattr(options, option) != getattr(chosen, option)
    ]
    return tuple((field, getattr(load, field)) for field in insisted)


def _reduced(budget: Budget, free: dict[str, int]) -> Budget:
    gpus = tuple(
        replace(gpu, usable_bytes=min(gpu.usable_bytes, free.get(gpu.device, gpu.usable_bytes)))
        for gpu in budget.gpus
    )
    return replace(budget, gpus=gpus, cpu_bytes=min(budget.cpu_bytes, free.get(CPU, 0)))
