"""As much of S3 as an index asks for, on a port of this machine: objects in memory, over HTTP.

Objects are read whole or in ranges, written whole, in parts, or only where there are none; listed by prefix with
folders; deleted one by one or many at once.

Source: Amazon S3 API reference, version 2006-03-01. Signatures are not checked.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    parts: dict[str, dict[int, bytes]]
    lock: threading.Lock
    numbers: count[int]

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _asked(self) -> tuple[str, dict[str, str], bytes]:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        return unquote(url.path).lstrip("/"), query, self._body()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _no(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        key, query, _ = self._asked()
        if "list-type" in query:
            self._list(key.rstrip("/"), query)
            return
        data = self.objects.get(key)
        if data is None:
            self._no(404, "NoSuchKey")
            return
        told = {"ETag": _etag(data), "Last_Modified": formatdate(0, usegmt=True), "Accept_Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked is None:
            self._answer(200, data, Content_Length=str(len(data)), **told)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(len(data) - int(last), 0)
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= len(data):
            self._no(416, "InvalidRange")
            return
        self._answer(206, data[start:stop], Content_Range=f"bytes {start}-{stop - 1}/{len(data)}", **told)

    def do_PUT(self) -> None:
        key, query, body = self._asked()
        source = self.headers.get("x-amz-copy-source")
        with self.lock:
            if "uploadId" in query:
                self.parts[query["uploadId"]][int(query["partNumber"])] = body
            elif self.headers.get("If-None-Match") == "*" and key in self.objects:
                self._no(412, "PreconditionFailed")
                return
            elif source is not None:
                body = self.objects[unquote(source).lstrip("/")]
                self.objects[key] = body
                told = f"<CopyObjectResult><ETag>{escape(_etag(body))}</ETag></CopyObjectResult>".encode()
                self._answer(200, told)
                return
            else:
                self.objects[key] = body
        self._answer(200, ETag=_etag(body))

    def do_POST(self) -> None:
        key, query, body = self._asked()
        with self.lock:
            if "delete" in query:
                bucket = key.strip("/")
                names = [one.text or "" for one in ElementTree.fromstring(body).iter() if one.tag.endswith("Key")]
                for name in names:
                    self.objects.pop(f"{bucket}/{name}", None)
                gone = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in names)
                self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())
            elif "uploads" in query:
                upload = str(next(self.numbers))
                self.parts[upload] = {}
                told = f"<Bucket/><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
                self._answer(200, f"<InitiateMultipartUploadResult>{told}</InitiateMultipartUploadResult>".encode())
            else:
                parts = self.parts.pop(query["uploadId"])
                if self.headers.get("If-None-Match") == "*" and key in self.objects:
                    self._no(412, "PreconditionFailed")
                    return
                self.objects[key] = b"".join(parts[number] for number in sorted(parts))
                told = f"<ETag>{escape(_etag(self.objects[key]))}</ETag>"
                self._answer(200, f"<CompleteMultipartUploadResult>{told}</CompleteMultipartUploadResult>".encode())

    def do_DELETE(self) -> None:
        key, query, _ = self._asked()
        with self.lock:
            if "uploadId" in query:
                self.parts.pop(query["uploadId"], None)
            else:
                self.objects.pop(key, None)
        self._answer(204)

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        files, folders = [], set()
        with self.lock:
            known = sorted((key.partition("/")[2], data) for key, data in self.objects.items()
                           if key.startswith(f"{bucket}/"))  # fmt: skip
        for name, data in known:
            if not name.startswith(prefix) or name <= query.get("start-after", ""):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            files.append(
                f"<Contents><Key>{escape(name)}</Key><LastModified>1970-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>{escape(_etag(data))}</ETag><Size>{len(data)}</Size></Contents>"
            )
        inside = [f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(folders)]
        told = "".join([*files, *inside])
        self._answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{told}</ListBucketResult>".encode())


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@contextmanager
def small_s3() -> Iterator[dict[str, str]]:
    """The server; yields the environment by which it is found."""
    state = {"objects": {}, "parts": {}, "lock": threading.Lock(), "numbers": count()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Requests", (_Requests,), state))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {
            "AWS_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
