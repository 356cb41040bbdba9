"""Probe, budget, choice and placement in one go, for `test_whole_path`. Run as a module in a child.

Reads `{"nvml", "root", "models": {quantization: path}}` on standard input, writes what came out.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from localrun.gguf import open_header
from localrun.hardware.plan import Candidate, Wish, budget_of, choose
from localrun.hardware.probe import probe

if __name__ == "__main__":
    asked = json.load(sys.stdin)
    machine = probe(nvml_library=Path(asked["nvml"]), root=Path(asked["root"]))
    budget = budget_of(machine, engine_uses_gpu=True)
    headers = {name: open_header(Path(path)) for name, path in asked["models"].items()}
    candidates = [Candidate(name, h.file_bytes, h.info) for name, h in headers.items()]
    choice = choose(candidates, budget, Wish())
    placement = choice.chosen.placement if choice.chosen else None
    answer = {
        "machine": machine.to_json(),
        "free": budget.free_bytes,
        "chosen": choice.chosen.candidate.quantization if choice.chosen else None,
        "placement": asdict(placement) if placement else None,
        "is_on_gpu": placement.is_on_gpu if placement else None,
        "rows": [(row.candidate.quantization, row.fits, row.reason) for row in choice.rows],
        "advice": choice.advice,
    }
    json.dump(answer, sys.stdout)
