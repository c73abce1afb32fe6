"""Whether a server in this container answers: `healthcheck.py PORT PATH [STATUS]`, for HEALTHCHECK.

Exit status 0: with this status, by default 200. Neither proxies nor redirects are followed.
"""

import http.client
import sys


def main(port: str, path: str, status: str = "200") -> int:
    """Ask, and say what came if it was something else."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=4)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(2000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        return 1
    if answer.status == int(status):
        return 0
    sys.stdout.write(f"{answer.status} {text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
