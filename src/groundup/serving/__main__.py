"""``python -m groundup.serving BUNDLE``: the server alone, as small and quick to start as it gets."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from groundup.errors import GroundupError
from groundup.serving import server


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; the status is the error's ``exit_code`` where there is one."""
    parser = argparse.ArgumentParser(prog="python -m groundup.serving", description="Serve a bundle over HTTP.")
    parser.add_argument("bundle", type=Path, help="the folder that `groundup run` made")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: %(default)s; 0 takes a free one)")
    parser.add_argument("--token-file", type=Path, help=f"file whose first line clients must send as bearer token (or set {server.TOKEN})")
    parser.add_argument("--allow-open", action="store_true", help="listen on an address that others reach without a token")
    given = parser.parse_args(arguments)
    try:
        server.run(given.bundle, host=given.host, port=given.port, token_file=given.token_file, allow_open=given.allow_open)
    except GroundupError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
