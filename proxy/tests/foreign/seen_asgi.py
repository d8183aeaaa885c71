"""Records every request that an ASGI server saw whole, one JSON object a line, and answers with the
target. The file is named by SEEN."""

import json
import os


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    body = b""
    more = True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            return
        body += event.get("body", b"")
        more = event.get("more_body", False)
    fields = {}
    for name, value in scope["headers"]:
        name = name.decode("latin-1").lower()
        fields[name] = ", ".join(filter(None, [fields.get(name), value.decode("latin-1")]))
    target = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    seen = {
        "method": scope["method"],
        "target": target,
        "host": fields.get("host", ""),
        "length": fields.get("content-length", ""),
        "coding": fields.get("transfer-encoding", ""),
        "client": fields.get("x-forwarded-for", ""),
        "body": body.decode("latin-1"),
    }
    with open(os.environ["SEEN"], "a", encoding="utf-8") as file:
        file.write(json.dumps(seen) + "\n")
    answer = target.encode("latin-1")
    length = (b"content-length", str(len(answer)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": answer})
