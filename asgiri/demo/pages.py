"""The pages of the demo, as templates: each brings all it needs, and nothing from outside."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from string import Template
from typing import Final

STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --ink: #1d2426; --soft: #5f6b6e; --line: #dfe3e1; --accent: #1f6a6e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181a; --ink: #dde3e2; --soft: #93a0a2; --line: #2a3234; --accent: #85c7c6;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 4.5rem 1.5rem 4rem; max-width: 43rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%;
}
header { display: flex; justify-content: space-between; color: var(--soft); font-size: .875rem; }
header b { display: flex; gap: .5rem; align-items: center; color: var(--accent); font-weight: 600; }
header svg { width: 1rem; height: 1rem; fill: none; stroke: currentColor; }
h1 { margin: 2.25rem 0 .5rem; font-size: 2rem; line-height: 1.2; font-weight: 600; letter-spacing: -.02em; }
h2 { margin: 3rem 0 .75rem; font-size: 1rem; font-weight: 600; }
p { margin: 0; max-width: 36rem; color: var(--soft); }
a { color: var(--accent); text-underline-offset: .2em; text-decoration-thickness: 1px; }
a:hover { text-decoration-thickness: 2px; }
a:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px; }
code, dd, li a { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code, dd, li a { font-size: .875rem; }
dl { display: grid; grid-template-columns: 1fr 1fr; column-gap: 2.5rem; margin: 2.5rem 0 0; }
dl div {
  display: flex; justify-content: space-between; gap: 1rem; align-items: baseline;
  padding: .5rem 0; border-top: 1px solid var(--line);
}
dl div:nth-last-child(-n+2) { border-bottom: 1px solid var(--line); }
dt { color: var(--soft); font-size: .875rem; }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
ul { list-style: none; margin: 0; padding: 0; border-bottom: 1px solid var(--line); }
li {
  display: grid; grid-template-columns: 13.5rem 1fr; gap: 0 1rem; align-items: baseline;
  padding: .625rem 0; border-top: 1px solid var(--line);
}
li span { color: var(--soft); font-size: .9375rem; line-height: 1.5; }
@media (max-width: 36rem) {
  body { padding: 2rem 1.25rem 3rem; }
  h1 { margin-top: 1.75rem; font-size: 1.625rem; }
  h2 { margin-top: 2.25rem; }
  dl { grid-template-columns: 1fr; margin-top: 1.75rem; }
  dl div:nth-last-child(2) { border-bottom: 0; }
  li { grid-template-columns: 1fr; gap: .125rem; }
}
"""

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
%3Cpath d='M2 4h9M5 8h9M3 12h7' stroke='%232f8a8e' stroke-width='2' stroke-linecap='round'/%3E%3C/svg%3E">
"""

_NAME = """\
<b><svg viewBox="0 0 16 16" aria-hidden="true"><path d="M2 4h9M5 8h9M3 12h7" stroke-width="2" \
stroke-linecap="round"/></svg>asgiri</b>\
"""

PAGE = Template(
    _HEAD
    + """\
<title>asgiri is running</title>
<style>
$style</style>
</head>
<body>
<header>"""
    + _NAME
    + """<span>version $version</span></header>
<main>
<h1>The server is running.</h1>
<p>You are looking at its built-in demo app. This is how your request arrived, and who answered it.</p>
<dl>
$facts
</dl>

<h2>Try it out</h2>
<ul>
<li><a href="$echo">/echo</a>
<span>Shows your request as it arrived. POST to it, and the body streams back.</span></li>
<li><a href="$stream">/stream</a>
<span>Ten lines, one every 200 ms. Takes <code>count</code> and <code>interval</code>.</span></li>
<li><a href="$slow">/slow?seconds=3</a>
<span>Waits before it answers. Reload the server meanwhile: the answer still comes.</span></li>
<li><a href="$status">/status/418</a>
<span>Answers with any status from 200 to 599.</span></li>
<li><a href="$websocket">/ws</a>
<span>A WebSocket that sends back what it gets, and a page to talk to it.</span></li>
</ul>

<h2>Next steps</h2>
<ul>
<li><code>asgiri module:app</code><span>Serve your own application.</span></li>
<li><code>asgiri -c asgiri.yaml</code><span>Keep the settings in a file.</span></li>
<li><code>asgiri --help</code><span>See every option.</span></li>
</ul>
</main>
</body>
</html>
"""
)

NOT_FOUND = Template(
    _HEAD
    + """\
<title>Not found</title>
<style>
$style</style>
</head>
<body>
<header>"""
    + _NAME
    + """<span>404</span></header>
<main>
<h1>There is nothing here.</h1>
<p>The demo app has no page at <code>$path</code>. <a href="$home">Back to the start</a></p>
</main>
</body>
</html>
"""
)

_TALK_STYLE = """\
form { display: flex; flex-wrap: wrap; gap: .5rem; margin: 2rem 0 0; }
input, button { font: inherit; padding: .375rem .75rem; border: 1px solid var(--line); border-radius: 4px; }
input { flex: 1 1 14rem; min-width: 0; background: var(--paper); color: var(--ink); }
button { background: var(--accent); border-color: var(--accent); color: var(--paper); cursor: pointer; }
button[type=button] { background: none; color: var(--accent); }
button:disabled { opacity: .45; cursor: default; }
input:focus-visible, button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
ol {
  list-style: none; margin: 0; padding: 0 .5rem 0 0; height: 20rem; overflow-y: auto;
  border-block: 1px solid var(--line);
}
ol li { grid-template-columns: 1rem 1fr auto; padding: .3125rem 0; border-top: 0; font-size: .875rem; }
ol li b { color: var(--accent); font-weight: 400; }
ol li code { overflow-wrap: anywhere; white-space: pre-wrap; }
ol + p { margin-top: 1.5rem; }
"""

# Speaks to the address that the page itself came from. What is received is shown as text, never as markup.
SCRIPT: Final = """
"use strict";
const by = (id) => document.getElementById(id);
const most = 200; // lines of the log that are kept
let socket = null;
let sent = 0, received = 0, times = [];

function note(mark, text, aside) {
  const line = document.createElement("li");
  for (const [tag, content] of [["b", mark], ["code", text], ["span", aside || ""]]) {
    line.appendChild(document.createElement(tag)).textContent = content;
  }
  const log = by("log");
  log.append(line);
  while (log.children.length > most) log.firstChild.remove();
  log.scrollTop = log.scrollHeight;
}

function show(state) {
  const open = state === "open";
  by("state").textContent = state;
  by("count").textContent = sent + " sent, " + received + " received";
  by("switch").textContent = socket ? "Close" : "Connect";
  by("send").disabled = by("bytes").disabled = !open;
}

function hex(data) {
  const bytes = new Uint8Array(data, 0, Math.min(data.byteLength, 32));
  const shown = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return shown + (data.byteLength > bytes.length ? " ..." : "");
}

function describe(data) {
  return typeof data === "string" ? [data, ""] : [hex(data), data.byteLength + " bytes"];
}

function connect() {
  const ours = socket = new WebSocket(location.href.split(/[?#]/)[0].replace(/^http/, "ws"));
  ours.binaryType = "arraybuffer";
  sent = received = 0;
  times = [];
  ours.onopen = () => {
    note("\u00b7", "open", ours.extensions.split(";")[0]);
    show("open");
  };
  ours.onmessage = ({data}) => {
    const [text, size] = describe(data);
    const took = times.length ? (performance.now() - times.shift()).toFixed(1) + " ms" : "";
    received += 1;
    note("\u2190", text, [size, took].filter(Boolean).join(", "));
    show("open");
  };
  ours.onclose = ({code, reason}) => {
    const text = "closed: " + code + (reason ? " " + reason : "");
    socket = null;
    note("\u00b7", text);
    show(text);
  };
  show("connecting");
}

function send(data) {
  if (!socket || socket.readyState !== WebSocket.OPEN) return;
  times.push(performance.now());
  socket.send(data);
  sent += 1;
  const [text, size] = describe(data);
  note("\u2192", text, size);
  show("open");
  by("text").select();
}

by("form").onsubmit = (event) => {
  event.preventDefault();
  send(by("text").value);
};
by("bytes").onclick = () => send(new TextEncoder().encode(by("text").value).buffer);
by("switch").onclick = () => socket ? socket.close(1000) : connect();
connect();
"""

# What a Content-Security-Policy calls the script.
SCRIPT_HASH: Final = b"'sha256-" + b64encode(sha256(SCRIPT.encode()).digest()) + b"'"

TALK = Template(
    _HEAD
    + """\
<title>Talk to the server</title>
<style>
${style}"""
    + _TALK_STYLE
    + """</style>
</head>
<body>
<header>"""
    + _NAME
    + """<span>WebSocket</span></header>
<main>
<h1>Talk to the server.</h1>
<p>What you send over the WebSocket at <code>$path</code> comes back as it is. Send <code>close</code>, and the server
closes it.</p>
<dl>
<div><dt>State</dt><dd id="state" role="status">not connected</dd></div>
<div><dt>Messages</dt><dd id="count">0 sent, 0 received</dd></div>
</dl>
<form id="form">
<input id="text" aria-label="Message" autocomplete="off" value="Hello">
<button id="send" disabled>Send</button>
<button id="bytes" type="button" disabled>Send as bytes</button>
<button id="switch" type="button">Connect</button>
</form>
<noscript><p>This page takes JavaScript to speak.</p></noscript>
<h2>What went over it</h2>
<ol id="log" role="log" tabindex="0" aria-label="Messages"></ol>
<p><a href="$home">Back to the start</a></p>
</main>
<script>"""
    + SCRIPT
    + """</script>
</body>
</html>
"""
)
