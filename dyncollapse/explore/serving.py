"""The server of the page: on the loopback only, until Ctrl-C."""

import json
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from dyncollapse.explore.ended import ENDED
from dyncollapse.explore.options import HOST
from dyncollapse.runtime.extras import need
from dyncollapse.runtime.files import write_bytes
from dyncollapse.runtime.settings import SettingError, quoted

PAGE = Path(__file__).with_name("page.py")
LOCAL = {HOST, "localhost"}
# Seconds for which a page that is open is waited for at the end: it closes its connection as soon as it is told.
PATIENCE = 1
Asgi = Callable[[Any, Any, Any], Awaitable[None]]


def open_port(port: int | None) -> socket.socket:
    """Take a port of the loopback, so that it cannot be lost before the server starts.

    Args:
        port: Its number; None for any free one.

    Returns:
        The listening socket.

    Raises:
        SettingError: For a port that is taken, or that only the administrator may use.

    Examples:
        >>> with open_port(None) as found:
        ...     found.getsockname()[0]
        '127.0.0.1'
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform != "win32":  # there the option would let two programs share the port
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port or 0))
        found.listen()
    except OSError as error:
        found.close()
        raise SettingError(
            f"`port` is {port}, and it cannot be used ({os.strerror(error.errno or 0)}); give another, or leave it out"
        ) from None
    return found


def serve(listener: socket.socket, *, browser: bool, ready: Callable[[str], None], page: Path = PAGE) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        listener: A socket of `open_port`, which is closed at the end.
        browser: Whether the page opens in a browser.
        ready: Called with the page's address when it can be loaded.
        page: The notebook.

    Raises:
        SettingError: Where marimo is not installed.
    """
    need("marimo", "explore", "explore needs marimo")
    import uvicorn

    port = listener.getsockname()[1]
    address = f"http://{HOST}:{port}"

    def started() -> None:
        ready(address)
        if browser and _can_show():
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    config = uvicorn.Config(
        _application(page, started), log_level="critical", timeout_graceful_shutdown=PATIENCE, server_header=False
    )
    with listener, suppress(KeyboardInterrupt):  # which uvicorn raises again when it has ended
        uvicorn.Server(config).run(sockets=[listener])


def copy_page(path: Path) -> None:
    """Write the notebook and its style to a new file, and to one of the same name that ends in .css.

    Args:
        path: Where the notebook goes; it must end in .py.

    Raises:
        SettingError: For another ending, a file that is there already, and a folder that is missing or cannot be
            written.
        CannotWrite: Where a file cannot be written.
    """
    if path.suffix != ".py":
        raise SettingError(f"`copy` is {quoted(str(path))}; a notebook's name ends in .py")
    folder, style = path.parent, path.with_suffix(".css")
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        wrong = "cannot be written" if folder.is_dir() else "is no folder"
        raise SettingError(f"`copy` is {quoted(str(path))}, and {quoted(str(folder))} {wrong}; name another folder")
    if taken := next((one for one in (path, style) if os.path.lexists(one)), None):
        raise SettingError(f"`copy` would replace {quoted(str(taken))}; name a new file")
    text = PAGE.read_text(encoding="utf-8").replace(f'"{PAGE.stem}.css"', json.dumps(style.name))
    write_bytes(style, PAGE.with_suffix(".css").read_bytes())
    write_bytes(path, text.encode())


def _application(page: Path, started: Callable[[], None]) -> Asgi:
    """The page as marimo serves it, for requests from this machine's browsers only."""
    from marimo import create_asgi_app
    from starlette.applications import Starlette
    from starlette.routing import Mount

    served: list[Any] = []

    def keep(app: Any) -> Any:
        served.append(app)
        return app

    application = create_asgi_app(quiet=True).with_app(path="", root=str(page), middleware=[keep]).build()

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        threading.Thread(target=_import_early, daemon=True).start()
        started()
        yield
        ENDED.set()
        for app in served:  # else threads of open pages would wait for more, and the program for them
            await app.state.session_manager.shutdown()

    return _from_here(Starlette(routes=[Mount("/", application)], lifespan=lifespan))


def _import_early() -> None:
    """Import what the page computes with, while the browser loads it."""
    from dyncollapse.runtime.process import use_threads

    with suppress(ImportError):  # the page itself says what is missing
        use_threads(1)  # networks are small, and several pages may be open
        import dyncollapse.explore.pictures
        import dyncollapse.explore.texts  # noqa: F401


def _from_here(application: Asgi) -> Asgi:
    """Refuse what other sites send by way of the user's browser, and names that only lead to the loopback."""

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket") or is_local(dict(scope["headers"])):
            await application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"This page is for browsers on the same machine.\n"})

    return checked


def is_local(headers: dict[bytes, bytes]) -> bool:
    """Whether a request is for this machine by name, and comes from the page itself or from no page.

    Args:
        headers: Of the request, names in lower case.

    Returns:
        Whether it may be answered.

    Examples:
        >>> is_local({b"host": b"127.0.0.1:8000"}), is_local({b"host": b"example.org:8000"})
        (True, False)
        >>> is_local({b"host": b"localhost:8000", b"origin": b"https://example.org"})
        False
    """
    host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
    return host.rpartition(":")[0] in LOCAL and origin in ("", f"http://{host}")


def _can_show() -> bool:
    """Whether there is a screen; without one, a browser of text would take the terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
