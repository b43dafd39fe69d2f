"""The script of the live reload: in the error page, and in the application's own pages where ``reload.browser`` is set.

It is told where to listen and which code its page is of (``data-events``, ``data-at``), so that it misses nothing that
happens before it listens. A page that is not looked at does not listen: over HTTP/1.1 a browser has six connections to
a server, for all of its tabs together.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Final

SCRIPT: Final = """\
(() => {
"use strict";
const me = document.currentScript;
const events = me.dataset.events || new URL("events", me.src).href;
const note = me.src ? null : document.getElementById("note");
const most = 2000; // milliseconds between two tries to connect
const waits = [0, 1000, 5000]; // and until a page is reloaded for the same news again
let at = me.dataset.at;
let source = null, timer = 0, wait = 0, heard = false, said = "";

// A page that comes out of a cache may be as old after a reload as it was before: that is tried a few times only.
function reload(now, first) {
  const mark = " " + now + " " + location.href;
  let tried = 0;
  try {
    const last = sessionStorage.getItem("asgiri.reload") || "";
    if (last.endsWith(mark)) tried = parseInt(last);
    sessionStorage.setItem("asgiri.reload", tried + 1 + mark);
  } catch { // it has no storage, and what cannot be counted could go on for ever
    if (first) tried = waits.length;
  }
  at = now;
  if (tried >= waits.length) return;
  leave(); // what else it hears is for the page that is on its way
  setTimeout(() => {
    location.reload();
    timer = setTimeout(listen, waits[2]); // it is here still: somebody did not want to leave
  }, waits[tried]);
}

function hear({data}) {
  const told = JSON.parse(data), first = !heard;
  heard = true;
  wait = 0;
  if (note) note.hidden = true;
  if (told.trouble && told.trouble !== said) console.warn("asgiri: the newest code does not start: " + told.trouble);
  said = told.trouble;
  if (told.at !== at) reload(told.at, first);
}

function listen() {
  if (source || document.hidden) return;
  source = new EventSource(events);
  source.onmessage = hear;
  source.onerror = () => {
    leave();
    if (note && wait) note.hidden = false;
    timer = setTimeout(listen, wait);
    wait = Math.min(wait * 2 + 100, most);
  };
}

function leave() {
  clearTimeout(timer);
  if (source) source.close();
  source = null;
}

document.addEventListener("visibilitychange", () => document.hidden ? leave() : listen());
addEventListener("pagehide", leave);
addEventListener("pageshow", listen);
listen();
})();
"""

# What a Content-Security-Policy calls the script where it is part of a page.
SCRIPT_HASH: Final = "'sha256-" + b64encode(sha256(SCRIPT.encode()).digest()).decode() + "'"
