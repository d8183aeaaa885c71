"""An account with an authenticator app, which is pyotp: it gets the otpauth URL and nothing else.

two_factor.py ADDRESS PORT HOST CA USERNAME PASSWORD
"""

import http.client
import json
import socket
import ssl
import sys
import time

import pyotp

ADDRESS, PORT, HOST, CA, USERNAME, PASSWORD = sys.argv[1:]
CONTEXT = ssl.create_default_context(cafile=CA)


def ask(method, path, body=None, token=None):
    plain = socket.create_connection((ADDRESS, int(PORT)), timeout=30)
    connection = http.client.HTTPSConnection(HOST, int(PORT))
    connection.sock = CONTEXT.wrap_socket(plain, server_hostname=HOST)
    headers = {"content-type": "application/json"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    sent = None if body is None else json.dumps(body)
    connection.request(method, f"/api/v1/users/{path}", sent, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def good(*request, **more):
    status, answer = ask(*request, **more)
    assert status == 200, answer
    return answer["data"]


def refused(status, code, answered):
    assert (answered[0], answered[1].get("code")) == (status, code), answered


def login():
    return good("POST", "auth/login", {"username": USERNAME, "password": PASSWORD})


def verify(pending, code):
    return ask("POST", "auth/2fa/verify", {"temp_token": pending, "code": code})


before = login()["token"]
made = good("POST", "auth/2fa/setup", {"password": PASSWORD}, token=before)
app = pyotp.parse_uri(made["otpauth_url"])
assert app.secret == made["manual_entry_key"] and app.name == USERNAME, made
assert login().get("token"), "a secret alone asks for no code"
refused(401, "INVALID_2FA_CODE", ask("POST", "auth/2fa/verify-setup", {"code": "000000"}, token=before))
# A code is good one half minute before its time, and each once: what comes next need not be waited for.
begin = int(time.time())
enabled = good("POST", "auth/2fa/verify-setup", {"code": app.at(begin)}, token=before)
refused(401, "INVALID_TOKEN", ask("GET", "me", token=before))
assert good("GET", "auth/2fa/status", token=enabled["token"])["enabled"] is True
print("enabled", flush=True)

half = login()
assert half["requires_2fa"] is True and half["method"] == "totp" and "token" not in half, half
pending = half["temp_token"]
refused(401, "INVALID_TOKEN", ask("GET", "me", token=pending))
refused(401, "INVALID_2FA_CODE", verify(pending, "000000"))
refused(401, "INVALID_2FA_CODE", verify(pending, app.at(begin)))
refused(400, "VALIDATION_ERROR", verify(pending, "no code"))
whole = verify(pending, app.at(begin + 30))
assert whole[0] == 200 and whole[1]["data"]["user"]["username"] == USERNAME, whole
token = whole[1]["data"]["token"]
refused(401, "INVALID_2FA_CODE", verify(pending, app.at(begin + 30)))
print("logged in", flush=True)

history = good("GET", "me/security-history", token=token)
tried = [entry["status_code"] for entry in history if entry["path"].endswith("/2fa/verify")]
assert tried == [401, 200, 400, 401, 401], history
logins = [entry for entry in history if entry["path"].endswith("/auth/login")]
assert len(logins) == 2, history
print("told", flush=True)

for code in made["backup_codes"][:4]:
    print(code, flush=True)
