"""One short module per data product: window, input, pure function, frame with metadata.

What belongs here: what is read for a partition and which function makes the product of it. What does not:
formulas (`domain`), how rows are stored (`storage`), when assets run (`automation`), what proves them (`checks`).
"""
