"""A small service that speaks SandboxFusion's /run_code as its default configuration behaves: a plain subprocess.

It stands in for the real service, which is not to be had from a package registry. Not isolated: for tests only.
"""

import contextlib
import http.server
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator


class Service(http.server.BaseHTTPRequestHandler):
    """One request: write the code to a file in a fresh directory, run it, report exit code and output."""

    broken = False

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = {"status": "SandboxError", "message": "out of order"} if self.broken else run_code(request)
        body = json.dumps(reply).encode()
        self.send_response(200 if self.path == "/run_code" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def run_code(request: dict) -> dict:
    """The reply to a request, in the service's field names."""
    limit = ["bash", "-c", f"ulimit -v {request['memory_limit_MB'] * 1024}; exec {sys.executable} -I -S program.py"]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        with open(directory + "/program.py", "w") as file:
            file.write(request["code"])
        result = {"status": "Finished", "return_code": None, "stdout": "", "stderr": ""}
        try:
            done = subprocess.run(
                limit, cwd=directory, capture_output=True, timeout=request["run_timeout"], stdin=subprocess.DEVNULL
            )
            result |= {"return_code": done.returncode}
            result |= {"stdout": done.stdout[: 1 << 20].decode(), "stderr": done.stderr[: 1 << 20].decode()}
        except subprocess.TimeoutExpired:
            result["status"] = "TimeLimitExceeded"
    result["execution_time"] = time.monotonic() - started
    return {
        "status": "Success" if result["return_code"] == 0 else "Failed",
        "message": "",
        "compile_result": None,
        "run_result": result,
        "executor_pod_name": None,
        "files": {},
    }


@contextlib.contextmanager
def service(broken: bool = False) -> Iterator[str]:
    """The URL of a running service on this machine."""
    handler = type("Handler", (Service,), {"broken": broken})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
