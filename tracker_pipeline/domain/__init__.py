"""Pure functions over Polars frames and plain values, one module per data product.

What belongs here: formulas, rules, and the declaration of every table. What does not: Dagster, I/O, the clock,
the environment. A function here gives the same answer for the same arguments, for ever.
"""
