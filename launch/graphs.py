"""`small4 serve --graphs`: SGLang's server with the graph door in front of its routes.

The door stands innermost in SGLang's app: what SGLang puts around its routes (access by key, decompression, CORS,
request metrics, our form of errors) stands around the graphs too.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from launch import serve
from launch.errors import LaunchError

# Arguments that leave the door without SGLang's app, or the graphs without a way to it.
CANNOT = {
    "tokenizer_worker_num": "each worker would keep graphs of its own: leave it at 1",
    "ssl_certfile": "graphs ask this server over plain HTTP: let a proxy in front of it speak TLS",
    "grpc_mode": "it serves no chat API: serve HTTP",
    "smg_grpc_mode": "it serves no chat API: serve HTTP",
    "encoder_only": "it serves no chat API: serve the whole model",
    "use_ray": "it starts its HTTP server elsewhere: leave it out",
}


def sglang() -> None:
    """SGLang's own command line, with the door put in place once its arguments are read."""
    from sglang.srt.plugins import load_plugins
    from sglang.srt.plugins.hook_registry import HookType

    from sgl_small4.plugin.hooks import Hook, apply

    load_plugins()  # as `sglang serve` does first; again is nothing
    apply(Hook("sglang.launch_server.run_server", HookType.AROUND, run_with_door))
    try:
        serve.sglang()
    except LaunchError as error:
        sys.exit(f"small4: {error}")


def run_with_door(run: Callable[[Any], None], server_args: Any) -> None:
    """Raises LaunchError, before a model is loaded, for arguments with which there can be no door."""
    check(server_args)
    install(server_args)
    run(server_args)


def check(server_args: Any) -> None:
    for name, reason in CANNOT.items():
        if getattr(server_args, name) not in (None, False, 1):
            raise LaunchError(f"--graphs does not go with --{name.replace('_', '-')}: {reason}.")


def install(server_args: Any) -> None:
    """Put the door into SGLang's app; nothing is asked before its first graph."""
    from sglang.srt.entrypoints.http_server import app
    from starlette.middleware import Middleware

    from programs.door import GraphDoor
    from programs.effort import solve
    from sgl_small4.prompt.backend import Small4Backend

    # Whoever reaches the door has shown the key that the routes ask for, so the graph's own requests may use it.
    key = server_args.api_key or server_args.admin_api_key
    door = Middleware(
        GraphDoor,
        solve=solve,
        backend=partial(Small4Backend, server_args.url(), api_key=key),
        model=server_args.served_model_name or server_args.model_path,
        cache_report=server_args.enable_cache_report,
    )
    app.user_middleware.append(door)  # innermost: the first of this list is outermost
