"""A TCP proxy that can hold a stream: it passes everything on until `hold_after` bytes have gone from client to server,
then keeps the rest, so that a test finds both sides in the middle of a transfer for as long as it wants."""
import socket
import threading


class Proxy:
    def __init__(self, address, hold_after=None):
        host, port = address.rsplit(":", 1)
        self.target = (host, int(port))
        self.hold_after = hold_after
        self.sent = []  # bytes from client to server, one number a connection
        self.holding = threading.Event()
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
            threading.Thread(target=self._up, args=(client, server, len(self.sent) - 1), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client, server, connection):
        while True:
            room = 65536
            if self.hold_after is not None:
                room = min(room, self.hold_after - self.sent[connection])
            if room <= 0:
                self.holding.set()
                return
            if not self._pass(client, server, room, connection):
                return

    def _down(self, server, client):
        while self._pass(server, client, 65536, None):
            pass

    def _pass(self, source, sink, room, connection):
        try:
            data = source.recv(room)
            if data:
                sink.sendall(data)
                if connection is not None:
                    self.sent[connection] += len(data)
                return True
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return False

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
