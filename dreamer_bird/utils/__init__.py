"""What knows nothing of agents and runs: seeds, files, signals, time, the machine."""
