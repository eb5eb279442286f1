"""The command `doctor`: would training work here, and what to do if not."""
