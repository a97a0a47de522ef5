"""A Django site with its own login view, sessions and CSRF check.

Arguments: a port of 127.0.0.1 and a directory for the database.
"""

import pathlib
import socketserver
import sys
import threading
from wsgiref import simple_server

import django
from django.conf import settings

port, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite3"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    LOGIN_REDIRECT_URL="/page/0",
    LOGIN_URL="/login",
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for tests",
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {"login.html": '<form method="post">{% csrf_token %}{{ form.as_p }}</form>'},
                    )
                ]
            },
        }
    ],
)
django.setup()

from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.contrib.auth.views import LoginView
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseForbidden, JsonResponse
from django.urls import path

lock = threading.Lock()
counts = {"attempts": 0, "logins": 0}


def count(*names):
    with lock:
        for name in names:
            counts[name] += 1


user_logged_in.connect(lambda **_: count("attempts", "logins"), weak=False)
user_login_failed.connect(lambda **_: count("attempts"), weak=False)


@login_required
def page(request, number):
    return HttpResponse(f"page {number} of {request.user.username}\n")


@login_required
def forbidden(request, number):
    return HttpResponseForbidden("forbidden\n")


def changed(request, number):
    """A POST without the CSRF token is rejected with 403 before it arrives here."""
    return HttpResponse("changed\n")


urlpatterns = [
    path("login", LoginView.as_view(template_name="login.html")),
    path("page/<int:number>", page),
    path("forbidden/<int:number>", forbidden),
    path("change/<int:number>", changed),
    path("stats", lambda _: JsonResponse(counts)),
]


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 1024


class Handler(simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass


call_command("migrate", verbosity=0)
get_user_model().objects.create_user("alice", password="open-sesame")
with simple_server.make_server("127.0.0.1", port, get_wsgi_application(), Server, Handler) as server:
    server.serve_forever()
