"""The peer of the IPC benches: a raw pyzmq ROUTER that answers each message with the frames it was told to.

A message `[b"set", *frames]` says what to answer from then on.
"""

from __future__ import annotations

import sys

import zmq


def main(endpoint: str) -> None:
    socket: zmq.Socket[bytes] = zmq.Context().socket(zmq.ROUTER)
    socket.bind(endpoint)
    answer: list[bytes] = []
    while True:
        route, *frames = socket.recv_multipart()
        if frames[0] == b"set":
            answer = frames[1:]
        socket.send_multipart([route, *answer])


if __name__ == "__main__":
    main(sys.argv[1])
