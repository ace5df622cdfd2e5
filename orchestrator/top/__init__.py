"""What does the live view in a terminal show? Pure: a state, a size and what the reader chose become lines."""
