"""`qnext serve` over TLS, with a certificate of our own: python tests/tls_client.py PROGRAM.

Needs the package openai and the program openssl; curl too where it is. Prints a line for each check and exits with
1 if one failed.
"""

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import openai

from serving import EXPECTED, KEY, MODEL, raises, run, serving


def check_completions(url, certificate):
    client = openai.OpenAI(
        base_url=url + "/v1", api_key=KEY, max_retries=0,
        http_client=openai.DefaultHttpxClient(
            verify=ssl.create_default_context(cafile=certificate)))
    for reference in EXPECTED:
        stream = client.completions.create(
            model=MODEL, prompt=reference["prompt"], max_tokens=64, temperature=0, stream=True)
        text = "".join(chunk.choices[0].text for chunk in stream)
        assert reference["prompt"] + text == reference["greedy_text"], text


def address_of(url):
    host, port = re.match(r"https://(.*):(\d+)", url).groups()
    return host, int(port)


def check_strangers(url, _):
    stranger = openai.OpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0)
    raises(openai.APIConnectionError, lambda: list(stranger.models.list()))
    # No TLS at all: the connection ends without an answer.
    with socket.create_connection(address_of(url)) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        plain.settimeout(30)
        assert not plain.recv(100).startswith(b"HTTP")


def check_versions(url, certificate):
    context = ssl.create_default_context(cafile=certificate)
    host, _ = address_of(url)
    with socket.create_connection(address_of(url)) as plain:
        with context.wrap_socket(plain, server_hostname=host) as connection:
            assert connection.version() in ("TLSv1.2", "TLSv1.3"), connection.version()


def connect(url, certificate):
    return http.client.HTTPSConnection(
        *address_of(url), context=ssl.create_default_context(cafile=certificate))


def metric(connection, name):
    connection.request("GET", "/metrics", headers={"authorization": "Bearer " + KEY})
    text = connection.getresponse().read().decode()
    return int(re.search(rf"^{name} (\d+)$", text, re.M).group(1))


def check_streams_that_are_cut_off(url, certificate):
    watcher = connect(url, certificate)
    slots = metric(watcher, "qnext_free_slots")
    client = connect(url, certificate)
    client.request("POST", "/v1/completions", headers={"authorization": "Bearer " + KEY},
                   body=json.dumps({"prompt": "ROMEO:", "max_tokens": 4000, "stream": True,
                                    "ignore_eos": True}))
    response = client.getresponse()
    assert response.status == 200
    assert response.read(5) == b"data:"
    # As clients do that end in order: TLS says goodbye before the connection ends.
    try:
        client.sock.unwrap()
    except (OSError, ssl.SSLError):
        pass
    client.close()

    def is_free():
        return (metric(watcher, "qnext_abandoned_total") == 1 and
                metric(watcher, "qnext_running") == 0 and
                metric(watcher, "qnext_free_slots") == slots)
    end = time.time() + 30
    while not is_free() and time.time() < end:
        time.sleep(0.05)
    assert is_free()


def check_curl(url, certificate):
    if not shutil.which("curl"):
        return
    made = subprocess.run(["curl", "--silent", "--show-error", "--cacert", certificate,
                           url + "/health"], capture_output=True, text=True)
    assert made.returncode == 0 and "ok" in made.stdout, made


with tempfile.TemporaryDirectory() as folder:
    pem, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", key, "-out", pem], check=True, capture_output=True)
    with serving(sys.argv[1], "--tls-cert", pem, "--tls-key", key, "--cache-memory", "0") as address:
        run([check_completions, check_strangers, check_versions,
             check_streams_that_are_cut_off, check_curl], address, pem)
