"""The live page: its files and the state they read."""
