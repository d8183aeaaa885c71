"""Records every request that a WSGI server saw whole, one JSON object a line, and answers with the
target. The file is named by SEEN."""

import json
import os


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    seen = {
        "method": environ["REQUEST_METHOD"],
        "target": environ["RAW_URI"],
        "host": environ.get("HTTP_HOST", ""),
        "length": environ.get("CONTENT_LENGTH", ""),
        "coding": environ.get("HTTP_TRANSFER_ENCODING", ""),
        "client": environ.get("HTTP_X_FORWARDED_FOR", ""),
        "body": body.decode("latin-1"),
    }
    # A body that was cut off is no whole request.
    if not seen["length"] or len(body) == int(seen["length"]):
        with open(os.environ["SEEN"], "a", encoding="utf-8") as file:
            file.write(json.dumps(seen) + "\n")
    answer = seen["target"].encode("latin-1")
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
