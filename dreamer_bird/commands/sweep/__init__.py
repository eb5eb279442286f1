"""The command `sweep`: many runs, side by side, on this machine or a Ray cluster."""
