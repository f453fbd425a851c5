"""gateway.relay.transport: whom it connects to, and whom it does not."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.relay.transport import NotConnected, Pool
from ratchet.process import free_port
from tests.integration.gateway.scripted_server import HELLO, pooled, post, serving, stay


async def test_nobody_there_is_not_connected() -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "http://no-such-host.invalid:80"):
        async with pooled(url) as pool:
            with pytest.raises(NotConnected):
                await pool.post("/v1/x", b"", {})


async def test_a_host_that_does_not_answer_is_not_connected_in_time() -> None:
    async with serving(stay) as server:
        pool = Pool(server.url.replace("http:", "https:"), 0.1)  # it waits for the end of a head and says nothing to a handshake
        with pytest.raises(NotConnected, match="in time"):
            await pool.post("/v1/x", b"", {})


async def test_an_ipv6_host_is_named_in_brackets() -> None:
    async with serving(HELLO, host="::1") as server, pooled(server.url) as pool:
        assert await post(pool) == (200, b"hello")
        assert f"host: {server.url.removeprefix('http://')}\r\n".encode() in server.connections[0][0]


def test_a_url_without_a_port_has_its_schemes_and_its_password_is_not_sent() -> None:
    for url, port, host in (("http://a", 80, "a"), ("https://a/x", 443, "a"), ("http://u:p@b:7/", 7, "b:7")):
        pool = Pool(url, 1.0)
        assert (pool._port, pool._host_line.split("\r\n")[0]) == (port, f"host: {host}")


def certified(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS with a certificate that nobody signed but itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made: Any = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    signed = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "both.pem").write_bytes(signed.public_bytes(pem) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


async def test_a_certificate_that_nobody_signed_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with serving(HELLO, tls=certified(tmp_path)) as server, pooled(server.url) as pool:
        with pytest.raises(NotConnected, match="certificate"):
            await pool.post("/v1/x", b"secret", {})
        assert not any(server.connections)


async def test_a_certificate_that_is_known_is_taken_and_of_its_own_host_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = certified(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "both.pem"))
    async with serving(HELLO, tls=tls) as server:
        async with pooled(server.url.replace("127.0.0.1", "localhost")) as pool:
            assert await post(pool) == (200, b"hello")
        async with pooled(server.url) as pool:
            with pytest.raises(NotConnected, match="certificate"):
                await pool.post("/v1/x", b"", {})
