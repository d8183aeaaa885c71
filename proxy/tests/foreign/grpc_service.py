"""A container's program: a gRPC service of all four kinds of calls.

grpc_service.py ADDRESS PORT [CERTIFICATE KEY]
"""

import concurrent.futures
import pathlib
import sys

import grpc


def unary(request, context):
    told = dict(context.invocation_metadata())
    context.send_initial_metadata([("first", "1")])
    context.set_trailing_metadata([("last", "2"), ("blob-bin", b"\x00\xff")])
    return request[::-1] + b" " + told.get("who", "nobody").encode()


def many(request, _context):
    for number in range(int(request)):
        yield b"%d" % number


def total(requests, _context):
    return b"%d" % sum(map(len, requests))


def talk(requests, _context):
    for request in requests:
        yield request.upper()


def fail(_request, context):
    context.set_trailing_metadata([("why", "because")])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: 100 % ünfit")


def forever(_request, context):
    yield b"begun"
    while context.is_active():
        yield b"x" * 1000


def main(address, port, *tls):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Many": grpc.unary_stream_rpc_method_handler(many),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Forever": grpc.unary_stream_rpc_method_handler(forever),
    }
    service = grpc.method_handlers_generic_handler("test.Test", handlers)
    server.add_generic_rpc_handlers((service,))
    if tls:
        certificate, key = (pathlib.Path(path).read_bytes() for path in tls)
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        server.add_secure_port(f"{address}:{port}", credentials)
    else:
        server.add_insecure_port(f"{address}:{port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


main(*sys.argv[1:])
