"""A client of the live feed, made of python-socketio and websocket-client; another by h2.

live.py ADDRESS PORT HOST CA TOKEN
"""

import socket
import ssl
import sys

import h2.connection
import h2.events
import socketio

ADDRESS, PORT, HOST, CA, TOKEN = sys.argv[1:]
PATH = "/api/v1/events"


def connect(protocol):
    context = ssl.create_default_context(cafile=CA)
    context.set_alpn_protocols([protocol])
    plain = socket.create_connection((ADDRESS, int(PORT)), timeout=30)
    return context.wrap_socket(plain, server_hostname=HOST)


def over_http2():
    """The first frame that the server sends by an extended CONNECT."""
    stream, connection = connect("h2"), h2.connection.H2Connection()
    connection.initiate_connection()
    sent, status = False, None
    while True:
        stream.sendall(connection.data_to_send())
        for event in connection.receive_data(stream.recv(65536)):
            if isinstance(event, h2.events.RemoteSettingsChanged) and not sent:
                sent = True
                fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https")]
                fields += [(":path", f"{PATH}/?EIO=4&transport=websocket"), (":authority", HOST)]
                connection.send_headers(1, [*fields, ("sec-websocket-version", "13")])
            elif isinstance(event, h2.events.ResponseReceived):
                status = dict(event.headers)[b":status"]
            elif isinstance(event, h2.events.DataReceived):
                assert status == b"200", status
                return event.data
            assert not isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)), event


frame = over_http2()
assert frame[0] == 0x81 and b'0{"sid":' in frame, frame

# It names itself and its paths, the connection stands already.
client = socketio.Client(
    reconnection=False,
    websocket_extra_options={"socket": connect("http/1.1")},
)
# It has a thread for each message, which may overtake one another; here they are taken as they come.
trigger = client.eio._trigger_event
client.eio._trigger_event = lambda event, *data, run_async=False, **how: trigger(event, *data, **how)


def hear(message):
    print(message.get("event", message["type"]), flush=True)


client.on("message", hear)
client.on("disconnect", lambda reason: print("disconnect", flush=True))
client.connect(
    f"https://{HOST}:{PORT}", auth={"token": TOKEN}, transports=["websocket"], socketio_path=PATH
)
client.wait()
