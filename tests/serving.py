"""`qnext serve` of the bundled model, for the tests that drive it with the clients of others."""

import contextlib
import json
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = "tiny-shakespeare"
EXPECTED = json.load(open(os.path.join(ROOT, "models", MODEL, "expected.json")))
KEY = "key"


@contextlib.contextmanager
def serving(program, *options):
    """The server's URL, while it runs. It must end in peace."""
    server = subprocess.Popen(
        [program, "serve", "--port", "0", "--api-key", KEY, *options],
        stdout=subprocess.PIPE, text=True)
    try:
        yield re.search(r"https?://\S+", server.stdout.readline()).group()
    finally:
        server.terminate()
        status = server.wait(60)
    assert status == 0, f"the server ended with {status}"


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def run(checks, *arguments):
    for check in checks:
        check(*arguments)
        print(check.__name__, "holds", flush=True)
