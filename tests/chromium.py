"""A headless Chromium driven over its DevTools pipe: JSON between zero bytes on two descriptors.

Chromium reads commands from file descriptor 3 and answers on 4, so no other package is needed.
"""

import json
import os
import subprocess
import sys
import time

LAUNCHER = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3])
os.dup2(commands, 3), os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A headless Chromium: one page, its console, its errors and its requests."""

    def __init__(self, executable, folder):
        commands, self._send = os.pipe()
        self._receive, answers = os.pipe()
        words = [sys.executable, "-c", LAUNCHER, str(commands), str(answers), executable]
        words += "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run".split()
        words += "--disable-background-networking --disable-component-update".split()
        words += ["--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
        words += [f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            words, pass_fds=(commands, answers), stderr=subprocess.DEVNULL
        )
        os.close(commands), os.close(answers)
        self._buffer, self._count, self._session, self.events = b"", 0, None, []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _read(self):
        while b"\0" not in self._buffer:
            piece = os.read(self._receive, 1 << 20)
            assert piece, "Chromium ended early"
            self._buffer += piece
        text, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def open(self, address):
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def js(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression, seconds=8.0):
        end = time.monotonic() + seconds
        while not self.js(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def complaints(self):
        """Console messages, exceptions, and every request but the page's own."""
        self.js("0")  # what came before it has arrived
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        found = [event for event in self.events if event.get("method") in names]
        for event in self.events:
            if event.get("method") == "Network.requestWillBeSent":
                address = event["params"]["request"]["url"]
                if not address.startswith(("file:", "data:")):
                    found.append(address)
        return found

    def close(self):
        os.close(self._send)  # Chromium ends with its pipe
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._receive)
