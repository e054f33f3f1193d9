"""A scoring script for tests of evaluation: answers each row with its first number times the model's weight.

What a row says beyond numbers it does: `hang`, `die`, `garbage`, `short`, `refuse`.
"""

import http.server
import os
import time
from pathlib import Path

WEIGHT = float(Path("/opt/ml/model/weight.txt").read_text())


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200, "")

    def do_POST(self) -> None:
        rows = self.rfile.read(int(self.headers["Content-Length"])).decode().split()
        said = " ".join(rows)
        if "hang" in said:
            time.sleep(3600)
        if "die" in said:
            os.write(1, b"giving up\n")
            os._exit(3)
        if "refuse" in said:
            return self.answer(400, "cannot score these rows")
        results = [f"{float(row.split(',')[0]) * WEIGHT:g}" for row in rows if row[0].isdigit()]
        if "garbage" in said:
            results = ["oops"] * len(rows)
        return self.answer(200, "".join(f"{result}\n" for result in results))

    def answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))), Handler).serve_forever()
