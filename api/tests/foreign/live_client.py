"""A client of the live feed of events, made of python-socketio and websocket-client.

live_client.py URL TOKEN [CA]

Each thing that it hears is a line: the name of the event and its data. A line of standard input is a JSON
array, which it says; an empty one ends it.
"""

import json
import ssl
import sys
import threading

import socketio

URL, TOKEN, *CA = sys.argv[1:]
LOCK = threading.Lock()


def tell(name, *data):
    with LOCK:
        print(json.dumps([name, *data]), flush=True)


context = ssl.create_default_context(cafile=CA[0]) if CA else None
how = {"websocket_extra_options": {"sslopt": {"context": context}}} if CA else {}
client = socketio.Client(reconnection=False, **how)
# It has a thread for each message, which may overtake one another; here they are taken as they come.
trigger = client.eio._trigger_event
client.eio._trigger_event = lambda event, *data, run_async=False, **how: trigger(event, *data, **how)
client.on("connect", lambda: tell("connect"))
client.on("connect_error", lambda data: tell("connect_error", data))
client.on("disconnect", lambda reason: tell("disconnect", reason))
client.on("*", tell)
auth = {"token": TOKEN} if TOKEN else None
try:
    client.connect(URL, auth=auth, transports=["websocket"], socketio_path="/api/v1/events")
except socketio.exceptions.ConnectionError as error:
    tell("failed", str(error))
    sys.exit()
for line in sys.stdin:
    if not line.strip():
        break
    client.emit(*json.loads(line))
client.disconnect()
