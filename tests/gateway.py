"""Tests the gateway with its usual clients (curl, requests, Scrapy) against the site of `crawl --serve`.

Argument: the directory of the built examples. Clients that are not installed are skipped with a message.
"""

import functools
import http.client
import http.server
import importlib.util
import json
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading

EXAMPLES = pathlib.Path(sys.argv[1])
DEADLINE = 120


class Process:
    """A server that prints its address in its first line."""

    def __init__(self, name, *options):
        self.process = subprocess.Popen([EXAMPLES / name, *options], stdout=subprocess.PIPE, text=True)
        self.line = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def site(*options):
    started = Process("crawl", "--serve", *options)
    started.url = re.search(r"http://[\d.:]+", started.line).group()
    return started


def gateway(*options):
    started = Process("gateway", "--listen", "127.0.0.1:0", *options)
    started.url = started.line.removeprefix("listening on ")
    return started


def login(site):
    return "--expired", "403", "--login-url", site.url + "/login?acct={session}", "--login-cookie", "sid"


def send(gateway, target, headers=(), method="GET", body=None):
    """Sends one request with exactly this target; other clients would normalise it."""
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=DEADLINE)
    connection.putrequest(method, target, skip_host="Host" in dict(headers), skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


def session(name):
    return ("X-Session", name)


def check_forwarding(site, gateway):
    for target in f"{site.url}/page/1?acct=a", f"/{site.url}/page/1?acct=a", "/http:/" + site.url[7:] + "/page/1?acct=a":
        response, text = send(gateway, target, [session("a")])
        assert (response.status, text) == (200, "page 1 of a by s1\n"), (target, response.status, text)
        assert response.headers["x-session"] == "a"
        assert (response.headers["x-session-generation"], response.headers["x-session-replays"]) == ("2", "0")
        assert "Set-Cookie" not in response.headers
    response, text = send(gateway, f"{site.url}/page/1?acct=b", [session("b")])
    assert text == "page 1 of b by s2\n", "each session has its own login"


def check_rejections(site, gateway):
    page = site.url + "/page/1"
    port = gateway.url.rsplit(":", 1)[1]
    named = [session("a")]
    for method, target, headers, status, word in [
        ("CONNECT", "shop.example:443", named, 501, "/https://host/path"),
        ("GET", page, [], 400, "x-session"),
        ("GET", page, [session("a"), session("b")], 400, "once"),
        ("GET", page, [session("x" * 300)], 400, "256"),
        ("GET", "/", named, 400, "/https://host/path"),
        ("GET", "/ftp://shop.example/", named, 400, "/https://host/path"),
        ("GET", "http://user:secret@shop.example/", named, 400, "user name"),
        ("GET", gateway.url + "/", named, 508, "loop"),
        ("GET", f"/http://localhost:{port}/http://a.example/", named, 508, "loop"),
        ("GET", f"/http://[::ffff:127.0.0.1]:{port}/", named, 508, "loop"),
        ("GET", "/" + page, named + [("Sec-Fetch-Site", "cross-site")], 403, "web page"),
        ("GET", "/" + page, named + [("Host", "stranger.example")], 421, "localhost"),
        ("GET", "http://127.0.0.1:1/", [session("unreachable")], 502, "cannot be reached"),
    ]:
        response, text = send(gateway, target, headers, method)
        assert response.status == status and word in text, (method, target, response.status, text)
        assert response.headers["x-session-error"] == "gateway" and "secret" not in text
    response, text = send(gateway, page, named, "POST", b"x" * (2 << 20))
    assert response.status == 413, (response.status, text)


def check_headers(site, gateway):
    sent = [
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("TE", "trailers"),
        ("Upgrade", "websocket"),
        ("Proxy-Authorization", "Basic c2VjcmV0"),
        ("Proxy-Connection", "keep-alive"),
        ("X-Kept", "1"),
        ("Cookie", "own=1"),
    ]
    response, text = send(gateway, site.url + "/echo", [session("h"), *sent])
    seen = {name.lower(): value for name, value in json.loads(text)["headers"]}
    assert response.status == 200 and seen.pop("host") == site.url[7:]
    cookie = seen.pop("cookie")
    assert seen == {"x-kept": "1"}, seen
    assert cookie.startswith("sid=s") and cookie.endswith("own=1") or cookie.startswith("own=1; sid=s"), cookie
    response, text = send(gateway, site.url + "/page/1?acct=h&set_cookie=lang%3Den%3B%20Path%3D/", [session("h")])
    assert response.status == 200 and "Set-Cookie" not in response.headers
    _, text = send(gateway, site.url + "/echo", [session("h")])
    seen = dict(json.loads(text)["headers"])["cookie"]
    assert "lang=en" in seen and "own=1" not in seen, seen
    hop = site.url + "/hop?to=/echo"
    assert send(gateway, hop, [session("h")])[0].headers["Location"] == "/echo"
    for to, location in [("/echo", f"/{site.url}/echo"), ("https://a.example/b", "/https://a.example/b")]:
        response, _ = send(gateway, f"/{site.url}/hop?to={to}", [session("h")])
        assert response.headers["Location"] == location, response.headers["Location"]


def check_names(site, gateway):
    """The name of a session comes from the client and must not change the structure of the login URL."""
    name = "a&acct=b/../?#"
    response, text = send(gateway, site.url + "/page/1?acct=" + "a%26acct%3Db%2F..%2F%3F%23", [session(name)])
    assert response.status == 200 and f"of {name} by" in text, (response.status, text)


def check_bind():
    rejected = subprocess.run([EXAMPLES / "gateway", "--listen", "0.0.0.0:0"], capture_output=True, text=True, timeout=DEADLINE)
    assert rejected.returncode == 2 and "--allow-remote" in rejected.stderr, rejected


def check_curl(site, gateway):
    curl = ["curl", "--silent", "--show-error", "--max-time", str(DEADLINE), "--header", "x-session: curl"]
    run = functools.partial(subprocess.run, capture_output=True, text=True)
    for target in [["--proxy", gateway.url, site.url + "/page/7?acct=curl"], [f"{gateway.url}/{site.url}/page/7?acct=curl"]]:
        done = run([*curl, *target])
        assert done.returncode == 0 and done.stdout.startswith("page 7 of curl by s"), done
    done = run([*curl, "--proxy", gateway.url, "https://shop.example/"])
    assert done.returncode == 56 and "501" in done.stderr, done
    done = run([*curl, "--location", "--proxy", gateway.url, site.url + "/hop?to=/page/8%3Facct=curl&cookie=a=b"])
    assert done.stdout.startswith("page 8 of curl by s"), done


def check_requests(site, gateway):
    import requests

    client = requests.Session()
    client.trust_env = False
    client.headers["x-session"] = "requests"
    client.proxies = {"http": gateway.url}
    response = client.get(site.url + "/page/3?acct=requests", timeout=DEADLINE)
    assert response.status_code == 200 and not client.cookies, (response.text, client.cookies)
    client.proxies = {}
    response = client.get(f"{gateway.url}/{site.url}/hop?to=/page/4%3Facct=requests", timeout=DEADLINE)
    assert response.text.startswith("page 4 of requests by s"), response.text
    assert len(response.history) == 1 and response.url.startswith(gateway.url)
    response = client.post(f"{gateway.url}/{site.url}/echo", data={"a": "b"}, timeout=DEADLINE)
    assert json.loads(response.text)["method"] == "POST"


def check_tls(folder):
    """The gateway logs in to an https origin with a form."""

    class Origin(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            valid = "sid=good" in self.headers.get("Cookie", "")
            self.reply(200 if valid else 302, b"secret page", [] if valid else [("Location", "/login")])

        def do_POST(self):
            form = self.rfile.read(int(self.headers["Content-Length"]))
            valid = (self.path, form) == ("/login", b"user=tls&password=p")
            headers = [("Set-Cookie", "sid=good; Secure; Path=/"), ("Location", "/")]
            self.reply(303 if valid else 403, b"", headers if valid else [])

        def reply(self, status, body, headers):
            self.send_response(status)
            for name, value in [("Content-Length", str(len(body))), *headers]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    pem = f"{folder}/origin.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
         "-keyout", f"{folder}/key.pem", "-out", pem],
        check=True, capture_output=True,
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, f"{folder}/key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}"
    options = ["--extra-root", pem, "--expired-redirect", "/login", "--login-url", url + "/login", "--login-form", "user={session}&password=p"]
    with gateway(*options) as through:
        response, text = send(through, f"/{url}/", [session("tls")])
        assert (response.status, text) == (200, "secret page"), (response.status, text)
        response, text = send(through, f"/{url}/", [session("stranger")])
        assert response.status == 502 and "403" in text, (response.status, text)
    with gateway() as untrusting:
        response, text = send(untrusting, f"/{url}/", [session("tls")])
        assert response.status == 502 and "TLS" in text, (response.status, text)
    server.shutdown()


SPIDER = """
import json, sys
import scrapy
from scrapy.crawler import CrawlerProcess

site, gateway, pages = sys.argv[1], sys.argv[2], int(sys.argv[3])
good, logins = set(), set()

class Spider(scrapy.Spider):
    name = "pages"
    custom_settings = {
        "CONCURRENT_REQUESTS": 64, "CONCURRENT_REQUESTS_PER_DOMAIN": 64, "COOKIES_ENABLED": False,
        "RETRY_ENABLED": False, "ROBOTSTXT_OBEY": False, "TELNETCONSOLE_ENABLED": False, "LOG_LEVEL": "WARNING",
        "DOWNLOAD_DELAY": 0,
    }

    def requests(self):
        for page in range(pages):
            yield scrapy.Request(
                f"{site}/page/{page}?acct=0", headers={"x-session": "0"}, meta={"proxy": gateway}, callback=self.parse,
            )

    def start_requests(self):
        return self.requests()

    async def start(self):
        for request in self.requests():
            yield request

    def parse(self, response):
        page, login = response.text.split()[1], response.text.split()[-1]
        good.add(page)
        logins.add(login)

crawler = CrawlerProcess()
crawler.crawl(Spider)
crawler.start()
print(json.dumps({"pages": len(good), "logins": sorted(logins)}))
"""


def check_scrapy(folder):
    """2000 pages with 64 requests in flight; a login is valid for 500 pages, so there are four logins."""
    spider = pathlib.Path(folder, "spider.py")
    spider.write_text(SPIDER)
    with site() as fresh, gateway(*login(fresh)) as through:
        done = subprocess.run(
            [sys.executable, spider, fresh.url, through.url, "2000"],
            capture_output=True, text=True, timeout=DEADLINE,
        )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    print("scrapy:", seen)
    assert seen == {"pages": 2000, "logins": ["s1", "s2", "s3", "s4"]}, (seen, done.stderr)


def main():
    folder = tempfile.mkdtemp()
    try:
        check_bind()
        with site() as fresh, gateway(*login(fresh)) as through:
            check_forwarding(fresh, through)
            check_rejections(fresh, through)
            check_headers(fresh, through)
            check_names(fresh, through)
            for name, check, installed in [
                ("curl", check_curl, shutil.which("curl")),
                ("requests", check_requests, importlib.util.find_spec("requests")),
            ]:
                if installed:
                    check(fresh, through)
                print(f"{name}: {'passed' if installed else 'skipped, not installed'}")
        for name, check, installed in [
            ("https", check_tls, shutil.which("openssl")),
            ("scrapy", check_scrapy, importlib.util.find_spec("scrapy")),
        ]:
            if installed:
                check(folder)
            print(f"{name}: {'passed' if installed else 'skipped, not installed'}")
    finally:
        shutil.rmtree(folder)


main()
