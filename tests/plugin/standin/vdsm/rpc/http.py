# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
import logging
from http.server import BaseHTTPRequestHandler

from vdsm import API

# What came through to VDSM's own code: (method, headers, body).
seen = []


class Server:
    def __init__(self, cif, log):
        self.handler = ImageRequestHandler


class ImageRequestHandler(BaseHTTPRequestHandler):
    timeout = 5
    log = logging.getLogger("rpc.http")
    protocol_version = "HTTP/1.1"

    HEADER_POOL = "Storage-Pool-Id"
    HEADER_DOMAIN = "Storage-Domain-Id"
    HEADER_IMAGE = "Image-Id"
    HEADER_VOLUME = "Volume-Id"
    HEADER_TASK_ID = "Task-Id"
    HEADER_CONTENT_LENGTH = "content-length"
    HEADER_CONTENT_TYPE = "content-type"
    HEADER_CONTENT_RANGE = "content-range"

    def do_GET(self):
        self._stock("GET")

    def do_PUT(self):
        self._stock("PUT")

    def _stock(self, method):
        length = int(self.headers.get("content-length") or 0)
        seen.append((method, dict(self.headers), self.rfile.read(length)))
        self.send_response(299)
        self.send_header("content-length", "0")
        self.end_headers()

    def _createImage(self):
        names = (self.HEADER_IMAGE, self.HEADER_POOL, self.HEADER_DOMAIN)
        return API.Image(*map(self.headers.get, names))

    def _getLength(self):
        value = self.headers.get("Range") or ""
        if not value.startswith("bytes=0-"):
            raise ValueError(value)
        return int(value[8:]) + 1


class HttpDetector:
    HTTP_VERBS = (b"PUT /", b"GET /")
    REQUIRED_SIZE = max(len(v) for v in HTTP_VERBS)

    def detect(self, data):
        return data.startswith(HttpDetector.HTTP_VERBS)
