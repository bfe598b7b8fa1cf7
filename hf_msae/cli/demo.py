"""Open the concept explorer in a browser: what a model sees in a picture, why things match, search, bias, steering.

Without a model it shows the one of rendered scenes that comes with the package, and needs no network. Pictures of
other models are embedded when it starts, unless --embeddings gives them.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar

from .._utils.argument_parser import MSAEArgumentParser
from ..hub.publishing.space_settings import DEFAULT_DATASET, DEFAULT_MODEL, ExplorerSettings

EXAMPLE = """\
  hf-msae demo
  hf-msae demo user/msae --dataset path/to/images --split train --embeddings embeddings/train --port 7860"""


@dataclass
class DemoArguments:
    """What is shown, and where."""

    _argument_group_name: ClassVar[str] = "explorer"

    model: str = field(
        default=DEFAULT_MODEL,
        metadata={"help": "MSAE of pooled image embeddings: a folder, a Hub id or the name of a released one."},
    )
    dataset: str = field(
        default=DEFAULT_DATASET,
        metadata={"help": "Pictures that are shown and searched: a folder of images, a data set, or scenes:SPLIT:N."},
    )
    split: str | None = field(default=None, metadata={"help": "Split of the data set, where it has several."})
    image_column: str = field(default="image", metadata={"help": "Its column of pictures."})
    embeddings: str | None = field(
        default=None, metadata={"help": "Embeddings of the same rows, as hf-msae extract writes them."}
    )
    patch_model: str | None = field(
        default=None,
        metadata={
            "help": "MSAE of a vision block of the same backbone, for maps of where a concept is. Unset: "
            "none, or scenes-patches beside the default model."
        },
    )
    backbone: str | None = field(
        default=None, metadata={"help": "Where the backbone is, if it is not where the MSAE says."}
    )
    max_images: int = field(default=2000, metadata={"help": "How many pictures, at most."})
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0 for other machines too."})
    port: int = field(default=7860, metadata={"help": "Port to listen on; 0 for any that is free."})
    open_browser: bool = field(default=False, metadata={"help": "Open the page in a browser."})
    mcp_server: bool = field(default=False, metadata={"help": "Serve its functions as MCP tools too (needs mcp)."})

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise ValueError(f"port has to be between 0 and 65535, got {self.port}")
        self.settings()

    def settings(self) -> ExplorerSettings:
        """What the explorer shows: what the flags say, then the variables MSAE_MODEL and so on, then the defaults."""
        given = {each.name: getattr(self, each.name) for each in fields(ExplorerSettings)}
        told = {
            name: value for name, value in given.items() if value != DemoArguments.__dataclass_fields__[name].default
        }
        return ExplorerSettings.from_environment(os.environ, **told)


def check_address(host: str, port: int) -> None:
    """Whether a server can listen there: to be known before models are loaded.

    Raises:
        OSError: the port is in use, or the address is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise OSError(f"--host {host} is no address: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} of {host} is in use: choose another by --port, or --port 0 for any") from error
        raise OSError(f"cannot listen on port {port} of {host} ({error.strerror}): choose others") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with these words, or those of the process."""
    parser = MSAEArgumentParser([DemoArguments], __doc__, EXAMPLE, prog="hf-msae demo", first_word="model")
    (args,) = parser.parse(argv)
    with parser.reporting_errors():
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        # A service is ended by this signal; as an exception it lets temporary folders be removed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        check_address(args.host, args.port)
        try:
            from ..explorer.guard import own_upload_folder

            own_upload_folder()  # before gradio is imported
            from ..explorer.app import build_demo, launch_options
            from ..explorer.page import check_mcp
        except ModuleNotFoundError as error:
            raise ImportError(f"the explorer needs {error.name}: pip install 'hf_msae[space]'") from error
        from ..explorer import Explorer

        if args.mcp_server:
            check_mcp()
        explorer = Explorer.load(args.settings())
        print(f"{len(explorer.images)} pictures, {len(explorer.concepts)} concepts", file=sys.stderr)
        build_demo(explorer).launch(
            server_name=args.host,
            server_port=args.port or None,
            inbrowser=args.open_browser,
            mcp_server=args.mcp_server,
            **launch_options(),
        )


if __name__ == "__main__":
    main()
