"""Ollama's templates: Go's `text/template` with Ollama's functions and data. Pure.

`render_go` writes the prompt of a conversation, `check_go` reads a template without running it, and
`infer_tags` tells from one how its model marks reasoning and tool calls.
"""

from localrun.gotemplate.render import check_go, infer_tags, render_go
from localrun.gotemplate.tree import Tags

__all__ = ["Tags", "check_go", "infer_tags", "render_go"]
