"""Tests the crate against real login servers: Django, Flask-Login, Express with express-session, and PHP.

Arguments: the directory of the built examples, and a directory for the packages of PyPI and npm. Servers whose
programs or packages are missing are skipped with a message. Prints one line for each scenario.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

DRIVER = pathlib.Path(sys.argv[1]) / "peers"
PACKAGES = pathlib.Path(sys.argv[2])
SITES = pathlib.Path(__file__).parent / "peers"
# Seconds for one run of the driver, for the start of a server, and for an installation.
RUN, START, INSTALL = 60, 20, 150

# The expected numbers, as (least, most). A server that rejects 1 request in 10 forbids 20 of 200.
PASSWORD_ATTEMPTS = (1, 1)
LOGINS_OF_GOOD_PAGES = (1, 1)
LOGINS_WITH_FORBIDDEN = (1, 21)
LOGINS_WITH_ROTATION = (1, 8)
# Scenarios that do not reach these numbers yet. They are run and printed.
NOT_YET = {"rotation"}


def install_python():
    """Returns the interpreter of an environment with the packages, or the reason why there is none."""
    folder = PACKAGES / "python"
    python = folder / "bin" / "python"
    packages = ["django", "flask", "flask-login"]
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=INSTALL, capture_output=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, timeout=INSTALL, capture_output=True)
    except (subprocess.SubprocessError, OSError) as error:
        return None, f"the packages of PyPI cannot be installed: {error}"
    return python, None


def install_node():
    """Returns the folder of the packages, or the reason why there is none."""
    if not (shutil.which("node") and shutil.which("npm")):
        return None, "node or npm is not installed"
    folder = PACKAGES / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, "express", "express-session"]
    try:
        subprocess.run(command, check=True, timeout=INSTALL, capture_output=True)
    except (subprocess.SubprocessError, OSError) as error:
        return None, f"the packages of npm cannot be installed: {error}"
    return folder / "node_modules", None


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def serving(command, environment=None):
    """Runs a server, and returns its URL. `command` gets a port and an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        log = open(pathlib.Path(folder) / "log", "wb")
        # A process group: PHP's workers do not end with their parent.
        process = subprocess.Popen(
            command(port, folder), env={**os.environ, **(environment or {})}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            began = time.monotonic()
            while True:
                try:
                    stats(url)
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() - began > START:
                        raise AssertionError(pathlib.Path(log.name).read_text())
                    time.sleep(0.05)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
            log.close()


def stats(url):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url + "/stats", timeout=START) as response:
        return json.load(response)


def drive(url, pages, concurrency, password="open-sesame", other="", other_every=0):
    options = {
        "url": url,
        "password": password,
        "pages": pages,
        "concurrency": concurrency,
        "other": other,
        "other-every": other_every,
    }
    before = stats(url)
    command = [DRIVER, *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    # Only the requests of this run.
    seen |= {name: count - before[name] for name, count in stats(url).items()}
    return seen


def within(bounds, number):
    least, most = bounds
    return least <= number <= most


class Scenarios:
    def __init__(self, server, url):
        self.server, self.url = server, url

    def report(self, name, scenario, seen, passed):
        numbers = ", ".join(f"{name} {value}" for name, value in seen.items() if isinstance(value, int))
        note = "" if passed else " (not as expected)"
        print(f"{self.server}: {scenario}: {numbers}{note}", flush=True)
        assert passed or name in NOT_YET, seen

    def right_password(self):
        for concurrency in 1, 8, 64:
            seen = drive(self.url, 200, concurrency)
            passed = seen["pages"] == 200 and within(LOGINS_OF_GOOD_PAGES, seen["logins"])
            self.report("right_password", f"200 pages, {concurrency} in flight", seen, passed)

    def wrong_password(self):
        for concurrency in 1, 64:
            seen = drive(self.url, concurrency, concurrency, password="wrong")
            error = seen.pop("first_error") or ""
            passed = seen["errors"] == concurrency and seen["logins"] == 0 and within(PASSWORD_ATTEMPTS, seen["attempts"])
            passed = passed and "alice" in error and "the login did not leave /login" in error
            self.report("wrong_password", f"wrong password, {concurrency} in flight: {error!r}", seen, passed)

    def forbidden(self, other="forbidden"):
        for concurrency in 1, 8, 64:
            seen = drive(self.url, 200, concurrency, other=other, other_every=10)
            passed = (seen["pages"], seen["forbidden"]) == (180, 20) and within(LOGINS_WITH_FORBIDDEN, seen["logins"])
            self.report("forbidden", f"1 in 10 is a {other} request, {concurrency} in flight", seen, passed)

    def rotation(self):
        for concurrency in 1, 8, 64:
            seen = drive(self.url, 2000, concurrency)
            passed = seen["pages"] == 2000 and within(LOGINS_WITH_ROTATION, seen["logins"])
            self.report("rotation", f"2,000 pages, a new id every 20, {concurrency} in flight", seen, passed)


def main():
    began = time.monotonic()
    python, reason = install_python()
    if python:
        with serving(lambda port, folder: [python, SITES / "django_site.py", str(port), folder]) as url:
            django = Scenarios("Django", url)
            django.right_password()
            django.wrong_password()
            django.forbidden()
            # Django rejects a POST without its CSRF token with 403.
            django.forbidden("change")
        with serving(lambda port, _: [python, SITES / "flask_site.py", str(port)]) as url:
            flask = Scenarios("Flask-Login", url)
            flask.right_password()
            flask.wrong_password()
            flask.forbidden()
    else:
        print(f"skipped: Django, Flask-Login: {reason}")
    modules, reason = install_node()
    if modules:
        environment = {"NODE_PATH": str(modules)}
        with serving(lambda port, _: ["node", SITES / "express_site.js", str(port)], environment) as url:
            express = Scenarios("Express", url)
            express.right_password()
            express.wrong_password()
            express.forbidden()
    else:
        print(f"skipped: Express: {reason}")
    if shutil.which("php"):
        for strict in 1, 0:
            options = ["-d", f"session.use_strict_mode={strict}", "-d", "display_errors=stderr"]

            def command(port, folder):
                return ["php", *options, "-d", f"session.save_path={folder}", "-S", f"127.0.0.1:{port}", SITES / "php_site.php"]

            with serving(command, {"PHP_CLI_SERVER_WORKERS": "16"}) as url:
                php = Scenarios("PHP, strict ids" if strict else "PHP, any ids", url)
                php.wrong_password()
                php.rotation()
    else:
        print("skipped: PHP: php is not installed")
    print(f"login servers: {time.monotonic() - began:.0f} s")


main()
