"""Local servers that stand in for the outside world, so that everything runs offline.

They speak the wire formats of the real ones and know nothing of the pipeline.
"""
