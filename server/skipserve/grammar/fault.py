"""Why there is no grammar, or no way on in one."""

# Of what can neither go on nor end, in llguidance's words.
_NOTHING_FITS = ("NoExtension", "Unsatisfiable", "is empty")


class GrammarFaultError(Exception):
    """A shape that cannot be compiled; says why in words for whoever asked for it.

    Args:
        message: what is wrong.
        param: the field of the request that is at fault, where it is not the shape's own.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def in_words(error: str) -> str:
    """Return what llguidance says is wrong, for whoever sent the grammar."""
    error = error.replace("<non-verbose/>", "").strip()[:500]
    if any(sign in error for sign in _NOTHING_FITS):
        return f"no text satisfies it ({error})"
    return error
