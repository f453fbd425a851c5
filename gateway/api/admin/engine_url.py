"""Which URLs an operator may give for an engine."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from gateway.errors import ApiError, invalid

RESOLVE_SECONDS = 5.0
LONGEST = 512
"""Characters of a URL."""
METADATA = frozenset({"100.100.100.200", "fd00:ec2::254"})
"""Metadata servers of clouds that are outside the link-local range."""


async def reachable(url: str) -> str:
    """Check that the URL names a host where an engine may be, and return it. ApiError 400.

    Metadata services and multicast addresses are refused. Private and loopback addresses are where engines belong. No redirect from there
    is followed.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise _bad_url("it is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > LONGEST or not (url.isascii() and url.isprintable()):
        raise _bad_url("http:// or https:// and a host")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment or " " in url:
        raise _bad_url("no user, query or fragment; a key goes in `api_key`")
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        raise _bad_url("its host has no address") from None
    if any(forbidden(str(address[0])) for *_, address in found):
        raise _bad_url("no engine may be at that address")
    return url.rstrip("/")


def forbidden(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_link_local or address.is_multicast or address.is_unspecified or str(address) in METADATA


def _bad_url(why: str) -> ApiError:
    return invalid(f"Invalid value for 'url': {why}.", "url")
