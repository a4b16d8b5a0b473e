"""`nertool serve`: models behind HTTP."""

from __future__ import annotations

import sys

import click

from nertool.cli.common import DEVICE, check_service, examples, model_folder
from nertool.cli.door import explains_errors, say


@click.command(
    epilog=examples(
        "nertool serve runs/demo",
        "nertool serve conll03.onnx",
        "nertool serve en=runs/conll03 zh=runs/weibo --port 9000",
        "NERTOOL_API_KEY=secret nertool serve runs/demo --host 0.0.0.0 --workers 4",
    )
)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@DEVICE
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8000,
    show_default=True,
    help="Port; 0: any that is free.",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), metavar="N", default=1, show_default=True, help="Number of processes."
)
@click.option(
    "--max-chars",
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    default=100_000,
    show_default=True,
    help="Characters of all texts of a request, at most.",
)
@click.option(
    "--max-concurrency",
    type=click.IntRange(1, 10_000),
    metavar="N",
    default=100,
    show_default=True,
    help="Requests that a worker answers at a time, at most; further ones get 503.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    metavar="SECONDS",
    default=30,
    show_default=True,
    help="Seconds until a request is given up, and a silent connection closed.",
)
@click.option(
    "--api-key",
    metavar="KEY",
    envvar="NERTOOL_API_KEY",
    help="Key that requests must show. Other users of the machine can read options: prefer $NERTOOL_API_KEY.",
)
@click.option(
    "--label-studio", is_flag=True, help="Answer Label Studio too, as its ML backend, with the first model."
)
@explains_errors
def serve(
    models: tuple[str, ...],
    device: str,
    host: str,
    port: int,
    workers: int,
    max_chars: int,
    max_concurrency: int,
    timeout: float,
    api_key: str | None,
    label_studio: bool,
) -> None:
    """Answer requests over HTTP, and show a page to try models.

    MODEL is a run directory, a file of `nertool export` (which needs no torch) or hub:owner/name@revision, each
    with NAME= before it or not; without one, $NERTOOL_MODEL or runs/latest.

    Requests for tagging go to /tag, as JSON; /docs describes them, and / is the page. The access log
    is on standard output, a JSON object a line, without the texts. SIGTERM and Ctrl-C end the
    service when the requests that it has are answered.
    """
    check_service("serving", api_key, "prometheus_client")
    from nertool.serving.settings import LOCAL_ADDRESSES, Settings, named_models

    named = named_models(models or [str(model_folder(None))], model_folder)
    settings = Settings(
        named,
        device=device,
        host=host,
        port=port,
        workers=workers,
        max_chars=max_chars,
        max_concurrency=max_concurrency,
        timeout=timeout,
        api_key=api_key,
        label_studio=label_studio,
    )
    from nertool.serving.server import listen, url
    from nertool.serving.server import serve as run

    with listen(host, port) as server:

        def announce() -> None:
            say(f"serving {', '.join(named)} at {url(server)}; stop with Ctrl-C")
            if api_key is None and host not in LOCAL_ADDRESSES:
                say("whoever reaches this address can use it: no API key is asked for")

        if not run(settings, server, announce):
            sys.exit(1)
