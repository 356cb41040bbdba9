"""Sums and comparisons of bytes per device. Pure."""

from collections.abc import Iterable, Sequence

from localrun.scheduler.events import Bytes, Runner


def total_of(parts: Iterable[Bytes]) -> dict[str, int]:
    """The sum, device by device."""
    total: dict[str, int] = {}
    for part in parts:
        for device, n_bytes in part.items():
            total[device] = total.get(device, 0) + n_bytes
    return total


def peak_of(one: Bytes, other: Bytes) -> dict[str, int]:
    """The larger of two holdings, device by device."""
    return {d: max(one.get(d, 0), other.get(d, 0)) for d in {**one, **other}}


def fits(needs: Bytes, budget: Bytes) -> bool:
    """Whether every device has room; a device that is not in the budget has none."""
    return all(n_bytes <= budget.get(device, 0) for device, n_bytes in needs.items())


def tightest(needs: Bytes, available: Bytes) -> str:
    """The device that lacks most; `cpu` if nothing is needed."""
    return max(needs, key=lambda d: needs[d] - available.get(d, 0), default="cpu")


def fewest_to_go(needs: Bytes, runners: Sequence[Runner], budget: Bytes) -> list[Runner]:
    """The runners, taken in order, that must go so that `needs` and the rest fit the budget.

    A runner that holds nothing on a crowded device is passed over.
    """
    used = total_of([needs, *(runner.held for runner in runners)])
    gone: list[Runner] = []
    for runner in runners:
        crowded = {d for d, n_bytes in used.items() if n_bytes > budget.get(d, 0)}
        if any(runner.held.get(device, 0) for device in crowded):
            gone.append(runner)
            used = {d: n_bytes - runner.held.get(d, 0) for d, n_bytes in used.items()}
    return gone
