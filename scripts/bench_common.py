"""What the benches share: the baseline loop, the machine, medians, and the JSON they leave."""

import argparse
import ctypes
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STORY = "Write a long story number {} about the sea and the sky."

# The sampling of both sides: the same chain, so that the ratio is about the loop around it.
SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repeat_penalty": 1.1}


@dataclass
class Report:
    """Raw samples by name, and where they were taken."""

    machine: dict[str, Any]
    samples: dict[str, list[float]] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """One more sample."""
        self.samples.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        """The median of a name's samples."""
        return statistics.median(self.samples[name])

    def ratio(self, name: str, base: str) -> float:
        """The median of the rounds' own ratios: a machine that drifts takes both sides along."""
        pairs = zip(self.samples[name], self.samples[base], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    def judge(self, name: str, value: float, bound: str, *, holds: bool) -> None:
        """Print a measure beside its bound and keep it."""
        print(f"  {'ok  ' if holds else 'MISS'} {name:<58} {value:10.3f}   ({bound})", flush=True)
        self.verdicts[name] = {"value": value, "bound": bound, "holds": holds}

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        print(f"raw samples: {path}")


def machine_of(model: Path) -> dict[str, Any]:
    """Where and on what this runs: CPU, load, commit, the model's hash."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit,
        "model": model.name,
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def find_model(given: Path | None) -> Path:
    """The GGUF to measure: as given, or the embedded default from the user's store."""
    if given is not None:
        return given
    from localrun.config import load_settings
    from localrun.names import parse_name
    from localrun.store.library import Library

    stored = Library(load_settings().models).get(parse_name("smollm2:135m"))
    return stored.model_paths[0]


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments every bench takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--model", type=Path, help="GGUF file (default: smollm2:135m, if pulled)")
    made.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    made.add_argument("--tokens", type=int, default=128, help="tokens a stream (default 128)")
    made.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    made.add_argument("--json", type=Path, help="where the raw samples go")
    return made


class BareLoop:
    """The baseline: a bare loop over the binding, no more than batch, decode, sample, piece."""

    def __init__(self, model: Path, n_streams: int, n_threads: int) -> None:
        import llama_cpp.llama_cpp as low

        self.low, self.n_streams = low, n_streams
        self._log = low.llama_log_callback(lambda *_: None)
        low.llama_log_set(self._log, ctypes.c_void_p(0))
        low.llama_backend_init()
        self.model = low.llama_model_load_from_file(
            os.fsencode(model), low.llama_model_default_params()
        )
        self.vocab = low.llama_model_get_vocab(self.model)
        params = low.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 8192, 2048, 512
        params.n_seq_max, params.kv_unified = max(n_streams, 1), True
        params.n_threads = params.n_threads_batch = n_threads
        self.context = low.llama_init_from_model(self.model, params)
        self.batch = low.llama_batch_init(2048, 0, 1)
        self.memory = low.llama_get_memory(self.context)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, special ones parsed."""
        data = text.encode()
        room = len(data) + 8
        tokens = (ctypes.c_int32 * room)()
        n = self.low.llama_tokenize(self.vocab, data, len(data), tokens, room, True, True)
        return list(tokens[:n])

    def run(self, prompts: Sequence[Sequence[int]], n_tokens: int) -> tuple[float, float]:
        """Seconds of the prefill, and tokens a second of all streams together after it."""
        low = self.low
        low.llama_memory_clear(self.memory, True)
        chains = [self._chain() for _ in prompts]
        begun = time.perf_counter()
        rows: list[int] = []
        at = 0
        for stream, prompt in enumerate(prompts):
            for pos, token in enumerate(prompt):
                self._row(at, token, pos, stream, wants_logits=pos == len(prompt) - 1)
                at += 1
            rows.append(at - 1)
        self._decode(at)
        drawn = [
            low.llama_sampler_sample(c, self.context, r) for c, r in zip(chains, rows, strict=True)
        ]
        prefilled = time.perf_counter()
        piece = ctypes.create_string_buffer(64)
        for step in range(n_tokens - 1):
            for stream, prompt in enumerate(prompts):
                self._row(stream, drawn[stream], len(prompt) + step, stream, wants_logits=True)
            self._decode(len(prompts))
            for stream, chain in enumerate(chains):
                drawn[stream] = low.llama_sampler_sample(chain, self.context, stream)
                low.llama_token_to_piece(self.vocab, drawn[stream], piece, 64, 0, False)
        took = time.perf_counter() - prefilled
        for chain in chains:
            low.llama_sampler_free(chain)
        return prefilled - begun, (n_tokens - 1) * len(prompts) / took

    def _row(self, at: int, token: int, pos: int, stream: int, *, wants_logits: bool) -> None:
        batch = self.batch
        batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, pos, 1
        batch.seq_id[at][0], batch.logits[at] = stream, wants_logits

    def _decode(self, n_rows: int) -> None:
        self.batch.n_tokens = n_rows
        if self.low.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("the baseline's decode failed")

    def _chain(self) -> Any:
        low, n_vocab = self.low, self.low.llama_vocab_n_tokens(self.vocab)
        chain = low.llama_sampler_chain_init(low.llama_sampler_chain_default_params())
        for part in (
            low.llama_sampler_init_penalties(n_vocab, 64, SAMPLING["repeat_penalty"], 0.0, 0.0),
            low.llama_sampler_init_top_k(SAMPLING["top_k"]),
            low.llama_sampler_init_top_p(SAMPLING["top_p"], 1),
            low.llama_sampler_init_min_p(SAMPLING["min_p"], 1),
            low.llama_sampler_init_temp(SAMPLING["temperature"]),
            low.llama_sampler_init_dist(42),
        ):
            low.llama_sampler_chain_add(chain, part)
        return chain


def chat(text: str) -> str:
    """A prompt in the chat form of the embedded default."""
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def bare_in_child(model: Path, n_streams: int, n_tokens: int, n_threads: int) -> dict[str, float]:
    """One round of the baseline in a process of its own, so that neither side warms the other."""
    done = subprocess.run(
        [sys.executable, __file__, str(model), str(n_streams), str(n_tokens), str(n_threads)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def wait_until(what: Callable[[], bool], limit_s: float, pause: Callable[[], object]) -> bool:
    """Whether `what` came true within the limit."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if what():
            return True
        pause()
    return False


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _main() -> None:
    model, n_streams, n_tokens, n_threads = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    loop = BareLoop(model, n_streams, n_threads)
    prompts = [loop.tokenize(chat(STORY.format(i))) for i in range(n_streams)]
    loop.run(prompts, 8)
    prefill_s, rate = loop.run(prompts, n_tokens)
    print(json.dumps({"prefill_s": prefill_s, "tokens_per_s": rate}))


if __name__ == "__main__":
    _main()
