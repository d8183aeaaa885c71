"""What the peers are told, so that they do the edge's job: find the upstream of a hostname among
100,000, keep connections to it alive, say who asks, write an access log. One worker each."""

import json

# What a row may open at once, with room to spare.
CONNECTIONS = 11_000


def nginx(place, address, origin, hostnames):
    """Writes the configuration into the directory `place`; returns the command line."""
    names = "".join(f"{name} origin;\n" for name in hostnames)
    (place / "hosts.map").write_text(names)
    (place / "nginx.conf").write_text(f"""\
daemon off;
master_process off;
worker_processes 1;
pid {place}/nginx.pid;
error_log {place}/error.log error;
events {{ worker_connections {2 * CONNECTIONS}; }}
http {{
    access_log {place}/access.log combined buffer=32k flush=1s;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    map_hash_max_size 262144;
    map_hash_bucket_size 256;
    map $host $upstream {{ default ""; include {place}/hosts.map; }}
    map $http_upgrade $hop {{ default upgrade; "" ""; }}
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_requests 100000;
    upstream origin {{
        server {origin};
        keepalive 64;
        keepalive_requests 1000000;
    }}
    server {{
        listen {address}:8080 backlog=4096;
        listen {address}:8443 ssl http2 backlog=4096;
        ssl_certificate {place}/../leaf.pem;
        ssl_certificate_key {place}/../leaf.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            if ($upstream = "") {{ return 404; }}
            proxy_pass http://$upstream;
            proxy_http_version 1.1;
            proxy_max_temp_file_size 0;
            proxy_read_timeout 3600s;
            proxy_set_header Host $http_host;
            proxy_set_header Connection $hop;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Request-Id $request_id;
        }}
    }}
}}
""")
    return ["nginx", "-p", str(place), "-c", str(place / "nginx.conf")]


def haproxy(place, address, origin, hostnames):
    """Writes the configuration into the directory `place`; returns the command line."""
    (place / "hosts.map").write_text("".join(f"{name} origin\n" for name in hostnames))
    pem = (place.parent / "leaf.pem").read_text() + (place.parent / "leaf.key").read_text()
    (place / "leaf.pem").write_text(pem)
    (place / "haproxy.cfg").write_text(f"""\
global
    nbthread 1
    maxconn {CONNECTIONS}
    no strict-limits
    log stdout format raw local0 info
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    log global
    option httplog
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 3600s
    timeout server 3600s
    timeout http-request 10s
    timeout http-keep-alive 3600s
    timeout tunnel 3600s
frontend edge
    bind {address}:8080 backlog 4096
    bind {address}:8443 backlog 4096 ssl crt {place}/leaf.pem alpn h2,http/1.1
    unique-id-format %[uuid]
    unique-id-header X-Request-Id
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
    http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    use_backend %[req.hdr(host),field(1,:),lower,map_str({place}/hosts.map,none)]
backend origin
    server origin {origin}
""")
    return ["haproxy", "-db", "-f", str(place / "haproxy.cfg")]


def caddy(place, address, origin, hostnames):
    """Writes the configuration into the directory `place`; returns the command line."""
    # A matcher with this many hosts searches a sorted list; Caddy's `map` would compare each.
    headers = {
        "X-Forwarded-For": ["{http.request.remote.host}"],
        "X-Forwarded-Proto": ["{http.request.scheme}"],
        "X-Forwarded-Host": ["{http.request.hostport}"],
        "X-Request-Id": ["{http.request.uuid}"],
    }
    upstream = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": origin}],
        "transport": {
            "protocol": "http",
            "compression": False,
            "keep_alive": {"enabled": True, "max_idle_conns_per_host": 64},
        },
        "headers": {"request": {"set": headers}},
    }
    server = {
        "routes": [{"match": [{"host": list(hostnames)}], "handle": [upstream]}],
        "automatic_https": {"disable": True},
        "idle_timeout": "1h",
        "logs": {"default_logger_name": "access"},
    }
    log = {"output": "file", "filename": str(place / "access.log"), "roll": False}
    leaf = {
        "certificate": str(place.parent / "leaf.pem"),
        "key": str(place.parent / "leaf.key"),
    }
    config = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {
            "logs": {
                "default": {"level": "ERROR", "exclude": ["http.log.access"]},
                "access": {"writer": log, "include": ["http.log.access"]},
            }
        },
        "apps": {
            "tls": {"certificates": {"load_files": [leaf]}},
            "http": {
                "servers": {
                    "plain": {**server, "listen": [f"{address}:8080"]},
                    "tls": {
                        **server,
                        "listen": [f"{address}:8443"],
                        "protocols": ["h1", "h2"],
                        "tls_connection_policies": [{}],
                    },
                }
            },
        },
    }
    (place / "caddy.json").write_text(json.dumps(config))
    return ["caddy", "run", "--config", str(place / "caddy.json")]


# How each is asked whether it understands its configuration.
CHECKS = {
    "nginx": lambda command: command[:1] + ["-t", "-q"] + command[1:],
    "haproxy": lambda command: command[:1] + ["-c", "-q"] + command[2:],
    "caddy": lambda command: ["caddy", "validate"] + command[2:],
}
WRITERS = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}
