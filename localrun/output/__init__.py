"""What a model writes: content, reasoning and tool calls, and the grammar that holds it. Pure."""
