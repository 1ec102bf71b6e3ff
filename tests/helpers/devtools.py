"""A headless Chromium, driven over its DevTools protocol: load a page, ask it, press its keys, take its picture."""

import base64
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.waiting import eventually

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Keeps Chromium itself quiet: no updates, no first-run page, no sandbox (it needs rights that containers lack).
SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--remote-debugging-port=0", "--remote-allow-origins=*", "--hide-scrollbars", "--force-prefers-reduced-motion"),
)
SECONDS = 60.0  # after which a test gives up what a page never shows


def chromium() -> str | None:
    """The program, None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Page:
    """A page of the browser; `requests` holds the address of everything it has asked for, `errors` what it threw."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.count = socket, 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": values}))
        while True:
            message = json.loads(self.socket.recv(timeout=SECONDS))
            if message.get("id") == self.count:
                assert "error" not in message, (method, message["error"])
                return dict(message["result"])
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        match event["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(event["params"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(event["params"]["exceptionDetails"])[:500])

    def show(self, url: str, width: int = 1200, height: int = 900) -> None:
        """Load an address in a window of this size."""
        self.resize(width, height)
        self.call("Page.navigate", url=url)

    def resize(self, width: int, height: int = 900) -> None:
        """Give the window another size, in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def ask(self, script: str) -> Any:
        """The value of an expression of JavaScript on the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = SECONDS) -> Any:
        """The value of an expression as soon as it is true."""
        return eventually(lambda: self.ask(script), seconds)

    def press(self, key: str, times: int = 1) -> None:
        """Press a named key, as ArrowRight, on what has the focus."""
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def picture(self, path: Path, *, whole: bool = True) -> Path:
        """Save a picture of the page: whole, or what the window shows."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))
        return path


@contextmanager
def open_page(folder: Path) -> Iterator[Page]:
    """A blank page of a browser that keeps its files in `folder`, and ends with the block."""
    from websockets.sync.client import connect

    program = chromium()
    assert program is not None
    # Without addresses of proxies, which the loopback needs no more than its test.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [program, *SWITCHES, f"--user-data-dir={folder}", "about:blank"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    browser = subprocess.Popen(command, env=environment, **quiet)
    try:
        active = folder / "DevToolsActivePort"
        port = eventually(lambda: active.exists() and active.read_text().partition("\n")[0], SECONDS)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS) as answer:
            pages = [one for one in json.load(answer) if one["type"] == "page"]
        with connect(pages[0]["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        browser.terminate()
        browser.wait(SECONDS)
