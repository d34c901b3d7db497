"""Servers with a certificate, on addresses of this machine, that hand out files well and badly."""

import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme

HOST = "media.test"
"""A name that no system resolves: whoever asks for it again finds nothing."""


class HttpsServer:
    """One server, and what it was asked for.

    Args:
        files: what it hands out, by path.
        address: of this machine; 127.0.0.1 stands for one that is public, others for what must not be reached.
        certified: the name that its certificate is for.
        port: 0 takes any that is free.
    """

    def __init__(self, authority, files, address="127.0.0.1", certified=HOST, port=0):
        self.asked = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                served.asked.append((self.path, self.headers["host"]))
                served.answer(self, files)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # those who ask go away, or do not like the certificate

        self.server = Server((address, port), Handler)
        self.port = self.server.server_address[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(certified).configure_cert(context)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(self, request, files):
        path = request.path.partition("?")[0]
        status, headers, body = 200, {}, files.get(path, b"")
        if path.startswith("/redirect/"):
            status, headers = int(path[-3:]), {"location": "https://127.0.0.2/secret"}
        elif path == "/huge":
            headers["content-length"] = str(10**12)
        elif path == "/short":
            headers["content-length"], body = "1000", b"x" * 10
        elif path == "/packed":
            headers["content-encoding"] = "gzip"
        elif path not in (*files, "/endless", "/stalls", "/trickles"):
            status = 404
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if path in ("/endless", "/stalls", "/trickles"):
            request.send_header("connection", "close")
        elif "content-length" not in headers:
            request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        if path == "/short":
            request.close_connection = True
        until = time.monotonic() + 20
        while path == "/endless":
            request.wfile.write(bytes(65536))
        while path == "/trickles" and time.monotonic() < until:
            request.wfile.write(b"x")
            time.sleep(0.05)
        if path == "/stalls":
            time.sleep(5)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def trusting(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # as by default, but knows no other authority
    authority.configure_trust(context)
    return context


def new_authority():
    return trustme.CA()
