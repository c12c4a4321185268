"""Machines of their own on this one: a network namespace each, with a host name and one wire to here (Linux, as root).

What listens on a loopback port here is reached from there through a relay on the near end of the wire, so that no
server has to listen on more than loopback. `unplug` pulls the wire out, as when a switch dies: packets are lost and
nobody is told.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class Network:
    """One namespace. Use `open_networks`."""

    def __init__(self, number: int, name: str) -> None:
        """Make the namespace and its wire; `number` picks the addresses."""
        self.name, self._wire = name, f"bl{number}"
        self._near, self._far = f"10.213.{number}.1", f"10.213.{number}.2"
        self._relays: list[socketserver.ThreadingTCPServer] = []
        _remove_left_behind(name)
        _ip("netns", "add", name)
        _ip("link", "add", self._wire, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("addr", "add", f"{self._near}/30", "dev", self._wire)
        _ip("link", "set", self._wire, "up")
        for words in (("addr", "add", f"{self._far}/30", "dev", "eth0"), ("link", "set", "eth0", "up")):
            _ip("-netns", name, *words)
        _ip("-netns", name, "link", "set", "lo", "up")

    def inside(self) -> list[str]:
        """What to put before a command that is to run there, under the namespace's name as its host name."""
        under_its_name = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        return ["ip", "netns", "exec", self.name, *under_its_name]

    def reach(self, url: str) -> str:
        """The address by which a loopback server here is found from there."""
        parts = urlsplit(url)
        assert parts.hostname in ("127.0.0.1", "localhost") and parts.port, url
        relay = _relay((self._near, 0), ("127.0.0.1", parts.port))
        self._relays.append(relay)
        return parts._replace(netloc=f"{self._near}:{relay.server_address[1]}").geturl()

    def unplug(self) -> None:
        """Pull the wire out."""
        _ip("link", "set", self._wire, "down")

    def plug_in(self) -> None:
        """Put it back."""
        _ip("link", "set", self._wire, "up")

    def close(self) -> None:
        """Remove namespace, wire and relays; processes there must have ended."""
        for relay in self._relays:
            relay.shutdown()
            relay.server_close()
        _ip("netns", "del", self.name)  # the wire goes with it


@contextlib.contextmanager
def open_networks(*names: str) -> Iterator[list[Network]]:
    """Networks for the time of the block."""
    with contextlib.ExitStack() as stack:
        opened = []
        for name in names:
            number = next(n for n in range(1, 250) if f"bl{n}" not in {wire for _, wire in socket.if_nameindex()})
            opened.append(Network(number, name))
            stack.callback(opened[-1].close)
        yield opened


def missing_networks() -> str:
    """Why this machine cannot have networks; empty if it can."""
    if not shutil.which("ip") or not shutil.which("unshare"):
        return "ip or unshare is not installed"
    tried = subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode else ""


def _remove_left_behind(name: str) -> None:
    """Remove the namespace of a session of tests that was killed; one in which something runs is another session's."""
    asked = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    if asked.returncode == 0 and not asked.stdout.strip():
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _relay(near: tuple[str, int], server: tuple[str, int]) -> socketserver.ThreadingTCPServer:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), socket.create_connection(server) as onward:
                back = threading.Thread(target=_pump, args=(onward, self.request), daemon=True)
                back.start()
                _pump(self.request, onward)
                back.join()

    class Relay(socketserver.ThreadingTCPServer):
        daemon_threads, request_queue_size = True, 128

    relay = Relay(near, Handler)
    threading.Thread(target=relay.serve_forever, daemon=True).start()
    return relay


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Hand bytes on until the source ends, then say so to the sink."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
