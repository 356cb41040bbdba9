"""What answers a prompt: a runner child of ours, later an Ollama daemon too."""
