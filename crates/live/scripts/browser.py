"""Opens pages in headless Chromium, waits for texts, saves screenshots; JSON on stdout.

  browser.py --chromium BINARY --profile NEW_FOLDER --timeout SECONDS PLAN.json

PLAN.json is a list of steps, run in one tab in order:
  {"url": …, "expect": [texts], "screenshot": "file.png"}
A step with "click" instead of "url" clicks the first element whose own text or label is that text.
A step without "screenshot" takes none.
The answer is a list with, per step, which texts were found, how long it took and, where one was
missing, the page's text; nothing is opened after such a step. Chromium is driven over --remote-debugging-pipe (NUL-separated JSON on
descriptors 3 and 4), so no port is opened and no package beyond the standard library is needed.
"""

import argparse
import base64
import json
import os
import select
import subprocess
import sys
import time

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--window-size=1600,1000",
    "--remote-debugging-pipe",
]
POLL_SECONDS = 0.2
TEXT = "document.body ? document.body.innerText : ''"
# Where to click: menus and the like want a real mouse, not a click from a script.
PLACE = """(() => {
  const wanted = %s;
  const all = [...document.querySelectorAll('a, button, [role], label, td, th, span, div, p')];
  const own = e => [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('').trim();
  const named = e => e.getAttribute('aria-label') === wanted || own(e) === wanted;
  const hit = all.find(e => named(e) && e.getClientRects().length > 0);
  if (!hit) return null;
  hit.scrollIntoView({block: 'nearest', inline: 'nearest'});
  const box = hit.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})()"""


class Browser:
    """One headless Chromium with one tab."""

    def __init__(self, binary, profile, deadline):
        self.deadline = deadline
        to_read, self.write_end = os.pipe()
        self.read_end, to_write = os.pipe()

        def descriptors():
            # dup2 onto 3 and 4 must not overwrite an end that is still needed.
            a, b = os.dup(to_read), os.dup(to_write)
            a, b = (os.dup(a) if a < 5 else a), (os.dup(b) if b < 5 else b)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen(
            [binary, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=sys.stderr,
            close_fds=False,
            preexec_fn=descriptors,
        )
        os.close(to_read)
        os.close(to_write)
        self.buffer = b""
        self.number = 0
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self.call("Page.enable")

    def call(self, method, parameters=None):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters or {}}
        if not method.startswith("Target."):
            message["sessionId"] = self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                left = self.deadline - time.monotonic()
                if left <= 0 or not select.select([self.read_end], [], [], left)[0]:
                    raise TimeoutError(f"no answer to {method}")
                chunk = os.read(self.read_end, 1 << 16)
                if not chunk:
                    raise RuntimeError(f"Chromium went away at {method}")
                self.buffer += chunk
            text, self.buffer = self.buffer.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def evaluate(self, expression):
        return self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True})["result"].get("value")

    def click(self, name):
        """Whether there was something of this text or label to click on."""
        place = self.evaluate(PLACE % json.dumps(name))
        if place is None:
            return False
        for kind, buttons in (("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)):
            where = {"type": kind, "x": place[0], "y": place[1], "buttons": buttons}
            if kind != "mouseMoved":
                where |= {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", where)
        return True

    def until(self, condition):
        """Whether the condition came true before the deadline."""
        while True:
            if condition():
                return True
            if time.monotonic() + POLL_SECONDS > self.deadline:
                return False
            time.sleep(POLL_SECONDS)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(browser, step):
    began = time.monotonic()
    result = {"found": [], "missing": []}
    if "click" in step:
        result["clicked"] = browser.until(lambda: browser.click(step["click"]))
    else:
        browser.call("Page.navigate", {"url": step["url"]})
    expected = step["expect"]
    text = ""

    def all_there():
        nonlocal text
        text = browser.evaluate(TEXT) or ""
        return all(e in text for e in expected)

    browser.until(all_there)
    result["found"] = [e for e in expected if e in text]
    result["missing"] = [e for e in expected if e not in text]
    if result["missing"]:
        result["text"] = text[:1500]
    if "screenshot" in step:
        picture(browser, step["screenshot"])
    result["seconds"] = round(time.monotonic() - began, 2)
    return result


def picture(browser, path):
    # A moment for what is painted after the text, then the picture of what is there.
    time.sleep(1)
    # The page may be past its deadline; the picture of it is what explains why.
    browser.deadline = max(browser.deadline, time.monotonic() + 10)
    data = browser.call("Page.captureScreenshot", {"format": "png"})["data"]
    with open(path, "wb") as file:
        file.write(base64.b64decode(data))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("plan")
    options = parser.parse_args()
    with open(options.plan, encoding="utf-8") as file:
        plan = json.load(file)
    browser = Browser(options.chromium, options.profile, time.monotonic() + options.timeout)
    try:
        results = []
        for step in plan:
            browser.deadline = time.monotonic() + options.timeout
            results.append(run(browser, step))
            if results[-1]["missing"]:
                break
    finally:
        browser.close()
    json.dump(results, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
