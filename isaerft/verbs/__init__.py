"""The verbs of the command line: each reads files, calls one function and writes one output."""
