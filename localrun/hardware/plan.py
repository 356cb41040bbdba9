"""The memory plan: what is free, where a model goes, which quantization to take. Pure."""

from localrun.hardware.budget import CPU, Budget, GpuBudget, budget_of
from localrun.hardware.choice import Candidate, Choice, Row, choose, plain_quantization
from localrun.hardware.placement import Placement, Wish, place

__all__ = [
    "CPU",
    "Budget",
    "Candidate",
    "Choice",
    "GpuBudget",
    "Placement",
    "Row",
    "Wish",
    "budget_of",
    "choose",
    "place",
    "plain_quantization",
]
