"""Ways to carry bytes between participants and a coordinator; see base.py for the interfaces.

Each transport loads on first use, by its own module: this package imports none of them.
"""
