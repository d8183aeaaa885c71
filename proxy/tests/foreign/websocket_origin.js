// A container's program: a WebSocket server that returns every message, made of the library ws.
//
// NODE_PATH=/usr/share/nodejs node websocket_origin.js ADDRESS PORT
"use strict";

const { WebSocketServer } = require("ws");

const [host, port] = process.argv.slice(2);
// However small: compressed when the client wants it.
const perMessageDeflate = { threshold: 0 };
const server = new WebSocketServer({ host, port: Number(port), maxPayload: 0, perMessageDeflate });
server.on("connection", (socket) => {
    // Errors of clients are what the tests make.
    socket.on("error", () => {});
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
server.on("listening", () => console.log("ready"));
