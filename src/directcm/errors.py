"""What a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """A user's mistake: the message is one line that names the file or key and the remedy. Exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))
