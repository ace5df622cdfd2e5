"""One model instance in a process of its own."""
