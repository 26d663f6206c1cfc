"""Market and on-chain data platform: software-defined assets whose data is complete, exact and stored once.

Nothing is imported here on purpose: `import tracker_pipeline` must stay free, because every Dagster process
pays for it. Import the submodule you need.
"""
