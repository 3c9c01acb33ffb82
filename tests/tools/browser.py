"""Headless Chromium, spoken to over its debugging pipe; the standard library only.

    with Browser() as b:
        b.open("http://127.0.0.1:9464/", 1280, 900)
        b.wait("document.title.includes('training')")
        b.screenshot("page.png")
"""
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time


def find():
    for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"):
        if name and shutil.which(name):
            return shutil.which(name)
    return None


class Browser:
    def __init__(self):
        self.folder = tempfile.mkdtemp()
        to_child, self.to = os.pipe()
        self.back, from_child = os.pipe()
        command = [find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                   "--no-first-run", "--disable-extensions", "--disable-background-networking", "--remote-debugging-pipe",
                   "--user-data-dir=" + self.folder, "about:blank"]

        def connect():  # the pipe is file descriptors 3 and 4
            first, second = os.dup(to_child), os.dup(from_child)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self.child = subprocess.Popen(command, preexec_fn=connect, close_fds=False, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        self.text, self.number, self.session, self.errors = b"", 0, None, []
        for target in self.call("Target.getTargets")["targetInfos"]:
            if target["type"] == "page":
                self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(domain + ".enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, seconds):
        end = time.time() + seconds
        while b"\0" not in self.text:
            if not select.select([self.back], [], [], max(0, end - time.time()))[0]:
                raise TimeoutError("the browser does not answer")
            more = os.read(self.back, 1 << 20)
            if not more:
                raise EOFError("the browser has gone")
            self.text += more
        message, self.text = self.text.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self.read(90)
            if reply.get("method") == "Runtime.exceptionThrown":
                self.errors.append(reply["params"]["exceptionDetails"].get("exception", {}).get("description", "?"))
            elif reply.get("method") == "Log.entryAdded" and reply["params"]["entry"]["level"] == "error":
                self.errors.append(reply["params"]["entry"]["text"])
            if reply.get("id") == self.number:
                if "error" in reply:
                    raise RuntimeError(method + ": " + reply["error"]["message"])
                return reply["result"]

    def size(self, width, height, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1,
                  mobile=phone)

    def open(self, url, width=1280, height=900):
        self.size(width, height)
        self.call("Page.navigate", url=url)

    def ask(self, expression):
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(expression + ": " + str(reply["exceptionDetails"]))
        return reply["result"].get("value")

    def wait(self, expression, seconds=60):
        end = time.time() + seconds
        while True:
            value = self.ask(expression)
            if value:
                return value
            if time.time() > end:
                raise TimeoutError("not so after %d s: %s" % (seconds, expression))
            time.sleep(0.1)

    def screenshot(self, path, whole=False):
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole,
                            **({"clip": dict(self.call("Page.getLayoutMetrics")["cssContentSize"], scale=1)} if whole else {}))
        with open(path, "wb") as out:
            out.write(base64.b64decode(picture["data"]))


if __name__ == "__main__":
    sys.exit(0 if find() else 1)
