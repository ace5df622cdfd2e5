"""How does a task turn a request into sequences, and rows into an answer? One file each."""
