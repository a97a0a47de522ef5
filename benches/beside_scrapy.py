"""Measures Scrapy's CookiesMiddleware for `cargo bench --bench beside_scrapy`.

Reads lines of "KIND ROUNDS" and prints the CPU time of that many rounds in nanoseconds. A round creates
a request and a response. "middleware" passes both through the middleware, called in the same way as by
Scrapy's engine, with five cookies for the page in its jar; "bare" does not.
"""

import sys
import time

try:
    import scrapy
    from scrapy.downloadermiddlewares import cookies
    from scrapy.http import Request, Response
except ImportError as error:
    print(f"missing {error}", flush=True)
    sys.exit()

URL = "https://www.site0.com/account/orders?page=2"
HEADERS = {
    "Accept": "text/html,application/xhtml+xml",
    "Accept-Language": "en-GB,en;q=0.8",
    "Accept-Encoding": "gzip, br",
    "Referer": "https://www.example.com/",
    "Upgrade-Insecure-Requests": "1",
    "DNT": "1",
}

# Use the public suffix list of the package instead of downloading one.
if hasattr(cookies, "TLDExtract"):
    cookies._split_domain = cookies.TLDExtract(suffix_list_urls=(), include_psl_private_domains=True)

middleware = cookies.CookiesMiddleware()
# Older versions take the spider as an argument.
spider = [] if hasattr(cookies, "_warn_spider_arg") else [None]


def request():
    return Request(URL, headers=HEADERS, meta={"cookiejar": 4711})


def response():
    return Response(URL, headers={"Content-Type": "text/html"})


def through(times):
    for _ in range(times):
        sent = request()
        middleware.process_request(sent, *spider)
        middleware.process_response(sent, response(), *spider)


def bare(times):
    for _ in range(times):
        request()
        response()


page = "; Path=/; Secure; HttpOnly; Max-Age=31536000"
set_cookies = [f"name{cookie}=value-of-some-length-{cookie}{page}" for cookie in range(5)]
middleware.process_response(request(), Response(URL, headers={"Set-Cookie": set_cookies}), *spider)
sent = request()
middleware.process_request(sent, *spider)
assert sent.headers[b"Cookie"].count(b"=") == 5, "the jar has five cookies"

print(f"Scrapy {scrapy.__version__}, Python {sys.version.split()[0]}", flush=True)
for line in sys.stdin:
    kind, rounds = line.split()
    start = time.process_time_ns()
    (through if kind == "middleware" else bare)(int(rounds))
    print(time.process_time_ns() - start, flush=True)
