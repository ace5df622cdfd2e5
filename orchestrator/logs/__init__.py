"""What was said by whom and when: taken in, kept in files, shown. `orchestrator logs` reads what the supervisor writes."""
