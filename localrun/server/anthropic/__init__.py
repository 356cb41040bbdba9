"""Anthropic's Messages API."""

from localrun.server.anthropic.errors import DIALECT

__all__ = ["DIALECT"]
