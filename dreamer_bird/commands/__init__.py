"""The commands of the command line, a module or folder each."""
