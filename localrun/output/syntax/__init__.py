"""The ways of writing tool calls, one module each: how to read them, what holds them. Pure."""
