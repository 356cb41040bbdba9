"""Grammars in llguidance's dialect of Lark that hold an answer to its format and tools. Pure."""
