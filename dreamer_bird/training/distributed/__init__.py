"""Several devices and hosts that share each update of a run."""
