"""The commands: flags in, functions of the library called, text and exit status out."""
