"""The command line: talks HTTP to the server, and runs a private one where none answers."""
