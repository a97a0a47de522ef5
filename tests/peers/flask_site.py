"""A Flask site with Flask-Login.

Its session cookie exists before a login. Argument: a port of 127.0.0.1.
"""

import logging
import sys
import threading

import flask
import flask_login

app = flask.Flask(__name__)
app.secret_key = "only for tests"
manager = flask_login.LoginManager(app)
manager.login_view = "login"
lock = threading.Lock()
counts = {"attempts": 0, "logins": 0}


class User(flask_login.UserMixin):
    id = "alice"


@manager.user_loader
def load(name):
    return User() if name == User.id else None


@app.route("/login", methods=["GET", "POST"])
def login():
    flask.session["visits"] = flask.session.get("visits", 0) + 1
    if flask.request.method == "POST":
        form = flask.request.form
        is_right = (form["username"], form["password"]) == ("alice", "open-sesame")
        with lock:
            counts["attempts"] += 1
            counts["logins"] += is_right
        if is_right:
            flask_login.login_user(User())
            return flask.redirect("/page/0")
    return '<form method="post"><input name="username"><input name="password"></form>\n'


@app.route("/page/<int:number>")
@flask_login.login_required
def page(number):
    return f"page {number} of {flask_login.current_user.id}\n"


@app.route("/forbidden/<int:number>")
@flask_login.login_required
def forbidden(number):
    return "forbidden\n", 403


@app.route("/stats")
def stats():
    return counts


logging.getLogger("werkzeug").setLevel(logging.ERROR)
app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
