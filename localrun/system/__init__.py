"""What differs between operating systems: spawning, locks, signals, sandbox."""
