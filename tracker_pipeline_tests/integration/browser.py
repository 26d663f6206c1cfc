"""Debian's Chromium without a screen, and the screenshots of the README.

    python -m tracker_pipeline_tests.integration.browser http://127.0.0.1:3000

takes them from an interface that is up.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
_LARGEST_BYTES = 200_000
# Without these it looks for hosts of its maker at every start, and as root it does not start in a sandbox.
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_PAGES = {
    "lineage": ("/asset-groups", "operations"),
    "partitions": ("/assets/onchain/whale_balance_snapshots?view=partitions", "Partitions Selected"),
    "scores": ("/assets/onchain/accumulation_scores?view=events", "largest movers"),
    "checks": ("/assets/features/ml_features_15m?view=checks", "equal_when_the_future_is_cut_off"),
    "automation": ("/automation", "watch"),
}


@contextmanager
def page_of(base: str) -> Iterator[Any]:
    """A page whose addresses are relative to `base`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        context = browser.new_context(base_url=base, viewport={"width": 1280, "height": 720})
        context.set_default_timeout(90_000)
        yield context.new_page()
        browser.close()


def take_screenshots(base: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with page_of(base) as page:
        for name, (address, shown) in _PAGES.items():
            page.goto(address)
            shown_text = page.get_by_text(shown).filter(visible=True).first
            shown_text.wait_for()
            shown_text.scroll_into_view_if_needed()
            page.wait_for_timeout(3000)  # drawings go on after the text is there
            path = IMAGES / f"{name}.png"
            page.screenshot(path=path)
            if path.stat().st_size > _LARGEST_BYTES:
                raise SystemExit(f"{path.name} is larger than {_LARGEST_BYTES:,} bytes")


if __name__ == "__main__":
    take_screenshots(sys.argv[1])
