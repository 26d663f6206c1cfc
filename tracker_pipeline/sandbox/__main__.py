"""`python -m tracker_pipeline.sandbox`: how processes of ours start the sandbox. People use `tracker sandbox`."""

import argparse
from pathlib import Path

from tracker_pipeline.sandbox.server import SandboxOptions, run_sandbox


def _options() -> SandboxOptions:
    parser = argparse.ArgumentParser(prog="python -m tracker_pipeline.sandbox")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--symbols", type=lambda text: text.split(","), required=True)
    parser.add_argument("--seed", type=int, default=SandboxOptions.seed)
    parser.add_argument("--exchange-port", type=int, default=SandboxOptions.exchange_port)
    parser.add_argument("--chain-port", type=int, default=SandboxOptions.chain_port)
    parser.add_argument("--whales", type=int, default=SandboxOptions.whales)
    parser.add_argument("--replay", type=Path, nargs="*", default=())
    parser.add_argument("--faults", nargs="*", default=())
    parser.add_argument("--stop-when-free", type=Path)
    return SandboxOptions(**vars(parser.parse_args()))


if __name__ == "__main__":
    run_sandbox(_options())
