"""Channels that messages are sent to: Slack webhooks and whatever else apprise knows, by URL from the environment.

What belongs here: sending one message to one channel. What does not: what is said and how often (`operations`).
"""

import os
from dataclasses import dataclass

from pydantic import SecretStr

from tracker_pipeline.resources.errors import PermanentError

ALERT_VARIABLE = "TRACKER_ALERT_URLS"
REPORT_VARIABLE = "TRACKER_REPORT_URLS"


@dataclass(frozen=True)
class Channel:
    """One address that messages go to.

    Attributes:
        name: kind and number, such as slack-1: fit for records, without anything of the URL's secrets.
        url: as apprise takes it; a Slack webhook's own URL is one.
    """

    name: str
    url: SecretStr

    def send(self, title: str, body: str) -> bool:
        """Send a message in Markdown; whether the channel took it."""
        import apprise  # 0.2 s, and only where something is sent

        target = apprise.Apprise()
        target.add(self.url.get_secret_value())
        return bool(target.notify(title=title, body=body, body_format=apprise.NotifyFormat.MARKDOWN))


def channels(variable: str) -> list[Channel]:
    """The channels that a variable names, URLs separated by commas or spaces; none where it is unset.

    Raises:
        PermanentError: one of them is no address that apprise knows. The text names its place, not the URL.
    """
    import apprise

    urls = os.environ.get(variable, "").replace(",", " ").split()
    found = []
    for number, url in enumerate(urls, start=1):
        target = apprise.Apprise.instantiate(url)
        if target is None:
            raise PermanentError(
                f"URL {number} of {variable} is of no kind that apprise knows: a Slack webhook looks like"
                " https://hooks.slack.com/services/A/B/C, any JSON receiver like json://host:port/path"
            )
        kind = str(target.service_name).split()[0].lower()
        found.append(Channel(f"{kind}-{number}", SecretStr(url)))
    return found


def report_channels() -> list[Channel]:
    """Where reports go: their own channels, or those of the alerts."""
    return channels(REPORT_VARIABLE) or channels(ALERT_VARIABLE)
