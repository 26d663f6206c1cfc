"""The clients as Dagster resources: built from the configuration, opened when first used.

What belongs here: the step from settings to a client. What does not: what a client does (`exchange`, `chain`).
"""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import PrivateAttr

from tracker_pipeline.resources.sandbox_process import resolve
from tracker_pipeline.settings import get_config, get_endpoints

if TYPE_CHECKING:
    from tracker_pipeline.resources.chain import Chain
    from tracker_pipeline.resources.exchange import Exchange


class ExchangeResource(dg.ConfigurableResource):  # type: ignore[misc]  # dagster's base is untyped here
    """The exchange of the configuration."""

    venue: str
    market_type: str
    url: str | None
    _client: "Exchange | None" = PrivateAttr(default=None)

    @classmethod
    def configured(cls) -> "ExchangeResource":
        """As settings say."""
        market = get_config().market
        return cls(venue=market.venue, market_type=market.market_type, url=get_endpoints().exchange_url)

    def client(self) -> "Exchange":
        """The client, opened once for each run; starts the sandbox where the URL is one of its."""
        if self._client is None:
            from tracker_pipeline.resources.exchange import Exchange  # ccxt takes 2 s to import

            url = resolve(self.url) if self.url else None
            self._client = Exchange(self.venue, self.market_type, url=url)  # type: ignore[arg-type]
        return self._client


class ChainResource(dg.ConfigurableResource):  # type: ignore[misc]
    """The chain of the configuration."""

    network: str
    _client: "Chain | None" = PrivateAttr(default=None)

    @classmethod
    def configured(cls) -> "ChainResource":
        """As settings say."""
        return cls(network=get_config().chain.network)
