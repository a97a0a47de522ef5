// An Express site with express-session, whose cookie exists before a login.
//
// Argument: a port of 127.0.0.1. NODE_PATH names the folder of the packages.
"use strict";

const express = require("express");
const session = require("express-session");

const counts = { attempts: 0, logins: 0 };
const app = express();
app.use(express.urlencoded({ extended: false }));
app.use(session({ secret: "only for tests", resave: false, saveUninitialized: true }));

const form = '<form method="post"><input name="username"><input name="password"></form>\n';
app.get("/login", (request, response) => response.send(form));
app.post("/login", (request, response, next) => {
  counts.attempts += 1;
  const { username, password } = request.body;
  if (username !== "alice" || password !== "open-sesame") {
    response.send(form);
    return;
  }
  counts.logins += 1;
  request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.user = username;
    response.redirect("/page/0");
  });
});
app.get("/stats", (request, response) => response.json(counts));
app.use((request, response, next) => {
  if (request.session.user) return next();
  response.status(401).send("log in\n");
});
app.get("/page/:number", (request, response) => {
  response.type("text/plain").send(`page ${request.params.number} of ${request.session.user}\n`);
});
app.get("/forbidden/:number", (request, response) => response.status(403).send("forbidden\n"));
app.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 1024 });
