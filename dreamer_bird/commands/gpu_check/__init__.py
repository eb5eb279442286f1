"""The command `gpu-check`: does this program work on the GPU of this machine, and how fast."""
