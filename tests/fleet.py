"""Runs the example `fleet` while its processes are killed and its Redis is restarted, flushed and paused.

Arguments: the directory of the built examples, and the names of the runs (default: all of them).
Without redis-server, the runs that need it are skipped with a message.
"""

import json
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

FLEET = pathlib.Path(sys.argv[1]) / "fleet"
DEADLINE = 120
CONCURRENCY = 16
DISTURBANCES = 6


def check(seen, holds, what):
    assert holds, f"{what}: {seen}"


class Redis:
    """A server for one run. A restart keeps every acknowledged write, or nothing."""

    def __init__(self, keeps):
        self.folder = tempfile.mkdtemp()
        self.keeps = keeps
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self):
        keeps = ["--appendonly", "yes", "--appendfsync", "always"] if self.keeps else ["--appendonly", "no"]
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.folder, *keeps],
            stdout=subprocess.DEVNULL,
        )
        while not self.is_ready():
            assert self.process.poll() is None, "redis-server has exited"
            time.sleep(0.01)

    def is_ready(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/"

    def restart(self, down):
        self.process.kill()
        self.process.wait()
        time.sleep(down)
        self.start()

    def flush(self):
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(5) == b"+OK\r\n"

    def pause(self, seconds):
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


def fleet(*options, disturb=None, pauses=(0, 0)):
    """Runs the example once and returns the summary of its last line.

    `disturb` is called several times during the run, at random intervals within `pauses` seconds.
    """
    options = [str(option) for option in options]
    print("fleet", *options, flush=True)
    with tempfile.TemporaryFile("w+") as output:
        run = subprocess.Popen([FLEET, "--json", "--concurrency", str(CONCURRENCY), *options], stdout=output)
        over = threading.Event()
        disturbances = []

        def disturbing():
            while len(disturbances) < DISTURBANCES and not over.wait(random.uniform(*pauses)):
                disturbances.append(disturb())

        disturber = threading.Thread(target=disturbing)
        try:
            if disturb:
                disturber.start()
            status = run.wait(DEADLINE)
        finally:
            over.set()
            run.kill()
            if disturb:
                disturber.join()
        output.seek(0)
        lines = output.read().splitlines()
    print(*lines, sep="\n")
    if disturb:
        print("  disturbed", len(disturbances), "times:", ", ".join(disturbances), flush=True)
    seen = json.loads(lines[-1]) if lines else {}
    seen["disturbances"] = len(disturbances)
    pages = int(options[options.index("--pages") + 1])
    check(seen, status == 0 and (seen["pages_ok"], seen["pages_failed"]) == (pages, 0), "every page")
    check(seen, seen["logins_concurrent_max"] == 1, "one login at a time")
    check(seen, seen["refreshes_reused"] == 0, "no token used twice")
    return seen


def least(seen, budget):
    """The minimum number of logins if each serves `budget` pages."""
    return -(-seen["pages_served"] // budget)


def calm(*store, workers, pages, budget):
    seen = fleet(*store, "--workers", workers, "--pages", pages, "--budget", budget)
    check(seen, seen["pages_served"] == pages, "no page served twice")
    check(seen, seen["logins"] == seen["login_tries"] == least(seen, budget), "the minimum number of logins")
    check(seen, (seen["store_commits"], seen["store_conflicts"]) == (seen["logins"], 0), "one commit for each login")
    check(seen, seen["store_failures"] == 0, "no failed request to the store")


def one_session():
    """The session expires forty times while eight processes use it."""
    with Redis(keeps=False) as redis:
        calm("--redis", redis.url, workers=8, pages=20_000, budget=488)


def wasted(seen, budget, kills, disturbances):
    """Each killed process and each outage may cost one login, or the pages in flight."""
    check(seen, seen["logins"] <= least(seen, budget) + kills + disturbances, "few logins above the minimum")


def killed():
    with Redis(keeps=False) as redis:
        options = ["--pages", 20_000, "--budget", 500, "--login-ms", 150, "--lease-ms", 1500, "--kill", 14]
        seen = fleet("--redis", redis.url, *options)
    check(seen, seen["killed"] >= 10, "ten killed processes")
    wasted(seen, 500 - CONCURRENCY, seen["killed"], 0)


def disturbed(keeps, kill, lease, pauses):
    with Redis(keeps) as redis:

        def disturb():
            kind = random.choice(["restart", "pause", "pause"] if keeps else ["restart", "flush", "pause"])
            match kind:
                case "restart":
                    redis.restart(random.uniform(0, 0.5))
                case "flush":
                    redis.flush()
                case "pause":
                    redis.pause(random.choice([0.5, 3]))
            return kind

        options = ["--pages", 20_000, "--budget", 500, "--login-ms", 150, "--lease-ms", lease, "--kill", kill]
        seen = fleet("--redis", redis.url, *options, disturb=disturb, pauses=pauses)
    check(seen, seen["disturbances"] >= 3, "at least three disturbances")
    wasted(seen, 500 - CONCURRENCY, seen["killed"], seen["disturbances"])


def kept():
    """The store keeps every acknowledged write across a restart."""
    disturbed(keeps=True, kill=4, lease=1500, pauses=(0.3, 1.2))


def lost():
    """The store loses everything. After each loss no process logs in for one lease TTL.

    No process is killed: one that starts after a loss cannot know of a login that is running.
    """
    disturbed(keeps=False, kill=0, lease=1000, pauses=(1.2, 2.5))


def folder():
    calm(workers=4, pages=4_000, budget=390)


def shared_and_not():
    """Prints the throughput of a session that does not expire, without asserting it."""
    options = ["--pages", 60_000, "--budget", 1_000_000, "--latency-ms", 1]
    with Redis(keeps=False) as redis:
        speeds = [fleet(*store, *options)["pages_per_second"] for store in [["--redis", redis.url], ["--alone"]]]
    print(f"shared {speeds[0]:.0f} pages a second, not shared {speeds[1]:.0f}: {speeds[0] / speeds[1]:.3f}")


RUNS = [one_session, killed, kept, lost, folder, shared_and_not]


def main():
    names = sys.argv[2:]
    for run in RUNS:
        if names and run.__name__ not in names:
            continue
        started = time.monotonic()
        if run is not folder and not shutil.which("redis-server"):
            print(f"{run.__name__}: skipped, redis-server is not installed")
            continue
        run()
        print(f"{run.__name__}: passed, {time.monotonic() - started:.0f} s", flush=True)


main()
