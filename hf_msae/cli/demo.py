"""Open the concept explorer in a browser: what a model sees in a picture, why things match, search, bias, steering.

By default it shows the MSAE of rendered scenes that comes with the package; clipart-image shows drawings by 122
people. Both need no network. With another model, the pictures are embedded at the start unless --embeddings is given.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from .._utils.argument_parser import MSAEArgumentParser, flag
from ..hub.publishing.space_settings import ExplorerSettings
from .checks import check_inputs

EXAMPLE = """\
  hf-msae demo
  hf-msae demo clipart-image
  hf-msae demo outputs/my-msae --embeddings embeddings/test
  hf-msae demo user/msae --dataset path/to/images --split train --port 7860
  hf-msae demo --swordbench outputs/swordbench --edits outputs/edits"""


@dataclass
class ServerArguments:
    """Where to show it."""

    _argument_group_name: ClassVar[str] = "server"

    host: str = flag("Address to listen on; 0.0.0.0 for other machines too.", "127.0.0.1")
    port: int = flag("Port to listen on; 0 for any free one.", 7860)
    root_path: str | None = flag(
        "Path under which a proxy serves the page, such as /concepts, or its full address (docs/space.md).", None
    )
    open_browser: bool = flag("Open the page in a browser.", False)
    mcp_server: bool = flag("Also serve the functions of the page as MCP tools (needs the package mcp).", False)

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise ValueError(f"port has to be between 0 and 65535, got {self.port}")
        if self.root_path and not self.root_path.startswith(("/", "http://", "https://")):
            raise ValueError(f"root_path has to begin with / or be an address (https://...), got {self.root_path!r}")


def check_address(host: str, port: int) -> None:
    """Check that a server can listen on an address, before models are loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        what = f"cannot listen on --host {host}, --port {port}: {error.strerror}"
        raise OSError(f"{what}; name others (--port 0 is any free port)") from error


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Context in which SIGTERM, which stops services, raises SystemExit: so temporary folders are removed."""
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    kinds = [ExplorerSettings, ServerArguments]
    parser = MSAEArgumentParser(kinds, __doc__, EXAMPLE, prog="hf-msae demo", first_words=["model"])
    settings, args = parser.parse(argv)
    with parser.reporting_errors(), stopped_by_sigterm():
        settings = ExplorerSettings.from_environment(os.environ, **settings.chosen())
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        check_address(args.host, args.port)
        check_inputs(settings.embeddings)
        try:
            from ..explorer.housekeeping import gradio_without_stubs, own_upload_folder

            own_upload_folder()  # before gradio is imported
            with gradio_without_stubs():
                import gradio  # noqa: F401
            from ..explorer.app import build_demo, launch_options
            from ..explorer.page import check_mcp
        except ModuleNotFoundError as error:
            raise ImportError(f"the explorer needs {error.name}: pip install 'hf_msae[space]'") from error
        from ..explorer import Explorer

        if args.mcp_server:
            check_mcp()
        explorer = Explorer.load(settings)
        print(f"{len(explorer.images)} pictures, {len(explorer.concepts)} concepts", file=sys.stderr)
        build_demo(explorer).launch(
            server_name=args.host,
            server_port=args.port or None,
            root_path=args.root_path,
            inbrowser=args.open_browser,
            mcp_server=args.mcp_server,
            **launch_options(),
        )
