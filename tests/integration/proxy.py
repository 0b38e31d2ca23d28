"""A TCP proxy between real processes, which does to their streams what networks do.

`hold_after`: passes everything on until so many bytes have gone from client to server, `hold_down_after`: from server to
client, then keeps the rest, so that a test finds both sides in the middle of a transfer for as long as it wants.

`dark()` .. `light()`: in between nothing passes either way, on connections that are there and on new ones, and nobody is
told: what a network does that is lost. What was sent meanwhile is gone.

`script(frame)`: called for each whole frame, with a Frame; it says what happens to it, as a list of what is done in turn:
bytes to pass on, seconds to wait, CUT to end the connection. [frame.data] passes it on as it is.

`rate`: bytes a second from clients to the server, all connections together; None: as fast as it goes."""
import socket
import struct
import threading
import time

CUT = object()
HEADER = 16  # of a frame, which begins with the length of its payload; proto/PROTOCOL.md


class Frame:
    def __init__(self, data, up, connection, number):
        self.data = data
        self.up = up  # from client to server
        self.connection = connection
        self.number = number  # on this connection and in this direction
        self.kind = data[5]


class Proxy:
    def __init__(self, address, hold_after=None, hold_down_after=None, script=None, rate=None):
        host, port = address.rsplit(":", 1)
        self.target = (host, int(port))
        self.hold_after = hold_after
        self.hold_down_after = hold_down_after
        self.script = script
        self.rate = rate
        self.next_s = 0.0  # when the next byte may pass
        self.lock = threading.Lock()
        self.sent = []  # bytes from client to server, one number a connection
        self.received = []  # and the other way
        self.holding = threading.Event()
        self.is_dark = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                return
            self.sockets += [client, server]
            self.sent.append(0)
            self.received.append(0)
            number = len(self.sent) - 1
            for up, source, sink in ((True, client, server), (False, server, client)):
                threading.Thread(target=self._run, args=(source, sink, up, number), daemon=True).start()

    def _run(self, source, sink, up, connection):
        try:
            if self.script:
                self._pass_frames(source, sink, up, connection)
            else:
                self._pass_bytes(source, sink, up, connection)
        except OSError:
            pass

    def _pass_bytes(self, source, sink, up, connection):
        passed = self.sent if up else self.received
        while True:
            room = 65536
            hold = self.hold_after if up else self.hold_down_after
            if hold is not None:
                room = min(room, hold - passed[connection])
            if room <= 0:
                self.holding.set()
                return
            data = source.recv(room)
            if self.is_dark:
                if not data:  # of this, too, nobody is told
                    return
                continue
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            if up and self.rate:
                self._wait_for_rate(len(data))
            sink.sendall(data)
            passed[connection] += len(data)

    def _wait_for_rate(self, count):
        with self.lock:
            now = time.monotonic()
            self.next_s = max(self.next_s, now) + count / self.rate
            wait = self.next_s - now
        time.sleep(wait)

    def _pass_frames(self, source, sink, up, connection):
        stream = source.makefile("rb")
        number = 0
        while True:
            head = stream.read(HEADER)
            rest = stream.read(struct.unpack_from("<I", head)[0]) if len(head) == HEADER else b""
            if not head:
                sink.shutdown(socket.SHUT_WR)
                return
            frame = Frame(head + rest, up, connection, number) if len(head) == HEADER else None
            for step in self.script(frame) if frame else [head]:
                if step is CUT:
                    source.shutdown(socket.SHUT_RDWR)
                    sink.shutdown(socket.SHUT_RDWR)
                    return
                if isinstance(step, bytes):
                    sink.sendall(step)
                else:
                    time.sleep(step)
            number += 1

    def dark(self):
        self.is_dark = True

    def light(self):
        """Streams that lost bytes cannot go on; whoever still holds one finds that it has ended."""
        self.cut()
        self.is_dark = False

    def cut(self):
        """Ends every connection at once; new ones are taken."""
        sockets, self.sockets = self.sockets, []
        for end in sockets:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def close(self):
        self.listener.close()
        self.cut()
