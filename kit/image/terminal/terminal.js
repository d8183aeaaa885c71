"use strict";
// Joins xterm.js to the session. The wire is terminado's: JSON arrays, ["stdin", text] and
// ["set_size", rows, columns] to the server, ["stdout", text] and ["disconnect", _] from it.

const RETRY_MS_MIN = 300;
const RETRY_MS_MAX = 5000;

const place = document.getElementById("terminal");
const notice = document.getElementById("notice");
const name = (location.hostname.split(".")[0].match(/terminal(-\d+)?$/) || ["Terminal"])[0];
document.title = name;

const term = new Terminal({
  allowProposedApi: true,
  cursorBlink: true,
  fontFamily: "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace",
  fontSize: 14,
  macOptionIsMeta: true,
  scrollback: 0, // the session keeps what scrolled away
  theme: { background: "#16181d", foreground: "#d8dee9", cursor: "#88c0d0" },
});
term.open(place);
window.terminal = term;

let socket = null;
let ended = false;
let retryMs = RETRY_MS_MIN;
let retryTimer = 0;

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

function send(...message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

// How many characters fit: the screen element is exactly columns × rows of them.
function fit() {
  const screen = place.querySelector(".xterm-screen").getBoundingClientRect();
  const style = getComputedStyle(place);
  const width = place.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const height = place.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
  if (screen.width > 0 && screen.height > 0) {
    const columns = Math.floor(width / (screen.width / term.cols));
    const rows = Math.floor(height / (screen.height / term.rows));
    if (columns >= 2 && rows >= 1) term.resize(Math.min(columns, 1000), Math.min(rows, 500));
  }
  send("set_size", term.rows, term.cols);
}

function connect() {
  clearTimeout(retryTimer);
  ended = false;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const opened = new WebSocket(`${scheme}//${location.host}/ws${location.search}`);
  socket = opened;
  opened.onopen = () => {
    retryMs = RETRY_MS_MIN;
    say("");
    term.reset();
    fit();
    term.focus();
  };
  opened.onmessage = (event) => {
    const [kind, text] = JSON.parse(event.data);
    if (kind === "stdout") term.write(text);
    if (kind === "disconnect") ended = true;
  };
  opened.onclose = () => {
    if (socket !== opened) return;
    if (ended) {
      say("The session has ended. Press a key for a new one.");
      return;
    }
    say("Connection lost, connecting again …");
    retryTimer = setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
  };
}

function connectNow() {
  if (!ended && socket.readyState === WebSocket.CLOSED) connect();
}

term.onData((data) => {
  if (ended) connect();
  else send("stdin", data);
});
term.onBinary((data) => send("stdin", data));
term.onTitleChange((title) => {
  document.title = title ? `${title} · ${name}` : name;
});
// Programs may put text on the clipboard (OSC 52); the browser asks where it must.
term.parser.registerOscHandler(52, (data) => {
  const base64 = data.slice(data.indexOf(";") + 1);
  if (base64 === "?" || !navigator.clipboard) return true;
  try {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    navigator.clipboard.writeText(new TextDecoder().decode(bytes)).catch(() => {});
  } catch {
    // Not base64: nothing to copy.
  }
  return true;
});

new ResizeObserver(fit).observe(place);
addEventListener("online", connectNow);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) connectNow();
});
connect();
