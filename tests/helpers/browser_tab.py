"""Pages in a real browser without a window, driven through a pipe by the DevTools protocol; needs no package."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from helpers.waiting import PATIENCE, eventually

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# The browser finds nothing but servers of this machine, and has no proxy: what a page asks for elsewhere fails, and is
# recorded all the same.
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--no-proxy-server", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
)  # fmt: skip


def browser() -> str | None:
    """The path of a browser, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Tab:
    """A tab of the browser."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing, self._rest, self._count = reading, writing, b"", 0
        self.session, self.events = "", list[dict[str, Any]]()
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol, and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            found = os.read(self._reading, 2**20)
            assert found, "the browser has ended"
            self._rest += found
        first, self._rest = self._rest.split(b"\0", 1)
        return json.loads(first)

    def open(self, address: str | Path, width: int, *, dark: bool = False) -> None:
        """Open an address or a file in a window of so many pixels, and forget what earlier pages did."""
        self.resize(width, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.send("Emulation.setEmulatedMedia", features=[scheme, still])
        self.events.clear()
        self.send("Page.navigate", url=address if isinstance(address, str) else address.absolute().as_uri())
        while not self._heard("Page.loadEventFired"):
            self.events.append(self._next())

    def resize(self, width: int, *, mobile: bool = False) -> None:
        """Give the window another width, in pixels."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript on the page, or of what it promises."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        return eventually(lambda: self.value(expression))

    def press(self, key: str, times: int = 1) -> None:
        """Press a named key, as ArrowRight, on what has the focus."""
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def requests(self) -> list[str]:
        """What the page has asked for, itself and sockets included."""
        sent = [one["request"]["url"] for one in self._heard("Network.requestWillBeSent")]
        return [*sent, *(one["url"] for one in self._heard("Network.webSocketCreated"))]

    def complaints(self) -> list[str]:
        """What the browser says of the page: violations of its policy, errors of scripts, and what these print."""
        said = self._heard("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(one) for one in said]

    def errors(self) -> list[str]:
        """What scripts of the page have thrown and not caught."""
        return [json.dumps(one) for one in self._heard("Runtime.exceptionThrown")]

    def _heard(self, *methods: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") in methods]

    def screenshot(self, path: Path) -> None:
        """Save the whole page as a PNG file."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def tab() -> Iterator[Tab]:
    """A tab of a new browser, which ends with the block."""
    program = browser()
    assert program is not None
    (their_input, writing), (reading, their_output) = os.pipe(), os.pipe()
    joined = f'exec "$@" 3</dev/fd/{their_input} 4>/dev/fd/{their_output}'
    # It would end at once if its own temporary folder could not be removed while its helpers still write there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        command = ["sh", "-c", joined, "sh", program, *OPTIONS, f"--user-data-dir={home}"]
        process = subprocess.Popen(
            command, pass_fds=(their_input, their_output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(their_input)
        os.close(their_output)
        try:
            yield Tab(reading, writing)
        finally:
            os.close(writing)
            os.close(reading)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
