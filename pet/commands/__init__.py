"""The commands of `pet`, one file each with a function `command`; entries.py is the table of them.

A command parses its options, calls the library and prints. What it computes belongs into the library.
"""
