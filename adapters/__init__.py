"""One adapter per framework: array in, Buffers for the core, array out. Importing this imports no framework."""
