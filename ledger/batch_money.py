"""What a batch's tokens cost, in exact decimals and whatever currency its prices are in."""

from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation

LARGEST_AMOUNT = 1_000_000
_MOST_DECIMALS = 12
_MILLION = Decimal(1_000_000)
_EXACT = Context(prec=64)
"""Enough for any count of tokens at any price: nothing is rounded."""


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost."""

    prompt: Decimal
    completion: Decimal

    @classmethod
    def parse(cls, text: str) -> "Prices":
        """Read `2.50,10`: of tokens that are read, and of tokens that are written.

        Raises:
            ValueError: it isn't two numbers that `amount` takes.
        """
        prompt, completion = (amount(part) for part in text.split(","))
        return cls(prompt, completion)

    def __str__(self) -> str:
        """Return it as `parse` takes it."""
        return f"{self.prompt:f},{self.completion:f}"

    def of(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """Return what so many tokens cost."""
        read = _EXACT.multiply(Decimal(prompt_tokens), self.prompt)
        written = _EXACT.multiply(Decimal(completion_tokens), self.completion)
        return _EXACT.divide(_EXACT.add(read, written), _MILLION)


def amount(text: str) -> Decimal:
    """Read a number from 0 to a million, with at most twelve digits behind its point.

    Raises:
        ValueError: it is none.
    """
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError("not a number") from None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or not 0 <= number <= LARGEST_AMOUNT:
        raise ValueError("out of range")
    if -exponent > _MOST_DECIMALS:
        raise ValueError("too many digits")
    return number


def shown(money: Decimal) -> str:
    """Return an amount for people to read: exact, with two digits behind its point at least."""
    places = max(-int(money.normalize().as_tuple().exponent), 2)
    return f"{money:,.{places}f}"
