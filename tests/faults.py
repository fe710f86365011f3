"""A proxy that injects faults by plan: real HTTP, in front of a server."""

import contextlib
from http import server
import json
import threading
import time
import urllib.error
import urllib.request


class FaultyProxy:
  """Forwards requests; before each it applies the next fault of the plan.

  Attributes:
    plan: One entry per completion; after the last there are no faults. A number is the status to
      answer with, (number, headers) one with headers, 'close' hangs up, '<html>' answers
      with a page, a float is the seconds to wait first, None is no fault.
    bodies: Bodies of the requests, in the order of arrival.
    keys: Authorization header of each.
    times: When each arrived.
    most_live: Largest number of requests in flight at once.
  """

  def __init__(self, upstream: str, plan=()):
    self.upstream, self.plan = upstream, list(plan)
    self.bodies, self.keys, self.times = [], [], []
    self.live = self.most_live = 0
    self.lock = threading.Lock()
    self.url = ''

  def take_next_fault(self, body: dict):
    with self.lock:
      self.bodies.append(body)
      self.times.append(time.monotonic())
      return self.plan.pop(0) if self.plan else None


class _FaultHandler(server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  proxy: FaultyProxy

  def log_message(self, *unused_args):
    pass

  def _send_response(self, status, data, headers=()):
    self.send_response(status)
    for name, value in dict(headers).items():
      self.send_header(name, value)
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    self.wfile.write(data)

  def _forward_request(self, data=None):
    headers = {'Content-Type': 'application/json'}
    path = self.path.removeprefix('/v1')
    request = urllib.request.Request(self.proxy.upstream + path, data, headers)
    try:
      with urllib.request.urlopen(request, timeout=60) as response:
        self._send_response(response.status, response.read())
    except urllib.error.HTTPError as e:
      with e:
        self._send_response(e.code, e.read())

  def do_GET(self):
    self._forward_request()

  def do_POST(self):
    data = self.rfile.read(int(self.headers['Content-Length']))
    proxy = self.proxy
    proxy.keys.append(self.headers['Authorization'])
    fault = proxy.take_next_fault(json.loads(data))
    with proxy.lock:
      proxy.live += 1
      proxy.most_live = max(proxy.most_live, proxy.live)
    try:
      self._apply_fault(fault, data)
    except OSError:  # The client has hung up.
      self.close_connection = True
    finally:
      with proxy.lock:
        proxy.live -= 1

  def _apply_fault(self, fault, data):
    if fault == 'close':
      self.close_connection = True
    elif fault == '<html>':
      self._send_response(200, b'<html>', {'Content-Type': 'text/html'})
    elif isinstance(fault, float):
      time.sleep(fault)
      self._forward_request(data)
    elif fault is None:
      self._forward_request(data)
    else:
      status, headers = fault if isinstance(fault, tuple) else (fault, {})
      self._send_response(status, b'{"error": {"message": "injected"}}', headers)


@contextlib.contextmanager
def run_proxy(upstream: str, plan=()):
  """Runs a proxy in a thread; yields it."""
  proxy = FaultyProxy(upstream, plan)
  handler = type('Handler', (_FaultHandler,), {'proxy': proxy})
  http = server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  http.daemon_threads = True
  http.block_on_close = False
  proxy.url = f'http://127.0.0.1:{http.server_port}/v1'
  thread = threading.Thread(target=http.serve_forever, args=(0.05,))
  thread.start()
  try:
    yield proxy
  finally:
    http.shutdown()
    http.server_close()
    thread.join()
