"""The runner: a child process that owns one model and turns token lists into text."""
