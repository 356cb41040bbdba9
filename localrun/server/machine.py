"""Measure the machine, in a thread: what runners may hold now."""

import threading
from collections.abc import Mapping

from localrun.config import Settings
from localrun.hardware.budget import Budget, budget_of
from localrun.hardware.machine import EngineBuild, with_engine


class Measure:
    """Callable from any thread; the engine is asked once, and only on a machine with a GPU."""

    def __init__(self, settings: Settings, env: Mapping[str, str]) -> None:
        self._settings, self._env = settings, env
        self._engine: EngineBuild | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Budget:
        """The budget of now. Blocks for milliseconds, at the first time on a GPU machine longer."""
        # psutil and NVML are imported when they are first needed, beside the start of a runner.
        from localrun.hardware.probe import describe_engine, probe

        machine = probe(nvml_library=self._settings.nvml_library)
        with self._lock:
            if self._engine is None:
                self._engine = describe_engine(self._env) if machine.gpus else EngineBuild()
            engine = self._engine
        return budget_of(
            with_engine(machine, engine),
            overhead_bytes=self._settings.gpu_overhead_bytes,
            engine_uses_gpu=engine.uses_gpu,
        )
