"""Model names: `[scheme://][host/][namespace/]model[:tag]`, as Ollama reads them. Pure.

Source: Ollama's `types/model` name parser. One difference: a namespace on the Hub (`hf.co/…`) may
hold dots, because organisations there do. `huggingface.co` is the same host as `hf.co`, and
`ollama.com` as Ollama's registry.
"""

import re
from dataclasses import dataclass

from localrun.errors import InvalidName

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
HUB_HOST = "hf.co"

OLLAMA_HOSTS = frozenset((DEFAULT_HOST, "ollama.com", "www.ollama.com"))
"""Ollama's own registry, by all its names; in a model's name it is `DEFAULT_HOST`."""

_HUB_HOSTS = {"hf.co", "huggingface.co", "www.huggingface.co"}
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A whole name; the defaults are Ollama's. Its casing is what the user wrote."""

    model: str
    tag: str = DEFAULT_TAG
    namespace: str = DEFAULT_NAMESPACE
    host: str = DEFAULT_HOST

    def short(self) -> str:
        """The shortest form that reads back to this name; the tag is always shown."""
        if self.host != DEFAULT_HOST:
            return self.full()
        if self.namespace != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    def full(self) -> str:
        """All four parts, such as `registry.ollama.ai/library/llama2:latest`."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def is_hub(self) -> bool:
        """Whether the name itself says that the model is a repository on the Hub."""
        return self.host == HUB_HOST

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Equal for names that differ in case only."""
        return (
            self.host.lower(),
            self.namespace.lower(),
            self.model.lower(),
            self.tag.lower(),
        )


def parse_name(text: str) -> ModelName:
    """Read a model name.

    Raises:
        InvalidName: If a part is empty, too long or has a character that it may not have.
    """
    rest = text.strip()
    for scheme in ("https://", "http://"):
        rest = rest.removeprefix(scheme)
    tag = DEFAULT_TAG
    if rest.rfind(":") > rest.rfind("/"):
        rest, _, tag = rest.rpartition(":")
    before, slash, model = rest.rpartition("/")
    host, namespace = DEFAULT_HOST, DEFAULT_NAMESPACE
    if slash:
        host_text, slash, namespace = before.rpartition("/")
        host = host_text if slash else DEFAULT_HOST
    if host.lower() in _HUB_HOSTS:
        host = HUB_HOST
    elif host.lower() in OLLAMA_HOSTS:
        host = DEFAULT_HOST
    space = _PART if host == HUB_HOST else _NAMESPACE
    checks = ((_HOST, host), (space, namespace), (_PART, model), (_PART, tag))
    if not all(pattern.fullmatch(part) for pattern, part in checks):
        raise InvalidName(text)
    return ModelName(model, tag, namespace, host)
