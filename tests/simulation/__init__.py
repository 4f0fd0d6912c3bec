"""A simulated world for the money: the real package, in virtual time, among faults that a seed decides.

`python -m simulation` (with `PYTHONPATH=tests`) runs seeds; docs/simulation.md says what is simulated and what is not.
"""
