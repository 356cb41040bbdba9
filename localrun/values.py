"""Durations and addresses as people write them, in Go's and Ollama's forms. Pure.

Source: Go's `time.ParseDuration`, and the addresses that `OLLAMA_HOST` takes.
"""

import re

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DURATION_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"


def parse_duration(text: str) -> float:
    """Seconds of a Go duration such as `1h30m`, `500ms`, `-1m` or `0`.

    Raises:
        ValueError: If it is none; a number without a unit is none (except 0).
    """
    body = text.removeprefix("-").removeprefix("+")
    if body == "0":
        return 0.0
    parts = re.findall(_DURATION_PART, body, re.ASCII)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise ValueError("a duration such as 30s, 5m or 1h30m")
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    return -seconds if text.startswith("-") else seconds


def parse_host(text: str) -> tuple[str, int | None]:
    """Host and port of an address in any form that `OLLAMA_HOST` takes; None: port not said.

    `:1234` means every interface. `http://name` means port 80, as in Ollama.

    Raises:
        ValueError: If the port is no port, or the scheme is not http.
    """
    scheme, found, rest = text.rpartition("://")
    if found and scheme != "http":
        raise ValueError("an http address: TLS belongs to a proxy in front of localrun")
    rest = rest.partition("/")[0]
    host, port_text = _split_port(rest)
    if not port_text:
        return host or ("0.0.0.0" if rest == ":" else "127.0.0.1"), 80 if found else None
    if not (port_text.isascii() and port_text.isdecimal() and int(port_text) <= 65535):
        raise ValueError("an address such as 127.0.0.1:11434, with a port up to 65535")
    return host or "0.0.0.0", int(port_text)


def _split_port(rest: str) -> tuple[str, str]:
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        return host, port.removeprefix(":")
    if rest.count(":") > 1:  # a bare IPv6 address
        return rest, ""
    host, _, port = rest.partition(":")
    return host, port
