"""acme2certifier over HTTPS, with its own CA by OpenSSL: a server that suggests when to renew and has profiles.

Arguments: the directory with its configuration `acme_srv.cfg`, `server.pem` and `server.key`, and the port of the
name server that the configuration names. Says the port that it listens on. The configuration is read with each
request, so that a test can have the CA change its mind."""

import os
import ssl
import sys
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

HOME, DNS_PORT = sys.argv[1], int(sys.argv[2])
CONFIG = os.path.join(HOME, "acme_srv.cfg")
os.environ["ACME_SRV_CONFIGFILE"] = CONFIG

import dns.resolver
from acme2certifier.acme_srv.helper import profile_lookup
from acme2certifier.cahandlers import openssl_ca_handler
from acme2certifier.share import acme2certifier_wsgi

# How long certificates of a profile are good; the CA leaves that to its handler.
DAYS = {"classic": 90, "shortlived": 6}


class Resolver(dns.resolver.Resolver):
    """Asks at the test's port, for which there is no setting."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.port = DNS_PORT


class Handler(openssl_ca_handler.CAhandler):
    def enroll(self, csr):
        self.cert_validity_days = DAYS[profile_lookup(self.logger, csr) or "classic"]
        return super().enroll(csr)


class Quiet(WSGIRequestHandler):
    def address_string(self):
        return self.client_address[0]

    def log_message(self, *_):
        pass


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def finish_request(self, request, client_address):
        # Here, on the request's own thread: whoever opens a connection and says nothing holds nobody up.
        with TLS.wrap_socket(request, server_side=True) as stream:
            super().finish_request(stream, client_address)


def application(environ, start_response):
    acme2certifier_wsgi.CONFIG.read(CONFIG)
    environ["wsgi.url_scheme"] = "https"
    return acme2certifier_wsgi.application(environ, start_response)


dns.resolver.Resolver = Resolver
openssl_ca_handler.CAhandler = Handler
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
TLS.load_cert_chain(os.path.join(HOME, "server.pem"), os.path.join(HOME, "server.key"))
server = make_server("127.0.0.1", 0, application, server_class=Server, handler_class=Quiet)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
# Ends with the test, whatever becomes of it.
sys.stdin.read()
