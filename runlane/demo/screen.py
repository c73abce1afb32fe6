"""What a demonstration shows, and what it asks."""

import asyncio
import os
import sys


class Screen:
    """Standard output, in colours on a terminal only."""

    def __init__(self) -> None:
        self.coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self.asks = sys.stdin.isatty() and sys.stdout.isatty()
        """Whether somebody sits there."""

    def line(self, text: str = "", *, style: str = "") -> None:
        """Print a line; `style` is a number of ANSI's: 1 bold, 2 dim."""
        self.chunk(f"{self._styled(text, style)}\n")

    def heading(self, text: str) -> None:
        """Begin an act."""
        self.line()
        self.line(text, style="1")

    def prompt(self, command: str) -> None:
        """Print a command as if it were typed."""
        self.line(f"$ {command}", style="36")

    def remark(self, text: str) -> None:
        """Print what a command doesn't say."""
        self.line(f"# {text}", style="2")

    def chunk(self, text: str) -> None:
        """Print what a command said, as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()

    async def ask(self, question: str, *, seconds: float) -> bool | None:
        """Ask for yes or no, again where it is neither; None: nobody answered in time."""
        self.chunk(self._styled(f"{question} [y/n] ", "1"))
        try:
            async with asyncio.timeout(seconds):
                while True:
                    word = (await _typed_line()).strip().lower()
                    if word in ("y", "yes", "n", "no"):
                        return word.startswith("y")
                    self.chunk("y or n? ")
        except TimeoutError:
            self.line()
            return None
        except EOFError:
            self.line()
            return None

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if style and self.coloured and text else text


async def _typed_line() -> str:
    """Return the next line that is typed; a thread that reads could not be interrupted."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    descriptor = sys.stdin.fileno()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    # A terminal hands over whole lines.
    typed = os.read(descriptor, 1000)
    if not typed:
        raise EOFError
    return typed.decode(errors="replace")
