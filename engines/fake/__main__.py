"""`python -m engines.fake --port P`: prints its URL once it serves; SIGINT or SIGTERM ends it."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

from aiohttp import web

from engines.fake.app import FakeEngine
from engines.fake.faults import Faults
from ratchet.process import die_with_parent


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engines.fake", description="A deterministic engine that speaks vLLM's routes.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--model", default="smollm2", help="the base's name")
    parser.add_argument("--slots", type=int, default=32, help="requests answered at a time")
    parser.add_argument("--token-ms", type=float, default=0, help="milliseconds a token takes")
    parser.add_argument("--die-after", type=int, help="reset the connection after this many tokens (0: before the first byte)")
    parser.add_argument("--hang-after", type=int, help="fall silent after this many tokens")
    parser.add_argument("--refuse", type=int, help="answer this status")
    parser.add_argument("--retry-after", type=int, help="seconds of a refusal's Retry-After")
    parser.add_argument("--exit", action="store_true", help="dying ends the process")
    parser.add_argument("--times", type=int, help="requests that the faults hit (default: all)")
    parser.add_argument("--lacks", action="append", default=[], metavar="ROUTE", help="a route it does not have; may be repeated")
    return parser.parse_args(argv)


async def serve(options: argparse.Namespace) -> None:
    """Serves until SIGINT or SIGTERM."""
    given = {field: getattr(options, field) for field in Faults.__struct_fields__}
    faults = Faults(**given)
    engine = FakeEngine(options.model, slots=options.slots, faults=faults)
    # Without handler_cancellation an abandoned answer would run on: no engine does that.
    runner = web.AppRunner(engine.app(), handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, options.host, options.port)
    await site.start()
    port = runner.addresses[0][1]
    sys.stdout.write(f"http://{options.host}:{port}\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    die_with_parent()
    asyncio.run(serve(arguments(sys.argv[1:])))


if __name__ == "__main__":
    main()
