"""The clients as Dagster resources: built from the configuration, opened when first used.

What belongs here: the step from settings to a client. What does not: what a client does (`exchange`, `chain`).
"""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import dagster as dg
from pydantic import PrivateAttr

from tracker_pipeline.configuration import DumpsSource, FilesSource, MassiveSource
from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.resources.sandbox_process import resolve
from tracker_pipeline.settings import (
    ConfigurationError,
    get_config,
    get_endpoints,
    get_networks,
    get_settings,
    rpc_urls,
    secret,
)

if TYPE_CHECKING:
    import polars as pl

    from tracker_pipeline.domain.addresses import ListedAddress, WellKnownAddress
    from tracker_pipeline.domain.price_feed import Rate
    from tracker_pipeline.resources.bar_source import BarSource, MarketType
    from tracker_pipeline.resources.chain import Chain


class ExchangeResource(dg.ConfigurableResource[None]):
    """Where bars come from, as configured: an exchange, dump files, an aggregator or files."""

    venue: str
    market_type: str
    url: str | None
    _client: "BarSource | None" = PrivateAttr(default=None)

    @classmethod
    def configured(cls) -> "ExchangeResource":
        """As settings say."""
        market = get_config().market
        return cls(venue=market.venue, market_type=market.market_type, url=get_endpoints().exchange_url)

    def client(self) -> "BarSource":
        """The client, opened once for each run; starts the sandbox where the URL is one of its."""
        if self._client is None:
            self._client = self._open()
        return self._client

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Give back the connections of the run."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _open(self) -> "BarSource":
        """The configured source; ccxt takes 2 s to import, so each is imported where it is taken."""
        source = get_config().market.source
        market_type = cast("MarketType", self.market_type)
        hosts = get_settings().state_folder / "hosts"
        match source:
            case DumpsSource():
                from tracker_pipeline.resources.dump_archives import BucketArchive, FolderArchive
                from tracker_pipeline.resources.dumps import DumpSource

                is_url = source.location.startswith(("http://", "https://"))
                archive = (
                    BucketArchive(source.location, market_type, hosts)
                    if is_url
                    else FolderArchive(Path(source.location).expanduser(), market_type)
                )
                return DumpSource(self.venue, market_type, archive)
            case MassiveSource():
                from tracker_pipeline.resources.massive import MassiveSource as Massive

                return Massive(
                    self.venue,
                    market_type,
                    url=source.url,
                    api_key=secret(source.api_key_env, "the key of Massive"),
                    api_key_name=source.api_key_env,
                    hosts=hosts,
                    requests_per_second=source.requests_per_second,
                )
            case FilesSource():
                from tracker_pipeline.resources.file_source import FileSource

                return FileSource(self.venue, market_type, source.paths)
            case _:
                from tracker_pipeline.resources.exchange import Exchange

                url = resolve(self.url) if self.url else None
                return Exchange(self.venue, market_type, url=url, hosts=hosts)


class ChainResource(dg.ConfigurableResource[None]):
    """The networks of the configuration, and the address lists that go with them."""

    network: str
    _clients: "dict[str, Chain]" = PrivateAttr(default_factory=dict)

    @classmethod
    def configured(cls) -> "ChainResource":
        """As settings say; endpoints are read when first used, as they may be secrets."""
        return cls(network=get_config().chain.network)

    @property
    def networks(self) -> tuple[str, ...]:
        """All networks that are read, the first of the configuration first."""
        return tuple(get_networks())

    def client(self, network: str | None = None) -> "Chain":
        """The client of a network, opened once for each run; starts the sandbox where a URL is one of its."""
        name = network or self.network
        if name not in self._clients:
            from tracker_pipeline.resources.chain import Chain

            config, found = get_config().chain, get_networks()[name]
            self._clients[name] = Chain(
                name,
                found.chain_id,
                [resolve(url.get_secret_value()) for url in rpc_urls(found)],
                multicall3=config.multicall3,
                addresses_per_call=config.addresses_per_call,
                state_override=config.state_override,
                tokens={asset: token.address for asset, token in found.tokens.items()},
                confirmations=config.confirmations,
            )
        return self._clients[name]

    def steth_rate(self, number: int, block_hash: str, network: str | None = None) -> "Rate":
        """What the configured feed of a network says at a block.

        Raises:
            TransientError: the chain has another block of that number by now, or cannot be asked.
        """
        from tracker_pipeline.domain.price_feed import LATEST_ROUND_DATA, NO_FEED, judged

        name = network or self.network
        feed = get_networks()[name].steth_feed
        if feed is None:
            return NO_FEED
        block = self.client(name).block_numbered(number)
        if block.hash != block_hash:
            raise TransientError(
                f"block {number} of {name} is no longer {block_hash}: read the hour's balances again first"
            )
        returned = self.client(name).call(feed.address, LATEST_ROUND_DATA, block)
        max_age = timedelta(hours=feed.max_age_hours)
        return judged(returned, decimals=feed.decimals, at=block.timestamp, max_age=max_age)

    def listed(self, network: str | None = None) -> "list[ListedAddress]":
        """Lines of the configured address lists of a network."""
        name = network or self.network
        places = get_networks()[name].address_lists
        if not places:
            raise ConfigurationError(
                f"no address list of {name} is configured: name CSV files with the columns address,label under"
                f" endpoints.live.{'' if name == self.network else f'networks.{name}.'}address_lists"
            )
        return [entry for place in places for entry in _listed(place)]

    def excluded(self, network: str | None = None) -> "list[WellKnownAddress]":
        """What is not watched on a network: by the user's lists, by the packaged one, and configured contracts."""
        from tracker_pipeline.domain.addresses import WellKnownAddress
        from tracker_pipeline.resources.address_lists import read_exclusion_list, read_well_known_addresses

        config = get_networks()[network or self.network]
        own = [one for place in config.exclusion_lists for one in read_exclusion_list(resolve(place))]
        contracts = [
            WellKnownAddress(token.address, asset, "contract", "the contract of a token that is read")
            for asset, token in config.tokens.items()
        ]
        return [*own, *read_well_known_addresses(), *contracts]

    def universe(self, network: str | None = None) -> "pl.DataFrame":
        """The configured address lists of a network as rows of `onchain.whale_universe`."""
        from tracker_pipeline.domain.addresses import universe

        name = network or self.network
        return universe(name, self.listed(name), self.excluded(name))

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections of the run."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()


def _listed(place: str) -> "list[ListedAddress]":
    """The lines of a list, each with the place as configured for its source.

    What a sandbox:// place resolves to may have another port tomorrow, which must not make a new universe.
    """
    from tracker_pipeline.resources.address_lists import read_address_list

    resolved = resolve(place)
    lines = read_address_list(resolved)
    return [line if resolved == place else replace(line, source=place) for line in lines]
