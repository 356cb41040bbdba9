"""The text worker: chat templates, tokens and counts, in a child that can be killed."""
