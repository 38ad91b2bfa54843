"""The client's address, also behind proxies."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from starlette.types import Scope

from service.lists import split_list
from service.settings import UNIX_PEER

Address = IPv4Address | IPv6Address

# A client can write any number of addresses before those that proxies append.
MAX_HOPS: Final = 16


class Clients:
    """Tells the address of the client that sent a request.

    Args:
        trusted: The setting `trusted_proxies`.
    """

    def __init__(self, trusted: str | None = None) -> None:
        proxies = split_list(trusted)
        self._trusts_unix = UNIX_PEER in proxies
        self._networks = [ip_network(proxy) for proxy in proxies if proxy != UNIX_PEER]
        self._trusts_nobody = not proxies

    def address(self, scope: Scope) -> str:
        """The peer's address; behind trusted proxies, the last one that they do not vouch for."""
        peer: tuple[str, int] | None = scope.get("client")
        told = peer[0] if peer else UNIX_PEER
        if self._trusts_nobody or not self._trusts(told):
            return told
        for text in _forwarded(scope):
            address = _parsed(text)
            if address is None:
                break
            told = str(address)
            if not self._trusts(told):
                break
        return told

    def _trusts(self, told: str) -> bool:
        address = _parsed(told)
        if address is None:
            return told == UNIX_PEER and self._trusts_unix
        return any(address in network for network in self._networks)


def _forwarded(scope: Scope) -> list[str]:
    """The addresses that proxies have appended, the last one first."""
    fields = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    listed = b",".join(fields).decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:]
    return listed[::-1]


def _parsed(text: str) -> Address | None:
    """An IP address, which may have a port; None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
