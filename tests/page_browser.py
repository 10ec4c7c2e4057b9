"""The chat page of `qnext serve` in a real browser: python tests/page_browser.py PROGRAM [SCREENSHOTS].

Needs the package selenium, chromium and chromedriver. The page comes from the server itself; for what
the bundled model would not say, answers come from a stand-in in front of it. Prints a line for each
check and exits with 1 if one failed. With a folder, screenshots go there.
"""

import http.client
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

HOSTILE = [
    "<script>window.harmed = 1</script>",
    "<img src=x onerror=window.harmed=1>",
    "<svg onload=window.harmed=1>",
    "<iframe srcdoc='<script>parent.harmed=1</script>'></iframe>",
    "[click](javascript:window.harmed=1)",
    "[click](  JaVaScRiPt:window.harmed=1)",
    "[click](data:text/html,<script>window.harmed=1</script>)",
    "[click](vbscript:x)",
    "<javascript:window.harmed=1>",
    "![x](javascript:window.harmed=1)",
    "![x\" onerror=\"window.harmed=1](https://a.example/x.png)",
    "[a](https://a.example/\" onclick=\"window.harmed=1)",
    "```html\n<script>window.harmed = 1</script>\n```",
    "```\"><script>window.harmed=1</script>\ncode\n```",
    "`<img src=x onerror=window.harmed=1>`",
    "| <img src=x onerror=window.harmed=1> | b |\n|---|---|\n| <b onmouseover=window.harmed=1> | d |",
    "$\\text{<img src=x onerror=window.harmed=1>}$",
    "$\\href{javascript:window.harmed=1}{x}$",
    "$$\\constructor{x}^{__proto__}$$",
    "# <a href=javascript:window.harmed=1>x</a>",
    "> " * 3000 + "<script>window.harmed=1</script>",
    "*" * 5000 + "a" + "_" * 5000,
    "[" * 5000 + "](" * 100,
    "$" + "{" * 3000 + "$",
    "- " * 3000 + "x",
    "`" * 5001,
    "~~" * 3000,
    "http://" * 2000,
    "*a " * 10000,
    "$$a\n" * 10000,
    "| a\n" * 10000,
    "[a](" * 10000,
    "- a\n\n" * 5000,
    "</textarea></style><script>window.harmed=1</script>",
    "\u202e\u0000\ufffe &lt;script&gt; &#x6a;avascript",
]

MATHEMATICS = {
    r"\frac{1}{2}": ["mfrac"],
    r"\sqrt[3]{x}": ["mroot"],
    r"x_i^2": ["msubsup"],
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}": ["mtable", "mtr", "mtd"],
    r"\left( \frac{a}{b} \right]": ["mfrac", "mo"],
    r"\mathbb{R}^n \to \hat{x}": ["msup", "mover"],
    r"\sum_{i=1}^n i \leq \lim_{x \to 0} f(x)": ["munderover", "munder"],
    r"\unknowncommand{x}": ["code"],
    r"\frac{1}": ["code"],
}

MARKDOWN = {
    "a *b* **c** `d`": "<p>a <em>b</em> <strong>c</strong> <code>d</code></p>",
    "snake_case_name and 2 * 3 * 4": "<p>snake_case_name and 2 * 3 * 4</p>",
    "# One\ntext": "<h2>One</h2><p>text</p>",
    "- a\n- b\n  - c": "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>",
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "> a\n> b": "<blockquote><p>a<br>b</p></blockquote>",
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "costs $5 and $6": "<p>costs $5 and $6</p>",
    "1 < 2 & 3": "<p>1 &lt; 2 &amp; 3</p>",
    "***a***": "<p><strong><em>a</em></strong></p>",
    "~~a~~ \\*b\\*": "<p><del>a</del> *b*</p>",
}


class StandIn:
    """Passes everything on to the server but chat requests, which it answers as `script` says."""

    def __init__(self, port):
        outer = self
        self.script = []
        self.requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                upstream.request("GET", self.path, headers={
                    "authorization": self.headers.get("authorization", "")})
                response = upstream.getresponse()
                body = response.read()
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.requests.append(json.loads(body))
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                try:
                    for event in outer.script:
                        if isinstance(event, float):
                            time.sleep(event)
                            continue
                        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                        self.wfile.flush()
                    self.wfile.write(b"data: [DONE]\n\n")
                except OSError:
                    outer.requests.append("hung up")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def chunk(**delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


class Page:
    def __init__(self, driver, screenshots):
        self.driver = driver
        self.screenshots = screenshots

    def until(self, condition, seconds=60):
        return WebDriverWait(self.driver, seconds).until(lambda _: condition())

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.until(lambda: (self.all(selector) or [None])[0])

    def texts(self, selector):
        return self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText.trim())",
            selector)

    def run(self, body, *arguments):
        """The value of an async function's body, in the page."""
        script = ("const done = arguments[arguments.length - 1]; const given = [...arguments];"
                  "(async () => {" + body + "})().then((value) => done({value}),"
                  " (problem) => done({problem: String(problem && problem.stack)}));")
        result = self.driver.execute_async_script(script, *arguments)
        assert "problem" not in result, result["problem"]
        return result.get("value")

    def size(self, width, height):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})

    def shot(self, name):
        if self.screenshots:
            self.driver.save_screenshot(os.path.join(self.screenshots, name + ".png"))

    def open(self, url):
        self.driver.get(url)
        self.driver.execute_script("localStorage.clear()")
        self.driver.get(url)
        self.until(lambda: self.texts("#model") == ["tiny-shakespeare"])

    def send(self, text):
        self.click("#message")
        self.one("#message").send_keys(text, Keys.ENTER)

    def idle(self):
        self.until(lambda: self.one("#send").get_attribute("aria-label") == "Send")

    def click(self, selector):
        self.one(selector).click()

    def set(self, label, value):
        self.click("#settings")
        for setting in self.all("dialog .setting"):
            if setting.text.startswith(label):
                field = setting.find_element(By.CSS_SELECTOR, "input, textarea")
                field.clear()
                field.send_keys(value)
        self.click("dialog .primary")
        self.until(lambda: not self.all("dialog"))


def check_policy(page, server, _):
    connection = http.client.HTTPConnection("127.0.0.1", server)
    for path in ("/", "/page/chat.js", "/page/style.css", "/page/icon.svg"):
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, path
        policy = response.getheader("content-security-policy")
        assert "default-src 'none'" in policy and "unsafe" not in policy, policy
        assert response.getheader("x-content-type-options") == "nosniff"
        assert not re.search(r"(?:src|href|url\()=?[\"']?(?:https?:)?//(?!www\.w3\.org)", body), path
    connection.request("GET", "/page/../api.h")
    assert connection.getresponse().status == 404


def check_conversation(page, server, _):
    page.open(f"http://127.0.0.1:{server}/")
    page.set("Most tokens", "24")
    page.set("Temperature", "1")
    page.shot("start")
    page.send("ROMEO:")
    page.idle()
    answer = page.until(lambda: page.texts(".assistant > .text"))[0]
    assert answer
    stats = page.texts(".assistant .stats")[0]
    assert re.search(r"24 tokens · [\d.]+ tokens/s · .* of \d+ prompt tokens cached", stats), stats
    # Made again, it is a second version, and the first is still there.
    page.click(".assistant [aria-label='Regenerate answer']")
    page.until(lambda: "2 of 2" in page.texts(".assistant .branches")[:1])
    page.idle()
    page.click(".assistant [aria-label='Earlier version']")
    page.until(lambda: page.texts(".assistant > .text")[0] == answer)
    # An edit begins a branch of its own.
    page.click(".user [aria-label='Edit message']")
    field = page.one("textarea.edit")
    field.clear()
    field.send_keys("JULIET:", Keys.CONTROL, Keys.ENTER)
    page.until(lambda: page.texts(".user > .text") == ["JULIET:"])
    page.idle()
    page.click(".user [aria-label='Earlier version']")
    page.until(lambda: page.texts(".user > .text") == ["ROMEO:"])
    # All of it is there after a reload.
    page.driver.refresh()
    page.until(lambda: page.texts(".user > .text") == ["ROMEO:"])
    assert page.texts(".assistant > .text")[0] == answer
    assert page.texts("#conversations .entry") == ["ROMEO:"]


def check_stop(page, server, _):
    page.open(f"http://127.0.0.1:{server}/")
    page.set("Most tokens", "3000")
    page.send("ROMEO:")
    page.until(lambda: len((page.texts(".assistant > .text") or [""])[0]) > 20)
    assert page.one("#send").get_attribute("aria-label") == "Stop"
    page.click("#send")
    page.idle()
    text = page.texts(".assistant > .text")[0]
    assert "stopped" in page.texts(".assistant .stats")[0]
    time.sleep(0.5)
    assert page.texts(".assistant > .text")[0] == text
    connection = http.client.HTTPConnection("127.0.0.1", server)

    def running():
        connection.request("GET", "/metrics")
        return re.search(r"^qnext_running (\d+)$", connection.getresponse().read().decode(),
                         re.M).group(1)
    page.until(lambda: running() == "0")


def check_markdown(page, server, _):
    page.open(f"http://127.0.0.1:{server}/")
    for text, wanted in MARKDOWN.items():
        made = page.run("""
            const {renderMarkdown} = await import("/page/markdown.js");
            const holder = document.createElement("div");
            holder.append(renderMarkdown(given[0]));
            return holder.innerHTML;""", text)
        assert made == wanted, f"{text!r} becomes {made!r}"
    for source, names in MATHEMATICS.items():
        made = page.run("""
            const {formula} = await import("/page/math.js");
            const holder = document.createElement("div");
            holder.append(formula(given[0], true));
            return [...holder.querySelectorAll("*")].map((one) => one.localName);""", source)
        assert set(names) <= set(made), f"{source} becomes {made}"
    # However a text came, it looks the same.
    text = "\n\n".join(list(MARKDOWN) + ["```c\nint x;\n```", "$$x$$"])
    same = page.run("""
        const {MessageView} = await import("/page/message.js");
        const node = {id: "n", parent: "root", children: [], role: "assistant", content: ""};
        const tree = {nodes: {root: {children: ["n"]}, n: node}};
        const view = new MessageView(tree, node, {});
        for (const letter of given[0]) { node.content += letter; view.update(true); }
        const {renderMarkdown} = await import("/page/markdown.js");
        const whole = document.createElement("div");
        whole.append(renderMarkdown(given[0]));
        return view.body.innerHTML === whole.innerHTML;""", text)
    assert same


def check_hostile(page, server, stand_in):
    page.open(stand_in.url)
    stand_in.script = [chunk(reasoning_content=HOSTILE[1])]
    stand_in.script += [chunk(content=text + "\n\n") for text in HOSTILE]
    stand_in.script += [chunk(tool_calls=[{"index": 0, "id": "c", "function": {
        "name": HOSTILE[0], "arguments": HOSTILE[1]}}])]
    begin = time.time()
    page.send(HOSTILE[1])
    page.until(lambda: page.texts(".assistant .stats"))
    page.idle()
    assert time.time() - begin < 30, "hostile text takes long"
    time.sleep(0.3)
    harm = page.driver.execute_script("""
        const log = document.getElementById("log");
        const found = [...log.querySelectorAll("script, iframe, img, object, embed, style, link, base")]
          .map((one) => one.outerHTML);
        for (const one of log.querySelectorAll("*"))
          for (const {name, value} of one.attributes)
            if (name.startsWith("on") || (name === "href" && !/^(https?|mailto):/.test(value)))
              found.push(name + "=" + value);
        return {found, harmed: window.harmed || null};""")
    assert harm == {"found": [], "harmed": None}, harm
    page.driver.refresh()
    page.until(lambda: page.texts(".assistant > .text"))
    assert page.driver.execute_script("return window.harmed || null") is None
    width = page.driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= 1200, width


def check_reasoning_and_tools(page, server, stand_in):
    page.open(stand_in.url)
    page.set("Tools", '[{"name": "weather", "parameters": {"type": "object"}}]')
    page.set("System prompt", "Be brief.")
    usage = {"prompt_tokens": 530, "completion_tokens": 9, "total_tokens": 539,
             "prompt_tokens_details": {"cached_tokens": 512},
             "completion_tokens_details": {"accepted_prediction_tokens": 3,
                                           "rejected_prediction_tokens": 1}}
    stand_in.requests.clear()
    stand_in.script = [
        chunk(role="assistant", content=""), chunk(reasoning_content="The weather is "), 0.05,
        chunk(reasoning_content="asked for."), chunk(content="Let me **look**."),
        chunk(tool_calls=[{"index": 0, "id": "call_1", "type": "function",
                           "function": {"name": "weather", "arguments": ""}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"city": '}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '"Verona"}'}}]),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": usage}]
    page.send("How is the weather?")
    page.until(lambda: page.texts(".result button"))
    page.idle()
    asked = stand_in.requests[0]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert asked["tools"][0]["function"]["name"] == "weather"
    assert "512 of 530 prompt tokens cached" in page.texts(".stats")[0]
    assert "75 % of drafts accepted" in page.texts(".stats")[0]
    assert page.texts(".call-name") == ["Calls weather"]
    assert '"city": "Verona"' in page.texts(".call pre")[0]
    folded = page.one(".reasoning")
    assert folded.get_attribute("open") is None
    page.shot("tools")
    stand_in.script = [chunk(content="Fair."),
                       {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    page.one(".result textarea").send_keys("sunny")
    page.click(".result button")
    page.until(lambda: page.texts(".assistant > .text")[1:] == ["Fair."])
    page.idle()
    messages = stand_in.requests[1]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[3] == {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    assert messages[2]["tool_calls"][0]["function"]["arguments"] == '{"city": "Verona"}'


def check_phone(page, server, stand_in):
    page.size(390, 844)
    page.open(stand_in.url)
    stand_in.script = [chunk(content="# A title\n\n" + "word " * 40 + "\n\n```c\n" + "x" * 400 +
                             "\n```\n\n| a | b |\n|--|--|\n| " + "long " * 30 + " | " + "y" * 90 +
                             " |\n\n$$" + "+".join("x_{%d}" % i for i in range(60)) + "$$\n\n" +
                             "unbroken" * 40)]
    page.send("Show wide things " + "w" * 200)
    page.idle()
    page.until(lambda: page.all(".assistant .code"))
    wide = page.driver.execute_script("""
        const log = document.getElementById("log");
        return [document.documentElement.scrollWidth, log.scrollWidth - log.clientWidth];""")
    assert wide == [390, 0], wide
    page.shot("phone")
    for selector in ("#menu", "#send", "#settings", "#theme"):
        size = page.one(selector).size
        assert size["width"] >= 36 and size["height"] >= 36, (selector, size)
    page.one("#menu").click()
    page.until(lambda: page.one("#new").is_displayed())
    page.one("#new").click()
    page.until(lambda: page.texts("#messages article") == [])
    page.until(lambda: not page.one("#list").is_displayed())
    page.one("#theme").click()
    assert page.driver.execute_script("return document.documentElement.dataset.theme")
    page.size(1200, 900)


def check_access(page, server, _):
    """Everything that can be pressed or filled has a name, and Tab reaches it."""
    page.open(f"http://127.0.0.1:{server}/")
    page.set("Most tokens", "8")
    page.send("ROMEO:")
    page.idle()
    nameless = page.driver.execute_script("""
        return [...document.querySelectorAll("button, input, textarea, select, a")]
          .filter((one) => !(one.getAttribute("aria-label") || one.innerText?.trim() ||
            one.closest("label")))
          .map((one) => one.outerHTML);""")
    assert nameless == [], nameless
    assert page.driver.execute_script("return document.documentElement.lang") == "en"
    assert page.texts("#status") in (["The answer is complete"], [""])
    page.driver.execute_script("document.activeElement.blur()")
    reached = set()
    for _ in range(25):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(page.driver.execute_script(
            "return document.activeElement.id || document.activeElement.ariaLabel"))
    assert {"new", "settings", "theme", "export", "message", "Regenerate answer"} <= reached, reached


def check_key(page, server, url):
    page.driver.get(url)
    page.driver.execute_script("localStorage.clear()")
    page.driver.get(url)
    field = page.one("dialog input[type=password]")
    field.send_keys("wrong", Keys.ENTER)
    page.until(lambda: not page.all("dialog") or
               page.one("dialog input[type=password]").get_attribute("value") == "wrong")
    field = page.one("dialog input[type=password]")
    field.clear()
    field.send_keys("secret", Keys.ENTER)
    page.until(lambda: page.texts("#model") == ["tiny-shakespeare"])
    page.set("Most tokens", "8")
    page.send("ROMEO:")
    page.until(lambda: page.texts(".assistant .stats"))
    page.idle()


def start(program, *more):
    server = subprocess.Popen([program, "serve", "--port", "0", "--threads", "1", *more],
                              stdout=subprocess.PIPE, text=True)
    url = re.search(r"http://\S+", server.stdout.readline()).group()
    return server, url + "/"


def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--no-first-run", "--disable-background-networking", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.set_script_timeout(60)
    return driver


def main():
    screenshots = sys.argv[2] if len(sys.argv) > 2 else None
    server, url = start(sys.argv[1])
    locked, locked_url = start(sys.argv[1], "--api-key", "secret")
    driver = browser()
    try:
        port = int(url.rsplit(":", 1)[1].strip("/"))
        page = Page(driver, screenshots)
        page.size(1200, 900)
        stand_in = StandIn(port)
        for check in (check_policy, check_conversation, check_stop, check_markdown, check_hostile,
                      check_reasoning_and_tools, check_phone, check_access):
            check(page, port, stand_in)
            print(check.__name__, "holds", flush=True)
        check_key(page, None, locked_url)
        print("check_key holds")
        wrong = [line for line in driver.get_log("browser")
                 if "Content Security Policy" in line["message"] or "Uncaught" in line["message"]]
        assert not wrong, wrong
    finally:
        driver.quit()
        for one in (server, locked):
            one.terminate()
        statuses = [one.wait(60) for one in (server, locked)]
    assert statuses == [0, 0], statuses


main()
